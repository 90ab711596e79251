// SPDX-License-Identifier: MIT
#include "support/own_threads.hpp"
#include <sofattn/core/types.hpp>
#include <sofattn/exec/loop_ref.hpp>
#include <sofattn/exec/parallel.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <vector>

namespace sofattn::exec {
namespace {

static_assert(parallel_for<loop_ref>);

/// Every task once, by a thread that the loop has.
template <class Loop>
void check_tasks(Loop const& loop) {
    loop_ref const ref(loop);
    CHECK(ref.threads() == loop.threads());
    for (index_t const count : {0, 1, 2, 37}) {
        std::vector<std::atomic<int>> done(static_cast<std::size_t>(count));
        std::atomic<bool> is_a_thread = true;
        auto const task = [&](index_t i, index_t thread) {
            ++done[static_cast<std::size_t>(i)];
            is_a_thread = is_a_thread && thread >= 0 && thread < loop.threads();
        };
        ref(count, task); // one that is const
        ref(count, [&task](index_t i, index_t thread) { task(i, thread); });
        CHECK(std::ranges::all_of(done, [](auto const& n) { return n == 2; }));
        CHECK(is_a_thread);
    }
}

TEST_CASE("exec.loop_ref: a loop without its type runs every task once") {
    check_tasks(serial{});
    check_tasks(openmp(2));
    check_tasks(test::own_threads{});
}

TEST_CASE("exec.loop_ref: one of a loop_ref is the same loop") {
    serial const loop;
    loop_ref const ref(loop);
    loop_ref const copy = ref;
    index_t sum = 0;
    copy(5, [&, calls = 0](index_t i, index_t) mutable { sum += i + 10 * calls++; });
    CHECK(sum == 10 + 100); // the task's own state lives as long as the loop
}

} // namespace
} // namespace sofattn::exec
