// SPDX-License-Identifier: MIT
// A team's rows in one tile of keys: values that several rows keep are loaded once.
#pragma once

#include <sofattn/attention/prefill_pages.hpp>
#include <sofattn/attention/prefill_tile.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/exec/short_lanes.hpp>
#include <sofattn/sads/kept_tile.hpp>
#include <sofattn/sufa/weighted_rows.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace sofattn {

/// Reuse of loads, RASS (section IV-D), between rows that attend at the same time: of the keys that six
/// neighbouring queries keep, nine in ten are kept by two or more, and all of them together are 1.4 to
/// 2.1 times as many as one query's. So all take part in each, those that do not keep it with a weight
/// of 0, unless their keys have too little in common.
class prefill_team_tile {
    using kept = sads::kept_tile;

public:
    [[nodiscard]] prefill_tile& row(index_t r) noexcept {
        return rows_[static_cast<std::size_t>(r)];
    }

    /// output [row, width] += weights of `rows` rows times values, and of their segments times sums
    /// [segment, width].
    void add_values(index_t rows, sads::looked_pages const& pages, float* output, index_t width,
                    prefill_tile_rows values, float const* sums) noexcept {
        index_t const registers = ceil_div(pages.count() * kept::page, exec::short_width);
        index_t const count = list_union(rows, registers, pages);
        index_t chosen = 0;
        for (index_t r = 0; r < rows; ++r) {
            chosen += row(r).chosen();
        }
        bool const shares = chosen >= least_shared * count;
        if (shares) {
            for (index_t r = 0; r < rows; ++r) {
                row(r).spread_weights(registers, weights_.data() + r * places);
            }
            sufa::shared_sums const to{rows, output, weights_.data(), places};
            sufa::add_shared_rows(to, width, values.data, values.row,
                                  std::span(which_).first(static_cast<std::size_t>(count)),
                                  places_.data());
        }
        for (index_t r = 0; r < rows; ++r) {
            row(r).add_values(shares ? row(r).chosen() : 0, output + r * width, width, values);
        }
        add_segments(rows, output, width, sums);
    }

private:
    /// Rows that must keep a key, on average, for sharing to pay.
    static constexpr index_t least_shared = 3;
    static constexpr index_t places = kept::most + 2 * exec::short_width;

    /// Places that some row keeps, and their keys.
    index_t list_union(index_t rows, index_t registers, sads::looked_pages const& pages) noexcept {
        exec::vector_int16 number = exec::short_numbers();
        exec::vector_int16 const step = exec::all_shorts(static_cast<int>(exec::short_width));
        index_t count = 0;
        for (index_t v = 0; v < registers; ++v) {
            exec::lane_mask mask = 0;
            for (index_t r = 0; r < rows; ++r) {
                mask |= row(r).mask(v);
            }
            exec::compress(mask, number, places_.data() + count);
            count += exec::compress(mask, exec::load(pages.keys() + v * exec::short_width),
                                    which_.data() + count);
            number = number + step;
        }
        return count;
    }

    void add_segments(index_t rows, float* output, index_t width, float const* sums) noexcept {
        std::array<std::int16_t, static_cast<std::size_t>(kept::segments)> which;
        std::size_t count = 0;
        for (std::int16_t s = 0; s < kept::segments; ++s) {
            bool has_weight = false;
            for (index_t r = 0; r < rows; ++r) {
                float const weight = row(r).segment_weights()[static_cast<std::size_t>(s)];
                segment_weights_[static_cast<std::size_t>(r * kept::segments + s)] = weight;
                has_weight = has_weight || weight > 0.0f;
            }
            if (has_weight) {
                which[count++] = s;
            }
        }
        sufa::shared_sums const to{rows, output, segment_weights_.data(), kept::segments};
        sufa::add_shared_rows(to, width, sums, width, std::span(which).first(count), which.data());
    }

    static constexpr auto team = static_cast<std::size_t>(team_rows);

    std::array<prefill_tile, team> rows_;
    std::array<float, team* static_cast<std::size_t>(kept::segments)> segment_weights_;
    alignas(64) std::array<float, team* static_cast<std::size_t>(places)> weights_;
    alignas(64) std::array<std::int16_t, static_cast<std::size_t>(places)> places_;
    alignas(64) std::array<std::int16_t, static_cast<std::size_t>(places)> which_;
};

} // namespace sofattn
