// SPDX-License-Identifier: MIT
// A made-up objective on the paper's search space, whose least value is known exactly.
#pragma once

#include <sofattn/core/types.hpp>
#include <sofattn/dse/elementary.hpp>
#include <sofattn/dse/paper_objective.hpp>
#include <sofattn/dse/random.hpp>
#include <sofattn/dse/space.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

namespace sofattn::dse {

/// 12 tile counts Tc = 2, 4, ..., 32 and one keep ratio k = 5, 10, ..., 50 %, 2.8e15 points: the
/// space of Algorithm 1 with what section III-D says of it. More tiles: sorting gets cheaper, losses
/// and exponentials grow, all with layers of unequal sensitivity; more keys: less loss, more work.
/// Losses of neighbouring layers reinforce each other, and a Tc that does not divide the 512 tokens
/// pads its last tile, so the function is neither separable nor smooth. Since only neighbours meet,
/// its least value is found by dynamic programming. In nats, as far as anything made up has a unit:
/// 200 random points end 1.1 above the least value. Not in the paper, which reports no such test.
class sofa_like {
public:
    static constexpr std::size_t layers = 12;
    static constexpr index_t tokens = 512;

    /// Another `instance`, other layers.
    explicit sofa_like(std::uint64_t instance) {
        random_stream random(instance, 0x50fa);
        for (layer& l : layers_) {
            l.sensitivity = 0.2 * exponential(1.6 * random.unit()); // 0.2 to 1
            l.decay = 3.0 + 9.0 * random.unit();                    // per unit of keep ratio
            l.tile_loss = 0.15 * exponential(3.0 * random.unit());  // 0.15 to 3
            l.work = 0.5 + random.unit();
        }
    }

    [[nodiscard]] static search_space space() {
        std::vector<dimension> all;
        for (std::size_t i = 0; i < layers; ++i) {
            all.push_back({"tiles_" + std::to_string(i), least_tiles, most_tiles, tiles_step, {}});
        }
        all.push_back(
            {"kept_percent", least_kept_percent, most_kept_percent, kept_percent_step, {}});
        return search_space(std::move(all));
    }

    /// pre: a point of `space()`
    [[nodiscard]] double operator()(point const& p) const {
        double const kept = kept_share(p[layers]);
        double sum = keeping_cost(kept);
        for (std::size_t i = 0; i < layers; ++i) {
            sum += own(i, p[i], kept);
            sum +=
                i + 1 < layers ? coupling(loss(i, p[i], kept), loss(i + 1, p[i + 1], kept)) : 0.0;
        }
        return sum;
    }

    /// A point that takes the least value of all.
    [[nodiscard]] point best() const {
        constexpr auto levels =
            static_cast<std::size_t>((most_tiles - least_tiles) / tiles_step + 1);
        constexpr auto ratios = (most_kept_percent - least_kept_percent) / kept_percent_step + 1;
        point best_point;
        double least = std::numeric_limits<double>::infinity();
        for (index_t ratio = 0; ratio < ratios; ++ratio) {
            double const kept = kept_share(ratio);
            std::array<double, levels> cost{}; // of layers 0..i, the last at this level
            std::array<std::array<std::size_t, levels>, layers> before{};
            for (std::size_t a = 0; a < levels; ++a) {
                cost[a] = own(0, static_cast<index_t>(a), kept);
            }
            for (std::size_t i = 1; i < layers; ++i) {
                std::array<double, levels> next{};
                for (std::size_t b = 0; b < levels; ++b) {
                    next[b] = std::numeric_limits<double>::infinity();
                    double const mine = loss(i, static_cast<index_t>(b), kept);
                    for (std::size_t a = 0; a < levels; ++a) {
                        double const c =
                            cost[a] + coupling(loss(i - 1, static_cast<index_t>(a), kept), mine);
                        if (c < next[b]) {
                            next[b] = c;
                            before[i][b] = a;
                        }
                    }
                    next[b] += own(i, static_cast<index_t>(b), kept);
                }
                cost = next;
            }
            auto at =
                static_cast<std::size_t>(std::min_element(cost.begin(), cost.end()) - cost.begin());
            if (double const value = cost[at] + keeping_cost(kept); value < least) {
                least = value;
                best_point.assign(layers + 1, 0);
                best_point[layers] = ratio;
                for (std::size_t i = layers; i-- > 0; at = before[i][at]) {
                    best_point[i] = static_cast<index_t>(at);
                }
            }
        }
        return best_point;
    }

private:
    struct layer {
        double sensitivity = 0.0;
        double decay = 0.0;
        double tile_loss = 0.0;
        double work = 0.0;
    };
    static constexpr double keeping_weight = 6.0; ///< nats per unit of keep ratio, all layers
    static constexpr double coupling_weight = 0.3;
    static constexpr paper_weights weights{0.58, 0.63}; // Llama-7B's

    [[nodiscard]] static double kept_share(index_t ratio) noexcept {
        return static_cast<double>(least_kept_percent + ratio * kept_percent_step) / 100.0;
    }
    [[nodiscard]] static double keeping_cost(double kept) noexcept { return keeping_weight * kept; }
    [[nodiscard]] static double coupling(double a, double b) noexcept {
        return coupling_weight * a * b;
    }
    /// Grows with the number of tiles, falls with the keep ratio.
    [[nodiscard]] double loss(std::size_t i, index_t level, double kept) const noexcept {
        layer const& l = layers_[i];
        double const tiles = static_cast<double>(level + 1) / 16.0;
        return l.sensitivity * (exponential(-l.decay * kept) +
                                l.tile_loss * tiles * tiles * exponential(-2.0 * kept));
    }
    [[nodiscard]] double own(std::size_t i, index_t level, double kept) const noexcept {
        index_t const tiles = least_tiles + level * tiles_step;
        index_t const padded = ceil_div(tokens, tiles) * tiles;
        double const padding = static_cast<double>(padded) / static_cast<double>(tokens);
        double const sorting =
            weights.alpha * layers_[i].work * padding * 2.0 / static_cast<double>(tiles);
        double const exponentials =
            weights.beta * static_cast<double>(tiles) / static_cast<double>(most_tiles);
        return loss(i, level, kept) + sorting + exponentials;
    }

    std::array<layer, layers> layers_{};
};

} // namespace sofattn::dse
