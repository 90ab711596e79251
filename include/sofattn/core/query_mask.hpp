// SPDX-License-Identifier: MIT
// Which queries of a block want a key: one bit per query, as RASS's ID buffer is indexed.
#pragma once

#include <sofattn/core/types.hpp>

#include <array>
#include <bit>
#include <compare>
#include <cstddef>
#include <cstdint>

namespace sofattn {

/// Queries processed together: the accelerator's 128 rows (paper section IV-A).
inline constexpr index_t query_block = 128;

/// A set of queries of one block.
class query_mask {
public:
    constexpr query_mask() noexcept = default;

    /// The lowest 64 queries as the bits of a number; q0 is the lowest bit.
    static constexpr query_mask from_bits(std::uint64_t low, std::uint64_t high = 0) noexcept {
        query_mask mask;
        mask.words_ = {low, high};
        return mask;
    }

    constexpr void set(index_t query) noexcept { word(query) |= bit(query); }
    constexpr void clear(index_t query) noexcept { word(query) &= ~bit(query); }
    [[nodiscard]] constexpr bool test(index_t query) const noexcept {
        return (words_[static_cast<std::size_t>(query / 64)] & bit(query)) != 0;
    }
    [[nodiscard]] constexpr index_t count() const noexcept {
        return std::popcount(words_[0]) + std::popcount(words_[1]);
    }
    [[nodiscard]] constexpr bool empty() const noexcept { return (words_[0] | words_[1]) == 0; }

    constexpr query_mask& operator|=(query_mask other) noexcept {
        words_[0] |= other.words_[0];
        words_[1] |= other.words_[1];
        return *this;
    }
    friend constexpr query_mask operator&(query_mask a, query_mask b) noexcept {
        return from_bits(a.words_[0] & b.words_[0], a.words_[1] & b.words_[1]);
    }
    friend constexpr query_mask operator|(query_mask a, query_mask b) noexcept { return a |= b; }
    friend constexpr bool operator==(query_mask, query_mask) noexcept = default;

private:
    static constexpr std::uint64_t bit(index_t query) noexcept {
        return std::uint64_t{1} << (query % 64);
    }
    constexpr std::uint64_t& word(index_t query) noexcept {
        return words_[static_cast<std::size_t>(query / 64)];
    }

    std::array<std::uint64_t, 2> words_{};
};

} // namespace sofattn
