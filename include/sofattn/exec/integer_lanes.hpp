// SPDX-License-Identifier: MIT
// Integers side by side: what xsimd lacks, or some version of it has only as a loop.
#pragma once

#include <sofattn/core/types.hpp>
#include <sofattn/exec/xsimd_lanes.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

namespace sofattn::exec {

namespace detail {

using int_array = std::array<std::int32_t, static_cast<std::size_t>(vector_width)>;

[[nodiscard]] inline int_array lanes_of(vector_int32 x) noexcept {
    int_array lanes;
    x.store_unaligned(lanes.data());
    return lanes;
}

} // namespace detail

[[nodiscard]] inline vector_int32 load(std::int32_t const* from) noexcept {
    return vector_int32::load_unaligned(from);
}
inline void store(std::int32_t* to, vector_int32 x) noexcept { x.store_unaligned(to); }

/// 0, 1, 2, ...
[[nodiscard]] inline vector_int32 lane_numbers() noexcept {
    detail::int_array lanes;
    for (std::size_t i = 0; i < lanes.size(); ++i) {
        lanes[i] = static_cast<std::int32_t>(i);
    }
    return load(lanes.data());
}

[[nodiscard]] inline vector_int32 larger(vector_int32 a, vector_int32 b) noexcept {
    return xsimd::max(a, b);
}
[[nodiscard]] inline vector_int32 smaller(vector_int32 a, vector_int32 b) noexcept {
    return xsimd::min(a, b);
}
/// a where `below` < `limit`, else b.
[[nodiscard]] inline vector_int32 if_below(vector_int32 below, vector_int32 limit, vector_int32 a,
                                           vector_int32 b) noexcept {
#if defined(__AVX512F__) // xsimd 8's does not compile without optimisation
    return _mm512_mask_blend_epi32(_mm512_cmplt_epi32_mask(below, limit), b, a);
#else
    return xsimd::select(below < limit, a, b);
#endif
}
[[nodiscard]] inline std::int32_t smallest(vector_int32 x) noexcept {
#if defined(__AVX512F__)
    return _mm512_reduce_min_epi32(x);
#else
    auto const lanes = detail::lanes_of(x);
    return *std::ranges::min_element(lanes);
#endif
}
[[nodiscard]] inline std::int32_t largest(vector_int32 x) noexcept {
#if defined(__AVX512F__)
    return _mm512_reduce_max_epi32(x);
#else
    auto const lanes = detail::lanes_of(x);
    return *std::ranges::max_element(lanes);
#endif
}

[[nodiscard]] inline vector_float to_float(vector_int32 x) noexcept { return xsimd::to_float(x); }
/// Toward zero. pre: the values fit
[[nodiscard]] inline vector_int32 truncated(vector_float x) noexcept { return xsimd::to_int(x); }

/// a * b / 2^16, rounded down, of unsigned 16-bit numbers in the low halves; high halves are zero.
[[nodiscard]] inline vector_int32 high_product(vector_int32 a, vector_int32 b) noexcept {
#if defined(__AVX512BW__)
    return _mm512_mulhi_epu16(a, b);
#elif defined(__AVX2__) && !defined(__AVX512F__)
    return _mm256_mulhi_epu16(a, b);
#elif defined(__SSE2__) && !defined(__AVX__)
    return _mm_mulhi_epu16(a, b);
#elif defined(__ARM_NEON) && defined(__aarch64__)
    return vector_int32(vreinterpretq_s32_u32(
        vshrq_n_u32(vmulq_u32(vreinterpretq_u32_s32(a), vreinterpretq_u32_s32(b)), 16)));
#else
    auto x = detail::lanes_of(a);
    auto const y = detail::lanes_of(b);
    for (std::size_t i = 0; i < x.size(); ++i) {
        x[i] = static_cast<std::int32_t>(
            (static_cast<std::uint32_t>(x[i]) * static_cast<std::uint32_t>(y[i])) >> 16);
    }
    return load(x.data());
#endif
}

/// Logical shift of each lane by its own distance; nothing is left from 32 on.
[[nodiscard]] inline vector_int32 shifted_right(vector_int32 x, vector_int32 by) noexcept {
#if defined(__AVX512F__)
    return _mm512_srlv_epi32(x, by);
#elif defined(__AVX2__)
    return _mm256_srlv_epi32(x, by);
#elif defined(__ARM_NEON) && defined(__aarch64__)
    return vector_int32(vreinterpretq_s32_u32(vshlq_u32(vreinterpretq_u32_s32(x), vnegq_s32(by))));
#else
    auto lanes = detail::lanes_of(x);
    auto const distance = detail::lanes_of(by);
    for (std::size_t i = 0; i < lanes.size(); ++i) {
        lanes[i] =
            distance[i] > 31
                ? 0
                : static_cast<std::int32_t>(static_cast<std::uint32_t>(lanes[i]) >> distance[i]);
    }
    return load(lanes.data());
#endif
}

/// Which lanes meet a condition, lane i in bit i.
using lane_mask = std::uint32_t;

[[nodiscard]] inline lane_mask lanes_below(vector_int32 x, vector_int32 limit) noexcept {
#if defined(__AVX512F__)
    return _mm512_cmplt_epi32_mask(x, limit);
#elif defined(__AVX2__)
    return static_cast<lane_mask>(
        _mm256_movemask_ps(_mm256_castsi256_ps(_mm256_cmpgt_epi32(limit, x))));
#elif defined(__SSE2__) && !defined(__AVX__)
    return static_cast<lane_mask>(_mm_movemask_ps(_mm_castsi128_ps(_mm_cmplt_epi32(x, limit))));
#else
    auto const a = detail::lanes_of(x);
    auto const b = detail::lanes_of(limit);
    lane_mask mask = 0;
    for (std::size_t i = 0; i < a.size(); ++i) {
        mask |= static_cast<lane_mask>(a[i] < b[i]) << i;
    }
    return mask;
#endif
}

/// x where x's lane in `of` is below its limit, else 0.
[[nodiscard]] inline vector_int32 kept_below(vector_int32 of, vector_int32 limit,
                                             vector_int32 x) noexcept {
#if defined(__AVX512F__)
    return _mm512_maskz_mov_epi32(_mm512_cmplt_epi32_mask(of, limit), x);
#else
    return xsimd::select(of < limit, x, vector_int32(0));
#endif
}

/// sum + x where x's lane in `of` is not below its limit.
[[nodiscard]] inline vector_int32 add_from(vector_int32 sum, vector_int32 of, vector_int32 limit,
                                           vector_int32 x) noexcept {
#if defined(__AVX512F__)
    return _mm512_mask_add_epi32(sum, _mm512_cmpge_epi32_mask(of, limit), sum, x);
#else
    return sum + xsimd::select(of < limit, vector_int32(0), x);
#endif
}

/// The same of floats.
[[nodiscard]] inline vector_float add_from(vector_float sum, vector_int32 of, vector_int32 limit,
                                           vector_float x) noexcept {
#if defined(__AVX512F__)
    return _mm512_mask_add_ps(sum, _mm512_cmpge_epi32_mask(of, limit), sum, x);
#else
    auto const bits = xsimd::bitwise_cast<vector_int32>(x);
    return sum +
           xsimd::bitwise_cast<vector_float>(xsimd::select(of < limit, vector_int32(0), bits));
#endif
}

/// Writes the lanes of `mask` to `to`, in order and without gaps; returns how many. A whole register
/// is written: `to` needs vector_width places.
inline index_t compress(lane_mask mask, vector_int32 x, std::int32_t* to) noexcept {
#if defined(__AVX512F__)
    // To memory directly it is ten times slower on some processors (Zen 4).
    _mm512_storeu_si512(to, _mm512_maskz_compress_epi32(static_cast<__mmask16>(mask), x));
#else
    auto const lanes = detail::lanes_of(x);
    index_t count = 0;
    for (std::size_t i = 0; i < lanes.size(); ++i) {
        to[count] = lanes[i];
        count += static_cast<index_t>((mask >> i) & 1u);
    }
#endif
    return std::popcount(mask);
}

/// A sum of unsigned 32-bit lanes in 64 bits.
class wide_sum {
public:
    wide_sum() noexcept : even_(0), odd_(0) {}

    void add(vector_int32 x) noexcept {
        auto const pairs = xsimd::bitwise_cast<vector_uint64>(x);
        even_ = even_ + (pairs & vector_uint64(0xffffffffu));
        odd_ = odd_ + (pairs >> 32);
    }
    [[nodiscard]] std::uint64_t total() const noexcept {
#if defined(__AVX512F__)
        return static_cast<std::uint64_t>(_mm512_reduce_add_epi64(even_ + odd_));
#else
        std::array<std::uint64_t, vector_uint64::size> lanes;
        (even_ + odd_).store_unaligned(lanes.data());
        std::uint64_t sum = 0;
        for (std::uint64_t const lane : lanes) {
            sum += lane;
        }
        return sum;
#endif
    }

private:
    using vector_uint64 = xsimd::batch<std::uint64_t>;

    vector_uint64 even_;
    vector_uint64 odd_;
};

/// For sixteen limits at once: sums of the costs of all that is not below them.
class limit_sums {
public:
    static constexpr int limits = 16;

    /// limits: first, first + step, ...; every sum starts at `start`
    limit_sums(std::int32_t first, std::int32_t step, std::uint64_t start) noexcept {
        for (int i = 0; i < limits; ++i) {
            limit_[static_cast<std::size_t>(i)] = first + i * step;
        }
        sum_.fill(start);
    }

    /// Takes in the items `at` [count] of the whole.
    void add(std::int32_t const* at, index_t count, std::int32_t const* of,
             std::int32_t const* costs) noexcept {
#if defined(__AVX512F__)
        __m512i const limit = _mm512_load_si512(limit_.data());
        __m512i low = _mm512_load_si512(sum_.data());
        __m512i high = _mm512_load_si512(sum_.data() + limits / 2);
        for (index_t i = 0; i < count; ++i) {
            __mmask16 const reached = _mm512_cmple_epi32_mask(limit, _mm512_set1_epi32(of[at[i]]));
            __m512i const cost = _mm512_set1_epi64(static_cast<std::uint32_t>(costs[at[i]]));
            low = _mm512_mask_add_epi64(low, static_cast<__mmask8>(reached), low, cost);
            high = _mm512_mask_add_epi64(high, static_cast<__mmask8>(reached >> 8), high, cost);
        }
        _mm512_store_si512(sum_.data(), low);
        _mm512_store_si512(sum_.data() + limits / 2, high);
#else
        for (index_t i = 0; i < count; ++i) {
            auto const cost = static_cast<std::uint64_t>(static_cast<std::uint32_t>(costs[at[i]]));
            for (std::size_t l = 0; l < sum_.size(); ++l) {
                sum_[l] += of[at[i]] >= limit_[l] ? cost : 0;
            }
        }
#endif
    }

    [[nodiscard]] std::uint64_t operator[](int limit) const noexcept {
        return sum_[static_cast<std::size_t>(limit)];
    }
    /// How many sums exceed `most`.
    [[nodiscard]] int above(std::uint64_t most) const noexcept {
        int count = 0;
        for (std::uint64_t const sum : sum_) {
            count += sum > most ? 1 : 0;
        }
        return count;
    }

private:
    alignas(64) std::array<std::int32_t, static_cast<std::size_t>(limits)> limit_;
    alignas(64) std::array<std::uint64_t, static_cast<std::size_t>(limits)> sum_;
};

} // namespace sofattn::exec
