// SPDX-License-Identifier: MIT
#include "support/generators.hpp"
#include <sofattn/dlzs/register_products.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

using namespace sofattn;

TEST_CASE("dlzs.register_products: every sum once, for every shape") {
    SOFATTN_GENERATOR(random);
    for (int round = 0; round < 60; ++round) {
        auto const rows = random.integer<index_t>(0, 15);
        auto const depth = random.integer<index_t>(0, 70);
        auto const columns = random.integer<index_t>(1, 140);
        auto const a =
            test::random_codes<std::int8_t, axis::key, axis::channel>(random, {rows, depth}, 127);
        auto const b = test::random_codes<std::int8_t, axis::channel, axis::dim>(
            random, {depth, columns}, 127);
        std::vector<int> calls(static_cast<std::size_t>(rows * columns));
        index_t wrong = 0;
        dlzs::for_each_byte_product(
            rows, depth, columns, [&](index_t r, index_t s) { return a(r, s); },
            [&](index_t s, index_t c) { return b(s, c); },
            [&](index_t r, index_t c, std::int32_t sum) {
                std::int32_t right = 0;
                for (index_t s = 0; s < depth; ++s) {
                    right += a(r, s) * b(s, c);
                }
                wrong += sum != right ? 1 : 0;
                ++calls[static_cast<std::size_t>(r * columns + c)];
            });
        CHECK(wrong == 0);
        CHECK(std::ranges::all_of(calls, [](int n) { return n == 1; }));
    }
}
