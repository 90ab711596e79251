// SPDX-License-Identifier: MIT
// What a program has asked of the heap, and what it is refused, where one of its files includes
// support/allocations.hpp.
#pragma once

#include <atomic>
#include <cstddef>
#include <new>

namespace sofattn::test {

/// Since the program started, by any thread.
struct allocation_counts {
    std::atomic<long> requests{0};
    std::atomic<std::size_t> largest{0}; ///< bytes; set it to 0 to begin anew
};
inline allocation_counts allocations;

/// Requests of a thread that are granted before one is refused; -1: all are.
struct allocation_limit {
    long granted = -1;
    bool then_all = false; ///< of those after the refused one
    bool was_met = false;
};
inline thread_local allocation_limit limit_of_allocations;

/// Of the next request. Called by what replaces operator new.
[[nodiscard]] inline bool is_allocation_refused() noexcept {
    allocation_limit& limit = limit_of_allocations;
    if (limit.granted != 0) {
        limit.granted -= limit.granted > 0 ? 1 : 0;
        return false;
    }
    limit.granted = limit.then_all ? 0 : -1;
    limit.was_met = true;
    return true;
}

/// As long as it lives, the thread that made it is granted so many requests; then one is refused, or all are.
class scarce_memory {
public:
    explicit scarce_memory(long granted, bool then_all) noexcept {
        limit_of_allocations = {granted, then_all, false};
    }
    scarce_memory(scarce_memory const&) = delete;
    scarce_memory& operator=(scarce_memory const&) = delete;
    ~scarce_memory() { limit_of_allocations = {}; }

    /// Whether anything was refused.
    [[nodiscard]] static bool was_met() noexcept { return limit_of_allocations.was_met; }
};

/// Whether act() had the memory that it asked for.
template <class Act>
bool has_memory_for(Act act) {
    try {
        act();
        return true;
    } catch (std::bad_alloc const&) {
        return false;
    }
}

/// act(), which reports by what it returns, with memory for 0, 1, 2 and so on requests, until nothing is refused
/// and the result is returned; refused(result) after each time that something was. So every request of it has failed
/// once: alone, or with all that follow it.
template <class Act, class Refused>
auto with_scarce_memory(bool then_all, Act act, Refused refused) {
    for (long granted = 0;; ++granted) {
        bool met = false;
        auto result = [&] {
            scarce_memory const memory(granted, then_all);
            auto made = act();
            met = memory.was_met();
            return made;
        }();
        if (!met) {
            return result;
        }
        refused(result);
    }
}

} // namespace sofattn::test
