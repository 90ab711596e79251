// SPDX-License-Identifier: MIT
// The paper's stages as steps of the pipeline: what flows between them is named here.
#pragma once

#include <sofattn/core/order.hpp>
#include <sofattn/core/query_mask.hpp>
#include <sofattn/core/score_line.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/core/view.hpp>
#include <sofattn/dlzs/generate_row.hpp>
#include <sofattn/dlzs/operands.hpp>
#include <sofattn/dlzs/predict_scores.hpp>
#include <sofattn/sads/candidates.hpp>
#include <sofattn/sufa/logit_source.hpp>
#include <sofattn/sufa/row_arithmetic.hpp>
#include <sofattn/sufa/softmax_state.hpp>
#include <sofattn/sufa/tail.hpp>

#include <algorithm>
#include <concepts>
#include <cstdint>
#include <span>
#include <type_traits>
#include <vector>

namespace sofattn {

/// A piece of work: one query of every head that shares the selection, against a run of visible
/// keys: a tile where all stages are tile-ready, else the whole row.
struct query_run {
    index_t query = 0;
    index_t first_key = 0;
    index_t keys = 0;
};

/// Predicted scores of a run; row h of `scores` is head h's.
template <class Score>
struct run_scores {
    query_run run;
    std::span<Score const> scores; // [head * keys]
};

/// Kept keys of a run, shared by the heads, and the scores they were kept by.
template <class Score>
struct run_kept {
    query_run run;
    std::span<ranked<Score> const> kept;
    std::span<Score const> scores; // [head * keys]
};

/// The kept keys have gone into the softmax states.
template <class Score>
struct run_attended {
    query_run run;
    std::span<ranked<Score> const> kept;
    std::span<Score const> scores; // [head * keys]
};

/// The dropped ones have, too, as far as the tail policy wants.
struct run_done {
    query_run run;
};

/// Phase 1.2 for every head of the selection.
template <dlzs::policy Predictor>
struct predict_step {
    using score = dlzs::score_type<Predictor>;

    dlzs::query_codes<Predictor> const* queries;
    dlzs::key_index<Predictor> const* keys;
    index_t heads;
    std::span<score> scores; // [head * keys], scratch

    template <class X>
    run_scores<score> operator()(X& x, query_run const& run) const noexcept {
        for (index_t h = 0; h < heads; ++h) {
            auto const row = scores.subspan(static_cast<std::size_t>(h * run.keys),
                                            static_cast<std::size_t>(run.keys));
            if constexpr (std::same_as<Predictor, dlzs::unpredicted>) {
                std::ranges::fill(row, score{0});
            } else {
                dlzs::predict_scores<Predictor>{}(
                    x, queries->row(h, run.query),
                    keys->codes().template range<axis::key>(run.first_key, run.keys), row);
            }
        }
        return {run, scores.first(static_cast<std::size_t>(heads * run.keys))};
    }
};

/// Top-k; heads that share a selection are ranked by their largest score, which is why
/// query_codes gives them one step.
template <class Selector, class Score>
struct select_step {
    index_t heads;
    std::span<sads::row_rule const> rules; // [query], of the block
    index_t first_query;
    sads::segmentation cut;
    std::span<Score> shared; // [key], scratch
    sads::select_scratch<Score>* scratch;
    std::span<ranked<Score>> kept;            // [key], scratch
    std::span<sads::running_row<Score>> rows; // [query], of the block

    template <class X>
    run_kept<Score> operator()(X& x, run_scores<Score> const& in) const noexcept {
        auto const keys = static_cast<std::size_t>(in.run.keys);
        std::span<Score const> row = in.scores.first(keys);
        if (heads > 1) {
            auto const most = shared.first(keys);
            std::ranges::copy(row, most.begin());
            for (index_t h = 1; h < heads; ++h) {
                auto const other = in.scores.subspan(static_cast<std::size_t>(h) * keys, keys);
                std::ranges::transform(most, other, most.begin(),
                                       [](Score a, Score b) { return std::max(a, b); });
            }
            if constexpr (X::probe_type::enabled) {
                x.probe(probe::stage::selection, probe::event::compare,
                        static_cast<std::uint64_t>(heads - 1) * keys);
            }
            row = most;
        }
        auto const at = static_cast<std::size_t>(in.run.query - first_query);
        scratch->row = &rows[at];
        index_t const count =
            Selector{}(x, sads::score_run<Score>{row, static_cast<key_id>(in.run.first_key)},
                       rules[at], cut, *scratch, kept);
        return {in.run, kept.first(static_cast<std::size_t>(count)), in.scores};
    }
};

/// Keys and values of one KV head that come into being when they are first kept.
template <storage_float Model>
struct on_demand_rows {
    view<Model const, axis::key, axis::channel> tokens;
    dlzs::projection<Model, axis::dim> key_projection;
    dlzs::projection<Model, axis::value_dim> value_projection;
    view<float, axis::key, axis::dim> keys;
    view<float, axis::key, axis::value_dim> values;
    std::span<char> present; // [key]
};

/// Exact K and V of kept tokens that do not exist yet.
template <storage_float Model>
struct generate_step {
    on_demand_rows<Model> const* rows;

    template <class X, class Score>
    run_kept<Score> operator()(X& x, run_kept<Score> const& in) const noexcept {
        for (auto const& entry : in.kept) {
            char& present = rows->present[static_cast<std::size_t>(entry.key)];
            if (present == 0) {
                present = 1;
                generate(x, rows->key_projection, rows->keys, entry.key);
                generate(x, rows->value_projection, rows->values, entry.key);
                if constexpr (X::probe_type::enabled) {
                    x.probe(probe::stage::kv_generation, probe::event::token_bytes,
                            static_cast<std::uint64_t>(rows->key_projection.channels()) *
                                probe::formal_operand_bytes);
                }
            }
        }
        return in;
    }

private:
    template <class X, class Dim>
    void generate(X& x, dlzs::projection<Model, Dim> const& by, view<float, axis::key, Dim> into,
                  index_t key) const noexcept {
        dlzs::generate_row{}(x, rows->tokens, by, key,
                             std::span(&into(key, 0), static_cast<std::size_t>(by.dims())));
    }
};

/// Formal attention of every head over the kept keys, in chunks of at most `tile` of them. Where the
/// attender reuses scores, a multiply and an add per kept key turn one into a logit.
template <class Attender, storage_float Query, storage_float Key, storage_float Value, class Real>
struct attend_step {
    view<Query const, axis::head, axis::query, axis::dim> queries; // of the selection's heads
    key_view<Key const> keys;
    value_view<Value const> values;
    double scale;
    index_t tile;
    index_t first_query;
    index_t rows;                                // queries of the block
    std::span<score_line const> lines;           // [head * rows]
    std::span<Real> logits;                      // scratch
    std::span<sufa::softmax_state<Real>> states; // [head * rows]
    std::span<query_mask>
        computed_by; // [key of the run], who computes q.k; where scores are reused

    template <class X, class Score>
    run_attended<Score> operator()(X& x, run_kept<Score> const& in) const noexcept {
        auto const count = std::ssize(in.kept);
        index_t const chunk = Attender::tile_ready ? tile : std::max<index_t>(1, count);
        index_t const chunks = ceil_div(count, chunk);
        for (index_t h = 0; h < queries.template extent<axis::head>(); ++h) {
            sufa::attend_inputs<Query, Key, Value> const inputs{
                queries.template slice<axis::head>(h).template slice<axis::query>(in.run.query),
                keys, values, scale};
            auto& state = states[static_cast<std::size_t>(h * rows + in.run.query - first_query)];
            for (index_t c = 0; c < chunks; ++c) {
                index_t const at = (Attender::from_back ? chunks - 1 - c : c) * chunk;
                auto const kept =
                    in.kept.subspan(static_cast<std::size_t>(at),
                                    static_cast<std::size_t>(std::min(chunk, count - at)));
                if constexpr (sufa::reuses_scores<Attender>) {
                    predict_logits(x, in, h, kept, state);
                }
                Attender{}(x, inputs, kept, logits, state);
            }
        }
        return {in.run, in.kept, in.scores};
    }

private:
    /// The head's own predicted logits of a chunk, and a note of those that will be computed.
    template <class X, class Score>
    void predict_logits(X& x, run_kept<Score> const& in, index_t head,
                        std::span<ranked<Score> const> kept,
                        sufa::softmax_state<Real> const& state) const noexcept {
        if (kept.empty()) {
            return;
        }
        index_t const row = in.run.query - first_query;
        score_line const line = lines[static_cast<std::size_t>(head * rows + row)];
        auto const scores = in.scores.subspan(static_cast<std::size_t>(head * in.run.keys));
        for (std::size_t i = 0; i < kept.size(); ++i) {
            auto const k = static_cast<std::size_t>(kept[i].key - in.run.first_key);
            logits[i] = Real(line.logit(static_cast<double>(scores[k])));
        }
        Real const least = sufa::tile_logits<typename Attender::logits_from>::least_computed(
            state, std::span<Real const>(logits).first(kept.size()));
        for (std::size_t i = 0; i < kept.size(); ++i) {
            if (!(logits[i] < least)) {
                computed_by[static_cast<std::size_t>(kept[i].key - in.run.first_key)].set(row);
            }
        }
        if constexpr (X::probe_type::enabled) {
            x.probe(probe::stage::attention, probe::event::multiply, kept.size());
            x.probe(probe::stage::attention, probe::event::add, kept.size());
        }
    }
};

/// What becomes of the dropped keys of every head.
template <sufa::tail_policy Tail, storage_float Value, class Real>
struct tail_step {
    value_view<Value const> values;
    sufa::tail_values<Tail> const* prepared;
    index_t heads;
    index_t first_query;
    index_t rows;                                // queries of the block
    std::span<score_line const> lines;           // [head * rows]
    std::span<sufa::softmax_state<Real>> states; // [head * rows]
    std::span<sufa::tail_state<Real>> tails;     // [head * rows]
    sufa::tail_scratch<Real>* scratch;

    template <class X, class Score>
    run_done operator()(X& x, run_attended<Score> const& in) const noexcept {
        if constexpr (Tail::by != sufa::stand_in::nobody) {
            for (index_t h = 0; h < heads; ++h) {
                auto const at = static_cast<std::size_t>(h * rows + in.run.query - first_query);
                sufa::tail_compensation<Tail>{}(
                    x, values, *prepared, lines[at], in.run.first_key,
                    in.scores.subspan(static_cast<std::size_t>(h * in.run.keys),
                                      static_cast<std::size_t>(in.run.keys)),
                    in.kept, *scratch, states[at], tails[at]);
            }
        }
        return {in.run};
    }
};

} // namespace sofattn
