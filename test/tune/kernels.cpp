// SPDX-License-Identifier: MIT
// The kernels that are timed: whatever a search may ask for runs, and says what it stands for.
#include "tune/kernels.hpp"

#include "support/generators.hpp"
#include <sofattn/core/types.hpp>

#include <doctest/doctest.h>

#include <cstddef>
#include <string>
#include <vector>

using namespace sofattn;
using namespace sofattn::test;
using namespace sofattn::tune;

TEST_CASE("tune.kernels: the default sizes are the library's") {
    for (index_t const threads : {1, 2, 16, 4096}) {
        for (kernel const& k : kernels(16, threads)) {
            CAPTURE(k.of.name);
            REQUIRE(k.of.space.contains(k.of.defaults));
            sizes found;
            found.f32.keys = found.bf16.keys = found.int8.keys = 96;
            found.decode.keys_least = 256;
            sizes const before = found;
            k.set(k.of.defaults, found);
            CHECK_FALSE(found == before);
            sizes const usual;
            CHECK((found.f32 == usual.f32 || found.bf16 == usual.bf16 || found.int8 == usual.int8 ||
                   found.decode == usual.decode));
        }
    }
}

TEST_CASE("tune.kernels: every corner and some points of each space are valid sizes, and run") {
    SOFATTN_GENERATOR(random);
    for (kernel const& k : kernels(8, 2)) {
        CAPTURE(k.of.name);
        std::vector<dse::point> points{k.of.defaults, dse::point(k.of.space.size(), 0)};
        dse::point last;
        dse::point any;
        for (std::size_t d = 0; d < k.of.space.size(); ++d) {
            last.push_back(k.of.space[d].levels() - 1);
            any.push_back(random.integer<index_t>(0, last.back()));
        }
        points.push_back(last);
        points.push_back(any);
        for (dse::point const& p : points) {
            sizes found;
            k.set(p, found);
            CHECK(found.f32.is_valid());
            CHECK(found.bf16.is_valid());
            CHECK(found.int8.is_valid());
            CHECK(found.decode.is_valid());
            k.of.run(p); // the library checks sizes and workspace
        }
    }
}

TEST_CASE("tune.kernels: parts of decode leave work for all threads") {
    auto const longest = [](index_t threads) {
        kernel const decode = kernels(8, threads).back();
        sizes found;
        decode.set({decode.of.space[0].levels() - 1}, found);
        return found.decode.keys_least;
    };
    CHECK(longest(1) == 16384);
    CHECK(longest(2) == 16384);
    CHECK(longest(4) == 8192);
    CHECK(longest(16) == 2048);
    CHECK(longest(1000) == 1024);
}
