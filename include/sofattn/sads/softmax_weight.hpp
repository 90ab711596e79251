// SPDX-License-Identifier: MIT
// Estimated softmax weights in fixed point: sums that no order of summation can change.
#pragma once

#include <algorithm>
#include <cstdint>
#include <numbers>

namespace sofattn::sads {

/// Softmax weights as integers: the best score weighs 2^30, one that lies x octaves lower 2^(30-x),
/// rounded down. Integer sums are associative, so lanes, tiles and threads cannot change a
/// selection. Two IEEE operations and a cubic in integers: the same bits everywhere, whatever
/// the compiler fuses. Not in the paper, whose budgets are counts.
class weight_scale {
public:
    static constexpr int unit_bits = 30;
    static constexpr std::uint32_t unit = std::uint32_t{1} << unit_bits;

    constexpr weight_scale() noexcept = default;
    /// Logits per unit of score, positive; more than 2^-113 of them. More than 2^107 count as
    /// that many, so that a distance of 0 always weighs 1.
    explicit constexpr weight_scale(double logits_per_score) noexcept
        : steps_per_score_(static_cast<float>(std::min(logits_per_score, 0x1p107) *
                                              std::numbers::log2e * steps)) {}

    /// exp(logit(score) - logit(top)) in units of 2^-30; within 1.1e-4 of it, relatively, and one
    /// unit. pre: score <= top, the difference is representable (half-range scores, score_type)
    template <class Score>
    [[nodiscard]] constexpr std::uint32_t weight(Score top, Score score) const noexcept {
        return at(static_cast<float>(top - score) * steps_per_score_);
    }
    /// The square of it, in the same units.
    template <class Score>
    [[nodiscard]] constexpr std::uint32_t squared(Score top, Score score) const noexcept {
        return at(static_cast<float>(top - score) * (2.0f * steps_per_score_));
    }

private:
    /// Whole steps are 2.6e-6 of a weight apart, and the longest distance, 31 octaves, still fits
    /// the 24 bits of a float.
    static constexpr int step_bits = 18;
    static constexpr double steps = 1 << step_bits; ///< per octave

    static constexpr std::uint32_t at(float distance) noexcept {
        if (!(distance < static_cast<float>((unit_bits + 1) << step_bits))) {
            return 0;
        }
        auto const whole = static_cast<std::uint32_t>(static_cast<std::int32_t>(distance));
        std::uint64_t const f = whole & ((1u << step_bits) - 1);
        // 2^-f: a cubic through 1 and 1/2, minimax between them (1.03e-4). No term is negative.
        std::uint64_t r = 41035u << (unit_bits - 20);
        r = (241755u << (unit_bits - 20)) - ((r * f) >> step_bits);
        r = (725008u << (unit_bits - 20)) - ((r * f) >> step_bits);
        r = unit - ((r * f) >> step_bits);
        return static_cast<std::uint32_t>(r) >> (whole >> step_bits);
    }

    float steps_per_score_ = 0.0f;
};

/// floor(sum * share / 2^bits) without overflow, for sums below 2^62 and shares up to 2^bits.
template <int Bits>
    requires(Bits <= 32)
[[nodiscard]] constexpr std::uint64_t scaled_down(std::uint64_t sum, std::uint64_t share) noexcept {
    constexpr std::uint64_t low = (std::uint64_t{1} << Bits) - 1;
    return (sum >> Bits) * share + (((sum & low) * share) >> Bits);
}

} // namespace sofattn::sads
