// SPDX-License-Identifier: MIT
#include "support/generators.hpp"
#include <sofattn/core/query_mask.hpp>

#include <doctest/doctest.h>

#include <bitset>
#include <cstddef>

using namespace sofattn;

namespace {

using bits = std::bitset<static_cast<std::size_t>(query_block)>;

bool same(query_mask const& mask, bits const& expected) {
    for (index_t q = 0; q < query_block; ++q) {
        if (mask.test(q) != expected.test(static_cast<std::size_t>(q))) {
            return false;
        }
    }
    return mask.count() == static_cast<index_t>(expected.count()) &&
           mask.empty() == expected.none();
}

} // namespace

TEST_CASE("core.query_mask: behaves as a set of 128 queries") {
    SOFATTN_GENERATOR(random);
    query_mask a;
    query_mask b;
    bits slow_a;
    bits slow_b;
    CHECK(a.empty());
    for (int step = 0; step < 2000; ++step) {
        auto const q = random.integer<index_t>(0, query_block - 1);
        auto const at = static_cast<std::size_t>(q);
        switch (random.integer(0, 3)) {
        case 0: a.set(q), slow_a.set(at); break;
        case 1: a.clear(q), slow_a.reset(at); break;
        case 2: b.set(q), slow_b.set(at); break;
        default: b.clear(q), slow_b.reset(at); break;
        }
        bool const agree = same(a, slow_a) && same(b, slow_b) && same(a & b, slow_a & slow_b) &&
                           same(a | b, slow_a | slow_b) && (a == b) == (slow_a == slow_b);
        if (!agree) {
            FAIL_CHECK("after step ", step);
        }
    }
    query_mask both = a;
    both |= b;
    CHECK(both == (a | b));
}

TEST_CASE("core.query_mask: from_bits puts query 0 lowest, query 64 lowest of the second word") {
    static_assert(query_block == 128);
    static_assert(query_mask::from_bits(1).test(0));
    static_assert(query_mask::from_bits(0, 1).test(64));
    static_assert(query_mask::from_bits(0, std::uint64_t{1} << 63).test(127));
    static_assert(query_mask::from_bits(0b1011).count() == 3);
    static_assert(query_mask::from_bits(0).empty());
    query_mask mask;
    mask.set(63);
    mask.set(64);
    mask.set(64);
    CHECK(mask == query_mask::from_bits(std::uint64_t{1} << 63, 1));
    mask.clear(63);
    mask.clear(63);
    CHECK(mask == query_mask::from_bits(0, 1));
}
