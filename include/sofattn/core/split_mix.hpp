// SPDX-License-Identifier: MIT
// Random numbers where a sample must be the same everywhere: SplitMix64.
#pragma once

#include <cstdint>

namespace sofattn {

/// SplitMix64 (Steele, Lea, Flood 2014): the n-th number is a hash of n and the state it began with. The
/// same bits on every machine. Not in the paper.
struct split_mix {
    static constexpr std::uint64_t step = 0x9e3779b97f4a7c15u; // 2^64 over the golden ratio

    std::uint64_t state = 0;

    [[nodiscard]] constexpr std::uint64_t operator()() noexcept { return mixed(state += step); }

    [[nodiscard]] static constexpr std::uint64_t mixed(std::uint64_t z) noexcept {
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
        return z ^ (z >> 31);
    }
};

} // namespace sofattn
