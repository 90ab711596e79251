// SPDX-License-Identifier: MIT
// The steps of the pipeline that have kernels on vector registers.
#pragma once

#include <sofattn/attention/problem.hpp>
#include <sofattn/attention/stages.hpp>
#include <sofattn/core/query_mask.hpp>
#include <sofattn/core/score_line.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/dlzs/register_scores.hpp>
#include <sofattn/sufa/logit_source.hpp>
#include <sofattn/sufa/register_attend.hpp>
#include <sofattn/sufa/register_rows.hpp>
#include <sofattn/sufa/register_tail.hpp>
#include <sofattn/sufa/softmax_state.hpp>
#include <sofattn/sufa/tail.hpp>

#include <algorithm>
#include <concepts>
#include <span>

namespace sofattn {

/// Queries whose scores of a run are there already.
struct predicted_ahead {
    index_t first_key = -1;
    index_t query = 0; ///< first of them
    index_t rows = 0;
    index_t stride = 0; ///< scores from one's to the next's

    [[nodiscard]] bool has(query_run const& run) const noexcept {
        return run.first_key == first_key && run.query >= query && run.query < query + rows;
    }
};

/// Phase 1.2, several rows at a time: the heads of the selection, or the queries that come next.
template <dlzs::policy Predictor>
struct predict_rows_step {
    using score = dlzs::score_type<Predictor>;

    dlzs::register_queries<Predictor> const* queries;
    dlzs::register_keys<Predictor> const* keys;
    problem_shape const* shape;
    index_t heads;
    index_t end_query;       // of the block
    index_t run_keys;        // of the longest run
    std::span<score> scores; // [max(heads, rows_together) * run_keys], scratch
    predicted_ahead* ahead;

    template <class X>
    run_scores<score> operator()(X&, query_run const& run) const noexcept {
        auto const count = static_cast<std::size_t>(run.keys);
        if constexpr (std::same_as<Predictor, dlzs::unpredicted>) {
            auto const row = scores.first(count * static_cast<std::size_t>(heads));
            std::ranges::fill(row, score{0});
            return {run, row};
        } else if (heads > 1) {
            for (index_t h = 0; h < heads; h += dlzs::rows_together) {
                dlzs::predict_rows<Predictor>{}(*queries,
                                                {h * shape->queries + run.query, shape->queries,
                                                 std::min(dlzs::rows_together, heads - h)},
                                                *keys, {run.first_key, run.first_key + run.keys},
                                                scores.data() + h * run.keys, run.keys);
            }
            return {run, scores.first(count * static_cast<std::size_t>(heads))};
        } else {
            if (!ahead->has(run)) {
                predict_ahead(run);
            }
            index_t const at = (run.query - ahead->query) * ahead->stride;
            return {run, scores.subspan(static_cast<std::size_t>(at), count)};
        }
    }

private:
    void predict_ahead(query_run const& run) const noexcept {
        index_t const rows = std::min(dlzs::rows_together, end_query - run.query);
        // The last of them sees most.
        index_t const seen =
            std::min(run_keys, shape->visible(run.query + rows - 1) - run.first_key);
        *ahead = {run.first_key, run.query, rows, seen};
        dlzs::predict_rows<Predictor>{}(*queries, {run.query, 1, rows}, *keys,
                                        {run.first_key, run.first_key + seen}, scores.data(), seen);
    }
};

/// Formal attention of every head over the kept keys, in the chunks of attend_step.
template <class Attender>
struct attend_rows_step {
    using source = sufa::logits_from<Attender>;

    std::span<sufa::register_rows<axis::query, axis::dim> const>
        queries; // of the selection's heads
    sufa::row_of_registers keys;
    sufa::row_of_registers values;
    double scale;
    index_t tile;
    index_t first_query;
    index_t rows;                      // queries of the block
    std::span<score_line const> lines; // [head * rows]
    sufa::register_attend_scratch* scratch;
    std::span<sufa::softmax_state<float>> states; // [head * rows]
    std::span<query_mask> computed_by;            // as in attend_step

    template <class X, class Score>
    run_attended<Score> operator()(X&, run_kept<Score> const& in) const noexcept {
        auto const count = std::ssize(in.kept);
        index_t const chunk = Attender::tile_ready ? tile : std::max<index_t>(1, count);
        index_t const chunks = ceil_div(count, chunk);
        index_t const row = in.run.query - first_query;
        for (index_t h = 0; h < std::ssize(queries); ++h) {
            auto const query = queries[static_cast<std::size_t>(h)].rows();
            sufa::register_inputs const inputs{query.data + in.run.query * query.row, keys, values,
                                               static_cast<float>(scale)};
            auto const at = static_cast<std::size_t>(h * rows + row);
            for (index_t c = 0; c < chunks; ++c) {
                index_t const from = (Attender::from_back ? chunks - 1 - c : c) * chunk;
                auto const kept =
                    in.kept.subspan(static_cast<std::size_t>(from),
                                    static_cast<std::size_t>(std::min(chunk, count - from)));
                if constexpr (source::reuses) {
                    auto const scores = in.scores.subspan(static_cast<std::size_t>(h * in.run.keys),
                                                          static_cast<std::size_t>(in.run.keys));
                    sufa::register_attend<source>{}(
                        inputs, kept, lines[at], scores, in.run.first_key, *scratch, states[at],
                        [&](key_id key) {
                            computed_by[static_cast<std::size_t>(key - in.run.first_key)].set(row);
                        });
                } else {
                    sufa::register_attend<source>{}(inputs, kept, *scratch, states[at]);
                }
            }
        }
        return {in.run, in.kept, in.scores};
    }
};

/// What becomes of the dropped keys of every head.
template <sufa::tail_policy Tail>
struct tail_rows_step {
    sufa::row_of_registers values;
    sufa::row_of_registers stand_ins;
    index_t heads;
    index_t first_query;
    index_t rows;                                 // queries of the block
    std::span<score_line const> lines;            // [head * rows]
    std::span<sufa::softmax_state<float>> states; // [head * rows]
    std::span<sufa::tail_state<float>> tails;     // [head * rows]
    sufa::register_tail_scratch* scratch;

    template <class X, class Score>
    run_done operator()(X&, run_attended<Score> const& in) const noexcept {
        if constexpr (Tail::by != sufa::stand_in::nobody) {
            for (index_t h = 0; h < heads; ++h) {
                auto const at = static_cast<std::size_t>(h * rows + in.run.query - first_query);
                sufa::register_tail<Tail>{}(
                    values, stand_ins, lines[at], in.run.first_key,
                    in.scores.subspan(static_cast<std::size_t>(h * in.run.keys),
                                      static_cast<std::size_t>(in.run.keys)),
                    in.kept, *scratch, states[at], tails[at]);
            }
        }
        return {in.run};
    }
};

} // namespace sofattn
