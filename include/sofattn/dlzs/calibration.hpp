// SPDX-License-Identifier: MIT
// From predicted scores to logits: slope and offset per query, calibrated per head.
#pragma once

#include <sofattn/core/assert.hpp>
#include <sofattn/core/element.hpp>
#include <sofattn/core/score_line.hpp>
#include <sofattn/core/tensor.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/core/view.hpp>
#include <sofattn/dlzs/lz_code.hpp>
#include <sofattn/dlzs/operands.hpp>
#include <sofattn/dlzs/policy.hpp>
#include <sofattn/dlzs/predict_scores.hpp>
#include <sofattn/exec/executor.hpp>

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <span>
#include <vector>

namespace sofattn::dlzs {

/// What a predictor gets wrong on average for one query head: q.k is about
/// mean + slope * (predicted - its mean), with a residual of this variance.
struct score_calibration {
    double slope = 1;    ///< leading-zero queries lose about a third: 1.3 to 1.4
    double variance = 0; ///< of q.k about the line, unscaled
};

/// Whether products are off by a factor. Integers of 8 bits and more are rounded to nearest, so that
/// the best slope is 1 within 0.001 (test/dlzs/calibration.cpp), and nothing has to be measured.
template <policy Policy>
inline constexpr bool needs_slope = Policy::query == operand::leading_zero ||
                                    Policy::key == operand::leading_zero ||
                                    (Policy::key != operand::real &&
                                     (Policy::query_bits < 8 || Policy::key_bits < 8));

namespace detail {

/// What a stored operand stands for, in codes.
template <operand Form, int Bits>
[[nodiscard]] constexpr double code_value(stored_operand<Form, Bits> stored) noexcept {
    if constexpr (Form == operand::leading_zero) {
        return static_cast<double>(lz_code::from_stored(stored).value());
    } else {
        return static_cast<double>(stored);
    }
}

/// `count` of `of` items, evenly spread, the last included.
[[nodiscard]] constexpr index_t sample(index_t i, index_t count, index_t of) noexcept {
    return (i + 1) * of / count - 1;
}

} // namespace detail

/// Means of a KV head's keys, exact and as predicted, over every prefix of 64, 128, ... keys: where
/// lines are anchored. The mean over a set of keys of q.k is q.(mean of the keys), so one product of
/// each kind fixes a query's offset there. Softmax does not see an offset, but the weight of dropped
/// keys beside exactly attended ones does. Prefixes, because a causal row sees one and rotated keys
/// drift along the sequence: anchored at the mean of all keys the weight of the tail is off by 2.5
/// times as much (TinyLlama, dlzs8).
template <policy Policy>
class key_means {
public:
    static constexpr index_t grain = 64; ///< keys

    key_means() noexcept = default;

    /// keys [key, dim], the ones the index was built from.
    template <storage_float T>
    key_means(key_view<T const> keys, key_index<Policy> const& index)
        : keys_(keys.template extent<axis::key>()),
          exact_({ceil_div(keys_, grain), keys.template extent<axis::dim>()}),
          coded_({ceil_div(keys_, grain), keys.template extent<axis::dim>()}) {
        auto const codes = index.codes();
        index_t const dims = keys.template extent<axis::dim>();
        for (index_t d = 0; d < dims; ++d) {
            double exact = 0;
            double coded = 0;
            for (index_t k = 0; k < keys_; ++k) {
                exact += static_cast<double>(to_float(keys(k, d)));
                coded += detail::code_value<Policy::key, Policy::key_bits>(codes(k, d));
                auto const seen = static_cast<double>(k + 1);
                exact_(k / grain, d) = exact / seen;
                coded_(k / grain, d) = coded / seen;
            }
        }
    }

    /// query [dim] and its codes; logits = scale * q.k; the row sees the first `visible` keys.
    template <storage_float T>
    [[nodiscard]] score_line
    line(view<T const, axis::dim> query,
         view<typename query_codes<Policy>::element const, axis::dim> codes, double product_step,
         double scale, score_calibration calibration, index_t visible) const noexcept {
        score_line line;
        line.per_score = scale * calibration.slope * product_step;
        if constexpr (Policy::query != operand::real) {
            if (keys_ == 0) {
                return line;
            }
            // The last whole grain that the row sees; in the first one all of it.
            index_t const row = visible == keys_ ? exact_.template extent<axis::key>() - 1
                                                 : std::max<index_t>(visible / grain, 1) - 1;
            double exact = 0;
            double predicted = 0;
            for (index_t d = 0; d < exact_.template extent<axis::dim>(); ++d) {
                exact += static_cast<double>(to_float(query(d))) * exact_(row, d);
                predicted += detail::code_value<Policy::query, Policy::query_bits>(codes(d)) *
                             coded_(row, d);
            }
            line.offset = scale * exact - line.per_score * predicted;
        }
        return line;
    }

private:
    index_t keys_ = 0;
    tensor<double, axis::key, axis::dim> exact_; // [grain, dim], of all keys up to its end
    tensor<double, axis::key, axis::dim> coded_; // the same in codes
};

/// Least squares of q.k on the predicted product over evenly spread queries and keys that they see,
/// each query's own means taken off. Reads the head's data, as an index does; deterministic. 1 and 0
/// where the predictions do not vary or point the wrong way.
///
/// queries [query, dim] with `codes` of head `head`, keys [key, dim] with `index`; query q sees
/// visible(q) keys
template <policy Policy, storage_float Q, storage_float K, std::invocable<index_t> Visible>
[[nodiscard]] score_calibration
calibrate(view<Q const, axis::query, axis::dim> queries, query_codes<Policy> const& codes,
          index_t head, key_view<K const> keys, key_index<Policy> const& index, Visible visible) {
    if constexpr (Policy::query == operand::real) {
        return {};
    } else {
        constexpr index_t most_queries = 64; // with 256 keys 1 M multiply-adds a head
        constexpr index_t most_keys = 256;
        index_t const rows = std::min(most_queries, queries.template extent<axis::query>());
        std::vector<double> exact;
        std::vector<double> predicted;
        double xx = 0;
        double xy = 0;
        double yy = 0;
        double pairs = 0;
        exec::reference x;
        for (index_t r = 0; r < rows; ++r) {
            index_t const q = detail::sample(r, rows, queries.template extent<axis::query>());
            index_t const seen = visible(q);
            index_t const count = std::min(most_keys, seen);
            pairs += static_cast<double>(count);
            exact.resize(static_cast<std::size_t>(count));
            predicted.resize(exact.size());
            // All less the first one's, so that equal keys leave zeros and not rounding errors.
            double first_exact = 0;
            double first_predicted = 0;
            double mean_exact = 0;
            double mean_predicted = 0;
            for (index_t i = 0; i < count; ++i) {
                index_t const k = detail::sample(i, count, seen);
                double sum = 0;
                for (index_t d = 0; d < keys.template extent<axis::dim>(); ++d) {
                    sum += static_cast<double>(to_float(queries(q, d))) *
                           static_cast<double>(to_float(keys(k, d)));
                }
                score_type<Policy> score{};
                predict_scores<Policy>{}(x, codes.row(head, q),
                                         index.codes().template range<axis::key>(k, 1),
                                         std::span(&score, 1));
                auto const at = static_cast<std::size_t>(i);
                double const product = static_cast<double>(score) * codes.product_step(q);
                if (i == 0) {
                    first_exact = sum;
                    first_predicted = product;
                }
                exact[at] = sum - first_exact;
                predicted[at] = product - first_predicted;
                mean_exact += exact[at] / static_cast<double>(count);
                mean_predicted += predicted[at] / static_cast<double>(count);
            }
            for (std::size_t i = 0; i < exact.size(); ++i) {
                double const y = exact[i] - mean_exact;
                double const p = predicted[i] - mean_predicted;
                xx += p * p;
                xy += p * y;
                yy += y * y;
            }
        }
        if (!(xx > 0 && xy > 0)) {
            return {};
        }
        score_calibration result;
        result.slope = xy / xx;
        result.variance = std::max(0.0, yy - result.slope * xy) / pairs;
        return result;
    }
}

} // namespace sofattn::dlzs
