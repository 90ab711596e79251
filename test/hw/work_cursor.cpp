// SPDX-License-Identifier: MIT
#include <sofattn/hw/work_cursor.hpp>

#include <doctest/doctest.h>
#include <hw/pipeline_oracle.hpp>
#include <support/generators.hpp>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

using namespace sofattn;
using test::generator;

TEST_CASE("hw.work_cursor: walks through the items of nested repetitions, and jumps in them") {
    SOFATTN_GENERATOR(random);
    hw::pipeline_graph const graph{.engines = {{.name = "only"}}};
    int jumps = 0;
    for (int n = 0; n < 300; ++n) {
        CAPTURE(n);
        std::vector<hw::work> pieces;
        std::vector<hw::work_item> items;
        for (int p = random.integer(0, 4); p > 0; --p) {
            pieces.push_back(test::random_stream(random, graph, 3, 3));
            pieces.back().times = random.integer<std::uint64_t>(0, 2);
            test::expand(pieces.back(), items);
        }
        std::size_t next = 0;
        hw::detail::work_stream stream(graph, [&]() -> std::optional<hw::work> {
            return next < pieces.size() ? std::optional(pieces[next++]) : std::nullopt;
        });
        hw::detail::work_cursor cursor(stream);
        while (cursor.item() != nullptr) {
            REQUIRE(cursor.index() < items.size());
            REQUIRE(*cursor.item() == items[cursor.index()]);
            for (auto const& level : cursor.levels()) {
                auto const& node = cursor.node(level);
                REQUIRE(cursor.index() >= level.start + level.repetition * node.length);
                REQUIRE(cursor.index() < level.start + (level.repetition + 1) * node.length);
            }
            auto const depth = random.integer<std::size_t>(0, cursor.levels().size() - 1);
            auto const& level = cursor.levels()[depth];
            std::uint64_t const left = cursor.node(level).times - 1 - level.repetition;
            if (left > 0 && random.chance(0.2)) {
                cursor.skip(depth, random.integer<std::uint64_t>(1, left));
                ++jumps;
            } else {
                cursor.advance(stream);
                stream.forget_before(cursor.program());
            }
            CHECK(stream.programs_held() <= 1);
        }
        CHECK(cursor.index() == items.size());
        CHECK(cursor.levels().empty());
    }
    CHECK(jumps > 300);
}
