// SPDX-License-Identifier: MIT
// Rows as 8-bit codes are made of them: as floats, by fours, and with steps in parts of octaves.
#pragma once

#include <sofattn/core/element.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/core/view.hpp>
#include <sofattn/exec/int8_codes.hpp>
#include <sofattn/exec/int8_dot.hpp>
#include <sofattn/exec/int8_softmax.hpp>
#include <sofattn/exec/xsimd_lanes.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

namespace sofattn::sufa::detail {

using row_buffer = std::array<float, max_head_dim>;

/// Floats of row k, zeros up to whole registers.
template <class Column, class Rows>
inline float const* floats_of(Rows const& rows, index_t k, row_buffer& into) noexcept {
    index_t const columns = rows.template extent<Column>();
    for (index_t d = 0; d < columns; ++d) {
        into[static_cast<std::size_t>(d)] = to_float(rows(k, d));
    }
    std::fill(into.begin() + columns, into.begin() + exec::whole_vectors(columns), 0.0f);
    return into.data();
}
/// Rows can be read as they lie, by whole registers.
template <class Column, class Rows>
[[nodiscard]] inline bool readable(Rows const& rows) noexcept {
    return rows.template stride<Column>() == 1 &&
           rows.template extent<Column>() % exec::vector_width == 0;
}

/// 2^(steps / 64). pre: steps <= most_value_steps
[[nodiscard]] inline float power_of_steps(std::int32_t steps) noexcept {
    constexpr std::int32_t octave = 1 << exec::weight_step_bits;
    static constexpr auto table = [] {
        std::array<float, static_cast<std::size_t>(octave)> powers{};
        double power = 1;
        for (float& p : powers) {
            p = static_cast<float>(power);
            power *= 1.0108892860517005; // 2^(1/64)
        }
        return powers;
    }();
    return table[static_cast<std::size_t>(steps % octave)] *
           static_cast<float>(1 << (steps / octave));
}

/// Steps from `largest` down to `most`, rounded down, or one less.
[[nodiscard]] inline std::int32_t steps_below(float most, float largest) noexcept {
    if (!(most * 64.0f > largest)) {
        return largest > 0x1p-100f ? exec::most_value_steps : 0;
    }
    auto const bits = std::bit_cast<std::int32_t>(most / largest);
    float const m = static_cast<float>(bits & 0x7fffff) * 0x1p-23f;
    // log2(1 + m) from above, by up to 0.005.
    float const log = m + m * (1.0f - m) * (0.4427f - 0.164f * m);
    float const octaves = static_cast<float>(127 - (bits >> 23)) - log;
    return std::clamp(
        static_cast<std::int32_t>(octaves * static_cast<float>(1 << exec::weight_step_bits)), 0,
        exec::most_value_steps);
}

/// f(key, rows) for every four keys; rows that are not there are zeros.
template <storage_float V, class F>
inline void for_each_four(value_view<V const> tile, F f) noexcept {
    index_t const count = tile.template extent<axis::key>();
    static constexpr row_buffer nothing{};
    std::array<row_buffer, 4> buffers;
    for (index_t k = 0; k < count; k += exec::dot_depth) {
        if (k + exec::dot_depth <= count && readable<axis::value_dim>(tile)) {
            f(k,
              exec::four_rows<V>{&tile(k, 0), &tile(k + 1, 0), &tile(k + 2, 0), &tile(k + 3, 0)});
            continue;
        }
        exec::four_rows<float> rows{};
        for (std::size_t i = 0; i < rows.size(); ++i) {
            index_t const at = k + static_cast<index_t>(i);
            rows[i] =
                at < count ? floats_of<axis::value_dim>(tile, at, buffers[i]) : nothing.data();
        }
        f(k, rows);
    }
}

} // namespace sofattn::sufa::detail
