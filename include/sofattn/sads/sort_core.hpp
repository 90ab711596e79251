// SPDX-License-Identifier: MIT
// Executable model of a SADS core: network, clipping unit and iterations, section IV-C, Fig. 13.
#pragma once

#include <sofattn/core/assert.hpp>
#include <sofattn/core/order.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/sads/network.hpp>

#include <array>
#include <concepts>
#include <cstdint>
#include <limits>
#include <span>

namespace sofattn::sads {

/// What one segment cost.
struct sort_cost {
    std::uint64_t cycles = 0;   ///< activations of the network
    std::uint64_t compares = 0; ///< comparators, clipping and threshold comparisons
    std::uint64_t clipped = 0;  ///< entries the clipping unit replaced
    std::uint64_t adds = 0;     ///< subtractions max - r
};

/// The radius r as the scores' own arithmetic sees it, so that the circuit and the definition draw
/// the line at the same bit. `radius` in score units, infinite for none. Scores stay within half of
/// their type's range (dlzs::score_type), so a radius that could leave it restricts nothing.
template <class Raw, class Score = Raw>
class search_radius {
public:
    explicit constexpr search_radius(double radius) noexcept
        : is_limited_(radius < largest()),
          radius_(is_limited_ ? static_cast<Raw>(radius) : Raw{0}) {}

    [[nodiscard]] constexpr bool is_limited() const noexcept { return is_limited_; }
    /// Scores under it are out of reach: max - r, or the lowest value.
    [[nodiscard]] constexpr Score below(Score max) const noexcept {
        return is_limited_ ? max - radius_ : Score(std::numeric_limits<Raw>::lowest());
    }

private:
    static constexpr double largest() noexcept {
        if (std::floating_point<Raw>) {
            return static_cast<double>(std::numeric_limits<Raw>::max());
        }
        return sizeof(Raw) == sizeof(std::int32_t) ? 0x1p30 : 0x1p62;
    }

    bool is_limited_;
    /// For integers rounded down: score >= max - r and score >= max - floor(r) are the same.
    Score radius_;
};

/// Streams a segment through the network until `out` is full or nothing within the radius is left.
/// Each iteration yields the next four in the total order; a sequence of n entries takes
/// ceil(n / 12) cycles per iteration (the paper says "several iterations" and no more).
///
/// The clipping unit replaces entries under max(max - radius, smallest kept) as they arrive. Both
/// terms start out as "nothing is clipped" and only grow, and an entry under either cannot be a
/// survivor: smallest kept, because four better ones are held; max - radius, because the segment's
/// final max is no smaller. Entries kept early that fall below the final threshold are dropped when
/// the core is drained.
///
/// `Score` is the type that is compared: `Raw` itself, or a number that watches itself. Every
/// comparison of scores is counted in `cost`.
template <class Raw, class Score = Raw>
class sort_core {
public:
    /// `radius` as for search_radius.
    explicit sort_core(double radius) noexcept : radius_(radius) {}

    /// entries: the segment, taken in this order; `taken` one flag per entry, all clear, scratch.
    /// Returns how many places of `out` were filled, best first.
    index_t operator()(std::span<ranked<Raw> const> entries, std::span<char> taken,
                       std::span<ranked<Raw>> out, sort_cost& cost) const noexcept {
        SOFATTN_ASSERT(taken.size() == entries.size());
        index_t const wanted =
            std::ssize(out) < std::ssize(entries) ? std::ssize(out) : std::ssize(entries);
        index_t filled = 0;
        slot best_of_segment{};
        while (filled < wanted) {
            std::array<slot, network_outputs> kept{};
            slot const threshold = stream(entries, taken, best_of_segment, kept, cost);
            for (slot const& s : kept) {
                if (!s.present || filled == wanted) {
                    return filled;
                }
                if (!best_of_segment.present) {
                    best_of_segment = s;
                }
                if (radius_.is_limited()) { // the final threshold; all are over its other term
                    ++cost.compares;
                    if (s.score < threshold.score) {
                        return filled;
                    }
                }
                out[static_cast<std::size_t>(filled++)] = entries[s.place];
                taken[s.place] = 1;
            }
        }
        return filled;
    }

private:
    /// A wire: an entry, or nothing, which is the lowest value and so loses to every entry; the
    /// comparator works all the same.
    struct slot {
        Score score{std::numeric_limits<Raw>::lowest()};
        key_id key = std::numeric_limits<key_id>::max();
        std::size_t place = 0;
        bool present = false;

        friend constexpr bool comes_before(slot const& a, slot const& b) noexcept {
            return sofattn::comes_before(ranked<Score>{a.score, a.key},
                                         ranked<Score>{b.score, b.key});
        }
    };

    /// One iteration: the best four that are not taken into `kept`; returns the final threshold.
    slot stream(std::span<ranked<Raw> const> entries, std::span<char const> taken,
                slot const& best_of_segment, std::array<slot, network_outputs>& kept,
                sort_cost& cost) const noexcept {
        slot threshold{};
        for (std::size_t next = 0; next < entries.size();) {
            std::array<slot, network_inputs> wires{};
            for (std::size_t w = 0; w < network_new_inputs && next < entries.size(); ++w, ++next) {
                if (taken[next] != 0) {
                    continue;
                }
                slot const entry{Score(entries[next].score), entries[next].key, next, true};
                if (threshold.present) {
                    ++cost.compares;
                    if (entry.score < threshold.score) {
                        ++cost.clipped;
                        continue;
                    }
                }
                wires[w] = entry;
            }
            for (std::size_t k = 0; k < network_outputs; ++k) {
                wires[network_new_inputs + k] = kept[k];
            }
            best_four(wires);
            for (std::size_t k = 0; k < network_outputs; ++k) {
                kept[k] = wires[k];
            }
            ++cost.cycles;
            cost.compares += network_16_to_4.size();
            threshold =
                raised(best_of_segment.present ? best_of_segment : kept.front(), kept.back(), cost);
        }
        return threshold;
    }

    /// max(max - r, smallest kept), of the terms that exist.
    slot raised(slot const& max, slot const& smallest, sort_cost& cost) const noexcept {
        slot threshold = smallest;
        if (radius_.is_limited() && max.present) {
            slot reach = max;
            ++cost.adds;
            reach.score = radius_.below(max.score);
            if (!smallest.present) {
                return reach;
            }
            ++cost.compares;
            if (smallest.score < reach.score) {
                threshold = reach;
            }
        }
        return threshold;
    }

    search_radius<Raw, Score> radius_;
};

} // namespace sofattn::sads
