// SPDX-License-Identifier: MIT
// operator new for a Python that is started with this library before all others: what libsofattn asks for can be
// refused, as test_memory.py wants it. Not what pybind11 asks for: where it has no memory to register an object that
// it has made, it frees the object twice (2.10).
#include "support/allocation_counts.hpp"
#include "support/frees.hpp"

#include <dlfcn.h>

#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <new>

namespace {

[[nodiscard]] bool is_of_libsofattn(void const* code) {
    Dl_info found{};
    return dladdr(code, &found) != 0 && found.dli_fname != nullptr &&
           std::strstr(found.dli_fname, "libsofattn.so") != nullptr;
}

/// Null where it is refused. caller: where it is asked for
[[nodiscard]] void* block_for(void const* caller, std::size_t size,
                              std::size_t alignment = alignof(std::max_align_t)) {
    auto const& limit = sofattn::test::limit_of_allocations;
    bool const is_limited = limit.granted >= 0 && is_of_libsofattn(caller);
    if (is_limited && sofattn::test::is_allocation_refused()) {
        return nullptr;
    }
    std::size_t const rounded = ((size == 0 ? 1 : size) + alignment - 1) / alignment;
    return std::aligned_alloc(alignment, rounded * alignment);
}
[[nodiscard]] void* or_throw(void* block) {
    if (block == nullptr) {
        throw std::bad_alloc();
    }
    return block;
}

} // namespace

extern "C" {

/// Of the calling thread: so many requests are granted, then one is refused, or all; -1: none.
[[gnu::visibility("default")]] void sofattn_test_grant(long requests, int then_all) {
    sofattn::test::limit_of_allocations = {requests, then_all != 0, false};
}
/// Whether one was refused since.
[[gnu::visibility("default")]] int sofattn_test_was_refused() {
    return sofattn::test::limit_of_allocations.was_met ? 1 : 0;
}
}

[[gnu::noinline]] void* operator new(std::size_t size) {
    return or_throw(block_for(__builtin_return_address(0), size));
}
[[gnu::noinline]] void* operator new(std::size_t size, std::align_val_t alignment) {
    return or_throw(
        block_for(__builtin_return_address(0), size, static_cast<std::size_t>(alignment)));
}
[[gnu::noinline]] void* operator new(std::size_t size, std::nothrow_t const&) noexcept {
    return block_for(__builtin_return_address(0), size);
}
