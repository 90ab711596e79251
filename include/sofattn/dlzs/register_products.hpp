// SPDX-License-Identifier: MIT
// A product of two matrices of bytes on vector registers, exact: what phase 1.1 sums.
#pragma once

#include <sofattn/core/tensor.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/core/view.hpp>
#include <sofattn/exec/int8_dot.hpp>
#include <sofattn/exec/int8_tile.hpp>
#include <sofattn/exec/tile_product.hpp>

#include <algorithm>
#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace sofattn::dlzs {

/// use(r, c, sum over s of row(r, s) * column(s, c)) for all r and c, several rows at a time.
/// Allocates a copy of the columns and of a few rows.
///
/// row(r, s), column(s, c): integers in [-127, 127]. pre: sums fit 32 bits
template <std::invocable<index_t, index_t> Row, std::invocable<index_t, index_t> Column,
          std::invocable<index_t, index_t, std::int32_t> Use>
void for_each_byte_product(index_t rows, index_t depth, index_t columns, Row row, Column column,
                           Use use) {
    index_t const steps = ceil_div(depth, exec::dot_depth);
    index_t const step_bytes = exec::tile_width * exec::dot_depth;
    index_t const tiles = ceil_div(columns, exec::tile_width);
    tensor<std::uint8_t, axis::channel> panels({tiles * steps * step_bytes});
    std::uint8_t* const bytes = panels.view().data();
    std::fill_n(bytes, tiles * steps * step_bytes, exec::panel_byte(0));
    for (index_t s = 0; s < depth; ++s) {
        for (index_t c = 0; c < columns; ++c) {
            index_t const lane = c % exec::tile_width;
            bytes[(c / exec::tile_width * steps + s / exec::dot_depth) * step_bytes +
                  lane * exec::dot_depth + s % exec::dot_depth] = exec::panel_byte(column(s, c));
        }
    }
    std::vector<std::int32_t> words(static_cast<std::size_t>(exec::tile_rows * steps), 0);
    std::array<std::int32_t, static_cast<std::size_t>(exec::tile_rows)> starts{};
    std::array<std::int32_t, static_cast<std::size_t>(exec::tile_rows * exec::tile_width)> sums;
    for (index_t first = 0; first < rows; first += exec::tile_rows) {
        index_t const some = std::min<index_t>(exec::tile_rows, rows - first);
        for (index_t r = 0; r < some; ++r) {
            auto* const to = reinterpret_cast<std::int8_t*>(words.data() + r * steps);
            std::int32_t total = 0;
            for (index_t s = 0; s < depth; ++s) {
                to[s] = row(first + r, s);
                total += to[s];
            }
            starts[static_cast<std::size_t>(r)] = exec::dot_start(total);
        }
        for (index_t t = 0; t < tiles; ++t) {
            exec::int8_tile(some, exec::int8_operands{words.data(), steps, starts.data(),
                                                      bytes + t * steps * step_bytes, sums.data(),
                                                      exec::tile_width, steps});
            index_t const from = t * exec::tile_width;
            index_t const end = std::min(columns, from + exec::tile_width);
            for (index_t r = 0; r < some; ++r) {
                for (index_t c = from; c < end; ++c) {
                    use(first + r, c,
                        sums[static_cast<std::size_t>(r * exec::tile_width + c - from)]);
                }
            }
        }
    }
}

} // namespace sofattn::dlzs
