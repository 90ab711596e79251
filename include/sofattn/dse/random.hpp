// SPDX-License-Identifier: MIT
// Random numbers by counter: any stream of any seed can be had at once, with the same bits anywhere.
#pragma once

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
        : key_(mixed(mixed(seed + golden) + golden * (stream + 1))) {}

    [[nodiscard]] constexpr std::uint64_t next() noexcept {
        key_ += golden;
        return mixed(key_);
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
    static constexpr std::uint64_t golden = 0x9e3779b97f4a7c15;
    static constexpr std::uint64_t mixed(std::uint64_t z) noexcept {
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
        z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
        return z ^ (z >> 31);
    }

    std::uint64_t key_;
};

} // namespace sofattn::dse
