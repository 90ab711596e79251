// SPDX-License-Identifier: MIT
// Large arrays in pages of 2 MiB, where the system has them on request.
#pragma once

#include <cstddef>
#include <cstdint>
#include <new>

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace sofattn {

/// Asks Linux to back memory that nobody has written to by pages of 2 MiB, as many as lie in it: decode reads
/// more than a processor knows addresses of with pages of 4 KiB. A wish: without effect where transparent huge
/// pages are off or always on, where none are free, and elsewhere.
inline void prefer_huge_pages([[maybe_unused]] void* data,
                              [[maybe_unused]] std::size_t size) noexcept {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    constexpr std::uintptr_t page = std::uintptr_t{1} << 21;
    std::uintptr_t const skipped = (page - reinterpret_cast<std::uintptr_t>(data) % page) % page;
    if (size >= skipped + page) {
        (void)::madvise(static_cast<std::byte*>(data) + skipped, (size - skipped) / page * page,
                        MADV_HUGEPAGE);
    }
#endif
}

/// For vectors that may become large: elements from a cache line on, in huge pages where there are many.
template <class T>
struct large_allocator {
    using value_type = T;
    static constexpr std::size_t alignment = 64;

    large_allocator() noexcept = default;
    template <class Other>
    // NOLINTNEXTLINE(google-explicit-constructor): as containers want it
    large_allocator(large_allocator<Other> const&) noexcept {}

    /// pre: count * sizeof(T) is a std::size_t; containers ask for no more (max_size)
    [[nodiscard]] T* allocate(std::size_t count) {
        void* const data = ::operator new (count * sizeof(T), std::align_val_t{alignment});
        prefer_huge_pages(data, count * sizeof(T));
        return static_cast<T*>(data);
    }
    void deallocate(T* data, std::size_t) noexcept {
        ::operator delete (data, std::align_val_t{alignment});
    }

    [[nodiscard]] friend bool operator==(large_allocator, large_allocator) noexcept { return true; }
};

} // namespace sofattn
