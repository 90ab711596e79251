// SPDX-License-Identifier: MIT
// Where a row is cut: the threshold of adaptive<grain_by_grain>, found without sorting.
#pragma once

#include <sofattn/core/assert.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/exec/integer_lanes.hpp>
#include <sofattn/exec/short_lanes.hpp>
#include <sofattn/exec/xsimd_lanes.hpp>
#include <sofattn/sads/budget.hpp>
#include <sofattn/sads/drop_rule.hpp>
#include <sofattn/sads/softmax_weight.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>

namespace sofattn::sads {

/// In the place of a key that does not compete; weighs nothing beside any key.
inline constexpr std::int16_t no_key = std::numeric_limits<std::int16_t>::min();

/// What a row keeps beside its forced keys: those of positions above `limit`.
struct row_cut {
    std::int16_t top = 0;         ///< position of the best key
    std::int16_t limit = no_key;  ///< no kept key's, and no dropped key's is above it
    std::int16_t dropped_top = 0; ///< position of the best dropped key; below all if none is
};

struct key_run {
    index_t from;
    index_t to;
};
/// A row's forced keys among [first, end), which are visible: sinks, and the window behind them.
[[nodiscard]] inline std::array<key_run, 2> forced_keys(row_rule const& rule, index_t first,
                                                        index_t end) noexcept {
    index_t const window_end = rule.visible - rule.after_window;
    index_t const sinks = std::clamp(rule.sinks, first, end);
    index_t const from = std::clamp(window_end - rule.window, sinks, end);
    return {key_run{first, sinks}, key_run{from, std::clamp(window_end, from, end)}};
}

/// Finds the cut of a row, the lowest grain from which on all may go.
///
/// The cut of the row before says where about to look. One pass over the row sums the mass and what it
/// costs to drop from an octave behind that guess on, and lists the positions before it, where these are many only
/// the nearest. Among these few the cut is searched.
///
/// in     positions [key]  of the row's scores (weight_scale::position), a multiple of short_width
///                         of them, of which rule.visible are keys
///        rule             the row's budget; no at_most
/// out    the cut; positions of forced keys, and of places behind the visible ones, become no_key
/// pre    lengths as above, a visible key (SOFATTN_ASSERT)
/// error  none
/// events none: this is no circuit
/// exact  the keys of adaptive<grain_by_grain>, bit for bit, on every target
/// paper  not in the paper; a threshold takes the place of section III-B's sorting
class find_cut {
public:
    [[nodiscard]] row_cut operator()(std::span<std::int16_t> positions,
                                     row_rule const& rule) noexcept {
        SOFATTN_ASSERT(positions.size() % short_size == 0);
        SOFATTN_ASSERT(rule.visible > 0 && rule.visible <= std::ssize(positions));
        std::ranges::fill(positions.subspan(static_cast<std::size_t>(rule.visible)), no_key);
        row_ = {positions, highest(positions), 0};
        index_t forced = 0;
        for (auto const& [from, to] : forced_keys(rule, 0, rule.visible)) {
            take_out(from, to);
            forced += to - from;
        }
        std::int32_t cut = all_stay;
        if (rule.drop.measure != drop_measure::nothing) {
            cut = rule.drop.measure == drop_measure::error ? cheapest<true>(rule.drop, guess_)
                                                           : cheapest<false>(rule.drop, guess_);
            index_t const least = std::min(rule.at_least, rule.visible) - forced;
            if (least > 0 && least > count_above(limit_of(cut))) {
                cut = cut_keeping(least, cut);
            }
            guess_ = cut;
        }
        std::int16_t const limit = limit_of(std::min(cut, rule.grains() + 1));
        return {row_.top, limit, best_dropped(limit)};
    }

private:
    static constexpr auto short_size = static_cast<std::size_t>(exec::short_width);
    static constexpr int distance_bits = weight_scale::step_bits - weight_scale::position_bits;
    static constexpr int grain_bits = weight_scale::grain_bits - distance_bits;
    static constexpr int limits = 4;
    /// Beyond the last grain that keys can lie in.
    static constexpr std::int32_t all_stay =
        (weight_scale::farthest >> weight_scale::grain_bits) + 1;
    static constexpr std::int32_t octave = 1 << weight_scale::position_bits;

    using vector = exec::vector_int32;

    struct row_state {
        std::span<std::int16_t> competing;
        std::int16_t top = 0;
        std::uint64_t forced_mass = 0;
    };

    [[nodiscard]] std::int16_t limit_of(std::int32_t grain) const noexcept {
        return grain >= all_stay ? no_key
                                 : static_cast<std::int16_t>(row_.top - (grain << grain_bits));
    }

    [[nodiscard]] static std::int16_t highest(std::span<std::int16_t const> positions) noexcept {
        exec::vector_int16 most = exec::load(positions.data());
        for (std::size_t at = short_size; at < positions.size(); at += short_size) {
            most = exec::larger(most, exec::load(&positions[at]));
        }
        return exec::largest(most);
    }

    [[nodiscard]] std::int16_t best_dropped(std::int16_t limit) const noexcept {
        // Kept keys are below the limit by less than 0, which is much where numbers are unsigned.
        exec::vector_int16 const from = exec::all_shorts(limit);
        exec::vector_int16 least = exec::all_shorts(-1);
        for (std::size_t at = 0; at < row_.competing.size(); at += short_size) {
            exec::vector_int16 const away = from - exec::load(&row_.competing[at]);
            least = least - exec::less_by(least, away); // the smaller one
        }
        std::int32_t const away = exec::smallest_unsigned(least);
        bool const is_none = limit == no_key || limit - away < weight_scale::lowest_position;
        return static_cast<std::int16_t>(is_none ? weight_scale::lowest_position - 1
                                                 : limit - away);
    }

    /// Forced keys weigh, but do not compete.
    void take_out(index_t from, index_t to) noexcept {
        std::array<std::int16_t, 8 * short_size> part;
        while (from < to) {
            auto const keys =
                row_.competing.subspan(static_cast<std::size_t>(from),
                                       std::min(part.size(), static_cast<std::size_t>(to - from)));
            std::ranges::copy(keys, part.begin());
            std::fill(part.begin() + std::ssize(keys), part.end(), no_key);
            std::size_t const used = ceil_div(keys.size(), short_size) * short_size;
            row_.forced_mass += sums<false>(std::span(part).first(used), row_.top, {}).mass;
            std::ranges::fill(keys, no_key);
            from += std::ssize(keys);
        }
    }

    /// Weights and costs of vector_width keys.
    struct weighed {
        vector away; ///< positions below the top
        vector weight;
        vector cost;
    };
    /// Of the two halves of short_width keys, in an order of the target's choice: use(weighed).
    template <bool Squares, class Use>
    static void weigh(exec::vector_int16 top, exec::vector_int16 at, Use use) noexcept {
        auto const constant = [](std::uint32_t c) { return exec::all_shorts(static_cast<int>(c)); };
        exec::vector_int16 const away = top - at;
        exec::vector_int16 const f = exec::shifted_left<16 - weight_scale::position_bits>(away);
        exec::vector_int16 r =
            constant(weight_scale::c2) - exec::high_product(constant(weight_scale::c3), f);
        r = constant(weight_scale::c1) - exec::high_product(r, f);
        auto const aways = exec::widened(away);
        auto const losses = exec::widened(exec::high_product(r, f)); // 1 - 2^-f
        use(weigh_half<Squares>(aways[0], losses[0]));
        use(weigh_half<Squares>(aways[1], losses[1]));
    }
    template <bool Squares>
    [[nodiscard]] static weighed weigh_half(vector away, vector loss) noexcept {
        vector const octaves = away >> weight_scale::position_bits;
        vector const mantissa = vector(1 << 16) - loss;
        vector const weight =
            exec::shifted_right(mantissa << (weight_scale::unit_bits - 16), octaves);
        if constexpr (Squares) {
            vector const half = mantissa >> 1;
            return {away, weight, exec::shifted_right(half * half, octaves + octaves)};
        } else {
            return {away, weight, weight};
        }
    }

    /// Sums of costs that lie at least so far from the top stay within 32 bits, 16 to a lane.
    static constexpr std::int32_t far = 3 * octave;
    static constexpr index_t block = 8 * exec::short_width; // 16 costs to a lane

    /// The mass, the cost of dropping from `from` on, and in near_ the positions between `to`, which belongs to
    /// them, and it. False if there is no room for them. All: `to` is 0.
    template <bool Squares, bool Far, bool All>
    bool split(std::int32_t to, std::int32_t from, std::uint64_t& mass,
               std::uint64_t& cost) noexcept {
        auto const positions = row_.competing;
        exec::vector_int16 const best = exec::all_shorts(row_.top);
        exec::vector_int16 const above = exec::all_shorts(row_.top - from);
        exec::vector_int16 const nearer = exec::all_shorts(row_.top - to);
        vector const limit(from);
        exec::wide_sum masses;
        exec::wide_sum costs;
        auto const count = std::ssize(positions);
        index_t filled = 0;
        index_t passed = 0; // nearer than `to`
        for (index_t first = 0; first < count; first += block) {
            if (filled + block > near_most) {
                return false;
            }
            index_t const end = std::min(first + block, count);
            vector sum(0);
            for (index_t k = first; k < end; k += exec::short_width) {
                exec::vector_int16 const at = exec::load(positions.data() + k);
                vector both(0);
                weigh<Squares>(best, at, [&](weighed const& w) {
                    both = both + w.weight;
                    sum = exec::add_from(sum, w.away, limit, w.cost);
                });
                masses.add(both);
                if constexpr (!Far) {
                    costs.add(sum);
                    sum = vector(0);
                }
                exec::lane_mask some = exec::lanes_above(at, above);
                if constexpr (!All) {
                    exec::lane_mask const before = exec::lanes_above(at, nearer);
                    passed += std::popcount(before);
                    some &= ~before;
                }
                filled += exec::compress(some, at, near_.data() + filled);
            }
            if constexpr (Far) {
                costs.add(sum);
            }
        }
        for (std::size_t i = 0; i < short_size; ++i) {
            near_[static_cast<std::size_t>(filled) + i] = no_key;
        }
        near_count_ = filled;
        is_crowded_ = 4 * (filled + passed) > count;
        mass = masses.total();
        cost = costs.total();
        return true;
    }

    /// The lowest grain from which on no more than the allowance is dropped.
    template <bool Squares>
    [[nodiscard]] std::int32_t cheapest(drop_rule const& rule, std::int32_t guess) noexcept {
        constexpr std::int32_t octave_grains = octave >> grain_bits;
        constexpr std::int32_t margin = octave_grains * 3 / 4; // seldom too little
        // Far behind the guess dropping is cheap; the few nearer keys are listed and searched. Where they are
        // many, those far before the guess are left out: dropping them is too dear. If then all of the list may go,
        // so may perhaps some before.
        std::int32_t before = is_crowded_ ? std::max(guess - margin, 0) : 0;
        for (std::int32_t beyond = guess + margin; beyond < all_stay;) {
            std::int32_t const from = beyond << grain_bits;
            std::int32_t const to = before << grain_bits;
            std::uint64_t mass = 0;
            std::uint64_t cost = 0;
            bool const fits =
                to == 0 ? (from >= far ? split<Squares, true, true>(to, from, mass, cost)
                                       : split<Squares, false, true>(to, from, mass, cost))
                        : (from >= far ? split<Squares, true, false>(to, from, mass, cost)
                                       : split<Squares, false, false>(to, from, mass, cost));
            if (!fits) {
                is_crowded_ = true;
                break;
            }
            std::uint64_t const allowed = rule.allowance(row_.forced_mass + mass);
            if (cost > allowed) {
                beyond += 2 * octave_grains;
                continue;
            }
            auto const registers = ceil_div(static_cast<std::size_t>(near_count_), short_size);
            std::int32_t const found =
                search<Squares>(std::span(near_).first(registers * short_size), guess, before - 1,
                                beyond, allowed - cost);
            if (found > before || before == 0) {
                return found;
            }
            before = 0;
        }
        std::uint64_t const mass = sums<Squares>(row_.competing, row_.top, {}).mass;
        return search<Squares>(row_.competing, guess, -1, all_stay,
                               rule.allowance(row_.forced_mass + mass));
    }

    using distances = std::array<std::int32_t, static_cast<std::size_t>(limits)>;
    struct pass {
        std::uint64_t mass = 0;
        std::array<std::uint64_t, static_cast<std::size_t>(limits)> cost{}; ///< from each limit on
    };
    template <bool Squares>
    [[nodiscard]] static pass sums(std::span<std::int16_t const> positions, std::int16_t top,
                                   distances const& from) noexcept {
        return from[0] >= far ? sums_of<Squares, true>(positions, top, from)
                              : sums_of<Squares, false>(positions, top, from);
    }
    template <bool Squares, bool Far>
    [[nodiscard]] static pass sums_of(std::span<std::int16_t const> positions, std::int16_t top,
                                      distances const& from) noexcept {
        exec::vector_int16 const best = exec::all_shorts(top);
        std::array<vector, limits> limit;
        for (std::size_t i = 0; i < limit.size(); ++i) {
            limit[i] = vector(from[i]);
        }
        exec::wide_sum mass;
        std::array<exec::wide_sum, limits> cost;
        auto const count = std::ssize(positions);
        for (index_t first = 0; first < count; first += block) {
            index_t const end = std::min(first + block, count);
            std::array<vector, limits> part;
            part.fill(vector(0));
            for (index_t k = first; k < end; k += exec::short_width) {
                vector both(0);
                weigh<Squares>(best, exec::load(positions.data() + k), [&](weighed const& w) {
                    both = both + w.weight;
                    for (std::size_t i = 0; i < part.size(); ++i) {
                        part[i] = exec::add_from(part[i], w.away, limit[i], w.cost);
                    }
                });
                mass.add(both);
                if constexpr (!Far) {
                    for (std::size_t i = 0; i < part.size(); ++i) {
                        cost[i].add(part[i]);
                        part[i] = vector(0);
                    }
                }
            }
            if constexpr (Far) {
                for (std::size_t i = 0; i < part.size(); ++i) {
                    cost[i].add(part[i]);
                }
            }
        }
        pass all;
        all.mass = mass.total();
        for (std::size_t i = 0; i < cost.size(); ++i) {
            all.cost[i] = cost[i].total();
        }
        return all;
    }

    /// The lowest grain above `low`, which will not do, and up to `high`, which will, from which on the
    /// positions cost no more than `allowed`: four are tried at once.
    template <bool Squares>
    [[nodiscard]] std::int32_t search(std::span<std::int16_t const> positions, std::int32_t guess,
                                      std::int32_t low, std::int32_t high,
                                      std::uint64_t allowed) const noexcept {
        std::int32_t step = 1;
        std::int32_t base = guess - limits / 2;
        bool is_low_found = false;
        bool is_high_found = false;
        while (high - low > 1) {
            distances from;
            for (std::int32_t i = 0; i < limits; ++i) {
                from[static_cast<std::size_t>(i)] = std::clamp(base + i * step, low + 1, high - 1)
                                                    << grain_bits;
            }
            pass const all = sums<Squares>(positions, row_.top, from);
            for (std::size_t i = 0; i < from.size(); ++i) {
                if (all.cost[i] > allowed) {
                    low = from[i] >> grain_bits;
                    is_low_found = true;
                } else {
                    high = from[i] >> grain_bits;
                    is_high_found = true;
                    break;
                }
            }
            // In growing steps; in equal parts, once there is an end on either side.
            if (is_low_found && is_high_found) {
                step = ceil_div(high - low - 1, limits + 1);
                base = low + step;
            } else {
                step *= limits;
                base = is_low_found ? low + step : high - limits * step;
            }
        }
        return high;
    }

    [[nodiscard]] index_t count_above(std::int16_t limit) const noexcept {
        exec::vector_int16 const above = exec::all_shorts(limit);
        index_t count = 0;
        for (std::size_t at = 0; at < row_.competing.size(); at += short_size) {
            count += std::popcount(exec::lanes_above(exec::load(&row_.competing[at]), above));
        }
        return count;
    }
    /// The lowest grain above `low` before which `least` keys lie. pre: there are as many
    [[nodiscard]] std::int32_t cut_keeping(index_t least, std::int32_t low) const noexcept {
        std::int32_t high = all_stay;
        while (high - low > 1) {
            std::int32_t const middle = low + (high - low) / 2;
            (count_above(limit_of(middle)) < least ? low : high) = middle;
        }
        return high;
    }

    static constexpr index_t near_most = 4096;

    row_state row_;
    std::int32_t guess_ = 40; ///< the last row's cut; the next one's is like it
    index_t near_count_ = 0;
    bool is_crowded_ = false; ///< the last row had many keys before where it was cut
    alignas(64) std::array<std::int16_t, static_cast<std::size_t>(near_most) + short_size> near_;
};

} // namespace sofattn::sads
