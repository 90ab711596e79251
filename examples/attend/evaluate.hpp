// SPDX-License-Identifier: MIT
// Runs policies on a layer and judges them against the double-precision dense result.
#pragma once

#include "attend/dataset.hpp"
#include "attend/runner.hpp"
#include <sofattn/core/types.hpp>
#include <sofattn/probe/ledger.hpp>
#include <sofattn/ref/quality.hpp>

#include <functional>
#include <span>
#include <vector>

namespace sofattn::attend {

/// One policy on one layer.
struct policy_outcome {
    std::vector<ref::quality> heads; ///< [head]; empty if not judged
    probe::ledger counts;
    std::uint64_t key_loads = 0;
    double time_seconds = 0; ///< of the pipelines alone, added over threads
};

/// Means over some heads. Every head weighs the same: the error is the mean of the heads' relative
/// errors, so that a head with large values does not hide the others.
struct mean_quality {
    double kept_share = 0;
    double recall = 0;
    double mass = 0;
    double output_error_relative = 0;

    [[nodiscard]] static mean_quality of(std::span<ref::quality const> heads) noexcept;
};

/// Called as work is done, from any thread, with the share of the layer that is done.
using on_progress = std::function<void(double share)>;

/// A layer's arrays, whoever owns them.
struct layer_views {
    view<float const, axis::head, axis::query, axis::dim> queries;
    view<float const, axis::kv_head, axis::key, axis::dim> keys;
    view<float const, axis::kv_head, axis::key, axis::value_dim> values;
    bool causal = false;
    double scale = 0;

    [[nodiscard]] static layer_views of(layer const& given) noexcept {
        return {given.q.view(), given.k.view(), given.v.view(), given.info.causal,
                given.info.scale};
    }
};

/// Runs every policy and judges the first `judged` of them on rows from `first_row` on. Work goes
/// head group by head group, in parallel where the program was built with OpenMP; results do not
/// depend on the number of threads. Throws sofattn::error.
[[nodiscard]] std::vector<policy_outcome> evaluate(layer_views const& given,
                                                   std::span<named_policy const> policies,
                                                   std::size_t judged, index_t first_row,
                                                   on_progress const& progress);

/// Runs one head group: its KV head, its problem, where its output goes.
using group_runner = std::function<run_output(
    index_t kv_head, problem<float> const&, view<float, axis::head, axis::query, axis::value_dim>)>;

/// Runs work(kv_head, problem) for all head groups, on as many threads as there are, and passes on
/// the first exception.
void for_each_head_group(layer_views const& given,
                         std::function<void(index_t kv_head, problem<float> const&)> const& work);

/// Quality of whatever `run` does with each head group, which may look at other data than `truth`.
[[nodiscard]] mean_quality quality_of(layer_views const& truth, group_runner const& run,
                                      index_t first_row, on_progress const& progress);

} // namespace sofattn::attend
