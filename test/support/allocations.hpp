// SPDX-License-Identifier: MIT
// What a program asks of the heap, counted, and refused where a test wants it. Replaces operator new: for
// one file of a test program only.
#pragma once

#include "support/allocation_counts.hpp"
#include "support/frees.hpp"

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <new>

namespace sofattn::test {

inline void* counted_block(std::size_t size, std::size_t alignment) {
    ++allocations.requests;
    if (is_allocation_refused()) {
        throw std::bad_alloc();
    }
    std::size_t largest = allocations.largest;
    while (largest < size && !allocations.largest.compare_exchange_weak(largest, size)) {
    }
    std::size_t const rounded = (std::max<std::size_t>(size, 1) + alignment - 1) / alignment;
    if (void* block = std::aligned_alloc(alignment, rounded * alignment)) {
        return block;
    }
    throw std::bad_alloc();
}

} // namespace sofattn::test

// Not inlined: GCC 12 takes an inlined one for a mismatch of new and free.
[[gnu::noinline]] void* operator new(std::size_t size) {
    return sofattn::test::counted_block(size, alignof(std::max_align_t));
}
[[gnu::noinline]] void* operator new(std::size_t size, std::align_val_t alignment) {
    return sofattn::test::counted_block(size, static_cast<std::size_t>(alignment));
}
// The sanitizers' own would not call the one above, and std::stable_sort asks for its buffer here.
[[gnu::noinline]] void* operator new(std::size_t size, std::nothrow_t const&) noexcept {
    try {
        return sofattn::test::counted_block(size, alignof(std::max_align_t));
    } catch (std::bad_alloc const&) {
        return nullptr;
    }
}
