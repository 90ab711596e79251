// SPDX-License-Identifier: MIT
#include "support/generators.hpp"
#include <sofattn/exec/int16_tile.hpp>

#include <doctest/doctest.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

using namespace sofattn;

TEST_CASE("exec.int16_tile: sums of products, for every number of rows and steps") {
    SOFATTN_GENERATOR(random);
    constexpr std::int32_t untouched = 77;
    for (index_t rows = 1; rows <= exec::tile_rows; ++rows) {
        for (index_t const steps : {0, 1, 2, 7, 128}) {
            // Not -2^15; factors of 128 and 32767 over 256 are the largest that fit.
            int const most = steps > 7 ? 128 : 2000;
            auto const row_stride = steps + random.integer<index_t>(0, 3);
            auto const sum_stride = exec::tile_width + random.integer<index_t>(0, 3);
            std::vector<std::int16_t> row(static_cast<std::size_t>(rows * row_stride * 2 + 2));
            std::vector<std::int16_t> panel(static_cast<std::size_t>(steps * exec::tile_width * 2));
            for (auto& x : row) {
                x = random.integer<std::int16_t>(-32767, 32767);
            }
            for (auto& x : panel) {
                x = static_cast<std::int16_t>(random.chance(0.2) ? most
                                                                 : random.integer(-most, most));
            }
            std::vector<std::int32_t> words(row.size() / 2);
            std::memcpy(words.data(), row.data(), words.size() * sizeof(std::int32_t));
            std::vector<std::int32_t> sums(static_cast<std::size_t>(rows * sum_stride), untouched);
            exec::int16_tile(
                rows, {words.data(), row_stride, panel.data(), sums.data(), sum_stride, steps});
            index_t wrong = 0;
            for (index_t r = 0; r < rows; ++r) {
                for (index_t k = 0; k < sum_stride; ++k) {
                    std::int64_t sum = k < exec::tile_width ? 0 : untouched;
                    for (index_t i = 0; i < 2 * steps && k < exec::tile_width; ++i) {
                        sum += std::int64_t{row[static_cast<std::size_t>(2 * r * row_stride + i)]} *
                               panel[static_cast<std::size_t>((i / 2 * exec::tile_width + k) * 2 +
                                                              i % 2)];
                    }
                    wrong += sums[static_cast<std::size_t>(r * sum_stride + k)] != sum ? 1 : 0;
                }
            }
            CHECK(wrong == 0);
        }
    }
}
