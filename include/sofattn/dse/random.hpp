// SPDX-License-Identifier: MIT
// Random numbers by counter: any stream of any seed can be had at once, with the same bits anywhere.
#pragma once

#include <sofattn/core/split_mix.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/dse/elementary.hpp>

#include <cstdint>

namespace sofattn::dse {

/// A stream of random numbers: the n-th depends on seed, stream and n only. What a search draws for
/// its i-th point comes from stream i, so that a resumed search needs no generator's state. The
/// mixing function is SplitMix64's (Steele, Lea, Flood 2014).
class random_stream {
public:
    constexpr random_stream(std::uint64_t seed, std::uint64_t stream) noexcept
        : key_(split_mix::mixed(split_mix::mixed(seed + split_mix::step) +
                                split_mix::step * (stream + 1))) {}

    [[nodiscard]] constexpr std::uint64_t next() noexcept {
        key_ += split_mix::step;
        return split_mix::mixed(key_);
    }
    /// Uniform in [0, count). pre: count >= 1
    [[nodiscard]] constexpr index_t below(index_t count) noexcept {
        auto const n = static_cast<std::uint64_t>(count);
        std::uint64_t const uneven = (0 - n) % n; // 2^64 mod n: as many of the lowest are refused
        std::uint64_t drawn = next();
        while (drawn < uneven) {
            drawn = next();
        }
        return static_cast<index_t>(drawn % n);
    }
    /// Uniform in [0, 1), a multiple of 2^-53.
    [[nodiscard]] constexpr double unit() noexcept {
        return static_cast<double>(next() >> 11) * 0x1p-53;
    }
    /// Exponential with mean 1.
    [[nodiscard]] double exponential() noexcept { return -logarithm(1.0 - unit()); }

private:
    std::uint64_t key_;
};

} // namespace sofattn::dse
