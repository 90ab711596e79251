// SPDX-License-Identifier: MIT
// How far a predicted logit can be from the true one: bounds from what the quantisers rounded away.
#pragma once

#include <sofattn/core/element.hpp>
#include <sofattn/core/hadamard.hpp>
#include <sofattn/core/quantise.hpp>
#include <sofattn/core/score_line.hpp>
#include <sofattn/core/tensor.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/core/view.hpp>
#include <sofattn/dlzs/calibration.hpp>
#include <sofattn/dlzs/operands.hpp>
#include <sofattn/dlzs/policy.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <numeric>
#include <span>
#include <vector>

namespace sofattn::dlzs {

/// What is known of one row: logits are line.logit(score) + x, where |x| of key k is at most
/// per_error |eps_k| + per_size |k^| + slack, and the root of the sum of x^2 over the visible keys
/// at most root_sum. Infinite where a policy has no bounds.
struct logit_bounds {
    score_line line{};    ///< no calibration in it: slope 1, offset q.centre
    double per_error = 0; ///< scale |q|
    double per_size = 0;  ///< scale |eps_q|
    double slack = 0;     ///< logits, for the rounding of the formal arithmetic
    double root_sum = 0;  ///< logits
    double typical = 0;   ///< logits: root mean square of x over the keys, an estimate
};

/// A KV head's quantiser errors. With q = q^ + eps_q and k = centre + k^ + eps_k, in the channels
/// that the quantisers saw (rotated ones, if the policy rotates),
///   q.k = q.centre + q^.k^ + x,  x = q.eps_k + eps_q.k^.
/// Per key Cauchy-Schwarz bounds x by norms. Over many keys that is far from what happens, since
/// rounding errors point anywhere: the second moments E = sum of eps_k eps_k^T and of k^ k^^T give
/// sum of (q.eps_k)^2 = q^T E q itself. Both over prefixes of 64, 128, 256, ... keys, for a causal
/// row sees one; more keys only add, so the next longer prefix still bounds. Not in the paper.
///
/// Bounds exist for policies with one key step; for the others they are infinite.
template <policy Policy>
class quantiser_error {
public:
    static constexpr bool is_exact = Policy::key == operand::real;
    static constexpr bool is_bounded = is_exact || Policy::key_step == granularity::per_tensor;

    quantiser_error() noexcept = default;

    /// keys [key, dim], the ones the index was built from.
    template <storage_float T>
    quantiser_error(key_view<T const> keys, key_index<Policy> const& index)
        : dims_(keys.template extent<axis::dim>()), index_(&index) {
        index_t const count = keys.template extent<axis::key>();
        errors_.resize(static_cast<std::size_t>(count));
        sizes_.resize(static_cast<std::size_t>(count));
        if constexpr (is_bounded) {
            auto const dims = static_cast<std::size_t>(dims_);
            std::vector<double> error(dims);
            std::vector<double> size(dims);
            second_moments moments(dims_);
            double centre = 0;
            for (float const c : index.centre()) {
                centre += static_cast<double>(c) * static_cast<double>(c);
            }
            for (index_t k = 0; k < count; ++k) {
                split(keys, index, k, error, size);
                errors_[static_cast<std::size_t>(k)] = norm(error);
                sizes_[static_cast<std::size_t>(k)] = norm(size);
                longest_ = std::max(longest_, norm(error) + norm(size) + std::sqrt(centre));
                if constexpr (!is_exact) {
                    moments.add(error, size);
                    bool const ends_prefix = k + 1 == grain << prefixes_.size();
                    if (ends_prefix || k + 1 == count) {
                        prefixes_.push_back(moments);
                    }
                }
            }
        }
    }

    /// |eps_k| and |k^|.
    [[nodiscard]] double error(index_t key) const noexcept {
        return errors_[static_cast<std::size_t>(key)];
    }
    [[nodiscard]] double size(index_t key) const noexcept {
        return sizes_[static_cast<std::size_t>(key)];
    }

    /// query [dim] with its codes; logits = scale * q.k; the row sees the first `visible` keys;
    /// epsilon: of the formal arithmetic that computes kept logits.
    template <storage_float T>
    [[nodiscard]] logit_bounds row(view<T const, axis::dim> query, query_codes<Policy> const& codes,
                                   index_t head, index_t at, double scale, index_t visible,
                                   double epsilon) const {
        logit_bounds bounds;
        bounds.line.per_score = scale * codes.product_step(at);
        if constexpr (!is_bounded) {
            bounds.slack = std::numeric_limits<double>::infinity();
            bounds.root_sum = std::numeric_limits<double>::infinity();
        } else {
            auto const dims = static_cast<std::size_t>(dims_);
            std::vector<double> real(dims);
            for (std::size_t d = 0; d < dims; ++d) {
                real[d] = static_cast<double>(to_float(query(static_cast<index_t>(d))));
            }
            double gain = 1;
            if constexpr (Policy::rotated) {
                hadamard_rotate(real);
                gain = static_cast<double>(hadamard_block(dims_));
            }
            double const scaled = scale * gain;
            double const rounding = 4.0 * epsilon * static_cast<double>(dims_ + 1);
            bounds.slack = scaled * norm(real) * longest_ * rounding;
            for (std::size_t d = 0; d < index_->centre().size(); ++d) {
                bounds.line.offset += scaled * real[d] * static_cast<double>(index_->centre()[d]);
            }
            if constexpr (!is_exact) {
                std::vector<double> lost(dims);
                auto const row = codes.row(head, at);
                for (std::size_t d = 0; d < dims; ++d) {
                    lost[d] = real[d] - codes.step(at) *
                                            detail::code_value<Policy::query, Policy::query_bits>(
                                                row(static_cast<index_t>(d)));
                }
                bounds.per_error = scaled * norm(real) * safe;
                bounds.per_size = scaled * norm(lost) * safe;
                second_moments const& moments = prefix(visible);
                double const of_keys = moments.of_errors.form(real);
                double const of_query = moments.of_sizes.form(lost);
                bounds.root_sum = scaled * safe * (std::sqrt(of_keys) + std::sqrt(of_query)) +
                                  bounds.slack * std::sqrt(static_cast<double>(visible));
                bounds.typical = scaled * std::sqrt((of_keys + of_query) / moments.keys);
            } else {
                bounds.root_sum = bounds.slack * std::sqrt(static_cast<double>(visible));
            }
        }
        return bounds;
    }

private:
    static constexpr index_t grain = 64;       ///< keys of the first prefix
    static constexpr double safe = 1.0 + 1e-9; ///< for the rounding of norms and moments

    /// A symmetric sum of outer products.
    struct outer_sum {
        explicit outer_sum(index_t dims)
            : side(static_cast<std::size_t>(dims)), entries(side * side) {}

        void add(std::span<double const> x) {
            terms += 1;
            for (std::size_t i = 0; i < side; ++i) {
                for (std::size_t j = 0; j < side; ++j) {
                    entries[i * side + j] += x[i] * x[j];
                }
            }
        }
        /// At least x^T M x.
        [[nodiscard]] double form(std::span<double const> x) const noexcept {
            double sum = 0;
            double magnitude = 0;
            for (std::size_t i = 0; i < side; ++i) {
                double row = 0;
                for (std::size_t j = 0; j < side; ++j) {
                    row += entries[i * side + j] * x[j];
                }
                sum += row * x[i];
                magnitude += std::sqrt(entries[i * side + i]) * std::abs(x[i]);
            }
            // Terms of either sign may cancel, in an entry and here. What the rounding of so many
            // additions can hide is added; |entry ij| <= sqrt(entry ii entry jj).
            double const additions = terms + 4.0 * static_cast<double>(side);
            constexpr double epsilon = std::numeric_limits<double>::epsilon();
            return std::max(sum, 0.0) + additions * epsilon * magnitude * magnitude;
        }

        double terms = 0;
        std::size_t side;
        std::vector<double> entries; // [dim * dim]
    };
    struct second_moments {
        explicit second_moments(index_t dims) : of_errors(dims), of_sizes(dims) {}

        void add(std::span<double const> error, std::span<double const> size) {
            of_errors.add(error);
            of_sizes.add(size);
            keys += 1;
        }

        double keys = 0;
        outer_sum of_errors; ///< of eps_k
        outer_sum of_sizes;  ///< of k^
    };

    [[nodiscard]] static double norm(std::span<double const> x) noexcept {
        return std::sqrt(std::transform_reduce(x.begin(), x.end(), x.begin(), 0.0));
    }

    /// eps_k and k^ of one key.
    template <storage_float T>
    static void split(key_view<T const> keys, key_index<Policy> const& index, index_t k,
                      std::span<double> error, std::span<double> size) {
        for (std::size_t d = 0; d < error.size(); ++d) {
            error[d] = static_cast<double>(to_float(keys(k, static_cast<index_t>(d))));
        }
        if constexpr (Policy::rotated) {
            hadamard_rotate(error);
        }
        auto const codes = index.codes();
        for (std::size_t d = 0; d < error.size(); ++d) {
            auto const column = static_cast<index_t>(d);
            size[d] = static_cast<double>(index.step(column)) *
                      detail::code_value<Policy::key, Policy::key_bits>(codes(k, column));
            double const centre =
                index.centre().empty() ? 0.0 : static_cast<double>(index.centre()[d]);
            error[d] -= centre + size[d];
        }
    }

    /// The shortest prefix that has all visible keys.
    [[nodiscard]] second_moments const& prefix(index_t visible) const noexcept {
        std::size_t at = 0;
        while (at + 1 < prefixes_.size() && grain << at < visible) {
            ++at;
        }
        return prefixes_[at];
    }

    index_t dims_ = 0;
    key_index<Policy> const* index_ = nullptr;
    std::vector<double> errors_; ///< [key], |eps_k|
    std::vector<double> sizes_;  ///< [key], |k^|
    double longest_ = 0;         ///< of the keys, at least
    std::vector<second_moments> prefixes_;
};

} // namespace sofattn::dlzs
