// SPDX-License-Identifier: MIT
// Estimated softmax weights in fixed point: sums that no order of summation can change.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numbers>

namespace sofattn::sads {

/// Softmax weights as integers: the best score weighs 2^30, one that lies x octaves lower 2^(30-x),
/// rounded down. Integer sums are associative, so lanes, tiles and threads cannot change a
/// selection. Two IEEE operations and a cubic in 16-bit integers, which every vector unit can
/// multiply: the same bits everywhere, whatever the compiler fuses. Not in the paper, whose budgets
/// are counts.
class weight_scale {
public:
    static constexpr int unit_bits = 30;
    static constexpr std::uint32_t unit = std::uint32_t{1} << unit_bits;
    /// Distances are whole steps: 4.2e-5 of a weight.
    static constexpr int step_bits = 14;
    static constexpr double steps = 1 << step_bits; ///< per octave
    /// From here on a weight is 0.
    static constexpr std::int32_t farthest = (unit_bits + 1) << step_bits; ///< steps
    /// An eighth of an octave, within which a grain's weights differ by 9 %.
    static constexpr int grain_bits = step_bits - 3;
    /// Scores as 16-bit numbers: whole 256ths of an octave, within 0.14 % of a weight, from -64
    /// octaves to just under 128. Centred keys of trained models stay within 50.
    static constexpr int position_bits = 8;
    static constexpr std::int32_t lowest_position = -64 * (1 << position_bits);
    static constexpr std::int32_t highest_position = 128 * (1 << position_bits) - 1;
    /// 2^-f = 1 - f (c1 - f (c2 - f c3)) for f in [0, 1), in units of 2^-16: within 1.3e-4 with its
    /// roundings, falling, and exact at 0 and 1.
    static constexpr std::uint32_t c1 = 45316;
    static constexpr std::uint32_t c2 = 15115;
    static constexpr std::uint32_t c3 = 2569;

    constexpr weight_scale() noexcept = default;
    /// Logits per unit of score, positive; more than 2^-113 of them. More than 2^107 count as
    /// that many, so that a distance of 0 always weighs 1.
    explicit constexpr weight_scale(double logits_per_score) noexcept
        : steps_per_score_(static_cast<float>(std::min(logits_per_score, 0x1p107) *
                                              std::numbers::log2e * steps)) {}

    [[nodiscard]] constexpr float steps_per_score() const noexcept { return steps_per_score_; }

    /// Steps from the top, `farthest` for all that weigh nothing. pre: score <= top, the difference
    /// is representable (half-range scores, score_type)
    template <class Score>
    [[nodiscard]] constexpr std::int32_t distance(Score top, Score score) const noexcept {
        float const away = static_cast<float>(top - score) * steps_per_score_;
        return away < static_cast<float>(farthest) ? static_cast<std::int32_t>(away) : farthest;
    }

    [[nodiscard]] constexpr float positions_per_score() const noexcept {
        return steps_per_score_ * (1.0f / static_cast<float>(1 << (step_bits - position_bits)));
    }
    /// The score's position: a product in float, rounded to nearest, ties to even.
    template <class Score>
    [[nodiscard]] std::int32_t position(Score score) const noexcept {
        float const at = static_cast<float>(score) * positions_per_score();
        return static_cast<std::int32_t>(std::nearbyint(std::clamp(
            at, static_cast<float>(lowest_position), static_cast<float>(highest_position))));
    }
    /// Steps between two positions, as `distance`. pre: position <= top
    [[nodiscard]] static constexpr std::int32_t position_distance(std::int32_t top,
                                                                  std::int32_t position) noexcept {
        return std::min((top - position) << (step_bits - position_bits), farthest);
    }

    /// exp(logit(score) - logit(top)) in units of 2^-30; within 1.8e-4 of it, relatively, and one
    /// unit.
    template <class Score>
    [[nodiscard]] constexpr std::uint32_t weight(Score top, Score score) const noexcept {
        return weight_at(distance(top, score));
    }
    /// The square of it, in the same units: within 4.5e-4, relatively, and one unit.
    template <class Score>
    [[nodiscard]] constexpr std::uint32_t squared(Score top, Score score) const noexcept {
        return squared_at(distance(top, score));
    }

    [[nodiscard]] static constexpr std::uint32_t weight_at(std::int32_t away) noexcept {
        return (mantissa(away) << (unit_bits - 16)) >> (away >> step_bits);
    }
    /// Of half the mantissa, so that the product fits.
    [[nodiscard]] static constexpr std::uint32_t squared_at(std::int32_t away) noexcept {
        std::uint32_t const half = mantissa(away) >> 1;
        return (half * half) >> std::min(2 * (away >> step_bits), 31);
    }

private:
    /// 2^-f in units of 2^-16, f the fraction of an octave.
    static constexpr std::uint32_t mantissa(std::int32_t away) noexcept {
        auto const f = static_cast<std::uint32_t>(away & ((1 << step_bits) - 1));
        std::uint32_t r = c2 - ((c3 * f) >> step_bits);
        r = c1 - ((r * f) >> step_bits);
        return (std::uint32_t{1} << 16) - ((r * f) >> step_bits);
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
