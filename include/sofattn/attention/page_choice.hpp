// SPDX-License-Identifier: MIT
// The first level for all teams of a block: what each asks of the sketches, and which pages it looks at.
#pragma once

#include <sofattn/attention/prefill_pages.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/dlzs/page_sketch.hpp>
#include <sofattn/sads/budget.hpp>
#include <sofattn/sads/drop_rule.hpp>

#include <algorithm>
#include <array>
#include <concepts>
#include <cstddef>
#include <span>

namespace sofattn {

/// A team as it asks: its rows of the block, and what pages they may skip.
struct page_asker {
    prefill_pages::team rule;
    index_t first = 0; ///< row
    index_t rows = 0;

    /// Rules of a team's first and last row; loss: share of the mass that skipped pages may have.
    [[nodiscard]] static page_asker of(sads::row_rule const& first, sads::row_rule const& last,
                                       double loss, index_t first_row, index_t rows) noexcept {
        page_asker team{{}, first_row, rows};
        team.rule.least_sees = first.visible;
        team.rule.most_sees = last.visible;
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

/// Chooses the pages of a block's teams, prefill_pages::slots of them at a time.
class page_choice {
public:
    static constexpr index_t teams_most = prefill_pages::teams_most;

    [[nodiscard]] static constexpr std::size_t bytes(index_t keys, index_t dim) noexcept {
        return static_cast<std::size_t>(5 * padded(dim)) * sizeof(float) +
               prefill_pages::bytes(keys, dim, teams_most);
    }
    /// memory [bytes(keys, dim)], aligned to a cache line.
    page_choice(index_t keys, index_t dim, std::byte* memory) noexcept
        : dim_(dim), wide_(reinterpret_cast<double*>(memory)),
          real_(reinterpret_cast<float*>(memory) + 4 * padded(dim)),
          pages_(keys, dim, teams_most,
                 memory + static_cast<std::size_t>(5 * padded(dim)) * sizeof(float)) {}

    /// asker(t) makes a page_asker, query(i) [dim] is row i in octaves per unit of the key;
    /// on_skipped(t, weights of the skipped pages per segment).
    template <std::invocable<index_t> Asker, std::invocable<index_t> Query, class OnSkipped>
    void operator()(index_t teams, Asker asker, Query query, dlzs::page_sketches const& sketches,
                    OnSkipped on_skipped) noexcept {
        for (index_t from = 0; from < teams; from += prefill_pages::slots) {
            index_t const to = std::min(teams, from + prefill_pages::slots);
            std::array<page_asker, static_cast<std::size_t>(prefill_pages::slots)> asked;
            index_t pages = 0;
            for (index_t t = from; t < to; ++t) {
                auto& of = asked[static_cast<std::size_t>(t - from)];
                of = asker(t);
                index_t const competing = prefill_pages::competing_pages(of.rule);
                pages = std::max(pages, competing);
                if (competing > 0) {
                    ask(t - from, of, query, sketches);
                }
            }
            pages_.estimate(to - from, sketches, pages);
            for (index_t t = from; t < to; ++t) {
                pages_.decide(t, t - from, asked[static_cast<std::size_t>(t - from)].rule);
                on_skipped(t, pages_.skipped());
            }
        }
    }

    [[nodiscard]] prefill_pages const& pages() const noexcept { return pages_; }

private:
    [[nodiscard]] static constexpr index_t padded(index_t dims) noexcept {
        return ceil_div<index_t>(dims, 16) * 16;
    }

    template <class Query>
    void ask(index_t slot, page_asker const& team, Query query,
             dlzs::page_sketches const& sketches) noexcept {
        double* const sum = wide_;
        double* const squares = wide_ + padded(dim_);
        std::fill_n(wide_, 2 * padded(dim_), 0.0);
        for (index_t i = team.first; i < team.first + team.rows; ++i) {
            float const* const row = query(i);
            for (index_t d = 0; d < dim_; ++d) {
                auto const q = static_cast<double>(row[d]);
                sum[d] += q;
                squares[d] += q * q; // exact
            }
        }
        auto const count = static_cast<std::size_t>(dim_);
        pages_.ask(slot, sketches, team.rows, std::span<double const>(sum, count),
                   std::span<double const>(squares, count), std::span(real_, count));
    }

    index_t dim_;
    double* wide_; ///< [2, dim]
    float* real_;  ///< [dim]
    prefill_pages pages_;
};

} // namespace sofattn
