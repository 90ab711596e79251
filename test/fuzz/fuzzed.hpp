// SPDX-License-Identifier: MIT
// What all fuzz targets share: a reader takes its input, or refuses it by an error of one line.
#pragma once

#include <sofattn/core/error.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <span>
#include <string>
#include <string_view>

extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t most);

namespace sofattn::fuzz {

inline void require(bool holds, char const* what) {
    if (!holds) {
        std::fprintf(stderr, "fuzz: %s\n", what);
        std::abort();
    }
}

/// f() may refuse by `error`; whatever else leaves it ends the program.
template <class F>
void refused_or_read(F f) {
    try {
        f();
    } catch (error const& e) {
        std::string_view const text = e.what();
        require(!text.empty() && text.size() < 4096, "an error says something, and not too much");
        require(
            std::ranges::all_of(
                text, [](char c) { return static_cast<unsigned char>(c) >= 0x20 && c != 0x7f; }),
            "an error is one line of text");
    }
}

/// Small inputs become a valid one, so that a search begins there without a corpus.
inline std::size_t mutate(std::string_view valid, std::uint8_t* data, std::size_t size,
                          std::size_t most) {
    if (size < 2 && valid.size() <= most) {
        std::ranges::copy(valid, data);
        size = valid.size();
    }
    return LLVMFuzzerMutate(data, size, most);
}

[[nodiscard]] inline std::string_view text_of(std::uint8_t const* data, std::size_t size) {
    return {reinterpret_cast<char const*>(data), size};
}
/// Memory of exactly these bytes, which a sanitizer guards.
class copied {
public:
    copied(std::uint8_t const* data, std::size_t size)
        : memory_(static_cast<std::byte*>(std::malloc(size == 0 ? 1 : size))), size_(size) {
        require(memory_ != nullptr, "memory for a copy");
        std::copy_n(reinterpret_cast<std::byte const*>(data), size, memory_);
    }
    copied(copied const&) = delete;
    copied& operator=(copied const&) = delete;
    ~copied() { std::free(memory_); }
    [[nodiscard]] std::span<std::byte> bytes() const noexcept { return {memory_, size_}; }

private:
    std::byte* memory_;
    std::size_t size_;
};

} // namespace sofattn::fuzz

/// Defines the start of the search; `valid` is a function.
#define SOFATTN_FUZZ_FROM(valid)                                                                   \
    extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size,           \
                                                   std::size_t most, unsigned) {                   \
        static std::string const sample = valid();                                                 \
        return sofattn::fuzz::mutate(sample, data, size, most);                                    \
    }
