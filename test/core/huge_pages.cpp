// SPDX-License-Identifier: MIT
#include <sofattn/core/huge_pages.hpp>
#include <sofattn/core/tensor.hpp>
#include <sofattn/core/types.hpp>

#include <doctest/doctest.h>

#include <cstddef>
#include <cstdint>
#include <fstream>
#include <ios>
#include <numeric>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace sofattn {
namespace {

constexpr std::size_t huge = std::size_t{1} << 21;

/// Whether Linux notes that someone wishes for huge pages at this address ("hg" of its mapping).
bool are_wished_for(void const* at) {
    auto const address = reinterpret_cast<std::uintptr_t>(at);
    std::ifstream maps("/proc/self/smaps");
    std::string line;
    bool here = false;
    while (std::getline(maps, line)) {
        std::istringstream words(line);
        std::uintptr_t from = 0;
        std::uintptr_t to = 0;
        char dash = ' ';
        if (words >> std::hex >> from >> dash >> to && dash == '-') {
            here = from <= address && address < to;
        } else if (here && line.starts_with("VmFlags:")) {
            return (line + ' ').find(" hg ") != std::string::npos;
        }
    }
    return false;
}

TEST_CASE("core.huge_pages: large arrays wish for them, from the first whole page on") {
    if (!std::ifstream("/sys/kernel/mm/transparent_hugepage/enabled")) {
        MESSAGE("skipped: this system has no transparent huge pages");
        return;
    }
    std::vector<char, large_allocator<char>> const bytes(4 * huge);
    CHECK(are_wished_for(bytes.data() + 2 * huge));
    auto const rows = tensor<float, axis::key, axis::dim>::for_overwrite(
        {4096, static_cast<index_t>(4 * huge / 4096 / sizeof(float))});
    CHECK(are_wished_for(&rows(2048, 0)));
}

TEST_CASE("core.huge_pages: any range may be asked for") {
    std::vector<char> bytes(3 * huge);
    std::iota(bytes.begin(), bytes.end(), char{0});
    auto const before = bytes;
    prefer_huge_pages(nullptr, 0);
    for (std::size_t const skipped : {std::size_t{0}, std::size_t{1}, std::size_t{4096}, huge}) {
        for (std::size_t const size : {std::size_t{0}, std::size_t{1}, huge - 1, huge, 2 * huge}) {
            prefer_huge_pages(bytes.data() + skipped, size);
        }
    }
    CHECK(bytes == before);
}

TEST_CASE("core.huge_pages: vectors of any size start at a cache line and keep what is in them") {
    std::vector<std::int32_t, large_allocator<std::int32_t>> numbers;
    for (std::size_t size = 1; size < (huge << 1); size = size * 3 + 1) {
        std::size_t const had = numbers.size();
        numbers.resize(size);
        std::iota(numbers.begin() + static_cast<std::ptrdiff_t>(had), numbers.end(),
                  static_cast<std::int32_t>(had));
        CHECK(reinterpret_cast<std::uintptr_t>(numbers.data()) % 64 == 0);
    }
    for (std::size_t i = 0; i < numbers.size(); ++i) {
        REQUIRE(numbers[i] == static_cast<std::int32_t>(i));
    }
    auto const copy = numbers;
    CHECK(copy == numbers);
}

TEST_CASE("core.huge_pages: more elements than there are addresses are refused") {
    std::vector<double, large_allocator<double>> numbers;
    CHECK_THROWS_AS(numbers.reserve(static_cast<std::size_t>(-1) / 4), std::length_error);
    CHECK(numbers.max_size() <= static_cast<std::size_t>(-1) / sizeof(double));
}

} // namespace
} // namespace sofattn
