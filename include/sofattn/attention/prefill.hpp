// SPDX-License-Identifier: MIT
// Sparse prefill on the machine at hand.
#pragma once

#include <sofattn/attention/dense.hpp>
#include <sofattn/attention/dropped_mass.hpp>
#include <sofattn/attention/options.hpp>
#include <sofattn/attention/prefill_block.hpp>
#include <sofattn/attention/prefill_blocks.hpp>
#include <sofattn/attention/prefill_index.hpp>
#include <sofattn/attention/problem.hpp>
#include <sofattn/core/assert.hpp>
#include <sofattn/core/error.hpp>
#include <sofattn/core/output_array.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/core/view.hpp>
#include <sofattn/dlzs/calibration.hpp>
#include <sofattn/dlzs/policy.hpp>
#include <sofattn/exec/parallel.hpp>
#include <sofattn/exec/tile_product.hpp>
#include <sofattn/sads/budget.hpp>
#include <sofattn/sufa/logit_source.hpp>

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace sofattn {

struct ignore_kept_keys {
    void operator()(index_t, index_t, index_t, std::span<std::int32_t const>) const noexcept {}
};

/// Sparse attention over all queries of a sequence: what attention<Predictor,
/// sads::adaptive<sads::grain_by_grain>, ...> computes, on vector registers and threads. The same
/// keys are selected from the same scores, among those of the pages that a first level leaves
/// (prefill_pages.hpp).
///
/// in     given    queries [head, query, dim], keys [kv_head, key, dim], values [kv_head, key,
///                 value_dim], any strides, f32, f16 or bf16
///        indexes  [kv_head], made by `index`
///        options  budget (mass, output error, radius, minimum; no ratio, no count, no maximum), the
///                 same for all heads or one each
///        workspace at least workspace_bytes(shape, run.threads()) bytes
/// out    output   [head, query, value_dim] in f32, f16 or bf16; rows that see no key are zero
///        dropped  of each row, where wanted and attention is not dense
/// pre    finite inputs; options have passed `check`; sizes fit (SOFATTN_ASSERT)
/// error  sofattn::error from `check` and `index` only
/// events none: this is no circuit
/// exact  pages, scores and selections bit-identical on every target, and to the reference where all
///        pages are looked at; outputs the same bits for any number of threads, within 2e-5
///        (relative, Frobenius) of a double-precision oracle on the same keys whose reused logits
///        are the positions of scores (0.14 % of a weight at most), plus 2e-4 of what compensation
///        adds, whose weights are the selector's; where dense, dense_attention's bits
/// paper  Fig. 6 and 11 on a CPU; section III for its stages, policies as in their headers. The first
///        level is not in the paper
template <dlzs::byte_policy Predictor = dlzs::rotated_int8,
          sufa::logit_source Source = sufa::reused, bool Compensates = true>
    requires(Predictor::query_step == granularity::per_row && !dlzs::needs_slope<Predictor>)
class sparse_prefill {
    using block_type = prefill_block<Predictor, Source, Compensates>;
    using blocks = prefill_blocks<block_type>;

public:
    static constexpr double default_page_loss = 0.003;

    static constexpr index_t teams_most = block_type::teams_most;

    /// Where fewer keys than `dense_below` are, attention is dense. `page_loss`: share of a row's mass
    /// that pages may have, by their sketches, which are not looked at; 0 looks at all. block_teams: teams
    /// of six queries that read a tile of values together; changes no bit.
    explicit sparse_prefill(attention_options options, index_t dense_below = 2048,
                            double page_loss = default_page_loss, index_t block_teams = teams_most)
        : options_(std::move(options)), dense_below_(dense_below), page_loss_(page_loss),
          block_teams_(block_teams) {}

    [[nodiscard]] attention_options const& options() const noexcept { return options_; }
    [[nodiscard]] bool is_dense(problem_shape const& shape) const noexcept {
        return shape.keys < dense_below_;
    }

    /// Throws `error` for what this path does not do.
    void check(problem_shape const& shape) const {
        check_prefill("sparse_prefill", options_, shape, block_teams_);
        if (!(page_loss_ >= 0.0 && page_loss_ < 1.0)) {
            throw error("sparse_prefill: mass that skipped pages may have",
                        std::to_string(page_loss_), "at least 0 and less than 1");
        }
        if (shape.window > 0) {
            throw error("sparse_prefill: window of the problem", std::to_string(shape.window),
                        "0, no window; dense_attention and page_prefill have them");
        }
        for (index_t h = 0; h < shape.heads; ++h) {
            sads::budget const& b = options_.budget_of(h);
            if (b.count || b.ratio < 1.0) {
                throw error("sparse_prefill: budget of query head " + std::to_string(h),
                            b.count ? "a count" : "a ratio",
                            "a mass, an output error, a radius or none");
            }
            if (b.at_most) {
                throw error("sparse_prefill: maximum count of query head " + std::to_string(h),
                            std::to_string(*b.at_most),
                            "left out: keys are dropped in whole grains, and a maximum below the "
                            "best grain's would leave a row nothing");
            }
        }
    }

    [[nodiscard]] static constexpr std::size_t workspace_bytes(problem_shape const& shape,
                                                               index_t threads) noexcept {
        return std::max(blocks::workspace_bytes(shape, threads),
                        dense_workspace_bytes(shape, threads));
    }

    /// Allocates; one index per KV head, empty ones if attention will be dense.
    template <storage_float Query, storage_float KeyValue, exec::parallel_for Run>
    [[nodiscard]] std::vector<prefill_index<Predictor>> index(problem<Query, KeyValue> const& given,
                                                              Run const& run) const {
        using index_type = prefill_index<Predictor>;
        problem_shape const shape = given.shape();
        return is_dense(shape) ? std::vector<index_type>(static_cast<std::size_t>(shape.kv_heads))
                               : index_heads<index_type>(given, run);
    }

    /// on_kept(head, query, first key of a tile, kept keys of it), from any thread; not called where
    /// attention is dense.
    template <storage_float Query, storage_float KeyValue, exec::parallel_for Run,
              class OnKept = ignore_kept_keys>
    void operator()(problem<Query, KeyValue> const& given,
                    std::span<prefill_index<Predictor> const> indexes, output_array const& output,
                    std::span<std::byte> workspace, Run const& run, OnKept const& on_kept = {},
                    dropped_mass const& dropped = {}) const noexcept {
        (*this)(given, indexes, output, workspace, run, on_kept, dropped,
                [&](index_t head) -> sads::budget const& { return options_.budget_of(head); });
    }
    /// The same with budgets of somebody else, who allocates nothing to hand them over: budget_of(query
    /// head), each such that `check` would pass it.
    template <storage_float Query, storage_float KeyValue, exec::parallel_for Run, class OnKept,
              std::invocable<index_t> BudgetOf>
    void operator()(problem<Query, KeyValue> const& given,
                    std::span<prefill_index<Predictor> const> indexes, output_array const& output,
                    std::span<std::byte> workspace, Run const& run, OnKept const& on_kept,
                    dropped_mass const& dropped, BudgetOf const& budget_of) const noexcept {
        SOFATTN_ASSERT(given.is_valid());
        problem_shape const shape = given.extents();
        SOFATTN_ASSERT(shape.window == 0);
        assert_prefill(shape, indexes, output, workspace.size(),
                       workspace_bytes(shape, run.threads()));
        if (is_dense(shape)) {
            dense_attention(given, output, workspace, run);
            return;
        }
        auto const loss_of = [this](sads::budget const& b) { return page_loss(b); };
        prefill_task const task(given.queries, shape, output, dropped, budget_of, loss_of);
        blocks::run(task, block_teams_, workspace, run, [&](block_type& block, auto const& rows) {
            index_t const kv = rows.kv_head();
            block(rows, indexes[static_cast<std::size_t>(kv)],
                  given.keys.template slice<axis::kv_head>(kv),
                  given.values.template slice<axis::kv_head>(kv),
                  [&](index_t i, index_t key, std::span<std::int32_t const> kept) {
                      on_kept(rows[i].head, rows[i].query, key, kept);
                  });
        });
    }

    /// Share of the mass that pages not looked at may have, as estimated: never more than half of what a
    /// budget lets go, since it all goes one way, where errors of single keys cancel. Nothing is
    /// skipped for budgets that drop nothing for its weight.
    [[nodiscard]] double page_loss(sads::budget const& b) const noexcept {
        double const allowed = b.mass ? 1.0 - *b.mass : b.output_error.value_or(0.0);
        return std::min(page_loss_, allowed / 2);
    }

private:
    attention_options options_;
    index_t dense_below_;
    double page_loss_;
    index_t block_teams_;
};

} // namespace sofattn
