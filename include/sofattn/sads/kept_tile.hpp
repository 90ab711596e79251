// SPDX-License-Identifier: MIT
// What a row's cut keeps of one tile, and what it costs the others.
#pragma once

#include <sofattn/core/assert.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/exec/integer_lanes.hpp>
#include <sofattn/exec/short_lanes.hpp>
#include <sofattn/exec/xsimd_lanes.hpp>
#include <sofattn/sads/row_cut.hpp>
#include <sofattn/sads/softmax_weight.hpp>

#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>

namespace sofattn::sads {

/// Compresses a tile to its kept keys and sums the weights of the dropped ones of every segment, for
/// a tail.
///
/// in     positions [key]  the row's competing keys of the tile (row_cut.hpp), a multiple of
///                         `segment` of them
///        cut              of the row
/// out    keys, positions of the kept keys, in order; a register's worth of no_key behind the latter
///        kept_in, dropped_weight  [segment]; weights beside the top's, which is 1
/// pre    at most `most` positions (SOFATTN_ASSERT)
/// error  none
/// events none: this is no circuit
/// exact  keys bit for bit those of adaptive<grain_by_grain>; dropped weights within 3e-4 of a
///        segment's, and for each of its keys 2^-16 of the row's best dropped one (and what
///        float cannot hold)
/// paper  not in the paper
class kept_tile {
public:
    static constexpr index_t most = 512;
    static constexpr index_t segment = 64;
    static constexpr index_t segments = most / segment;
    static_assert(segment % exec::short_width == 0);

    /// `Weighs`: dropped weights are wanted.
    template <bool Weighs>
    void choose(std::span<std::int16_t const> positions, row_cut cut) noexcept {
        SOFATTN_ASSERT(std::ssize(positions) <= most && std::ssize(positions) % segment == 0);
        exec::vector_int16 const limit = exec::all_shorts(cut.limit);
        exec::vector_int16 const step = exec::all_shorts(static_cast<int>(exec::short_width));
        exec::vector_int16 number = exec::short_numbers();
        exec::vector_int16 const dropped_top = exec::all_shorts(cut.dropped_top);
        constexpr auto octaves = 1.0f / static_cast<float>(1 << weight_scale::position_bits);
        float const unit =
            0x1p-15f * std::exp2(static_cast<float>(cut.dropped_top - cut.top) * octaves);
        index_t filled = 0;
        for (index_t s = 0; s * segment < std::ssize(positions); ++s) {
            index_t const before = filled;
            exec::vector_int32 dropped(0);
            for (index_t k = s * segment; k < (s + 1) * segment; k += exec::short_width) {
                exec::vector_int16 const at = exec::load(positions.data() + k);
                exec::lane_mask const mask = exec::lanes_above(at, limit);
                exec::compress(mask, at, positions_.data() + filled);
                filled += exec::compress(mask, number, keys_.data() + filled);
                number = number + step;
                if constexpr (Weighs) {
                    dropped = dropped + exec::pair_sums(weight_below(dropped_top - at));
                }
            }
            kept_in_[static_cast<std::size_t>(s)] = filled - before;
            if constexpr (Weighs) {
                dropped_[static_cast<std::size_t>(s)] =
                    unit * exec::sum_of(exec::to_float(dropped));
            }
        }
        exec::store(positions_.data() + filled, exec::all_shorts(no_key));
        count_ = filled;
    }
    /// One more, behind all.
    void add(std::int16_t key, std::int16_t position) noexcept {
        auto const at = static_cast<std::size_t>(count_++);
        keys_[at] = key;
        positions_[at] = position;
        exec::store(positions_.data() + count_, exec::all_shorts(no_key));
        ++kept_in_[static_cast<std::size_t>(key / segment)];
    }

    [[nodiscard]] index_t count() const noexcept { return count_; }
    [[nodiscard]] std::span<std::int16_t const> keys() const noexcept {
        return std::span(keys_).first(static_cast<std::size_t>(count_));
    }
    /// Readable to the end of the last one's register.
    [[nodiscard]] std::int16_t const* positions() const noexcept { return positions_.data(); }
    [[nodiscard]] index_t kept_in(index_t s) const noexcept {
        return kept_in_[static_cast<std::size_t>(s)];
    }
    [[nodiscard]] float dropped_weight(index_t s) const noexcept {
        return dropped_[static_cast<std::size_t>(s)];
    }

private:
    static constexpr auto room = static_cast<std::size_t>(most + 2 * exec::short_width);

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
    std::array<index_t, static_cast<std::size_t>(segments)> kept_in_{};
    std::array<float, static_cast<std::size_t>(segments)> dropped_{};
    alignas(64) std::array<std::int16_t, room> keys_{};
    alignas(64) std::array<std::int16_t, room> positions_{};
};

} // namespace sofattn::sads
