// SPDX-License-Identifier: MIT
// CRC-32C (Castagnoli) of bytes: the checksum of iSCSI and ext4.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace sofattn {

namespace detail {

/// [k][b]: what byte b adds to a checksum when k bytes follow it.
using crc32c_tables = std::array<std::array<std::uint32_t, 256>, 8>;

[[nodiscard]] constexpr crc32c_tables make_crc32c_tables() noexcept {
    constexpr std::uint32_t polynomial = 0x82f63b78; // 0x1edc6f41, bits reversed
    crc32c_tables t{};
    for (std::uint32_t b = 0; b < 256; ++b) {
        std::uint32_t crc = b;
        for (int bit = 0; bit < 8; ++bit) {
            crc = (crc >> 1) ^ ((crc & 1u) != 0 ? polynomial : 0u);
        }
        t[0][b] = crc;
    }
    for (std::size_t k = 1; k < t.size(); ++k) {
        for (std::size_t b = 0; b < 256; ++b) {
            std::uint32_t const before = t[k - 1][b];
            t[k][b] = (before >> 8) ^ t[0][before & 0xffu];
        }
    }
    return t;
}

inline constexpr crc32c_tables crc32c_table = make_crc32c_tables();

} // namespace detail

/// Finds every change of up to 32 neighbouring bits, and all but one in 2^32 of others; no defence
/// against anybody who makes bytes up.
///
/// in     of      bytes, any number
///        before  checksum of what precedes them; 0: nothing does
/// out    checksum of both together; of "123456789" it is 0xe3069283
/// error  none
/// exact  the same on every host
/// paper  not in the paper
[[nodiscard]] inline std::uint32_t crc32c(std::span<std::byte const> of,
                                          std::uint32_t before = 0) noexcept {
    auto const& t = detail::crc32c_table;
    std::uint32_t crc = ~before;
    std::byte const* at = of.data();
    std::size_t left = of.size();
    auto const byte = [&](std::size_t i) { return std::to_integer<std::uint32_t>(at[i]); };
    for (; left >= 8; left -= 8, at += 8) { // eight tables: the bytes do not wait for each other
        crc ^= byte(0) | byte(1) << 8 | byte(2) << 16 | byte(3) << 24;
        crc = t[7][crc & 0xffu] ^ t[6][crc >> 8 & 0xffu] ^ t[5][crc >> 16 & 0xffu] ^
              t[4][crc >> 24] ^ t[3][byte(4)] ^ t[2][byte(5)] ^ t[1][byte(6)] ^ t[0][byte(7)];
    }
    for (; left > 0; --left, ++at) {
        crc = (crc >> 8) ^ t[0][(crc ^ byte(0)) & 0xffu];
    }
    return ~crc;
}

} // namespace sofattn
