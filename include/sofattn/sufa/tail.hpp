// SPDX-License-Identifier: MIT
// Tail compensation: what happens to the softmax weight of dropped keys.
#pragma once

#include <sofattn/core/assert.hpp>
#include <sofattn/core/element.hpp>
#include <sofattn/core/order.hpp>
#include <sofattn/core/quantise.hpp>
#include <sofattn/core/score_line.hpp>
#include <sofattn/core/tensor.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/core/view.hpp>
#include <sofattn/exec/executor.hpp>
#include <sofattn/sufa/row_arithmetic.hpp>
#include <sofattn/sufa/softmax_state.hpp>

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

namespace sofattn::sufa {

/// Whose values stand for those of dropped keys.
enum class stand_in {
    nobody,        ///< dropped keys are ignored, as in the paper
    row_mean,      ///< the mean of all dropped values of the row
    segment_means, ///< of each segment's dropped keys, the mean of their values
    int8_values    ///< every dropped key's own value, in 8 bits: two-precision attention
};

/// The paper: dropped keys are as if they had never been.
struct no_tail {
    static constexpr char const* name = "none";
    static constexpr stand_in by = stand_in::nobody;
    static constexpr index_t segment = 64;
};
/// One mean per row.
struct mean_tail : no_tail {
    static constexpr char const* name = "mean";
    static constexpr stand_in by = stand_in::row_mean;
};
/// A mean per 64 neighbouring keys: values of a text's neighbours are alike.
struct segment_tail : no_tail {
    static constexpr char const* name = "segment_means";
    static constexpr stand_in by = stand_in::segment_means;
};
/// Nothing is dropped, most is attended in low precision.
struct int8_tail : no_tail {
    static constexpr char const* name = "int8_values";
    static constexpr stand_in by = stand_in::int8_values;
};

template <class T>
concept tail_policy = requires {
    { T::name } -> std::convertible_to<char const*>;
    { T::by } -> std::convertible_to<stand_in>;
    { T::segment } -> std::convertible_to<index_t>;
    requires(T::segment >= 1);
};

/// Dropped keys of a row that wait for their common mean. Mergeable: the states of two ranges of
/// keys become that of the union, so long as the two have no key in common.
template <class Real>
struct tail_state {
    Real m = Real(-std::numeric_limits<double>::infinity()); ///< reference of `weight`, a logit
    Real weight{0.0};    ///< sum over dropped keys of exp(estimated logit - m)
    Real count{0.0};     ///< dropped keys
    std::span<Real> sum; ///< [value_dim], of their values; caller-owned

    /// No key was dropped yet; clears the sum.
    static tail_state empty(std::span<Real> sum) noexcept {
        std::ranges::fill(sum, Real(0.0));
        tail_state state;
        state.sum = sum;
        return state;
    }
    [[nodiscard]] bool is_empty() const noexcept { return !(static_cast<double>(count) > 0.0); }

    void merge(tail_state const& other) noexcept {
        SOFATTN_ASSERT(sum.size() == other.sum.size());
        if (other.is_empty()) {
            return;
        }
        using std::exp;
        if (is_empty()) {
            m = other.m;
            weight = other.weight;
        } else {
            Real const top = m < other.m ? other.m : m;
            weight = weight * exp(m - top) + other.weight * exp(other.m - top);
            m = top;
        }
        count = count + other.count;
        for (std::size_t d = 0; d < sum.size(); ++d) {
            sum[d] = sum[d] + other.sum[d];
        }
    }

    /// Gives the weight to the mean and takes both into `state`. The sum is used up.
    void compensate(softmax_state<Real>& state) noexcept {
        if (is_empty()) {
            return;
        }
        Real const each = weight / count;
        for (Real& s : sum) {
            s = s * each;
        }
        softmax_state<Real> as_keys;
        as_keys.m = m;
        as_keys.l = weight;
        as_keys.o = sum;
        state.merge(as_keys);
    }
};

/// Emits `joins` merges of dropped keys into (m, l, o): a compare for the reference, 2 exp, 2
/// value_dim + 2 multiply, value_dim + 3 add; where they come as a mean, also a divide and value_dim
/// multiply.
template <class X>
void emit_joins(X& x, std::uint64_t joins, std::uint64_t value_dim, bool as_mean) {
    if constexpr (X::probe_type::enabled) {
        auto const at = probe::stage::compensation;
        x.probe(at, probe::event::compare, joins);
        x.probe(at, probe::event::exp, 2 * joins);
        x.probe(at, probe::event::multiply,
                joins * (2 * value_dim + 2 + (as_mean ? value_dim : 0)));
        x.probe(at, probe::event::add, joins * (value_dim + 3));
        x.probe(at, probe::event::divide, as_mean ? joins : 0);
    }
}

/// A KV head's values as a tail reads them: sums per segment, so that a mean of dropped values costs
/// a subtraction per kept key and not an addition per dropped one; or 8-bit codes.
template <tail_policy Tail>
class tail_values {
public:
    static constexpr bool has_sums =
        Tail::by == stand_in::row_mean || Tail::by == stand_in::segment_means;

    tail_values() noexcept = default;

    /// values [key, value_dim]
    template <storage_float V>
    explicit tail_values(value_view<V const> values) {
        index_t const keys = values.template extent<axis::key>();
        index_t const dims = values.template extent<axis::value_dim>();
        if constexpr (has_sums) {
            sums_ =
                tensor<double, axis::key, axis::value_dim>({ceil_div(keys, Tail::segment), dims});
            for (index_t k = 0; k < keys; ++k) {
                for (index_t d = 0; d < dims; ++d) {
                    sums_(k / Tail::segment, d) += static_cast<double>(to_float(values(k, d)));
                }
            }
        } else if constexpr (Tail::by == stand_in::int8_values) {
            codes_ = quantise<8>(values, granularity::per_row);
        }
    }

    /// Sum over the keys of whole segment `s`.
    [[nodiscard]] double sum(index_t s, index_t dim) const noexcept { return sums_(s, dim); }
    /// Key k's value in 8 bits.
    [[nodiscard]] float coded(index_t k, index_t dim) const noexcept {
        return codes_.value(k, dim);
    }

private:
    tensor<double, axis::key, axis::value_dim> sums_; // [segment, value_dim]
    quantised<8, axis::key, axis::value_dim> codes_;
};

/// Buffers of a tail, made once for the longest run.
template <class Real>
struct tail_scratch {
    tail_scratch() = default;
    tail_scratch(index_t keys, index_t value_dim)
        : is_kept(static_cast<std::size_t>(keys)), piece(static_cast<std::size_t>(value_dim)),
          all(static_cast<std::size_t>(value_dim)) {}

    std::vector<char> is_kept; ///< [key of the run]
    std::vector<Real> piece;   ///< [value_dim]
    std::vector<Real> all;     ///< [value_dim]
};

/// Takes a run's dropped keys into account, with weights from predicted scores: no q.k is computed
/// for them. Not in the paper. The idea for the row's mean is SparQ's (arXiv 2312.04985), there with
/// an estimate of its own.
///
/// in     values [key, value_dim] and the same as tail_values
///        line   the query's estimate of logits
///        scores [key of the run], kept: the run's kept keys in any order, first: the run's first key
/// out    state  segment means and int8 values go straight into (m, l, o)
///        tail   the row's mean waits here, until tail_state::compensate
/// pre    scratch has a place per key of the run (SOFATTN_ASSERT)
/// error  none
/// events per dropped key: multiply and add for the logit, compare for the largest, add, exp, add for
///        the weight; means: value_dim add per kept key and per segment touched; int8 values:
///        value_dim multiply_add_8 per dropped key; emit_joins per merge into (m, l, o)
/// exact  deterministic; linear in the dropped keys, so ranges may be attended apart and merged; with
///        segment means ranges that end at segment borders, for a segment that is cut has two means
/// paper  not in the paper, which drops keys without compensation and fine-tunes the model for it
template <tail_policy Tail>
struct tail_compensation {
    template <exec::executor_like X, storage_float V, class Score>
    void operator()(X& x, value_view<V const> values, tail_values<Tail> const& prepared,
                    score_line line, index_t first, std::span<Score const> scores,
                    std::span<ranked<Score> const> kept,
                    tail_scratch<detail::real_number<X>>& scratch,
                    softmax_state<detail::real_number<X>>& state,
                    tail_state<detail::real_number<X>>& tail) const noexcept {
        using real = detail::real_number<X>;
        using std::exp;
        auto const keys = std::ssize(scores);
        index_t const dropped = keys - std::ssize(kept);
        if (Tail::by == stand_in::nobody || dropped == 0) {
            return;
        }
        SOFATTN_ASSERT(std::ssize(scratch.is_kept) >= keys);
        auto const is_kept = std::span(scratch.is_kept).first(static_cast<std::size_t>(keys));
        std::ranges::fill(is_kept, char{0});
        for (auto const& entry : kept) {
            is_kept[static_cast<std::size_t>(entry.key - first)] = 1;
        }
        auto const logit = [&](index_t i) {
            return real(line.logit(static_cast<double>(scores[static_cast<std::size_t>(i)])));
        };
        real top(-std::numeric_limits<double>::infinity());
        for (index_t i = 0; i < keys; ++i) {
            if (is_kept[static_cast<std::size_t>(i)] == 0) {
                real const l = logit(i);
                top = top < l ? l : top;
            }
        }
        tail_cost cost;
        auto all = tail_state<real>::empty(scratch.all);
        all.m = top;
        for (index_t from = 0; from < keys;) {
            index_t const segment = (first + from) / Tail::segment;
            index_t const end = std::min(keys, (segment + 1) * Tail::segment - first);
            auto piece = tail_state<real>::empty(scratch.piece);
            piece.m = top;
            for (index_t i = from; i < end; ++i) {
                if (is_kept[static_cast<std::size_t>(i)] == 0) {
                    real const weight = exp(logit(i) - top);
                    piece.weight = piece.weight + weight;
                    piece.count = piece.count + real(1.0);
                    if constexpr (Tail::by == stand_in::int8_values) {
                        for (std::size_t d = 0; d < piece.sum.size(); ++d) {
                            auto const v = prepared.coded(first + i, static_cast<index_t>(d));
                            piece.sum[d] = piece.sum[d] + weight * real(static_cast<double>(v));
                        }
                    }
                }
            }
            if constexpr (tail_values<Tail>::has_sums) {
                if (!piece.is_empty()) {
                    bool const is_whole = end - from == Tail::segment;
                    sum_dropped(values, prepared, is_whole ? segment : -1, first, from, end,
                                is_kept, piece.sum);
                    cost.pieces += 1;
                }
            }
            if constexpr (Tail::by == stand_in::segment_means) {
                if (!piece.is_empty()) {
                    piece.compensate(state);
                    cost.merges += 1;
                }
            } else {
                all.weight = all.weight + piece.weight;
                all.count = all.count + piece.count;
                for (std::size_t d = 0; d < all.sum.size(); ++d) {
                    all.sum[d] = all.sum[d] + piece.sum[d];
                }
            }
            from = end;
        }
        if constexpr (Tail::by == stand_in::row_mean) {
            tail.merge(all);
        } else if constexpr (Tail::by == stand_in::int8_values) {
            softmax_state<real> as_keys;
            as_keys.m = top;
            as_keys.l = all.weight;
            as_keys.o = all.sum;
            state.merge(as_keys);
            cost.merges += 1;
        }
        if constexpr (X::probe_type::enabled) {
            cost.emit(x, static_cast<std::uint64_t>(dropped), kept.size(), state.o.size());
        }
    }

private:
    struct tail_cost {
        std::uint64_t pieces = 0;
        std::uint64_t merges = 0;

        template <class X>
        void emit(X& x, std::uint64_t dropped, std::uint64_t kept, std::uint64_t dims) const {
            auto const at = probe::stage::compensation;
            x.probe(at, probe::event::compare, dropped);
            x.probe(at, probe::event::exp, dropped);
            x.probe(at, probe::event::add,
                    3 * dropped + (tail_values<Tail>::has_sums ? dims * (kept + pieces) : 0));
            x.probe(at, probe::event::multiply, dropped);
            x.probe(at, probe::event::multiply_add_8,
                    Tail::by == stand_in::int8_values ? dropped * dims : 0);
            emit_joins(x, merges, dims, Tail::by == stand_in::segment_means);
        }
    };

    /// The values of the dropped keys of [from, end): all of them less the kept ones, where the sum
    /// of all is at hand.
    template <storage_float V, class Real>
    static void sum_dropped(value_view<V const> values, tail_values<Tail> const& prepared,
                            index_t whole_segment, index_t first, index_t from, index_t end,
                            std::span<char const> is_kept, std::span<Real> sum) noexcept {
        bool const from_all = whole_segment >= 0;
        for (std::size_t d = 0; d < sum.size(); ++d) {
            auto const column = static_cast<index_t>(d);
            auto total = static_cast<Real>(from_all ? prepared.sum(whole_segment, column) : 0.0);
            for (index_t i = from; i < end; ++i) {
                bool const keeps = is_kept[static_cast<std::size_t>(i)] != 0;
                if (keeps == from_all) {
                    auto const v = static_cast<Real>(to_float(values(first + i, column)));
                    total = from_all ? total - v : total + v;
                }
            }
            sum[d] = total;
        }
    }
};

} // namespace sofattn::sufa
