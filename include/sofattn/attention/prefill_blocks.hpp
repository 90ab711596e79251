// SPDX-License-Identifier: MIT
// What every sparse prefill does besides its kernel: refuses what it cannot do, deals out blocks of queries,
// and tells the kernel about their rows.
#pragma once

#include <sofattn/attention/dropped_mass.hpp>
#include <sofattn/attention/options.hpp>
#include <sofattn/attention/paged_problem.hpp>
#include <sofattn/attention/prefill_pages.hpp>
#include <sofattn/attention/prefill_teams.hpp>
#include <sofattn/attention/problem.hpp>
#include <sofattn/core/assert.hpp>
#include <sofattn/core/element.hpp>
#include <sofattn/core/error.hpp>
#include <sofattn/core/output_array.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/core/view.hpp>
#include <sofattn/exec/parallel.hpp>
#include <sofattn/sads/budget.hpp>

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace sofattn {

/// A whole prefill as its blocks see it: views, and what each head asks for.
///
/// budget_of(query head) makes a sads::budget, loss_of(budget) the share of a row's mass that skipped pages
/// may have.
template <storage_float Query, std::invocable<index_t> BudgetOf, class LossOf>
struct prefill_task {
    prefill_task(view<Query const, axis::head, axis::query, axis::dim> of, problem_shape const& s,
                 output_array const& to, dropped_mass const& dropped_shares,
                 BudgetOf const& budgets,
                 LossOf const& losses) noexcept // Clang 14 deduces no aggregate's types
        : queries(of), shape(s), output(to), dropped(dropped_shares), budget_of(budgets),
          loss_of(losses) {}

    view<Query const, axis::head, axis::query, axis::dim> queries;
    problem_shape const& shape;
    output_array output;
    dropped_mass dropped; ///< [head, query], or nothing
    BudgetOf const& budget_of;
    LossOf const& loss_of;
};

/// A block of it. Rows of all its teams are numbered through.
template <class Task>
class prefill_rows {
public:
    prefill_rows(Task const& task, prefill_teams::block const& of) noexcept
        : task_(task), of_(of) {}

    [[nodiscard]] index_t kv_head() const noexcept { return of_.kv_head(); }
    [[nodiscard]] index_t teams() const noexcept { return of_.teams(); }
    [[nodiscard]] prefill_team team(index_t t) const noexcept {
        return {of_.rows_of(t), task_.loss_of(task_.budget_of(of_.head_of(t)))};
    }
    [[nodiscard]] double scale() const noexcept { return task_.shape.scale; } ///< of logits

    /// Which query row i is, and of which head.
    [[nodiscard]] prefill_row operator[](index_t i) const noexcept { return of_.row(i); }
    /// [dim]
    [[nodiscard]] auto query(index_t i) const noexcept {
        prefill_row const row = of_.row(i);
        return task_.queries.template slice<axis::head>(row.head).template slice<axis::query>(
            row.query);
    }
    /// Neither end decreases within a team.
    [[nodiscard]] key_range sees(index_t i) const noexcept {
        return task_.shape.sees(of_.row(i).query);
    }
    /// logit_step: logits per unit of score
    [[nodiscard]] sads::row_rule rule(index_t i, double logit_step) const noexcept {
        prefill_row const row = of_.row(i);
        return sads::row_rule::of(task_.budget_of(row.head), task_.shape.visible(row.query),
                                  logit_step, task_.shape.position(row.query));
    }
    /// Learned, in octaves.
    [[nodiscard]] float sink(index_t i) const noexcept {
        return task_.shape.terms.of(of_.row(i).head, 0).sink;
    }
    /// [value_dim]
    [[nodiscard]] output_row output(index_t i) const noexcept {
        prefill_row const row = of_.row(i);
        return task_.output.row(row.head, row.query);
    }
    /// Share of the weights that stands for keys which are not attended to.
    void put_dropped(index_t i, float share) const noexcept {
        if (task_.dropped.data() != nullptr) {
            prefill_row const row = of_.row(i);
            task_.dropped(row.head, row.query) = share;
        }
    }

private:
    Task const& task_;
    prefill_teams::block const& of_;
};

/// Block: a kernel over some teams of one KV head, made anew for each block, with `teams_most`,
/// `bytes(keys, dim, value_dim)` of scratch, and a constructor that takes the same and their memory.
template <class Block>
struct prefill_blocks {
    static constexpr index_t teams_most = Block::teams_most;

    [[nodiscard]] static constexpr std::size_t workspace_bytes(problem_shape const& shape,
                                                               index_t threads) noexcept {
        return static_cast<std::size_t>(threads) * bytes_per_thread(shape) + line;
    }

    /// attend(a Block, its prefill_rows) from any thread, each block once; of up to `block_teams` teams.
    template <class Task, exec::parallel_for Run, class Attend>
    static void run(Task const& task, index_t block_teams, std::span<std::byte> workspace,
                    Run const& run, Attend const& attend) noexcept {
        SOFATTN_ASSERT(block_teams > 0 && block_teams <= teams_most);
        problem_shape const& shape = task.shape;
        void* start = workspace.data();
        std::size_t space = workspace.size();
        std::align(line, 1, start, space);
        auto* const memory = static_cast<std::byte*>(start);
        prefill_teams const teams(shape, run.threads(), block_teams);
        run(teams.blocks(), [&](index_t i, index_t thread) {
            prefill_teams::block const of = teams[i];
            Block block(shape.keys, shape.dim, shape.value_dim,
                        memory + static_cast<std::size_t>(thread) * bytes_per_thread(shape));
            attend(block, prefill_rows(task, of));
        });
    }

private:
    static constexpr std::size_t line = 64;

    [[nodiscard]] static constexpr std::size_t
    bytes_per_thread(problem_shape const& shape) noexcept {
        return (Block::bytes(shape.keys, shape.dim, shape.value_dim) + line - 1) / line * line;
    }
};

/// pre: nothing that `check_prefill` throws for
inline void assert_prefill(problem_shape const& shape, auto const& indexes, auto const& output,
                           std::size_t workspace_bytes, std::size_t workspace_needed) noexcept {
    SOFATTN_ASSERT(!shape.terms.changes_logits());
    SOFATTN_ASSERT(std::ssize(indexes) == shape.kv_heads);
    SOFATTN_ASSERT(output.template extent<axis::head>() == shape.heads);
    SOFATTN_ASSERT(output.template extent<axis::query>() == shape.queries);
    SOFATTN_ASSERT(output.template extent<axis::value_dim>() == shape.value_dim);
    SOFATTN_ASSERT(workspace_bytes >= workspace_needed);
}

/// Throws `error` for what no sparse prefill does; `who` asks.
inline void check_prefill(std::string const& who, attention_options const& options,
                          problem_shape const& shape, index_t block_teams) {
    options.validate(shape);
    if (block_teams < 1 || block_teams > prefill_pages::teams_most) {
        throw error(who + ": teams of a block", std::to_string(block_teams),
                    "from 1 to " + std::to_string(prefill_pages::teams_most));
    }
    if (shape.terms.changes_logits()) {
        throw error(who + ": soft cap or ALiBi slopes, the cap",
                    std::to_string(shape.terms.softcap),
                    "left out: budgets weigh logits as predicted; dense_attention has both");
    }
    if (options.scope != selection_scope::per_query_head) {
        throw error(who + ": selection scope", "per_group", "per_query_head");
    }
}

/// Allocates: an index of each KV head, made of its keys and values.
template <class Index, key_value_problem Given, exec::parallel_for Run>
[[nodiscard]] std::vector<Index> index_heads(Given const& given, Run const& run) {
    std::vector<Index> indexes(static_cast<std::size_t>(given.extents().kv_heads));
    run(std::ssize(indexes), [&](index_t kv, index_t) {
        indexes[static_cast<std::size_t>(kv)] = Index(keys_of(given, kv), values_of(given, kv));
    });
    return indexes;
}

} // namespace sofattn
