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
#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
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
        auto const dims = static_cast<std::size_t>(keys.template extent<axis::dim>());
        std::vector<double> exact(dims, 0.0);
        std::vector<double> coded(dims, 0.0);
        std::vector<grain_sum> coded_here(dims); // of integers, exact
        for (index_t first = 0; first < keys_; first += grain) {
            index_t const end = std::min(first + grain, keys_);
            std::ranges::fill(coded_here, grain_sum{0});
            for (index_t k = first; k < end; ++k) {
                add_row(keys, k, exact.data());
                if constexpr (Policy::key == operand::real) {
                    add_row(codes, k, coded.data());
                } else {
                    add_codes(codes.data() + k * codes.template stride<axis::key>(), coded_here);
                }
            }
            auto const seen = static_cast<double>(end);
            index_t const row = first / grain * exact_.cview().template stride<axis::key>();
            double* const exact_means = exact_.view().data() + row;
            double* const coded_means = coded_.view().data() + row;
            for (std::size_t d = 0; d < dims; ++d) {
                coded[d] += static_cast<double>(coded_here[d]);
                exact_means[d] = exact[d] / seen;
                coded_means[d] = coded[d] / seen;
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
            auto const product = products(query, codes, row);
            line.offset = scale * product.exact - line.per_score * product.coded;
        }
        return line;
    }

private:
    using grain_sum = std::int32_t; ///< of codes: 64 of 16 bits fit

    static void add_codes(typename key_index<Policy>::element const* row,
                          std::span<grain_sum> sums) noexcept {
        for (std::size_t d = 0; d < sums.size(); ++d) {
            sums[d] +=
                static_cast<grain_sum>(detail::code_value<Policy::key, Policy::key_bits>(row[d]));
        }
    }

    struct mean_products {
        double exact = 0;
        double coded = 0;
    };
    /// A query and its codes times the means of a row, summed in the order of the channels. Products
    /// are formed apart from that chain of additions, as vectors.
    template <storage_float T>
    [[nodiscard]] mean_products
    products(view<T const, axis::dim> query,
             view<typename query_codes<Policy>::element const, axis::dim> codes,
             index_t row) const noexcept {
        constexpr index_t run = 64;
        std::array<double, static_cast<std::size_t>(run)> exact_terms;
        std::array<double, static_cast<std::size_t>(run)> coded_terms;
        index_t const at = row * exact_.cview().template stride<axis::key>();
        index_t const dims = exact_.template extent<axis::dim>();
        index_t const stride = query.template stride<axis::dim>();
        index_t const code_stride = codes.template stride<axis::dim>();
        mean_products sum;
        for (index_t from = 0; from < dims; from += run) {
            index_t const count = std::min(run, dims - from);
            double const* const exact = exact_.cview().data() + at + from;
            double const* const coded = coded_.cview().data() + at + from;
            for_each_float(query.data() + from * stride, count, stride,
                           [&, to = exact_terms.data()](index_t i, float value) {
                               to[i] = static_cast<double>(value) * exact[i];
                           });
            auto const* const code = codes.data() + from * code_stride;
            for (index_t i = 0; i < count; ++i) {
                coded_terms[static_cast<std::size_t>(i)] =
                    detail::code_value<Policy::query, Policy::query_bits>(code[i * code_stride]) *
                    coded[i];
            }
            for (std::size_t i = 0; i < static_cast<std::size_t>(count); ++i) {
                sum.exact += exact_terms[i];
                sum.coded += coded_terms[i];
            }
        }
        return sum;
    }

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
