// SPDX-License-Identifier: MIT
#include <sofattn/hw/steady_state.hpp>

#include <doctest/doctest.h>
#include <support/generators.hpp>

#include <algorithm>
#include <cstdint>
#include <optional>

using namespace sofattn;
using test::generator;

namespace {

/// A run of equal items, whose state is that of a counter that becomes periodic after a while.
std::uint64_t repetitions_until_jump(std::uint64_t lead, std::uint64_t period,
                                     std::uint64_t times) {
    hw::pipeline_graph const graph{.engines = {{.name = "only"}}};
    hw::detail::work_stream stream(graph, hw::source_of(hw::work::of({.busy_cycles = {1}}, times)));
    hw::detail::work_cursor cursor(stream);
    hw::detail::steady_state steady;
    while (cursor.item() != nullptr) {
        std::uint64_t const n = cursor.index();
        std::uint64_t const state = n < lead ? n : lead + (n - lead) % period;
        if (steady.at_boundary(cursor)) {
            hw::detail::pipeline_snapshot const now{3 * n, {state}, {5 * n}};
            if (auto const jump = steady.find(cursor, n, now)) {
                // Whole periods, as many as leave a last item, and the difference that goes along.
                std::uint64_t const length = jump->repetitions / jump->periods;
                CHECK(jump->repetitions % jump->periods == 0);
                CHECK(length % period == 0);
                CHECK(jump->items == jump->repetitions);
                CHECK(n + jump->repetitions < times);
                CHECK(n + jump->repetitions + length >= times);
                CHECK(now.cycle - jump->since->cycle == 3 * length);
                CHECK(now.counters[0] - jump->since->counters[0] == 5 * length);
                return n;
            }
        }
        cursor.advance(stream);
    }
    return times;
}

} // namespace

TEST_CASE("hw.steady_state: finds any period, soon after it began") {
    SOFATTN_GENERATOR(random);
    for (int n = 0; n < 300; ++n) {
        auto const lead = random.integer<std::uint64_t>(0, 40);
        auto const period = random.integer<std::uint64_t>(1, 40);
        CAPTURE(lead);
        CAPTURE(period);
        // Brent: a snapshot no later than at twice the larger, found a period after it.
        CHECK(repetitions_until_jump(lead, period, 1000) <=
              2 * std::max(lead, period) + period + 2);
    }
    CHECK(repetitions_until_jump(100, 7, 90) == 90); // not periodic yet
    CHECK(repetitions_until_jump(0, 60, 90) == 90);  // not long enough to see a period twice
}
