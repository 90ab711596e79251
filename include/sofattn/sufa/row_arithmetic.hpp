// SPDX-License-Identifier: MIT
// The two products every attender shares: logits of kept keys, and values into the output row.
#pragma once

#include <sofattn/core/element.hpp>
#include <sofattn/core/order.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/core/view.hpp>
#include <sofattn/exec/executor.hpp>
#include <sofattn/probe/event.hpp>

#include <algorithm>
#include <cstdint>
#include <span>

namespace sofattn::sufa {

/// What one row attends to.
template <storage_float Q, storage_float K, storage_float V>
struct attend_inputs {
    view<Q const, axis::dim> query;
    key_view<K const> keys;
    value_view<V const> values;
    double scale = 1.0; ///< logits = scale * q.k
};

namespace detail {

template <class X>
using real_number = typename X::template number<typename X::real_type>;

/// out(i, scale * q.k(key_of(i))) for i < count. Lanes go across keys, so each dot product is summed
/// in dimension order whatever the width.
template <class X, class Inputs, class KeyOf, class Out>
void for_each_logit(Inputs const& in, index_t count, KeyOf key_of, Out out) noexcept {
    using lanes = typename X::lanes_type;
    using real = typename X::real_type;
    using pack = typename lanes::template pack<real>;
    index_t const dims = in.query.template extent<axis::dim>();
    pack const scale = pack::fill(static_cast<real>(in.scale));
    for (index_t first = 0; first < count; first += lanes::width) {
        index_t const block = std::min<index_t>(lanes::width, count - first);
        pack sum = pack::fill(real{0});
        for (index_t d = 0; d < dims; ++d) {
            sum = sum + pack::fill(static_cast<real>(to_float(in.query(d)))) *
                            lanes::template gather<real>(block, [&](index_t i) {
                                return to_float(in.keys(key_of(first + i), d));
                            });
        }
        sum = sum * scale;
        for (index_t i = 0; i < block; ++i) {
            out(first + i, sum.lane[static_cast<std::size_t>(i)]);
        }
    }
}

/// logits[i] = scale * q.k(kept[i])
template <class X, class Inputs, class Score>
void kept_logits(Inputs const& in, std::span<ranked<Score> const> kept,
                 std::span<real_number<X>> logits) noexcept {
    for_each_logit<X>(
        in, std::ssize(kept), [&](index_t i) { return kept[static_cast<std::size_t>(i)].key; },
        [&](index_t i, real_number<X> logit) { logits[static_cast<std::size_t>(i)] = logit; });
}

/// o[d] = f(o[d], v[d]) on packs of output elements.
template <class X, class Inputs, class F>
void for_each_output(Inputs const& in, index_t key, std::span<real_number<X>> o, F f) noexcept {
    using lanes = typename X::lanes_type;
    using real = typename X::real_type;
    auto const dims = std::ssize(o);
    for (index_t first = 0; first < dims; first += lanes::width) {
        index_t const block = std::min<index_t>(lanes::width, dims - first);
        auto const out = lanes::template gather<real>(block, [&](index_t i) {
            return static_cast<real>(o[static_cast<std::size_t>(first + i)]);
        });
        auto const v = lanes::template gather<real>(
            block, [&](index_t i) { return to_float(in.values(key, first + i)); });
        auto const result = f(out, v);
        for (index_t i = 0; i < block; ++i) {
            o[static_cast<std::size_t>(first + i)] = result.lane[static_cast<std::size_t>(i)];
        }
    }
}

/// o += weight * v(key)
template <class X, class Inputs>
void add_weighted(Inputs const& in, index_t key, real_number<X> weight,
                  std::span<real_number<X>> o) noexcept {
    auto const w = X::lanes_type::template pack<typename X::real_type>::fill(
        static_cast<typename X::real_type>(weight));
    for_each_output<X>(in, key, o, [&](auto const& out, auto const& v) { return out + w * v; });
}

/// o = o * factor + v(key)
template <class X, class Inputs>
void scale_and_add(Inputs const& in, index_t key, real_number<X> factor,
                   std::span<real_number<X>> o) noexcept {
    auto const f = X::lanes_type::template pack<typename X::real_type>::fill(
        static_cast<typename X::real_type>(factor));
    for_each_output<X>(in, key, o, [&](auto const& out, auto const& v) { return out * f + v; });
}

/// What a tile cost, emitted once.
struct attend_cost {
    std::uint64_t compares = 0;
    std::uint64_t adds = 0;
    std::uint64_t multiplies = 0;
    std::uint64_t exps = 0;
    std::uint64_t divides = 0;
    std::uint64_t max_updates = 0;

    /// The products of `keys` kept keys, p * v, and of those among them whose logit was computed,
    /// q.k with its scale.
    template <class Inputs>
    static attend_cost of_products(Inputs const& in, index_t keys, index_t computed) noexcept {
        auto const n = static_cast<std::uint64_t>(keys);
        auto const exact = static_cast<std::uint64_t>(computed);
        auto const dims = static_cast<std::uint64_t>(in.query.template extent<axis::dim>());
        auto const outputs =
            static_cast<std::uint64_t>(in.values.template extent<axis::value_dim>());
        attend_cost cost;
        cost.multiplies = exact * (dims + 1) + n * outputs;
        cost.adds = exact * dims + n * outputs;
        return cost;
    }
    template <class Inputs>
    static attend_cost of_products(Inputs const& in, index_t keys) noexcept {
        return of_products(in, keys, keys);
    }

    template <class X>
    void emit(X& x) const {
        if constexpr (X::probe_type::enabled) {
            auto const at = probe::stage::attention;
            x.probe(at, probe::event::compare, compares);
            x.probe(at, probe::event::add, adds);
            x.probe(at, probe::event::multiply, multiplies);
            x.probe(at, probe::event::exp, exps);
            x.probe(at, probe::event::divide, divides);
            x.probe(at, probe::event::max_update, max_updates);
        }
    }
};

} // namespace detail
} // namespace sofattn::sufa
