// SPDX-License-Identifier: MIT
// Sums of the values of each segment of keys: what stands for those of its keys that nobody looks at.
#pragma once

#include <sofattn/core/assert.hpp>
#include <sofattn/core/element.hpp>
#include <sofattn/core/page_table.hpp>
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
#include <utility>

namespace sofattn {

/// Of one KV head; built with allocation.
class segment_sums {
public:
    static constexpr index_t segment = sads::kept_tile::segment; ///< keys

    segment_sums() = default;

    /// values [key, value_dim], of all their segments, the last of which may have fewer keys
    template <token_rows<axis::value_dim> Values>
    explicit segment_sums(Values const& values)
        : segment_sums(values.template extent<axis::value_dim>()) {
        index_t const keys = values.template extent<axis::key>();
        reserve(keys + segment - 1);
        append(values);
        if (keys % segment != 0) {
            add(values, segments_ * segment, keys);
        }
    }
    /// Of no key yet; grows by whole segments.
    explicit segment_sums(index_t value_dim) : sums_({0, value_dim}) {}

    /// Room for so many keys. Doubles what there is at least, so that growing costs O(1) per key.
    void reserve(index_t keys) {
        index_t const room = sums_.template extent<axis::key>();
        if (keys / segment <= room) {
            return;
        }
        auto larger = table::for_overwrite({std::max(keys / segment, 2 * room), value_dim()});
        std::copy_n(sums_.cview().data(), segments_ * sums_.cview().template stride<axis::key>(),
                    larger.view().data());
        sums_ = std::move(larger);
    }
    /// values [key, value_dim], those that are summed included; takes the whole segments that are new.
    /// pre: there is room
    template <token_rows<axis::value_dim> Values>
    void append(Values const& values) noexcept {
        while ((segments_ + 1) * segment <= values.template extent<axis::key>()) {
            add(values, segments_ * segment, (segments_ + 1) * segment);
        }
    }
    /// Forgets all segments but the whole ones of the first `keys`.
    void truncate(index_t keys) noexcept { segments_ = std::min(segments_, keys / segment); }

    [[nodiscard]] index_t segments() const noexcept { return segments_; }
    [[nodiscard]] index_t value_dim() const noexcept {
        return sums_.cview().template extent<axis::value_dim>();
    }
    /// [value_dim] of segment `s`.
    [[nodiscard]] float const* of(index_t s) const noexcept { return &sums_(s, 0); }

    [[nodiscard]] index_t bytes() const noexcept {
        return segments_ * sums_.cview().template stride<axis::key>() *
               static_cast<index_t>(sizeof(float));
    }

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
    using table = tensor<float, axis::key, axis::value_dim>;

    /// Keys [from, to), the next segment, summed in double.
    template <class Values>
    void add(Values const& values, index_t from, index_t to) noexcept {
        SOFATTN_ASSERT(segments_ < sums_.template extent<axis::key>());
        std::array<double, static_cast<std::size_t>(max_head_dim)> sums{};
        for (index_t k = from; k < to; ++k) {
            for_each_float(values.template slice<axis::key>(k), [&sums](index_t d, float x) {
                sums[static_cast<std::size_t>(d)] += static_cast<double>(x);
            });
        }
        std::transform(sums.begin(), sums.begin() + value_dim(), &sums_(segments_, 0),
                       [](double x) { return static_cast<float>(x); });
        ++segments_;
    }

    index_t segments_ = 0;
    table sums_; ///< [segment, value_dim], and room for more
};

} // namespace sofattn
