// SPDX-License-Identifier: MIT
// The paper's objective: loss, computation and exponentials of a tiling, section III-D.
#pragma once

#include <sofattn/core/error.hpp>
#include <sofattn/core/types.hpp>

#include <array>
#include <span>
#include <string>
#include <string_view>

namespace sofattn::dse {

/// Weights of Eq. 2.
struct paper_weights {
    double alpha = 0.0; ///< of computation
    double beta = 0.0;  ///< of exponentials

    friend constexpr bool operator==(paper_weights, paper_weights) noexcept = default;
};

struct named_paper_weights {
    std::string_view model;
    paper_weights of;
};

/// Section III-D.
inline constexpr std::array<named_paper_weights, 6> paper_presets{{
    {"bert", {0.24, 0.31}},
    {"vit", {0.20, 0.24}},
    {"gpt2", {0.40, 0.42}},
    {"bloom_1b7", {0.53, 0.56}},
    {"llama_7b", {0.58, 0.63}},
    {"llama_13b", {0.58, 0.63}},
}};

/// By name; throws `error` for another.
[[nodiscard]] inline paper_weights find_paper_weights(std::string_view model) {
    std::string names;
    for (named_paper_weights const& one : paper_presets) {
        if (one.model == model) {
            return one.of;
        }
        names += (names.empty() ? "" : " or ") + std::string(one.model);
    }
    throw error("weights of Eq. 2", "\"" + std::string(model) + "\"", names);
}

/// The search space of Algorithm 1, as printed: Tc = S / Bc per layer, one keep ratio.
inline constexpr index_t least_tiles = 2;
inline constexpr index_t most_tiles = 32;
inline constexpr index_t tiles_step = 2;
inline constexpr index_t least_kept_percent = 5;
inline constexpr index_t most_kept_percent = 50;
inline constexpr index_t kept_percent_step = 5;

/// L_cmp = sum_i (Bc_i k) / sum_i (S k), with Bc_i = S / Tc_i: k and S cancel, so this is the mean of
/// 1 / Tc_i, whatever the keep ratio. As printed.
/// pre: tiles.size() >= 1, all >= 1, keys > 0, kept_share > 0
[[nodiscard]] inline double computation_term(std::span<index_t const> tiles, double keys,
                                             double kept_share) noexcept {
    double sorted = 0.0;
    double all = 0.0;
    for (index_t const t : tiles) {
        sorted += keys / static_cast<double>(t) * kept_share;
        all += keys * kept_share;
    }
    return sorted / all;
}

/// L_exp = sum_i (S / Bc_i), the number of tiles of all layers. As printed: not normalised, so with
/// the paper's weights it outweighs both other terms (12 layers: 24 to 384 times 0.2 or more,
/// against a computation term of at most 1/2), and the least of Eq. 2 is the least number of tiles
/// wherever the loss does not differ by more than beta per tile. `share_of_exponentials` is for
/// those who want the terms comparable.
[[nodiscard]] inline double exponential_term(std::span<index_t const> tiles) noexcept {
    double sum = 0.0;
    for (index_t const t : tiles) {
        sum += static_cast<double>(t);
    }
    return sum;
}

/// L_exp over its largest value in the search space: in (0, 1]. Not in the paper.
[[nodiscard]] inline double share_of_exponentials(std::span<index_t const> tiles) noexcept {
    return exponential_term(tiles) /
           (static_cast<double>(tiles.size()) * static_cast<double>(most_tiles));
}

/// Eq. 2: L_en + alpha L_cmp + beta L_exp. `loss` is L_en, the model's cross-entropy in nats, or
/// what stands for it.
[[nodiscard]] inline double paper_objective(double loss, std::span<index_t const> tiles,
                                            double keys, double kept_share,
                                            paper_weights weights) noexcept {
    return loss + weights.alpha * computation_term(tiles, keys, kept_share) +
           weights.beta * exponential_term(tiles);
}

/// The same with L_exp as a share. Not in the paper.
[[nodiscard]] inline double balanced_objective(double loss, std::span<index_t const> tiles,
                                               double keys, double kept_share,
                                               paper_weights weights) noexcept {
    return loss + weights.alpha * computation_term(tiles, keys, kept_share) +
           weights.beta * share_of_exponentials(tiles);
}

} // namespace sofattn::dse
