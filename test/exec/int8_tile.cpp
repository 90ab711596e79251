// SPDX-License-Identifier: MIT
#include "support/generators.hpp"
#include <sofattn/core/types.hpp>
#include <sofattn/exec/int8_dot.hpp>
#include <sofattn/exec/int8_tile.hpp>

#include <doctest/doctest.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

namespace {

using namespace sofattn;

constexpr std::int32_t untouched = -77777777;

/// Codes of one operand, the extremes more often than a uniform draw would.
std::vector<int> codes(test::generator& random, index_t count) {
    std::vector<int> c(static_cast<std::size_t>(count));
    for (int& code : c) {
        int const kind = random.integer(0, 5);
        code = kind == 0 ? 127 : kind == 1 ? -127 : kind == 2 ? 0 : random.integer(-127, 127);
    }
    return c;
}

struct tile_case {
    index_t rows;
    index_t steps;
    std::vector<int> row_codes;   // [row, step, dot_depth]
    std::vector<int> panel_codes; // [lane, step, dot_depth]

    tile_case(test::generator& random, index_t row_count, index_t step_count)
        : rows(row_count), steps(step_count),
          row_codes(codes(random, rows * steps * exec::dot_depth)),
          panel_codes(codes(random, exec::tile_width * steps * exec::dot_depth)) {}

    [[nodiscard]] int row_code(index_t row, index_t i) const {
        return row_codes[static_cast<std::size_t>(row * steps * exec::dot_depth + i)];
    }
    [[nodiscard]] int panel_code(index_t lane, index_t i) const {
        return panel_codes[static_cast<std::size_t>(lane * steps * exec::dot_depth + i)];
    }
};

/// The same sums from pages that lie in reverse order, each with a gap behind it; the last tile where
/// a page has several.
std::vector<std::int32_t> sums_of_pages(tile_case const& c, std::vector<std::int32_t> const& rows,
                                        index_t row_stride, std::vector<std::int32_t> const& starts,
                                        index_t sum_stride) {
    index_t const page_bytes = c.steps * exec::page_step_bytes;
    index_t const part = exec::page_tiles - 1;
    std::vector<std::uint8_t> bytes(static_cast<std::size_t>(exec::tile_pages * (page_bytes + 64)),
                                    std::uint8_t{77});
    std::array<std::uint8_t const*, static_cast<std::size_t>(exec::tile_pages)> pages;
    for (index_t p = 0; p < exec::tile_pages; ++p) {
        std::uint8_t* const page = bytes.data() + (exec::tile_pages - 1 - p) * (page_bytes + 64);
        pages[static_cast<std::size_t>(p)] = page;
        for (index_t key = 0; key < exec::page_keys; ++key) {
            index_t const lane = p * exec::page_keys + key - part * exec::tile_width;
            for (index_t i = 0; lane >= 0 && i < c.steps * exec::dot_depth; ++i) {
                page[i / exec::dot_depth * exec::page_step_bytes + key * exec::dot_depth +
                     i % exec::dot_depth] = exec::panel_byte(c.panel_code(lane, i));
            }
        }
    }
    std::vector<std::int32_t> sums(static_cast<std::size_t>(c.rows * sum_stride), untouched);
    exec::int8_tile(c.rows, {rows.data(), row_stride, starts.data(), exec::columns_of(pages, part),
                             sums.data(), sum_stride, c.steps});
    return sums;
}

void check(tile_case const& c, index_t row_stride, index_t sum_stride) {
    CAPTURE(c.rows);
    CAPTURE(c.steps);
    index_t const depth = c.steps * exec::dot_depth;
    std::vector<std::int32_t> rows(static_cast<std::size_t>(c.rows * row_stride + 1));
    std::vector<std::int32_t> starts(static_cast<std::size_t>(c.rows));
    std::vector<std::uint8_t> panel(static_cast<std::size_t>(exec::tile_width * depth));
    for (index_t r = 0; r < c.rows; ++r) {
        std::int32_t sum = 0;
        for (index_t i = 0; i < depth; ++i) {
            auto const code = static_cast<std::int8_t>(c.row_code(r, i));
            std::memcpy(reinterpret_cast<std::int8_t*>(rows.data() + r * row_stride) + i, &code, 1);
            sum += code;
        }
        starts[static_cast<std::size_t>(r)] = exec::dot_start(sum);
    }
    for (index_t lane = 0; lane < exec::tile_width; ++lane) {
        for (index_t i = 0; i < depth; ++i) {
            index_t const step = i / exec::dot_depth;
            index_t const at =
                (step * exec::tile_width + lane) * exec::dot_depth + i % exec::dot_depth;
            panel[static_cast<std::size_t>(at)] = exec::panel_byte(c.panel_code(lane, i));
        }
    }
    std::vector<std::int32_t> sums(static_cast<std::size_t>(c.rows * sum_stride), untouched);
    exec::int8_tile(c.rows, {rows.data(), row_stride, starts.data(), panel.data(), sums.data(),
                             sum_stride, c.steps});
    auto const apart = sums_of_pages(c, rows, row_stride, starts, sum_stride);
    bool same = true;
    for (index_t r = 0; r < c.rows; ++r) {
        for (index_t lane = 0; lane < sum_stride; ++lane) {
            std::int32_t wanted = lane < exec::tile_width ? 0 : untouched;
            for (index_t i = 0; lane < exec::tile_width && i < depth; ++i) {
                wanted += c.row_code(r, i) * c.panel_code(lane, i);
            }
            auto const at = static_cast<std::size_t>(r * sum_stride + lane);
            same = same && sums[at] == wanted && apart[at] == wanted;
        }
    }
    CHECK(same);
}

} // namespace

TEST_CASE("exec.int8_tile: sums are those of whole numbers, for every count of rows and steps") {
    SOFATTN_GENERATOR(random);
    for (index_t rows = 1; rows <= exec::tile_rows; ++rows) {
        for (index_t const steps : {0, 1, 2, 3, 16, 31, 32, 64}) {
            check(tile_case(random, rows, steps), steps + random.integer(0, 3),
                  exec::tile_width + random.integer(0, 20));
        }
    }
}

TEST_CASE("exec.int8_tile: the largest sums of the longest heads do not overflow") {
    SOFATTN_GENERATOR(random);
    index_t const steps = max_head_dim / exec::dot_depth;
    for (int const sign : {-1, 1}) {
        tile_case c(random, exec::tile_rows, steps);
        for (int& code : c.row_codes) {
            code = 127;
        }
        for (int& code : c.panel_codes) {
            code = sign * 127;
        }
        check(c, steps, exec::tile_width);
    }
}

TEST_CASE("exec.int8_tile: no rows, nothing written") {
    std::int32_t sum = untouched;
    exec::int8_tile(0, {nullptr, 0, nullptr, nullptr, &sum, 0, 5});
    CHECK(sum == untouched);
}

TEST_CASE("exec.int8_dot: four products a lane, exact at the ends of the codes' range") {
    SOFATTN_GENERATOR(random);
    for (int round = 0; round < 2000; ++round) {
        auto const row = codes(random, exec::dot_depth);
        auto const lanes = codes(random, exec::vector_bytes);
        std::array<std::int8_t, static_cast<std::size_t>(exec::dot_depth)> bytes{};
        std::int32_t row_sum = 0;
        for (std::size_t i = 0; i < bytes.size(); ++i) {
            bytes[i] = static_cast<std::int8_t>(row[i]);
            row_sum += row[i];
        }
        std::int32_t four = 0;
        std::memcpy(&four, bytes.data(), sizeof four);
        std::vector<std::uint8_t> panel;
        for (int const code : lanes) {
            panel.push_back(exec::panel_byte(code));
        }
        std::int32_t const before = random.integer(-(1 << 29), 1 << 29);
        exec::vector_int32 const start(before + exec::dot_start(row_sum));
        std::vector<std::int32_t> sums(static_cast<std::size_t>(exec::vector_width));
        exec::dot(start, panel.data(), four).store_unaligned(sums.data());
        std::vector<std::int32_t> plain(sums.size());
        exec::detail::dot_plain(start, panel.data(), four).store_unaligned(plain.data());
        CHECK(sums == plain);
        for (std::size_t lane = 0; lane < sums.size(); ++lane) {
            std::int32_t wanted = before;
            for (std::size_t i = 0; i < row.size(); ++i) {
                wanted += row[i] * lanes[lane * row.size() + i];
            }
            REQUIRE(sums[lane] == wanted);
        }
    }
}
