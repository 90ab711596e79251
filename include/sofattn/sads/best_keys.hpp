// SPDX-License-Identifier: MIT
// The best keys of a long row, exactly, without sorting: a threshold, and who reaches it.
#pragma once

#include <sofattn/core/assert.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/exec/nibbles.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>

namespace sofattn::sads {

/// The `wanted` best of a row of scores: the set that full_topk keeps, in key order.
///
/// A sample of the scores guesses a threshold that a few more keys reach than are wanted; those are
/// collected in one pass over the row and counted by score until the exact threshold is known. A
/// guess that was too high is repeated without one.
///
/// in     scores [count]  int32, of keys first, first + 1, ...
///        wanted          keys, any number
/// out    keys   [count + slack] the best in the total order, ascending; returns how many
/// pre    count >= 0, first + count fits key_id
/// error  none
/// events none: this is no circuit
/// exact  the same set as a full sort, whatever the target
/// paper  not in the paper, which sorts segments; a full sort is the rival of Fig. 17
struct best_keys {
    static constexpr index_t slack = 16; ///< a register may be stored beyond the last key

    index_t operator()(std::int32_t const* scores, index_t count, index_t wanted, key_id first,
                       key_id* keys) const noexcept {
        SOFATTN_ASSERT(count >= 0);
        wanted = std::clamp<index_t>(wanted, 0, count);
        if (wanted == 0) {
            return 0;
        }
        constexpr auto lowest = std::numeric_limits<std::int32_t>::lowest();
        std::int32_t const guess = guessed(scores, count, wanted);
        index_t found = exec::collect_at_least(scores, count, guess, first, keys);
        if (found < wanted) {
            found = exec::collect_at_least(scores, count, lowest, first, keys);
        }
        return found > wanted ? cut(scores, wanted, first, keys, found) : found;
    }

private:
    static constexpr index_t sample_most = 2048;

    static std::int32_t guessed(std::int32_t const* scores, index_t count,
                                index_t wanted) noexcept {
        index_t const step = std::max<index_t>(count / sample_most, 16);
        index_t const size = std::min(count / step, sample_most);
        index_t const expected = size * wanted / count;
        // Three deviations more than expected, and some.
        auto const root = index_t{1} << ((std::bit_width(static_cast<unsigned>(expected)) + 1) / 2);
        index_t const rank = expected + 3 * root + 4;
        if (rank >= size) {
            return std::numeric_limits<std::int32_t>::lowest();
        }
        std::array<std::int32_t, static_cast<std::size_t>(sample_most)> sample;
        index_t phase = 0; // i % step
        for (index_t i = 0; i < size; ++i) {
            sample[static_cast<std::size_t>(i)] = scores[i * step + phase];
            phase = phase + 1 == step ? 0 : phase + 1;
        }
        auto const taken = std::span(sample).first(static_cast<std::size_t>(size));
        auto const [low, high] = std::ranges::minmax(taken);
        // The lowest score of the bin that holds that rank.
        int const shift = shift_for(std::int64_t{high} - low);
        bin_counts bins{};
        for (std::int32_t const s : taken) {
            ++bins[static_cast<std::size_t>((std::int64_t{high} - s) >> shift)];
        }
        index_t reached = 0;
        std::int64_t bin = 0;
        while (reached <= rank) {
            reached += bins[static_cast<std::size_t>(bin++)];
        }
        return static_cast<std::int32_t>(std::max<std::int64_t>(low, high - (bin << shift) + 1));
    }

    static constexpr int bin_bits = 10;
    using bin_counts = std::array<std::int32_t, std::size_t{1} << bin_bits>;

    /// Scores that are so far apart at most fall into the bins.
    static int shift_for(std::int64_t range) noexcept {
        return std::max(0, static_cast<int>(std::bit_width(static_cast<std::uint64_t>(range))) -
                               bin_bits);
    }

    /// Of `found` candidates, more than wanted, the best stay.
    static index_t cut(std::int32_t const* scores, index_t wanted, key_id first, key_id* keys,
                       index_t found) noexcept {
        constexpr index_t few = 8192;
        if (found > few) {
            return cut_by([&](index_t i) { return std::int64_t{scores[keys[i] - first]}; }, wanted,
                          keys, found);
        }
        // They are read several times: from the first cache, not from all over the row.
        std::array<std::int32_t, static_cast<std::size_t>(few)> near;
        for (index_t i = 0; i < found; ++i) {
            near[static_cast<std::size_t>(i)] = scores[keys[i] - first];
        }
        return cut_by([&](index_t i) { return std::int64_t{near[static_cast<std::size_t>(i)]}; },
                      wanted, keys, found);
    }

    template <class Score>
    static index_t cut_by(Score score, index_t wanted, key_id* keys, index_t found) noexcept {
        std::int64_t low = score(0);
        std::int64_t high = low;
        for (index_t i = 1; i < found; ++i) {
            low = std::min(low, score(i));
            high = std::max(high, score(i));
        }
        // The threshold lies in [low, high]; so many of what is still wanted lie above.
        index_t ties = wanted;
        for (bool more = true; more;) {
            int const shift = shift_for(high - low);
            bin_counts bins{};
            for (index_t i = 0; i < found; ++i) {
                std::int64_t const s = score(i);
                if (s >= low && s <= high) {
                    ++bins[static_cast<std::size_t>((high - s) >> shift)];
                }
            }
            std::size_t bin = 0;
            while (bins[bin] < ties) {
                ties -= bins[bin++];
            }
            high -= static_cast<std::int64_t>(bin) << shift;
            low = std::max(low, high - (std::int64_t{1} << shift) + 1);
            more = low < high && bins[bin] > ties; // all of the bin, or another round
        }
        index_t kept = 0;
        for (index_t i = 0; i < found; ++i) {
            std::int64_t const s = score(i);
            bool const tied = s >= low && s <= high && ties > 0;
            ties -= tied ? 1 : 0;
            keys[kept] = keys[i];
            kept += s > high || tied ? 1 : 0;
        }
        return kept;
    }
};

} // namespace sofattn::sads
