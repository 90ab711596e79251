// SPDX-License-Identifier: MIT
// How the queries of a prefill are dealt out: rows of a head that follow each other to a team, teams to a
// block, blocks to threads.
#pragma once

#include <sofattn/attention/prefill_pages.hpp>
#include <sofattn/attention/problem.hpp>
#include <sofattn/core/types.hpp>

#include <algorithm>

namespace sofattn {

/// One query of a block and the head that asks.
struct prefill_row {
    index_t head = 0;
    index_t query = 0;
};

/// Queries of one head that follow each other, and look at the same pages.
struct prefill_team {
    index_t rows = 0; ///< up to team_rows
    double loss = 0;  ///< share of the mass that the pages they skip may have, as estimated
};

/// Teams of a block: those of all heads of a group at some queries, then at the next, so that teams are
/// sorted by what they see. The last blocks see most and go first; four or more for each thread.
class prefill_teams {
public:
    prefill_teams(problem_shape const& shape, index_t threads, index_t block_teams_most) noexcept
        : queries_(shape.queries), kv_heads_(shape.kv_heads), group_(shape.group()),
          teams_(group_ * ceil_div(queries_, team_rows)) {
        index_t const share = ceil_div(teams_ * kv_heads_, 4 * threads);
        block_teams_ = std::clamp(share, index_t{1}, block_teams_most);
        blocks_ = ceil_div(teams_, block_teams_);
    }

    /// Blocks of all KV heads.
    [[nodiscard]] index_t blocks() const noexcept { return kv_heads_ * blocks_; }

    class block {
    public:
        [[nodiscard]] index_t kv_head() const noexcept { return kv_head_; }
        [[nodiscard]] index_t teams() const noexcept { return count_; }
        [[nodiscard]] index_t rows_of(index_t team) const noexcept {
            return std::min(team_rows, of_.queries_ - (first_ + team) / of_.group_ * team_rows);
        }
        [[nodiscard]] index_t head_of(index_t team) const noexcept {
            return kv_head_ * of_.group_ + (first_ + team) % of_.group_;
        }
        /// Rows of all teams are numbered through. Only the last teams may have fewer rows.
        [[nodiscard]] prefill_row row(index_t i) const noexcept {
            index_t const group = of_.group_;
            index_t const whole = of_.queries_ / team_rows * group; // teams
            index_t const t = first_ + i / team_rows;
            if (t < whole) {
                return {kv_head_ * group + t % group, t / group * team_rows + i % team_rows};
            }
            index_t const rest = of_.queries_ % team_rows;
            index_t const at =
                first_ < whole ? i - (whole - first_) * team_rows : i + (first_ - whole) * rest;
            return {kv_head_ * group + at / rest, of_.queries_ - rest + at % rest};
        }

    private:
        friend class prefill_teams;
        block(prefill_teams const& of, index_t kv_head, index_t first) noexcept
            : of_(of), kv_head_(kv_head), first_(first),
              count_(std::min(of.block_teams_, of.teams_ - first)) {}

        prefill_teams const& of_;
        index_t kv_head_;
        index_t first_; ///< team of the KV head
        index_t count_;
    };
    [[nodiscard]] block operator[](index_t i) const noexcept {
        return {*this, i % kv_heads_, (blocks_ - 1 - i / kv_heads_) * block_teams_};
    }

private:
    index_t queries_;
    index_t kv_heads_;
    index_t group_;
    index_t teams_; ///< of a KV head
    index_t block_teams_ = 1;
    index_t blocks_ = 1; ///< of a KV head
};

} // namespace sofattn
