// SPDX-License-Identifier: MIT
// What a page of keys is sketched by, before it is coded: one page at a time, in fixed memory.
#pragma once

#include <sofattn/core/assert.hpp>
#include <sofattn/core/element.hpp>
#include <sofattn/core/page_table.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/core/view.hpp>
#include <sofattn/exec/int8_tile.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <span>

namespace sofattn::dlzs {

/// A page's most outlying key, and mean and variance of the others, channel by channel.
///
/// If logits of the others were normal, the logarithm of their mean weight were their mean logit and
/// half the variance, which channels that do not vary together make up as sums: two dot products, and
/// a third for the outlier, say what the page weighs. Without the outlier, keys that draw all
/// attention wherever they stand, as first tokens do, would be lost among their neighbours.
enum class sketch_part {
    mean,     ///< of the others
    variance, ///< of the others
    outlier
};
inline constexpr std::size_t sketch_parts = 3;

/// The keys of a page less a centre, and their sums.
///
/// in     page p of keys [key, dim], which has all its keys; centre [dim]
/// out    variances, of all keys; sketch: every part, [dim]
/// pre    dim at most max_head_dim (SOFATTN_ASSERT)
/// error  none; allocates nothing
/// exact  the same bits on every target: sums are in double, in the order of keys, products exact
class sketched_page {
public:
    static constexpr index_t keys = exec::page_keys;

    template <token_rows<axis::dim> Keys>
    void read(Keys const& all, index_t p, std::span<float const> centre) noexcept {
        dim_ = centre.size();
        SOFATTN_ASSERT(dim_ <= sums_.size());
        float const* const middle = centre.data();
        for (index_t k = 0; k < keys; ++k) {
            float* const to = row(k);
            for_each_float(all.template slice<axis::key>(p * keys + k),
                           [=](index_t d, float x) { to[d] = x - middle[d]; });
        }
        std::fill_n(sums_.data(), dim_, 0.0);
        std::fill_n(squares_.data(), dim_, 0.0);
        for (index_t k = 0; k < keys; ++k) {
            float const* const from = row(k);
            for (std::size_t d = 0; d < dim_; ++d) {
                auto const x = static_cast<double>(from[d]);
                sums_[d] += x;
                squares_[d] += x * x; // exact
            }
        }
    }
    void add_variances(std::span<double> to) const noexcept {
        for (std::size_t d = 0; d < dim_; ++d) {
            to[d] += variance(sums_[d], squares_[d], keys);
        }
    }
    /// weights [dim]: what channels count for the distance of the outlier
    void sketch(std::span<double const> weights,
                std::array<float*, sketch_parts> const& into) const noexcept {
        float const* const far = row(outlier(weights));
        for (std::size_t d = 0; d < dim_; ++d) {
            auto const x = static_cast<double>(far[d]);
            double const sum = sums_[d] - x;
            double const square = squares_[d] - x * x;
            into[0][d] = static_cast<float>(sum / static_cast<double>(keys - 1));
            into[1][d] = static_cast<float>(variance(sum, square, keys - 1));
            into[2][d] = far[d];
        }
    }

private:
    static constexpr index_t pitch = max_head_dim + 16; // keys do not share their cache sets

    [[nodiscard]] float* row(index_t k) noexcept { return rows_.data() + k * pitch; }
    [[nodiscard]] float const* row(index_t k) const noexcept { return rows_.data() + k * pitch; }

    /// Of `count` numbers, from their sum and that of their squares; the mean as float, whose square
    /// is exact.
    [[nodiscard]] static double variance(double sum, double square, index_t count) noexcept {
        auto const n = static_cast<double>(count);
        auto const mean = static_cast<double>(static_cast<float>(sum / n));
        double const found = square / n - mean * mean;
        return found > 0.0 ? found : 0.0;
    }

    /// The key farthest from the mean; of equal ones the first.
    [[nodiscard]] index_t outlier(std::span<double const> weights) const noexcept {
        constexpr std::size_t lanes = 16; // sums side by side, so that they become registers
        index_t far = 0;
        double most = -1.0;
        for (index_t k = 0; k < keys; ++k) {
            float const* const from = row(k);
            std::array<double, lanes> sum{};
            auto const term = [&](std::size_t d) {
                auto const mean = static_cast<float>(sums_[d] * (1.0 / static_cast<double>(keys)));
                auto const off = static_cast<double>(from[d] - mean);
                return off * off * weights[d];
            };
            std::size_t d = 0;
            for (; d + lanes <= dim_; d += lanes) {
                for (std::size_t i = 0; i < lanes; ++i) {
                    sum[i] += term(d + i);
                }
            }
            for (std::size_t i = 0; d + i < dim_; ++i) {
                sum[i] += term(d + i);
            }
            double distance = 0;
            for (double const part : sum) {
                distance += part;
            }
            if (distance > most) {
                most = distance;
                far = k;
            }
        }
        return far;
    }

    std::size_t dim_ = 0;
    std::array<float, static_cast<std::size_t>(keys* pitch)> rows_;
    std::array<double, static_cast<std::size_t>(max_head_dim)> sums_;
    std::array<double, static_cast<std::size_t>(max_head_dim)> squares_;
};

} // namespace sofattn::dlzs
