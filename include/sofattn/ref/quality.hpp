// SPDX-License-Identifier: MIT
// How good a selection is: recall of the true top-k, captured softmax mass, output error.
#pragma once

#include <sofattn/core/assert.hpp>
#include <sofattn/core/element.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/core/view.hpp>
#include <sofattn/ref/dense_attention.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <span>
#include <vector>

namespace sofattn::ref {

/// Means over rows; add rows, then read. Sums of heads add up to the sums of a layer.
struct quality {
    double rows = 0;
    double recall_sum = 0;
    double mass_sum = 0;
    double kept = 0;    ///< keys
    double visible = 0; ///< keys
    double error_square = 0;
    double output_square = 0;

    /// Share of a row's kept keys that are among as many truly best ones, mean over rows.
    [[nodiscard]] double recall() const noexcept { return rows > 0 ? recall_sum / rows : 0.0; }
    /// Softmax mass of the kept keys, mean over rows.
    [[nodiscard]] double mass() const noexcept { return rows > 0 ? mass_sum / rows : 0.0; }
    [[nodiscard]] double kept_share() const noexcept { return visible > 0 ? kept / visible : 0.0; }
    /// Relative Frobenius norm of output minus dense output, over all rows together.
    [[nodiscard]] double error() const noexcept {
        return output_square > 0 ? std::sqrt(error_square / output_square) : 0.0;
    }

    quality& operator+=(quality const& other) noexcept {
        rows += other.rows;
        recall_sum += other.recall_sum;
        mass_sum += other.mass_sum;
        kept += other.kept;
        visible += other.visible;
        error_square += other.error_square;
        output_square += other.output_square;
        return *this;
    }
};

/// The dense truth of one row, against which any number of selections can be judged.
class row_truth {
public:
    /// query [dim], keys [key, dim], values [key, value_dim]; the first `visible` keys count.
    template <storage_float Q, storage_float K, storage_float V>
    row_truth(view<Q const, axis::dim> query, key_view<K const> keys, value_view<V const> values,
              index_t visible, double scale)
        : weights_(static_cast<std::size_t>(visible)),
          output_(static_cast<std::size_t>(values.template extent<axis::value_dim>())),
          best_first_(static_cast<std::size_t>(visible)) {
        row_logits(query, keys, scale, weights_);
        std::iota(best_first_.begin(), best_first_.end(), key_id{0});
        std::ranges::sort(best_first_, [&](key_id a, key_id b) {
            double const la = weights_[static_cast<std::size_t>(a)];
            double const lb = weights_[static_cast<std::size_t>(b)];
            return la != lb ? la > lb : a < b;
        });
        softmax(weights_);
        weighted_sum<V>(weights_, values, output_);
    }

    [[nodiscard]] std::span<double const> weights() const noexcept { return weights_; } // [key]
    [[nodiscard]] std::span<double const> output() const noexcept { return output_; } // [value_dim]
    /// Keys in the total order of exact logits. [key]
    [[nodiscard]] std::span<key_id const> best_first() const noexcept { return best_first_; }

    /// kept: distinct visible keys; output [value_dim]: what the attention made of them.
    [[nodiscard]] quality judge(std::span<key_id const> kept, std::span<float const> output) const {
        SOFATTN_ASSERT(output.size() == output_.size() && kept.size() <= weights_.size());
        std::vector<char> is_kept(weights_.size());
        quality q;
        q.rows = 1;
        q.kept = static_cast<double>(kept.size());
        q.visible = static_cast<double>(weights_.size());
        for (key_id key : kept) {
            is_kept[static_cast<std::size_t>(key)] = 1;
            q.mass_sum += weights_[static_cast<std::size_t>(key)];
        }
        double hits = 0;
        for (std::size_t i = 0; i < kept.size(); ++i) {
            hits += is_kept[static_cast<std::size_t>(best_first_[i])];
        }
        q.recall_sum = kept.empty() ? 0.0 : hits / static_cast<double>(kept.size());
        for (std::size_t d = 0; d < output.size(); ++d) {
            double const off = static_cast<double>(output[d]) - output_[d];
            q.error_square += off * off;
            q.output_square += output_[d] * output_[d];
        }
        return q;
    }

private:
    std::vector<double> weights_;
    std::vector<double> output_;
    std::vector<key_id> best_first_;
};

} // namespace sofattn::ref
