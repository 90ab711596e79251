// SPDX-License-Identifier: MIT
#include "support/generators.hpp"
#include <sofattn/exec/int8_softmax.hpp>
#include <sofattn/sufa/int8_rows.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>

using namespace sofattn;

TEST_CASE(
    "sufa.int8_rows: steps below the largest leave room for every magnitude, and little more") {
    SOFATTN_GENERATOR(random);
    for (int i = 0; i < 20000; ++i) {
        auto const largest = static_cast<float>(std::exp2(20.0 * random.normal()));
        auto const most = static_cast<float>(static_cast<double>(largest) *
                                             std::exp2(-8.0 * std::abs(random.uniform())));
        std::int32_t const steps = sufa::detail::steps_below(most, largest);
        double const right = 64.0 * std::log2(static_cast<double>(largest / most));
        bool const room = steps <= right + 1e-3; // else codes would reach 128
        bool const near = steps >= std::min(right - 1.5, double{exec::most_value_steps});
        if (!(room && near && steps >= 0 && steps <= exec::most_value_steps)) {
            CAPTURE(most / largest);
            CHECK(steps == right);
        }
    }
    CHECK(sufa::detail::steps_below(0.0f, 1.0f) == exec::most_value_steps);
    CHECK(sufa::detail::steps_below(0.0f, 0.0f) == 0);
    CHECK(sufa::detail::steps_below(3.0f, 3.0f) == 0);
}

TEST_CASE("sufa.int8_rows: powers of steps") {
    for (std::int32_t steps = 0; steps <= exec::most_value_steps; ++steps) {
        CHECK(sufa::detail::power_of_steps(steps) ==
              doctest::Approx(std::exp2(steps / 64.0)).epsilon(1e-6));
    }
}
