// SPDX-License-Identifier: MIT
#include "support/own_threads.hpp"
#include <sofattn/exec/parallel.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <concepts>
#include <cstddef>
#include <thread>
#include <vector>

using namespace sofattn;

namespace {

/// What tasks saw of who ran them. Threads only touch atomics; doctest is asked afterwards.
struct witness {
    witness(index_t count, index_t threads)
        : runs(static_cast<std::size_t>(count)), at_work(static_cast<std::size_t>(threads)) {}

    void operator()(index_t i, index_t thread) {
        if (i < 0 || i >= std::ssize(runs) || thread < 0 || thread >= std::ssize(at_work)) {
            ++outside;
            return;
        }
        ++runs[static_cast<std::size_t>(i)];
        auto& mine = at_work[static_cast<std::size_t>(thread)];
        if (mine.fetch_add(1) != 0) {
            ++clashes;
        }
        if (i % 8 == 0) {
            std::this_thread::yield(); // others get their chance to clash
        }
        if (mine.fetch_sub(1) != 1) {
            ++clashes;
        }
    }

    [[nodiscard]] bool once_each() const {
        bool once = outside == 0;
        for (auto const& n : runs) {
            once = once && n == 1;
        }
        return once;
    }

    std::vector<std::atomic<int>> runs;    // [index]
    std::vector<std::atomic<int>> at_work; // [thread], tasks
    std::atomic<int> outside{0};
    std::atomic<int> clashes{0};
};

template <exec::parallel_for Run>
void check(Run const& run, index_t count) {
    CAPTURE(count);
    CHECK(run.threads() >= 1);
    witness seen(count, run.threads());
    run(count, [&](index_t i, index_t thread) { seen(i, thread); });
    CHECK(seen.once_each());
    CHECK(seen.clashes == 0);
}

struct threads_only {
    [[nodiscard]] static index_t threads() { return 1; }
};
struct not_const {
    [[nodiscard]] static index_t threads() { return 1; }
    template <class Task>
    void operator()(index_t, Task&&);
};
struct of_one_argument {
    [[nodiscard]] static index_t threads() { return 1; }
    template <std::invocable<index_t> Task>
    void operator()(index_t, Task&&) const;
};

} // namespace

TEST_CASE("exec.parallel: every index runs once, on a thread that no other task has meanwhile") {
    for (index_t const count : {0, 1, 2, 3, 7, 64, 1000}) {
        check(exec::serial{}, count);
        check(exec::openmp{}, count);
        for (index_t const threads : {1, 2, 3, 8}) { // more than there are cores, perhaps
            check(exec::openmp(threads), count);
        }
        check(test::own_threads{}, count);
    }
}

TEST_CASE("exec.parallel: serial, and openmp with one thread, go in order on the calling thread") {
    std::vector<index_t> order;
    auto const here = std::this_thread::get_id();
    bool elsewhere = false;
    auto const note = [&](index_t i, index_t thread) {
        order.push_back(i);
        elsewhere = elsewhere || thread != 0 || std::this_thread::get_id() != here;
    };
    exec::serial{}(4, note);
    exec::openmp(1)(3, note);
    CHECK(order == std::vector<index_t>{0, 1, 2, 3, 0, 1, 2});
    CHECK_FALSE(elsewhere);
}

TEST_CASE("exec.parallel: openmp has the threads that were asked for, or what OpenMP would take") {
    CHECK(exec::openmp(5).threads() == 5);
    CHECK(exec::openmp(0).threads() == exec::openmp().threads());
    CHECK(exec::openmp(-1).threads() == exec::openmp().threads());
    CHECK(exec::serial::threads() == 1);
#ifndef _OPENMP
    CHECK(exec::openmp().threads() == 1);
#endif
}

#ifdef _OPENMP
TEST_CASE("exec.parallel: openmp brings other threads where the compiler has it" *
          doctest::skip(omp_get_thread_limit() < 2 || omp_get_dynamic() != 0)) {
    // Each task waits for the other: one thread alone would wait in vain, until it gives up.
    std::atomic<int> arrived{0};
    std::atomic<int> met{0};
    exec::openmp(2)(2, [&](index_t, index_t) {
        ++arrived;
        for (int patience = 0; arrived < 2 && patience < 1'000'000; ++patience) {
            std::this_thread::yield();
        }
        met += arrived == 2 ? 1 : 0;
    });
    CHECK(met == 2);
}
#endif

TEST_CASE("exec.parallel: a task is called where it lies, never copied") {
    struct counter {
        index_t* sum;
        counter(counter const&) = delete;
        explicit counter(index_t& into) : sum(&into) {}
        void operator()(index_t i, index_t) const { *sum += i; }
    };
    index_t sum = 0;
    counter const kept(sum);
    exec::serial{}(5, kept);
    exec::serial{}(5, counter(sum));
    exec::openmp(1)(5, kept);
    exec::openmp(1)(5, counter(sum));
    CHECK(sum == 40);
}

TEST_CASE("exec.parallel: the concept asks for threads and a call on a constant") {
    static_assert(exec::parallel_for<exec::serial> && exec::parallel_for<exec::openmp>);
    static_assert(exec::parallel_for<test::own_threads>);
    static_assert(!exec::parallel_for<threads_only> && !exec::parallel_for<not_const>);
    static_assert(!exec::parallel_for<of_one_argument> && !exec::parallel_for<int>);
    CHECK(test::own_threads::threads() == 3);
}
