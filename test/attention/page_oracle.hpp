// SPDX-License-Identifier: MIT
// Which pages a team of queries looks at, by plain arithmetic.
#pragma once

#include "dlzs/sketch_codes.hpp"
#include <sofattn/attention/problem.hpp>
#include <sofattn/core/element.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/dlzs/page_sketch.hpp>
#include <sofattn/sads/budget.hpp>
#include <sofattn/sads/drop_rule.hpp>
#include <sofattn/sads/softmax_weight.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <map>
#include <numbers>
#include <vector>

namespace sofattn::test {

struct looked_at {
    std::vector<char> pages;             ///< up to the last that some row sees: 1 or 0
    index_t from = 0;                    ///< the first that competes
    std::vector<std::int32_t> positions; ///< estimated for all rows, of those that compete
    std::int32_t top = 0;                ///< of them
    std::vector<std::int32_t> row_tops;  ///< of each row alone

    [[nodiscard]] bool has(index_t key) const {
        return pages[static_cast<std::size_t>(key / 16)] != 0;
    }
    /// Of a key in a skipped page, beside a row's best page, in the mean over the rows. Nothing in pages that
    /// do not compete.
    [[nodiscard]] double weight(index_t key) const {
        index_t const page = key / 16 - from;
        return page < 0 || page >= std::ssize(positions)
                   ? 0.0
                   : std::exp2(positions[static_cast<std::size_t>(page)] / 256.0) /
                         static_cast<double>(row_tops.size());
    }
    [[nodiscard]] double skipped() const {
        double sum = 0;
        for (index_t key = 16 * from; key < 16 * (from + std::ssize(positions)); key += 16) {
            sum += has(key) ? 0.0 : 16 * weight(key);
        }
        return sum;
    }
    /// What that counts beside a row's best key, whose position is `best`; sum: of its other weights.
    [[nodiscard]] double unit(std::size_t row, double best, double loss, double sum) const {
        double const all = skipped();
        return all == 0 ? 0.0
                        : std::min(std::exp2(std::min(0.0, (row_tops[row] - best) / 256.0)),
                                   loss * sum / all);
    }
};

/// Position of 2^a + 2^b, as prefill_pages has it.
[[nodiscard]] inline std::int32_t log_sum(std::int32_t a, std::int32_t b) {
    std::int32_t const near = std::max(0, 5 * 256 - std::abs(a - b)) * 32;
    return std::max(a, b) + near * near / 65536 * 655 / 65536;
}

/// Queries [first, first + 6) of a head, as far as there are any.
template <class Q, class KV>
looked_at looked_by(problem<Q, KV> const& given, dlzs::page_sketches const& sketches, index_t head,
                    index_t first, sads::budget const& budget, double loss) {
    problem_shape const s = given.shape();
    index_t const end = std::min(first + 6, s.queries);
    looked_at found;
    index_t const sees = s.visible(end - 1);
    found.pages.assign(static_cast<std::size_t>(ceil_div<index_t>(sees, 16)), 1);
    std::fill_n(found.pages.begin(), s.sees(first).from / 16, 0); // nobody sees them
    bool const drops = budget.mass || budget.output_error;
    found.from = ceil_div<index_t>(s.sees(end - 1).from, 64) * 4;
    index_t const competing =
        loss > 0 && drops ? std::max<index_t>(0, s.visible(first) / 64 * 4 - found.from) : 0;
    if (competing == 0) {
        return found;
    }
    auto const octaves = static_cast<float>(s.scale * std::numbers::log2e);
    for (index_t q = first; q < end; ++q) {
        std::vector<float> query;
        for (index_t d = 0; d < s.dim; ++d) {
            query.push_back(to_float(given.queries(head, q, d)) * octaves);
        }
        auto positions = sketch_positions(sketches, query);
        positions.erase(positions.begin(), positions.begin() + found.from);
        positions.resize(static_cast<std::size_t>(competing));
        found.row_tops.push_back(*std::ranges::max_element(positions));
        for (std::int32_t& x : positions) {
            x = std::max(0, 64 * 256 - (found.row_tops.back() - x));
        }
        if (q == first) {
            found.positions = positions;
        }
        for (std::size_t p = 0; q > first && p < positions.size(); ++p) {
            found.positions[p] = log_sum(found.positions[p], positions[p]);
        }
    }
    for (std::int32_t& x : found.positions) {
        x -= 64 * 256;
    }
    found.top = *std::ranges::max_element(found.positions);
    // Worst grains first, while what goes is no more than the loss.
    std::uint64_t mass = 0;
    index_t stay = 0;
    std::map<std::int32_t, std::vector<std::size_t>, std::greater<>> grains;
    for (std::size_t p = 0; p < found.positions.size(); ++p) {
        auto const away = sads::weight_scale::position_distance(found.top, found.positions[p]);
        mass += sads::weight_scale::weight_at(away);
        bool forced = false;
        for (index_t q = first; q < end; ++q) {
            auto const rule = sads::row_rule::of(budget, s.visible(q), 1.0, s.position(q));
            for (index_t key = 0; key < 16; ++key) {
                forced =
                    forced || rule.is_forced((found.from + static_cast<index_t>(p)) * 16 + key);
            }
        }
        ++stay;
        if (!forced) {
            grains[away >> sads::weight_scale::grain_bits].push_back(p);
        }
    }
    std::uint64_t const allowed =
        sads::drop_rule::of_mass(1.0 - loss, sads::weight_scale()).allowance(mass);
    index_t const least = std::min(
        competing, ceil_div<index_t>(std::max<index_t>(1, std::min(budget.at_least, sees)), 16));
    std::uint64_t dropped = 0;
    for (auto const& [grain, pages] : grains) {
        for (std::size_t const p : pages) {
            dropped += sads::weight_scale::weight_at(
                sads::weight_scale::position_distance(found.top, found.positions[p]));
        }
        stay -= std::ssize(pages);
        if (dropped > allowed || stay < least) {
            break;
        }
        for (std::size_t const p : pages) {
            found.pages[static_cast<std::size_t>(found.from) + p] = 0;
        }
    }
    return found;
}

} // namespace sofattn::test
