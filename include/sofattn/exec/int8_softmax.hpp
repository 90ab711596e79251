// SPDX-License-Identifier: MIT
// Softmax between two products of bytes: sums become logits of 16 bits, logits become weights of 8.
#pragma once

#include <sofattn/core/types.hpp>
#include <sofattn/exec/int8_dot.hpp>
#include <sofattn/exec/int8_tile.hpp>
#include <sofattn/exec/integer_lanes.hpp>
#include <sofattn/exec/prefetch.hpp>
#include <sofattn/exec/tile_product.hpp>
#include <sofattn/exec/xsimd_lanes.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace sofattn::exec {

/// The largest logit of a row weighs this much. Where dot products take signed bytes, panels hold
/// weights less `weight_offset`, and sums start at that many times the sum of the values' codes.
inline constexpr int most_weight = 254;
inline constexpr int weight_offset = dot_bias == 0 ? 127 : 0;
/// Distances from the largest logit are whole steps, rounded down, 64 to an octave: a weight is too
/// large by up to 1.1 %, with a spread of 0.3 %, about a third of what 8-bit factors cost.
inline constexpr int weight_step_bits = 6;
/// What masked keys have for a logit.
inline constexpr std::int16_t masked_logit = -32768;

namespace detail {

/// 2^-(i / 64) in units of 2^-8 of a weight's.
inline constexpr auto weight_table = [] {
    std::array<std::uint16_t, std::size_t{1} << weight_step_bits> table{};
    double value = most_weight * 256.0;
    for (auto& entry : table) {
        double const rounded = value + 0.5;
        entry = static_cast<std::uint16_t>(rounded);
        value *= 0.98922801319397548; // 2^(-1/64)
    }
    return table;
}();

} // namespace detail

/// What a row's distances are multiplied by: steps = min(distance, most) * 2^shift * factor / 2^16,
/// rounded down.
struct weight_unit {
    std::int32_t most;
    std::int32_t shift;
    std::int32_t factor;

    /// `steps`: per unit of logit, at least 0; beyond 2^11 as much as that, whose weight is 0.
    [[nodiscard]] static constexpr weight_unit of(float steps) noexcept {
        std::int32_t shift = 0;
        float scaled = std::min(steps, 2047.0f);
        while (scaled >= 1.0f) {
            scaled *= 0.5f;
            ++shift;
        }
        float const rounded = scaled * 65536.0f + 0.5f;
        return {65535 >> shift, shift, std::min(static_cast<std::int32_t>(rounded), 65535)};
    }
};

/// The definition of a step: `distance` from the largest logit, 0 to 65535.
[[nodiscard]] constexpr std::int32_t steps_of(std::int32_t distance, weight_unit unit) noexcept {
    auto const near = static_cast<std::uint32_t>(std::min(distance, unit.most)) << unit.shift;
    return static_cast<std::int32_t>((near * static_cast<std::uint32_t>(unit.factor)) >> 16);
}

/// The definition of a weight, in units of 2^-8, for steps from 0 to 65535.
[[nodiscard]] constexpr std::int32_t weight_of(std::int32_t steps) noexcept {
    std::int32_t const octaves = steps >> weight_step_bits;
    return octaves > 15 ? 0
                        : detail::weight_table[static_cast<std::size_t>(steps) %
                                               detail::weight_table.size()] >>
                              octaves;
}

/// Right shift that makes 16 bits of any sum of `dim` products of codes.
[[nodiscard]] constexpr int logit_shift(index_t dim) noexcept {
    int shift = 0;
    while ((127 * 127 * dim) >> shift > 32000) {
        ++shift;
    }
    return shift;
}

// Words of a panel's tile_width rows lie in the order in which registers narrow; those of every
// register are moved from and to rows by the following two.

/// to[...] = from[row], in the order of words. pre: 0 to 65535
inline void rows_to_words(std::int32_t const* from, std::uint16_t* to) noexcept {
#if defined(__AVX512BW__)
    for (index_t i = 0; i < tile_width; i += 32) {
        _mm512_storeu_si512(to + i, _mm512_packus_epi32(_mm512_loadu_si512(from + i),
                                                        _mm512_loadu_si512(from + i + 16)));
    }
#else
    for (index_t i = 0; i < tile_width; ++i) {
        to[i] = static_cast<std::uint16_t>(from[i]);
    }
#endif
}
/// to[row] = from[...].
inline void words_to_rows(std::int16_t const* from, std::int32_t* to) noexcept {
#if defined(__AVX512BW__)
    for (index_t i = 0; i < tile_width; i += 32) {
        __m512i const words = _mm512_loadu_si512(from + i);
        __m512i const low = _mm512_unpacklo_epi16(words, words);
        __m512i const high = _mm512_unpackhi_epi16(words, words);
        _mm512_storeu_si512(to + i, _mm512_srai_epi32(low, 16));
        _mm512_storeu_si512(to + i + 16, _mm512_srai_epi32(high, 16));
    }
#else
    for (index_t i = 0; i < tile_width; ++i) {
        to[i] = from[i];
    }
#endif
}

/// Where sums of a tile become logits.
struct int8_logits_out {
    std::int16_t const* scales; ///< [key], in units of 2^-15, at least 0
    std::int16_t* logits;       ///< [key, tile_width]
    std::int16_t* top;          ///< [tile_width], raised to the largest logit
    int shift;                  ///< logit_shift
};

/// (sum >> shift) * scale / 2^15, rounded: the definition of a logit.
[[nodiscard]] constexpr std::int16_t logit_of(std::int32_t sum, int shift,
                                              std::int16_t scale) noexcept {
    return static_cast<std::int16_t>(((sum >> shift) * scale + (1 << 14)) >> 15);
}

namespace detail {

template <int Rows>
inline void int8_logits(int8_operands const& t, int8_logits_out const& out) noexcept {
    int8_sums<Rows>(
        t, 1, [&](auto const& sum) __attribute__((always_inline)) {
#if defined(__AVX512BW__)
            __m128i const shift = _mm_cvtsi32_si128(out.shift);
            std::array<vector_int32, tile_vectors / 2> top;
            unrolled<tile_vectors / 2>([&](auto v) __attribute__((always_inline)) {
                top[v] = _mm512_loadu_si512(out.top + v * 32);
            });
            unrolled<Rows>([&](auto r) __attribute__((always_inline)) {
                __m512i const scale = _mm512_set1_epi16(out.scales[r]);
                unrolled<tile_vectors / 2>([&](auto v) __attribute__((always_inline)) {
                    __m512i const words =
                        _mm512_packs_epi32(_mm512_sra_epi32(sum[r][2 * v], shift),
                                           _mm512_sra_epi32(sum[r][2 * v + 1], shift));
                    __m512i const logit = _mm512_mulhrs_epi16(words, scale);
                    _mm512_storeu_si512(out.logits + r * tile_width + v * 32, logit);
                    top[v] = _mm512_max_epi16(top[v], logit);
                });
            });
            unrolled<tile_vectors / 2>([&](auto v) __attribute__((always_inline)) {
                _mm512_storeu_si512(out.top + v * 32, top[v]);
            });
#else
        for (std::size_t r = 0; r < static_cast<std::size_t>(Rows); ++r) {
            for (std::size_t v = 0; v < static_cast<std::size_t>(tile_vectors); ++v) {
                auto const lanes = lanes_of(sum[r][v]);
                index_t const first = static_cast<index_t>(v) * vector_width;
                std::int16_t* const logits =
                    out.logits + static_cast<index_t>(r) * tile_width + first;
                for (std::size_t i = 0; i < lanes.size(); ++i) {
                    logits[i] = logit_of(lanes[i], out.shift, out.scales[r]);
                    out.top[first + static_cast<index_t>(i)] =
                        std::max(out.top[first + static_cast<index_t>(i)], logits[i]);
                }
            }
        }
#endif
        });
}

} // namespace detail

/// Logits of `keys` keys, at most tile_rows, for the tile_width queries of a panel. Exact.
inline void int8_logits(index_t keys, int8_operands const& t, int8_logits_out const& out) noexcept {
    static_assert(tile_rows == 6);
    switch (keys) {
    case 6: return detail::int8_logits<6>(t, out);
    case 5: return detail::int8_logits<5>(t, out);
    case 4: return detail::int8_logits<4>(t, out);
    case 3: return detail::int8_logits<3>(t, out);
    case 2: return detail::int8_logits<2>(t, out);
    case 1: return detail::int8_logits<1>(t, out);
    default: return;
    }
}

/// Words of one panel's rows.
using row_words = std::array<std::uint16_t, static_cast<std::size_t>(tile_width)>;

/// Rows of a panel, in the order of words, as distances are measured.
struct distance_rows {
    alignas(64) std::array<std::int16_t, static_cast<std::size_t>(tile_width)> top;
    alignas(64) row_words most; ///< weight_unit
    alignas(64) row_words shift;
    alignas(64) row_words factor;
    alignas(64) row_words nearest; ///< result
};

/// Logits of keys [begin, end) that a row does not see get masked_logit, others raise `top`.
/// `from`, `to`: keys that a row sees, in the order of words. pre: end < 65536
inline void int8_mask(index_t begin, index_t end, row_words const& from, row_words const& to,
                      std::int16_t* logits, distance_rows& rows) noexcept {
    for (index_t k = begin; k < end; ++k) {
        std::int16_t* const at = logits + k * tile_width;
        for (std::size_t i = 0; i < from.size(); ++i) {
            bool const seen = k >= from[i] && k < to[i];
            at[i] = seen ? at[i] : masked_logit;
            rows.top[i] = std::max(rows.top[i], at[i]);
        }
    }
}

/// Most steps that a key's value takes off its weight: 6 octaves.
inline constexpr int most_value_steps = 6 << weight_step_bits;
/// Steps of a masked key.
inline constexpr int masked_steps = 65535;

/// Logits [keys, tile_width] become steps of weights, in place: those from the row's largest logit
/// and `offsets` [key], at most most_value_steps. rows.nearest: the fewest steps of each row. With
/// `Masked`, keys of masked_logit are masked_steps away.
template <bool Masked>
inline void int8_steps(std::int16_t* logits, index_t keys, std::uint16_t const* offsets,
                       distance_rows& rows) noexcept {
#if defined(__AVX512BW__)
    constexpr int pairs = tile_vectors / 2;
    std::array<vector_int32, pairs> nearest;
    nearest.fill(_mm512_set1_epi16(most_value_steps));
    for (index_t k = 0; k < keys; ++k) {
        __m512i const offset = _mm512_set1_epi16(static_cast<std::int16_t>(offsets[k]));
        detail::unrolled<pairs>([&](auto v) __attribute__((always_inline)) {
            std::int16_t* const at = logits + k * tile_width + v * 32;
            __m512i const logit = _mm512_loadu_si512(at);
            __m512i away = _mm512_sub_epi16(_mm512_load_si512(rows.top.data() + v * 32), logit);
            away = _mm512_min_epu16(away, _mm512_load_si512(rows.most.data() + v * 32));
            away = _mm512_sllv_epi16(away, _mm512_load_si512(rows.shift.data() + v * 32));
            away = _mm512_mulhi_epu16(away, _mm512_load_si512(rows.factor.data() + v * 32));
            away = _mm512_adds_epu16(away, offset);
            if constexpr (Masked) {
                away = _mm512_mask_set1_epi16(
                    away, _mm512_cmpeq_epi16_mask(logit, _mm512_set1_epi16(masked_logit)), -1);
            }
            _mm512_storeu_si512(at, away);
            nearest[v] = _mm512_min_epu16(nearest[v], away);
        });
    }
    detail::unrolled<pairs>([&](auto v) __attribute__((always_inline)) {
        _mm512_store_si512(rows.nearest.data() + v * 32, nearest[v]);
    });
#else
    rows.nearest.fill(most_value_steps);
    for (index_t k = 0; k < keys; ++k) {
        std::int16_t* const at = logits + k * tile_width;
        for (std::size_t i = 0; i < rows.nearest.size(); ++i) {
            std::int32_t away = steps_of(static_cast<std::uint16_t>(rows.top[i] - at[i]),
                                         weight_unit{rows.most[i], rows.shift[i], rows.factor[i]}) +
                                offsets[k];
            away = std::min(away, masked_steps);
            if constexpr (Masked) {
                away = at[i] == masked_logit ? masked_steps : away;
            }
            at[i] = static_cast<std::int16_t>(static_cast<std::uint16_t>(away));
            rows.nearest[i] = std::min(rows.nearest[i], static_cast<std::uint16_t>(away));
        }
    }
#endif
}

/// steps [4 * groups, tile_width] -> panel [group, row, 4] of weights as byte dots read them
/// (weight_offset); the nearest key weighs most_weight. What rounding takes from a weight, the next
/// one of its row gets: sums of weights are right, and a long tail of tiny ones is not lost. `panel`
/// may begin where `steps` do.
inline void int8_weights(std::int16_t const* steps, index_t groups, row_words const& nearest,
                         std::uint8_t* panel) noexcept {
#if defined(__AVX512BW__)
    constexpr int pairs = tile_vectors / 2;
    __m512i const low_table = _mm512_loadu_si512(detail::weight_table.data());
    __m512i const high_table = _mm512_loadu_si512(detail::weight_table.data() + 32);
    __m512i const low_byte = _mm512_set1_epi16(0xff);
    __m512i const add = _mm512_set1_epi16(static_cast<std::int16_t>(-weight_offset * 256));
    std::array<vector_int32, pairs> carry;
    carry.fill(_mm512_set1_epi16(static_cast<std::int16_t>(-weight_offset * 256 + 128)));
    for (index_t g = 0; g < groups; ++g) {
        std::array<std::array<vector_int32, pairs>, 4> byte;
        detail::unrolled<4>([&](auto j) __attribute__((always_inline)) {
            detail::unrolled<pairs>([&](auto v) __attribute__((always_inline)) {
                __m512i const away =
                    _mm512_sub_epi16(_mm512_loadu_si512(steps + (4 * g + j) * tile_width + v * 32),
                                     _mm512_load_si512(nearest.data() + v * 32));
                __m512i const weight =
                    _mm512_srlv_epi16(_mm512_permutex2var_epi16(low_table, away, high_table),
                                      _mm512_srli_epi16(away, weight_step_bits));
                byte[j][v] = _mm512_add_epi16(weight, carry[v]);
                // (byte & low_byte) | add
                carry[v] = _mm512_ternarylogic_epi32(byte[j][v], low_byte, add, 0xea);
            });
        });
        detail::unrolled<pairs>([&](auto v) __attribute__((always_inline)) {
            // (even >> 8) | (odd & ~low_byte)
            auto const two = [&](__m512i even, __m512i odd) __attribute__((always_inline)) {
                return _mm512_ternarylogic_epi32(_mm512_srli_epi16(even, 8), odd, low_byte, 0xf4);
            };
            __m512i const front = two(byte[0][v], byte[1][v]);
            __m512i const back = two(byte[2][v], byte[3][v]);
            std::uint8_t* const to = panel + (g * tile_width + v * 32) * dot_depth;
            _mm512_storeu_si512(to, _mm512_unpacklo_epi16(front, back));
            _mm512_storeu_si512(to + 64, _mm512_unpackhi_epi16(front, back));
        });
    }
#else
    std::array<std::int32_t, static_cast<std::size_t>(tile_width)> carry;
    carry.fill(128);
    std::array<row_words, 4> four;
    for (index_t g = 0; g < groups; ++g) {
        std::memcpy(four.data(), steps + 4 * g * tile_width, sizeof four);
        for (std::size_t i = 0; i < carry.size(); ++i) {
            for (std::size_t j = 0; j < four.size(); ++j) {
                carry[i] += weight_of(four[j][i] - nearest[i]);
                panel[(static_cast<std::size_t>(g) * carry.size() + i) * four.size() + j] =
                    static_cast<std::uint8_t>((carry[i] >> 8) - weight_offset);
                carry[i] &= 255;
            }
        }
    }
#endif
}

/// Where sums of weighted values go.
struct int8_values_out {
    float const* steps;  ///< [column], real units of a value's code
    float const* old;    ///< [tile_width], what the output so far is multiplied by
    float const* weight; ///< [tile_width], real units of a weight's code
    float* output;       ///< [column, tile_width]
};

namespace detail {

template <int Rows>
inline void int8_values(int8_operands const& t, index_t row_step,
                        int8_values_out const& out) noexcept {
    // Outputs wait in the second cache; the products hide their way.
    prefetch(out.output, Rows * tile_width * static_cast<index_t>(sizeof(float)));
    int8_sums<Rows>(
        t, row_step, [&](auto const& sum) __attribute__((always_inline)) {
            unrolled<Rows>([&](auto r) __attribute__((always_inline)) {
                vector_float const step(out.steps[r]);
                unrolled<tile_vectors>([&](auto v) __attribute__((always_inline)) {
                    float* const to = out.output + r * tile_width + v * vector_width;
                    vector_float const so_far = load(to) * load(out.old + v * vector_width);
                    vector_float const unit = load(out.weight + v * vector_width) * step;
                    store(to, multiply_add(to_float(sum[r][v]), unit, so_far));
                });
            });
        });
}

} // namespace detail

/// output = output * old + weights . values, for `columns` columns of values, at most tile_rows.
/// Four keys of column c and step s are at t.rows[c + s * row_step].
inline void int8_values(index_t columns, int8_operands const& t, index_t row_step,
                        int8_values_out const& out) noexcept {
    static_assert(tile_rows == 6);
    switch (columns) {
    case 6: return detail::int8_values<6>(t, row_step, out);
    case 5: return detail::int8_values<5>(t, row_step, out);
    case 4: return detail::int8_values<4>(t, row_step, out);
    case 3: return detail::int8_values<3>(t, row_step, out);
    case 2: return detail::int8_values<2>(t, row_step, out);
    case 1: return detail::int8_values<1>(t, row_step, out);
    default: return;
    }
}

} // namespace sofattn::exec
