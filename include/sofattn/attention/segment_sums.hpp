// SPDX-License-Identifier: MIT
// Sums of the values of each segment of keys: what stands for those of its keys that nobody looks at.
#pragma once

#include <sofattn/core/assert.hpp>
#include <sofattn/core/element.hpp>
#include <sofattn/core/tensor.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/core/view.hpp>
#include <sofattn/sads/kept_tile.hpp>
#include <sofattn/sufa/weighted_rows.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace sofattn {

/// Of one KV head. Built once, only read from then on; allocates.
class segment_sums {
public:
    static constexpr index_t segment = sads::kept_tile::segment; ///< keys

    segment_sums() = default;

    /// values [key, value_dim]; summed in double
    template <storage_float V>
    explicit segment_sums(value_view<V const> values)
        : sums_({ceil_div(values.template extent<axis::key>(), segment),
                 values.template extent<axis::value_dim>()}) {
        std::vector<double> sums(
            static_cast<std::size_t>(values.template extent<axis::value_dim>()));
        auto const to = sums_.view();
        for (index_t s = 0; s < to.template extent<axis::key>(); ++s) {
            std::ranges::fill(sums, 0.0);
            index_t const end = std::min((s + 1) * segment, values.template extent<axis::key>());
            for (index_t k = s * segment; k < end; ++k) {
                add_row(values, k, sums.data());
            }
            std::ranges::transform(sums, to.data() + s * to.template stride<axis::key>(),
                                   [](double x) { return static_cast<float>(x); });
        }
    }

    [[nodiscard]] index_t value_dim() const noexcept {
        return sums_.cview().template extent<axis::value_dim>();
    }
    /// [value_dim] of segment `s`.
    [[nodiscard]] float const* of(index_t s) const noexcept { return &sums_(s, 0); }

    /// to [width] = means of the segments, each times its weight, which are returned in sum. Weights of 0
    /// and less do not count. width: value_dim in whole cache lines
    float weighted_mean(std::span<float const> weights, float* to, index_t width) const noexcept {
        auto const rows = sums_.cview();
        SOFATTN_DASSERT(rows.template stride<axis::key>() == width);
        std::fill_n(to, width, 0.0f);
        float total = 0.0f;
        std::array<std::int32_t, 64> which;
        std::array<float, 64> shares;
        std::size_t filled = 0;
        auto const flush = [&] {
            sufa::add_weighted_rows(to, width, rows.data(), rows.template stride<axis::key>(),
                                    which.data(), shares.data(), static_cast<index_t>(filled));
            filled = 0;
        };
        for (std::size_t s = 0; s < weights.size(); ++s) {
            if (weights[s] > 0.0f) {
                total += weights[s];
                which[filled] = static_cast<std::int32_t>(s);
                shares[filled++] = weights[s] * (1.0f / static_cast<float>(segment));
                if (filled == which.size()) {
                    flush();
                }
            }
        }
        flush();
        return total;
    }

private:
    tensor<float, axis::key, axis::value_dim> sums_; // [segment, value_dim]
};

} // namespace sofattn
