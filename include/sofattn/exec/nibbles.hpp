// SPDX-License-Identifier: MIT
// Panels of 4-bit codes turned into panels of bytes, and keys whose scores reach a threshold.
#pragma once

#include <sofattn/core/types.hpp>
#include <sofattn/exec/int8_dot.hpp>
#include <sofattn/exec/xsimd_lanes.hpp>

#include <array>
#include <cstddef>
#include <cstdint>

namespace sofattn::exec {

/// What each of the 16 nibbles stands for, as a panel holds it (panel_byte).
using nibble_table = std::array<std::uint8_t, 16>;

#if defined(__AVX512VNNI__) && defined(__AVX512BW__)

/// A panel in a register.
using held_panel = __m512i;

[[nodiscard]] inline vector_int32 dot(vector_int32 sum, held_panel const& panel,
                                      std::int32_t four) noexcept {
    return _mm512_dpbusd_epi32(sum, panel, _mm512_set1_epi32(four));
}

#else

struct held_panel {
    alignas(64) std::array<std::uint8_t, static_cast<std::size_t>(vector_bytes)> bytes;
};

[[nodiscard]] inline vector_int32 dot(vector_int32 sum, held_panel const& panel,
                                      std::int32_t four) noexcept {
    return dot(sum, panel.bytes.data(), four);
}

#endif

/// The panels of the low and of the high nibbles of a packed one.
struct nibble_panels {
    held_panel low;
    held_panel high;

    /// `packed` [vector_bytes]
    [[nodiscard]] static nibble_panels of(std::uint8_t const* packed,
                                          nibble_table const& table) noexcept {
        nibble_panels p;
#if defined(__AVX512VNNI__) && defined(__AVX512BW__)
        __m512i const values =
            _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<__m128i const*>(table.data())));
        __m512i const mask = _mm512_set1_epi8(15);
        __m512i const both = _mm512_loadu_si512(packed);
        p.low = _mm512_shuffle_epi8(values, _mm512_and_si512(both, mask));
        p.high = _mm512_shuffle_epi8(values, _mm512_and_si512(_mm512_srli_epi16(both, 4), mask));
#elif defined(__AVX2__) && !defined(__AVX512F__)
        __m256i const values = _mm256_broadcastsi128_si256(
            _mm_loadu_si128(reinterpret_cast<__m128i const*>(table.data())));
        __m256i const mask = _mm256_set1_epi8(15);
        __m256i const both = _mm256_loadu_si256(reinterpret_cast<__m256i const*>(packed));
        _mm256_store_si256(reinterpret_cast<__m256i*>(p.low.bytes.data()),
                           _mm256_shuffle_epi8(values, _mm256_and_si256(both, mask)));
        _mm256_store_si256(
            reinterpret_cast<__m256i*>(p.high.bytes.data()),
            _mm256_shuffle_epi8(values, _mm256_and_si256(_mm256_srli_epi16(both, 4), mask)));
#else
        for (std::size_t i = 0; i < p.low.bytes.size(); ++i) {
            p.low.bytes[i] = table[packed[i] & 15u];
            p.high.bytes[i] = table[packed[i] >> 4];
        }
#endif
        return p;
    }
};

/// Keys first, first + 1, ... of `count` scores that are at least `least`, ascending, into `keys`;
/// returns how many. pre: places for a register more than that
[[nodiscard]] inline index_t collect_at_least(std::int32_t const* scores, index_t count,
                                              std::int32_t least, key_id first,
                                              key_id* keys) noexcept {
    index_t found = 0;
    index_t i = 0;
#if defined(__AVX512F__)
    __m512i const bound = _mm512_set1_epi32(least);
    __m512i ids =
        _mm512_add_epi32(_mm512_set1_epi32(first),
                         _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
    for (; i + 16 <= count; i += 16) {
        __mmask16 const reach = _mm512_cmpge_epi32_mask(_mm512_loadu_si512(scores + i), bound);
        // Compressed in a register: compressing stores are 12 times slower on Zen 4.
        _mm512_storeu_si512(keys + found, _mm512_maskz_compress_epi32(reach, ids));
        found += __builtin_popcount(static_cast<unsigned>(reach));
        ids = _mm512_add_epi32(ids, _mm512_set1_epi32(16));
    }
#endif
    for (; i < count; ++i) {
        keys[found] = static_cast<key_id>(first + i);
        found += scores[i] >= least ? 1 : 0;
    }
    return found;
}

} // namespace sofattn::exec
