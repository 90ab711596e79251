// SPDX-License-Identifier: MIT
// Prefill that skips pages of keys, on the machine at hand.
#pragma once

#include <sofattn/attention/dense.hpp>
#include <sofattn/attention/dropped_mass.hpp>
#include <sofattn/attention/options.hpp>
#include <sofattn/attention/page_block.hpp>
#include <sofattn/attention/page_index.hpp>
#include <sofattn/attention/paged_problem.hpp>
#include <sofattn/attention/prefill_blocks.hpp>
#include <sofattn/attention/prefill_teams.hpp>
#include <sofattn/attention/problem.hpp>
#include <sofattn/core/assert.hpp>
#include <sofattn/core/error.hpp>
#include <sofattn/core/output_array.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/exec/bf16_dot.hpp>
#include <sofattn/exec/parallel.hpp>
#include <sofattn/sads/budget.hpp>
#include <sofattn/sufa/dense_block.hpp>

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace sofattn {

struct ignore_looked_pages {
    void operator()(prefill_row, index_t, index_t, std::uint32_t) const noexcept {}
};

/// Attention over all queries of a sequence that skips pages of 16 keys whose sketches promise little of the
/// softmax (prefill_pages.hpp), and attends to all keys of the others: no key is predicted or selected one by
/// one. Beside sparse_prefill it reads more keys for the same error, and each for a fraction of the time.
///
/// in     given    queries [head, query, dim], keys [kv_head, key, dim], values [kv_head, key, value_dim], any
///                 strides, f32, f16 or bf16, keys and values in a row or in pages of a pool; every mask, learned
///                 sinks. Queries may be the last of the keys, as a chunk's are. Keys and values are read only
///                 where attention is dense
///        indexes  [kv_head], made by `index`, or grown (page_index.hpp) to just these keys
///        options  budget: a mass p (pages of an estimated mass of at most 1 - p are skipped) or an output
///                 error (page_loss), minimum, sinks, window; without, nothing is skipped; the same for
///                 all heads or one each
///        workspace at least workspace_bytes(shape, run.threads()) bytes
/// out    output   [head, query, value_dim] in f32, f16 or bf16; rows that see no key are zero. Skipped
///                 pages have their estimated weight, and the mean value of their segments of 64 keys
///        dropped  of each row, where wanted: that weight's share; not where attention is dense
/// pre    finite inputs; options have passed `check`; sizes fit (SOFATTN_ASSERT)
/// error  sofattn::error from `check` and `index` only
/// events none: this is no circuit
/// exact  pages bit-identical on every target; outputs the same bits for any number of threads, within 2e-5
///        (relative, Frobenius) of a double-precision oracle on the same pages with the same weights of
///        skipped ones, with bf16 products within 1e-2; where dense, dense_attention's bits. The mass that
///        is skipped is an estimate (bench/RESULTS.md: true errors)
///        A chunk of queries looks at the pages, and has the bits, that they have in a prefill of all queries by
///        the same index if teams of 6 queries are cut alike: if its first query is a multiple of 6 from the first
///        of all, and its last a team's last or the last of all. An index of more keys gives the same while its
///        sketches are calibrated alike and no step has changed (page_sketches)
/// paper  section III-A's prediction ahead of attention and Fig. 10's tiles, of pages instead of keys, which
///        the paper does not have
template <dense_products Products = dense_products::f32>
    requires(Products != dense_products::int8)
class page_prefill {
public:
    /// Elsewhere than on targets with exec::has_bf16_dot floats, as in dense_attention.
    using products = std::conditional_t<Products == dense_products::bf16 && exec::has_bf16_dot,
                                        sufa::bf16_products, sufa::f32_products>;
    using index_type = page_index<products>;

    static constexpr index_t teams_most = page_block<products>::teams_most;

    /// Where fewer keys than `dense_below` are, attention is dense. block_teams: teams of six queries that pass
    /// over a tile of keys together, while it is in the cache; changes no bit.
    explicit page_prefill(attention_options options, index_t dense_below = 1024,
                          index_t block_teams = teams_most)
        : options_(std::move(options)), dense_below_(dense_below), block_teams_(block_teams) {}

    [[nodiscard]] attention_options const& options() const noexcept { return options_; }
    [[nodiscard]] bool is_dense(problem_shape const& shape) const noexcept {
        return shape.keys < dense_below_;
    }

    /// Throws `error` for what this path does not do.
    void check(problem_shape const& shape) const {
        check_prefill("page_prefill", options_, shape, block_teams_);
        for (index_t h = 0; h < shape.heads; ++h) {
            sads::budget const& b = options_.budget_of(h);
            char const* const refused = b.count                ? "a count"
                                        : b.ratio < 1.0        ? "a ratio"
                                        : b.radius < no_radius ? "a radius"
                                        : b.at_most            ? "a maximum count"
                                                               : nullptr;
            if (refused != nullptr) {
                throw error(
                    "page_prefill: budget of query head " + std::to_string(h), refused,
                    "a mass, an output error or none: pages are chosen by their estimated mass");
            }
        }
    }

    [[nodiscard]] static constexpr std::size_t workspace_bytes(problem_shape const& shape,
                                                               index_t threads) noexcept {
        return std::max(blocks::workspace_bytes(shape, threads),
                        dense_workspace_bytes(shape, threads));
    }

    /// Allocates; one index per KV head, empty ones if attention will be dense.
    template <key_value_problem Given, exec::parallel_for Run>
    [[nodiscard]] std::vector<index_type> index(Given const& given, Run const& run) const {
        problem_shape const shape = given.shape();
        return is_dense(shape) ? std::vector<index_type>(static_cast<std::size_t>(shape.kv_heads))
                               : index_heads<index_type>(given, run);
    }

    /// on_looked(first row of a team, its rows, first key of a tile of 512, a bit for each page of the tile that
    /// they look at), from any thread; not called where attention is dense.
    template <key_value_problem Given, exec::parallel_for Run, class OnLooked = ignore_looked_pages>
    void operator()(Given const& given, std::span<index_type const> indexes,
                    output_array const& output, std::span<std::byte> workspace, Run const& run,
                    OnLooked const& on_looked = {},
                    dropped_mass const& dropped = {}) const noexcept {
        (*this)(given, indexes, output, workspace, run, on_looked, dropped,
                [&](index_t head) -> sads::budget const& { return options_.budget_of(head); });
    }
    /// The same with budgets of somebody else, who allocates nothing to hand them over: budget_of(query
    /// head), each such that `check` would pass it.
    template <key_value_problem Given, exec::parallel_for Run, class OnLooked,
              std::invocable<index_t> BudgetOf>
    void operator()(Given const& given, std::span<index_type const> indexes,
                    output_array const& output, std::span<std::byte> workspace, Run const& run,
                    OnLooked const& on_looked, dropped_mass const& dropped,
                    BudgetOf const& budget_of) const noexcept {
        SOFATTN_ASSERT(given.is_valid());
        problem_shape const shape = given.extents();
        assert_prefill(shape, indexes, output, workspace.size(),
                       workspace_bytes(shape, run.threads()));
        if (is_dense(shape)) {
            dense_attention<Products>(given, output, workspace, run);
            return;
        }
        prefill_task const task(given.queries, shape, output, dropped, budget_of, page_loss);
        blocks::run(task, block_teams_, workspace, run, [&](block_type& block, auto const& rows) {
            index_type const& index = indexes[static_cast<std::size_t>(rows.kv_head())];
            SOFATTN_ASSERT(index.keys() == shape.keys && index.dim() == shape.dim);
            block(rows, index, [&](index_t i, index_t count, index_t key, std::uint32_t looked) {
                on_looked(rows[i], count, key, looked);
            });
        });
    }

    /// Share of the mass that skipped pages may have, as estimated. An output error lets half as much go: on
    /// recorded layers outputs then err by a fifth of it to one and a half times as much.
    [[nodiscard]] static double page_loss(sads::budget const& b) noexcept {
        return b.mass ? 1.0 - *b.mass : std::min(b.output_error.value_or(0.0) / 2, 0.5);
    }

private:
    using block_type = page_block<products>;
    using blocks = prefill_blocks<block_type>;
    static constexpr double no_radius = std::numeric_limits<double>::infinity();

    attention_options options_;
    index_t dense_below_;
    index_t block_teams_;
};

} // namespace sofattn
