// SPDX-License-Identifier: MIT
#include <sofattn/attention/pipeline.hpp>

#include <doctest/doctest.h>

using namespace sofattn;

namespace {

struct work {
    int value;
};
struct doubled {
    int value;
};
struct text {
    int value;
};
struct twice {
    doubled operator()(int& calls, work const& in) const {
        ++calls;
        return {2 * in.value};
    }
};
struct plus_one {
    text operator()(int& calls, doubled const& in) const {
        ++calls;
        return {in.value + 1};
    }
};

static_assert(stage_for<twice, int, work>);
static_assert(!stage_for<plus_one, int, work>);

} // namespace

TEST_CASE("attention.pipeline: stages run in order, each on the result of the one before") {
    int calls = 0;
    CHECK(pipeline(twice{}, plus_one{})(calls, work{20}).value == 41);
    CHECK(calls == 2);
}

TEST_CASE("attention.pipeline: a pipeline of empty stages is a constant expression") {
    constexpr pipeline stages(twice{});
    int calls = 0;
    CHECK(stages(calls, work{3}).value == 6);
}
