// SPDX-License-Identifier: MIT
// The first level for all teams of a block: what each asks of the sketches, and which pages it looks at.
#pragma once

#include <sofattn/attention/prefill_pages.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/dlzs/page_sketch.hpp>
#include <sofattn/sads/budget.hpp>
#include <sofattn/sads/drop_rule.hpp>

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstddef>

namespace sofattn {

/// A team as it asks: its rows of the block, and what pages they may skip.
struct page_asker {
    prefill_pages::team rule;
    index_t first = 0; ///< row
    index_t rows = 0;

    /// A row as its team sees it.
    struct row {
        sads::row_rule rule;
        index_t from = 0; ///< first key that it sees
    };
    /// A team's first and last row; loss: share of the mass that skipped pages may have.
    [[nodiscard]] static page_asker of(row const& first_of, row const& last_of, double loss,
                                       index_t first_row, index_t rows) noexcept {
        page_asker team{{}, first_row, rows};
        sads::row_rule const& first = first_of.rule;
        sads::row_rule const& last = last_of.rule;
        team.rule.least_sees = first.visible;
        team.rule.most_sees = last.visible;
        team.rule.least_from = first_of.from;
        team.rule.most_from = last_of.from;
        team.rule.sinks = first.sinks;
        if (first.window > 0) {
            team.rule.window_to = last.visible - last.after_window;
            team.rule.window_from =
                std::max<index_t>(0, first.visible - first.after_window - first.window);
        }
        team.rule.at_least = last.at_least;
        team.rule.loss = first.drop.measure == sads::drop_measure::nothing ? 0.0 : loss;
        return team;
    }
};

/// What a unit of skipped weight counts beside a row's best key: `below` says how many octaves its best page, as
/// estimated, lies under that. No estimate weighs more beside the best key than it does beside the best page,
/// and all of them, `skipped` units, no more than they were allowed to of the weights' `sum`: an estimate that
/// is far off does more harm than none.
[[nodiscard]] inline float weight_of_skipped(float skipped, float below, double loss,
                                             float sum) noexcept {
    return std::min(std::exp2(std::min(0.0f, below)), static_cast<float>(loss) * sum / skipped);
}

/// Chooses the pages of a block's teams, one after the other.
class page_choice {
public:
    static constexpr index_t teams_most = prefill_pages::teams_most;

    [[nodiscard]] static constexpr std::size_t bytes(index_t keys, index_t dim) noexcept {
        return static_cast<std::size_t>(padded(dim)) * sizeof(float) +
               prefill_pages::bytes(keys, dim, teams_most);
    }
    /// memory [bytes(keys, dim)], aligned to a cache line.
    page_choice(index_t keys, index_t dim, std::byte* memory) noexcept
        : real_(reinterpret_cast<float*>(memory)),
          pages_(keys, dim, teams_most,
                 memory + static_cast<std::size_t>(padded(dim)) * sizeof(float)) {}

    /// asker(t) makes a page_asker, query(i) [dim in whole cache lines] is row i in octaves per unit of the key, 0
    /// beyond dim; on_skipped(t, weights of the skipped pages per segment).
    template <std::invocable<index_t> Asker, std::invocable<index_t> Query, class OnSkipped>
    void operator()(index_t teams, Asker asker, Query query, dlzs::page_sketches const& sketches,
                    OnSkipped on_skipped) noexcept {
        for (index_t t = 0; t < teams; ++t) {
            page_asker const of = asker(t);
            prefill_pages::page_run const competing = prefill_pages::competing(of.rule);
            if (!competing.empty()) {
                pages_.estimate(
                    sketches, of.rows, [&](index_t r) { return query(of.first + r); }, competing,
                    real_);
            }
            pages_.decide(t, of.rows, of.rule);
            on_skipped(t, pages_.skipped());
        }
    }

    [[nodiscard]] prefill_pages const& pages() const noexcept { return pages_; }

private:
    [[nodiscard]] static constexpr index_t padded(index_t dims) noexcept {
        return ceil_div<index_t>(dims, 16) * 16;
    }

    float* real_; ///< [dim]
    prefill_pages pages_;
};

} // namespace sofattn
