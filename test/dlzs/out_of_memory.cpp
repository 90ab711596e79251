// SPDX-License-Identifier: MIT
// Indexes whose memory ends: each key has its codes in all levels, or in none.
#include "support/allocations.hpp"
#include "support/generators.hpp"
#include <sofattn/core/half.hpp>
#include <sofattn/core/tensor.hpp>
#include <sofattn/dlzs/packed_index.hpp>
#include <sofattn/dlzs/page_ranges.hpp>
#include <sofattn/dlzs/policy.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <vector>

using namespace sofattn;
using namespace sofattn::test;

namespace {

template <class Index>
bool same_codes(Index const& a, Index const& b) {
    return a.size() == b.size() && a.pages().size() == b.pages().size() &&
           std::ranges::equal(a.keys().bytes(), b.keys().bytes()) &&
           std::ranges::equal(a.pages().bytes(), b.pages().bytes()) &&
           a.keys().clipped() == b.keys().clipped();
}

} // namespace

TEST_CASE_TEMPLATE("dlzs.paged_index: a key that there is no memory for changes nothing", P,
                   dlzs::int8, dlzs::centred_int4, dlzs::lz_keys) {
    SOFATTN_GENERATOR(random);
    for (bool const then_all : {false, true}) {
        index_t const dim = random.integer<index_t>(1, 70);
        auto const k = random_matrix<half, axis::key, axis::dim>(random, {400, dim});
        dlzs::page_options const options{.keys = 16 * random.integer<index_t>(1, 3)};
        auto const calibration =
            dlzs::key_calibration<P>::of(k.cview().template range<axis::key>(0, 100));
        dlzs::paged_index<P> index(calibration, options);
        dlzs::paged_index<P> untroubled(calibration, options);
        long refusals = 0;
        while (index.size() < 400) {
            index_t const from = index.size();
            int const what = random.integer(0, 19);
            index_t const count = std::min<index_t>(400 - from, random.integer<index_t>(1, 40));
            auto const append = [&](dlzs::paged_index<P>& to) {
                if (what < 12) {
                    to.append(k.cview().template slice<axis::key>(from));
                } else if (what < 16) {
                    to.append_coded([&](index_t d) { return untroubled.keys().code(from, d); });
                } else {
                    to.append(k.cview().template range<axis::key>(from, count));
                }
            };
            auto const before = index;
            if (what >= 12 && what < 16) { // codes are there before they are copied
                untroubled.append(k.cview().template slice<axis::key>(from));
            }
            bool const done = with_scarce_memory(
                then_all, [&] { return has_memory_for([&] { append(index); }); },
                [&](bool despite) {
                    CHECK_FALSE(despite);
                    CHECK(same_codes(index, before));
                    ++refusals;
                });
            CHECK(done);
            if (what < 12 || what >= 16) {
                append(untroubled);
            }
            CHECK(index.size() == untroubled.size());
            CHECK(std::ranges::equal(index.keys().bytes(), untroubled.keys().bytes()));
            CHECK(std::ranges::equal(index.pages().bytes(), untroubled.pages().bytes()));
        }
        CHECK(refusals >= 10);
    }
}
