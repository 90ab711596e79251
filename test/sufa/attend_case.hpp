// SPDX-License-Identifier: MIT
// One attention row as the tests of this folder attend it, and what must come out.
#pragma once

#include "support/generators.hpp"
#include <sofattn/core/element.hpp>
#include <sofattn/core/order.hpp>
#include <sofattn/core/tensor.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/exec/executor.hpp>
#include <sofattn/sufa/rivals.hpp>
#include <sofattn/sufa/row_arithmetic.hpp>
#include <sofattn/sufa/softmax_state.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <span>
#include <vector>

namespace sofattn::test {

/// The bound of the issue and of every attender's contract, relative to the largest output.
inline constexpr double attend_tolerance = 2e-6;

template <storage_float T>
struct attend_case {
    tensor<T, axis::dim> query;
    tensor<T, axis::key, axis::dim> keys;
    tensor<T, axis::key, axis::value_dim> values;
    double scale = 1.0;

    attend_case(generator& random, index_t key_count, index_t dim, index_t value_dim)
        : query(random_matrix<T, axis::dim>(random, {dim})),
          keys(random_matrix<T, axis::key, axis::dim>(random, {key_count, dim})),
          values(random_matrix<T, axis::key, axis::value_dim>(random, {key_count, value_dim})),
          scale(1.0 / std::sqrt(static_cast<double>(dim))) {}

    [[nodiscard]] sufa::attend_inputs<T, T, T> inputs() const {
        return {query.view(), keys.view(), values.view(), scale};
    }
    [[nodiscard]] index_t key_count() const { return keys.template extent<axis::key>(); }
    [[nodiscard]] index_t value_dim() const { return values.template extent<axis::value_dim>(); }

    [[nodiscard]] double logit(index_t key) const {
        double sum = 0.0;
        for (index_t d = query.template extent<axis::dim>(); d-- > 0;) {
            sum += static_cast<double>(to_float(query(d))) *
                   static_cast<double>(to_float(keys(key, d)));
        }
        return scale * sum;
    }
    [[nodiscard]] std::vector<double> logits() const {
        std::vector<double> all;
        for (index_t k = 0; k < key_count(); ++k) {
            all.push_back(logit(k));
        }
        return all;
    }
    /// Chooses the scale that makes the largest |logit| equal to `magnitude`.
    void stretch_to(double magnitude) {
        double largest = 0.0;
        for (double l : logits()) {
            largest = std::max(largest, std::abs(l));
        }
        scale *= magnitude / largest;
    }
};

/// Attention over `keys`, from the definition and in double precision.
template <class T>
std::vector<double> expected_output(attend_case<T> const& c, std::vector<key_id> const& keys) {
    std::vector<double> o(static_cast<std::size_t>(c.value_dim()));
    if (keys.empty()) {
        return o;
    }
    std::vector<double> logits;
    for (key_id k : keys) {
        logits.push_back(c.logit(k));
    }
    double const max = *std::ranges::max_element(logits);
    double sum = 0.0;
    for (double l : logits) {
        sum += std::exp(l - max);
    }
    for (std::size_t i = 0; i < keys.size(); ++i) {
        for (std::size_t d = 0; d < o.size(); ++d) {
            o[d] += std::exp(logits[i] - max) / sum *
                    static_cast<double>(to_float(c.values(keys[i], static_cast<index_t>(d))));
        }
    }
    return o;
}

/// Largest deviation, relative to the largest expected output.
inline double deviation(std::vector<float> const& got, std::vector<double> const& expected) {
    double largest = 0.0;
    double worst = 0.0;
    for (std::size_t d = 0; d < expected.size(); ++d) {
        largest = std::max(largest, std::abs(expected[d]));
        worst = std::max(worst, std::abs(static_cast<double>(got[d]) - expected[d]));
    }
    return largest > 0.0 ? worst / largest : worst;
}

/// Keys as a selector hands them over; scores count down, as if the order were the predicted one.
inline std::vector<ranked<int>> as_kept(std::span<key_id const> keys) {
    std::vector<ranked<int>> kept;
    for (key_id k : keys) {
        kept.push_back({static_cast<int>(keys.size() - kept.size()), k});
    }
    return kept;
}

/// Attends `keys` in this order, in tiles of `tile` keys (0: one tile), and divides.
template <class Attender, class X, class T>
std::vector<float> attend(X& x, Attender attender, attend_case<T> const& c,
                          std::vector<key_id> const& keys, index_t tile = 0) {
    using real = sufa::detail::real_number<X>;
    std::vector<real> o(static_cast<std::size_t>(c.value_dim()), real(1.0)); // to be cleared
    std::vector<real> logits(keys.size());
    auto state = sufa::softmax_state<real>::empty(o);
    auto const all = static_cast<index_t>(keys.size());
    index_t const step = tile > 0 ? tile : std::max<index_t>(all, 1);
    for (index_t first = 0; first < all || first == 0; first += step) {
        auto const part = std::span(keys).subspan(
            static_cast<std::size_t>(first), static_cast<std::size_t>(std::min(step, all - first)));
        auto const kept = as_kept(part);
        attender(x, c.inputs(), std::span<ranked<int> const>(kept), std::span(logits), state);
    }
    std::vector<float> row(o.size(), -1.0f);
    sufa::normalise{}(x, state, row);
    return row;
}

/// In which order keys arrive, against the order of their logits.
enum class arrival {
    descending, ///< as an exact prediction would sort them
    ascending,  ///< the worst prediction
    shuffled,
    rising_peaks, ///< the larger half climbs between falling small ones: a new max every other key
    max_last      ///< right, but for the max
};
inline constexpr std::array all_arrivals{arrival::descending, arrival::ascending, arrival::shuffled,
                                         arrival::rising_peaks, arrival::max_last};

template <class T>
std::vector<key_id> arranged(generator& random, attend_case<T> const& c, std::vector<key_id> keys,
                             arrival how) {
    std::vector<double> const logits = c.logits();
    auto const larger = [&](key_id a, key_id b) {
        return logits[static_cast<std::size_t>(a)] > logits[static_cast<std::size_t>(b)];
    };
    std::ranges::sort(keys, larger);
    switch (how) {
    case arrival::descending: break;
    case arrival::ascending: std::ranges::reverse(keys); break;
    case arrival::shuffled: random.shuffle(keys); break;
    case arrival::rising_peaks: {
        std::vector<key_id> mixed;
        std::size_t const half = keys.size() / 2;
        for (std::size_t i = 0; i < half; ++i) {
            mixed.push_back(keys[half - 1 - i]);
            mixed.push_back(keys[half + i]);
        }
        mixed.insert(mixed.end(), keys.begin() + static_cast<index_t>(2 * half), keys.end());
        return mixed;
    }
    case arrival::max_last:
        if (!keys.empty()) {
            std::rotate(keys.begin(), keys.begin() + 1, keys.end());
        }
        break;
    }
    return keys;
}

/// `count` different keys of `all`, ascending.
inline std::vector<key_id> random_keys(generator& random, index_t all, index_t count) {
    std::vector<key_id> keys(static_cast<std::size_t>(all));
    for (std::size_t k = 0; k < keys.size(); ++k) {
        keys[k] = static_cast<key_id>(k);
    }
    random.shuffle(keys);
    keys.resize(static_cast<std::size_t>(count));
    std::ranges::sort(keys);
    return keys;
}

} // namespace sofattn::test
