// SPDX-License-Identifier: MIT
// What a program has asked of the heap, where one of its files includes support/allocations.hpp.
#pragma once

#include <atomic>
#include <cstddef>

namespace sofattn::test {

/// Since the program started, by any thread.
struct allocation_counts {
    std::atomic<long> requests{0};
    std::atomic<std::size_t> largest{0}; ///< bytes; set it to 0 to begin anew
};
inline allocation_counts allocations;

} // namespace sofattn::test
