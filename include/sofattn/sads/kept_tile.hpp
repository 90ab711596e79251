// SPDX-License-Identifier: MIT
// What a row's cut keeps of one tile, and what it costs the others.
#pragma once

#include <sofattn/core/assert.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/exec/int8_tile.hpp>
#include <sofattn/exec/integer_lanes.hpp>
#include <sofattn/exec/short_lanes.hpp>
#include <sofattn/exec/xsimd_lanes.hpp>
#include <sofattn/sads/row_cut.hpp>
#include <sofattn/sads/softmax_weight.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>

namespace sofattn::sads {

/// The pages of a tile that are looked at; the keys of their positions, one page after the other.
class looked_pages {
public:
    static constexpr index_t page = exec::page_keys;
    static constexpr index_t most = 32; ///< pages of a tile
    static constexpr index_t in_segment = 4;

    /// Page p of the tile if bit p is set.
    explicit looked_pages(std::uint32_t which) noexcept {
        exec::vector_int16 const numbers = exec::short_numbers();
        for (; which != 0; which &= which - 1) {
            int const p = std::countr_zero(which);
            // A register may be longer than a page: its end is overwritten by the next one.
            for (index_t k = 0; k < page; k += exec::short_width) {
                exec::store(keys_.data() + count_ * page + k,
                            numbers +
                                exec::all_shorts(p * static_cast<int>(page) + static_cast<int>(k)));
            }
            segment_[static_cast<std::size_t>(count_++)] =
                static_cast<std::uint8_t>(p / static_cast<int>(in_segment));
        }
    }
    [[nodiscard]] index_t count() const noexcept { return count_; }
    /// Readable to the end of the last one's register.
    [[nodiscard]] std::int16_t const* keys() const noexcept { return keys_.data(); }
    [[nodiscard]] std::size_t segment(index_t i) const noexcept {
        return segment_[static_cast<std::size_t>(i)];
    }

private:
    index_t count_ = 0;
    std::array<std::uint8_t, static_cast<std::size_t>(most)> segment_;
    alignas(64) std::array<std::int16_t,
                           static_cast<std::size_t>(most* page + 2 * exec::short_width)> keys_;
};

/// Compresses a tile to its kept keys and sums the weights of the dropped ones of every segment, for
/// a tail.
///
/// in     positions [key]  the row's competing keys of the looked-at pages (row_cut.hpp), in whole
///                         pages; those behind the last may be left out
///        cut              of the row
/// out    keys, positions of the kept keys, in order; a register's worth of no_key behind the latter
///        dropped_weight   [segment] of looked-at keys; beside the top's, which is 1
/// pre    no more positions than pages have (SOFATTN_ASSERT)
/// error  none
/// events none: this is no circuit
/// exact  keys bit for bit those of adaptive<grain_by_grain>; dropped weights within 3e-4 of a
///        segment's, and for each of its keys 2^-16 of the row's best dropped one (and what
///        float cannot hold)
/// paper  not in the paper
class kept_tile {
public:
    static constexpr index_t page = looked_pages::page;
    static constexpr index_t most = looked_pages::most * page;
    static constexpr index_t segment = looked_pages::in_segment * page;
    static constexpr index_t segments = most / segment;

    /// `Weighs`: dropped weights are wanted.
    template <bool Weighs>
    void choose(std::span<std::int16_t const> positions, looked_pages const& pages,
                row_cut cut) noexcept {
        index_t const count = std::ssize(positions);
        SOFATTN_ASSERT(count % page == 0 && count <= pages.count() * page);
        filled_ = 0;
        index_t const whole = count / exec::short_width * exec::short_width;
        for (index_t k = 0; k < whole; k += exec::short_width) {
            take<Weighs>(exec::load(positions.data() + k), pages, k, cut);
        }
        if (whole < count) { // a page that is half a register; behind it lies another tile's
            alignas(64) std::array<std::int16_t, static_cast<std::size_t>(exec::short_width)> last;
            last.fill(no_key);
            std::copy_n(positions.data() + whole, count - whole, last.data());
            take<Weighs>(exec::load(last.data()), pages, whole, cut);
        }
        index_t const taken = ceil_div(count, exec::short_width);
        std::fill(masks_.begin() + taken, masks_.end(), exec::lane_mask{0});
        exec::store(positions_.data() + filled_, exec::all_shorts(no_key));
        count_ = filled_;
        if constexpr (Weighs) {
            constexpr auto octaves = 1.0f / static_cast<float>(1 << weight_scale::position_bits);
            unit_ = 0x1p-15f * std::exp2(static_cast<float>(cut.dropped_top - cut.top) * octaves);
            dropped_.fill(0);
            segments_ = 0;
            for (index_t i = 0; i < count / page; ++i) {
                segments_ |= 1u << pages.segment(i);
                dropped_[pages.segment(i)] += exec::sum_of_eight(pairs_.data() + i * (page / 2));
            }
        }
    }
    /// One more, behind all.
    void add(std::int16_t key, std::int16_t position) noexcept {
        auto const at = static_cast<std::size_t>(count_++);
        keys_[at] = key;
        positions_[at] = position;
        exec::store(positions_.data() + count_, exec::all_shorts(no_key));
    }

    [[nodiscard]] index_t count() const noexcept { return count_; }
    [[nodiscard]] std::span<std::int16_t const> keys() const noexcept {
        return std::span(keys_).first(static_cast<std::size_t>(count_));
    }
    /// Those that were chosen; added ones come behind.
    [[nodiscard]] index_t chosen() const noexcept { return filled_; }
    /// Which places of register v, as given, were chosen.
    [[nodiscard]] exec::lane_mask mask(index_t v) const noexcept {
        return masks_[static_cast<std::size_t>(v)];
    }
    /// Readable to the end of the last one's register.
    [[nodiscard]] std::int16_t const* positions() const noexcept { return positions_.data(); }
    /// Some key of the segment.
    [[nodiscard]] bool is_looked_at(index_t s) const noexcept { return (segments_ >> s & 1u) != 0; }
    [[nodiscard]] float dropped_weight(index_t s) const noexcept {
        return unit_ * static_cast<float>(dropped_[static_cast<std::size_t>(s)]);
    }

private:
    static constexpr auto room = static_cast<std::size_t>(most + 2 * exec::short_width);

    /// Keys k and on of the looked-at ones.
    template <bool Weighs>
    [[gnu::always_inline]] void take(exec::vector_int16 at, looked_pages const& pages, index_t k,
                                     row_cut cut) noexcept {
        exec::lane_mask const mask = exec::lanes_above(at, exec::all_shorts(cut.limit));
        masks_[static_cast<std::size_t>(k / exec::short_width)] = mask;
        exec::compress(mask, at, positions_.data() + filled_);
        filled_ += exec::compress(mask, exec::load(pages.keys() + k), keys_.data() + filled_);
        if constexpr (Weighs) {
            exec::store(pairs_.data() + k / 2,
                        exec::pair_sums(weight_below(exec::all_shorts(cut.dropped_top) - at)));
        }
    }

    /// 2^-away in units of 2^-15, rounded to nearest. 0 for kept keys, whose `away` has run through 0
    /// and counts far more than the 16 octaves that weigh anything, and for no_key.
    [[nodiscard]] static exec::vector_int16 weight_below(exec::vector_int16 away) noexcept {
        auto const constant = [](std::uint32_t c) { return exec::all_shorts(static_cast<int>(c)); };
        exec::vector_int16 const f = exec::shifted_left<16 - weight_scale::position_bits>(away);
        exec::vector_int16 r =
            constant(weight_scale::c2) - exec::high_product(constant(weight_scale::c3), f);
        r = constant(weight_scale::c1) - exec::high_product(r, f);
        // Not quite 2^16, so that half of it is below 2^15.
        exec::vector_int16 const mantissa = exec::all_shorts(0xfffe) - exec::high_product(r, f);
        return exec::rounded_half(
            exec::shifted_right(mantissa, exec::shifted_right<weight_scale::position_bits>(away)));
    }

    index_t count_ = 0;
    index_t filled_ = 0;
    float unit_ = 0;             ///< of dropped_
    std::uint32_t segments_ = 0; ///< that are looked at, bit by bit
    std::array<std::int32_t, static_cast<std::size_t>(segments)> dropped_{};
    std::array<exec::lane_mask, static_cast<std::size_t>(most / exec::short_width)> masks_{};
    alignas(64) std::array<std::int32_t, room / 2> pairs_{};
    alignas(64) std::array<std::int16_t, room> keys_{};
    alignas(64) std::array<std::int16_t, room> positions_{};
};

} // namespace sofattn::sads
