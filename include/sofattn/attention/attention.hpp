// SPDX-License-Identifier: MIT
// The SOFA pipeline: predict, select, attend, tile by tile, paper Fig. 6 and 11.
#pragma once

#include <sofattn/attention/certificate.hpp>
#include <sofattn/attention/options.hpp>
#include <sofattn/attention/pipeline.hpp>
#include <sofattn/attention/policies.hpp>
#include <sofattn/attention/problem.hpp>
#include <sofattn/attention/result.hpp>
#include <sofattn/attention/stages.hpp>
#include <sofattn/attention/workspace.hpp>
#include <sofattn/core/hadamard.hpp>
#include <sofattn/core/query_mask.hpp>
#include <sofattn/core/score_line.hpp>
#include <sofattn/core/tensor.hpp>
#include <sofattn/dlzs/calibration.hpp>
#include <sofattn/dlzs/predict_keys.hpp>
#include <sofattn/exec/executor.hpp>
#include <sofattn/rass/schedule.hpp>
#include <sofattn/sads/segment_topk.hpp>
#include <sofattn/sufa/logit_source.hpp>
#include <sofattn/sufa/rivals.hpp>
#include <sofattn/sufa/sorted_updating.hpp>
#include <sofattn/sufa/tail.hpp>

#include <algorithm>
#include <concepts>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace sofattn {

/// Dynamic sparse attention, composed: what is predicted, how keys are selected, how they are
/// attended, in which order they are loaded, and on which arithmetic it runs.
///
/// in     problem  queries [head, query, dim], keys [kv_head, key, dim], values [kv_head, key,
///                 value_dim]; or a projected_problem, whose K and V are predicted from X and
///                 generated on demand
/// out    output   [head, query, value_dim]; rows that see no key are zero
/// pre    none beyond what is checked
/// error  sofattn::error, before anything is written, for shapes, options or numbers that make no
///        attention (problem_shape, attention_options, require_finite)
/// events those of the stages; query, index and output bytes once per block of 128 queries, key and
///        value bytes per load of the schedule
/// exact  selections and predicted scores bit-identical on every executor; outputs as the attender
///        says; nothing depends on the number of threads
/// paper  Fig. 6, 10 and 11: a tile of keys is predicted, sorted and consumed before the next;
///        where a policy needs whole rows, the hand-over is by row, as in earlier designs (Fig. 3)
template <dlzs::policy Predictor, selector_policy Selector, attender_policy Attender,
          exec::executor_like Execution = exec::reference,
          schedule_policy Schedule = rass::reuse_aware,
          dlzs::key_prediction_policy KeyPrediction = dlzs::coded_weights,
          sufa::tail_policy Tail = sufa::no_tail>
class attention {
public:
    using predictor = Predictor;
    using selector = Selector;
    using attender = Attender;
    using execution = Execution;
    using schedule = Schedule;
    using tail = Tail;
    using score = dlzs::score_type<Predictor>;

    /// Whether a tile goes through all stages before the next is predicted.
    static constexpr bool tile_ready = Selector::tile_ready && Attender::tile_ready;

    attention() = default;
    explicit attention(attention_options options) : options_(std::move(options)) {}

    [[nodiscard]] attention_options const& options() const noexcept { return options_; }

    /// on_row(head, query, row_certificate), if given, has every row certified.
    template <storage_float Query, storage_float KeyValue, class OnKept = ignore_kept,
              class OnRow = ignore_rows>
    attention_result operator()(Execution& x, problem<Query, KeyValue> const& given,
                                view<float, axis::head, axis::query, axis::value_dim> output,
                                OnKept on_kept = {}, OnRow on_row = {}) const {
        static_assert(std::same_as<OnRow, ignore_rows> || !Execution::probe_type::enabled,
                      "attention: certificates are no part of the circuit and not counted; ask an "
                      "executor without a probe for them");
        problem_shape const shape = checked(given, output);
        workspace scratch = make_workspace(shape, options_);
        attention_result result;
        for (index_t kv = 0; kv < shape.kv_heads; ++kv) {
            auto const keys = given.keys.template slice<axis::kv_head>(kv);
            auto const values = given.values.template slice<axis::kv_head>(kv);
            auto const index = build_index(x, keys);
            run_kv_head(x, shape, kv, given.queries, index, keys, keys, values, output, scratch,
                        on_kept, on_row, result);
        }
        return result;
    }

    template <storage_float Query, storage_float Model, class OnKept = ignore_kept>
    attention_result operator()(Execution& x, projected_problem<Query, Model> const& given,
                                view<float, axis::head, axis::query, axis::value_dim> output,
                                OnKept on_kept = {}) const {
        static_assert(Tail::by == sufa::stand_in::nobody,
                      "attention: values of dropped keys do not exist where K and V are made on "
                      "demand; use sufa::no_tail, or a problem with K and V");
        static_assert(!sufa::reuses_scores<Attender>,
                      "attention: scores of predicted keys are ranks, not logits to attend with; "
                      "use sufa::recomputed, or a problem with K and V");
        problem_shape const shape = checked(given, output);
        workspace scratch = make_workspace(shape, options_);
        tensor<float, axis::key, axis::dim> keys({shape.keys, shape.dim});
        tensor<float, axis::key, axis::value_dim> values({shape.keys, shape.value_dim});
        std::vector<char> present(static_cast<std::size_t>(shape.keys));
        attention_result result;
        for (index_t kv = 0; kv < shape.kv_heads; ++kv) {
            dlzs::key_predictor<KeyPrediction> const predict(given.tokens,
                                                             given.key_projection(kv));
            auto const predicted = predict(x, given.tokens);
            auto const index = build_index(x, predicted.cview());
            std::ranges::fill(present, char{0});
            on_demand_rows<Model> const rows{given.tokens,
                                             given.key_projection(kv),
                                             given.value_projection(kv),
                                             keys.view(),
                                             values.view(),
                                             present};
            ignore_rows uncertified;
            run_kv_head(x, shape, kv, given.queries, index, predicted.cview(), keys.cview(),
                        values.cview(), output, scratch, on_kept, uncertified, result,
                        generate_step<Model>{&rows});
            auto const generated = static_cast<std::uint64_t>(std::ranges::count(present, char{1}));
            result.generated += generated;
            if constexpr (Execution::probe_type::enabled) {
                // The weights stay on chip while tokens stream by (section IV-A).
                if (generated > 0) {
                    auto const weights =
                        static_cast<std::uint64_t>(given.tokens.template extent<axis::channel>() *
                                                   (shape.dim + shape.value_dim));
                    x.probe(probe::stage::kv_generation, probe::event::weight_bytes,
                            weights * probe::formal_operand_bytes);
                }
            }
        }
        return result;
    }

private:
    using real = sufa::detail::real_number<Execution>;

    static constexpr bool compensates = Tail::by != sufa::stand_in::nobody;
    static constexpr bool reuses = sufa::reuses_scores<Attender>;
    static_assert(!reuses || !std::same_as<Predictor, dlzs::unpredicted>,
                  "attention: there are no scores to reuse; use sufa::recomputed or a predictor");
    /// Weights of scores matter, so scores must be calibrated logits.
    static constexpr bool weighs = !std::same_as<Predictor, dlzs::unpredicted> &&
                                   (compensates || reuses || weighs_scores<Selector>);

    using workspace = detail::attention_workspace<score, real>;

    static workspace make_workspace(problem_shape const& shape, attention_options const& options) {
        return {shape.value_dim, options.heads_per_selection(shape),
                tile_ready ? std::min(options.tile_keys, shape.keys) : shape.keys, compensates,
                reuses};
    }

    /// A block of queries of the heads of one selection.
    struct block {
        index_t head = 0; ///< first of the selection
        index_t first_query = 0;
        index_t rows = 0;
        index_t visible = 0; ///< keys that its last query sees
    };

    template <class Problem>
    problem_shape checked(Problem const& given,
                          view<float, axis::head, axis::query, axis::value_dim> output) const {
        problem_shape const shape = given.shape();
        options_.validate(shape);
        detail::require(shape.window == 0, "window", shape.window,
                        "0 here: dense_attention has windows, selection has none");
        detail::require(output.extent<axis::head>() == shape.heads, "heads of the output",
                        output.extent<axis::head>(), "those of queries, ", shape.heads);
        detail::require(output.extent<axis::query>() == shape.queries, "tokens of the output",
                        output.extent<axis::query>(), "those of queries, ", shape.queries);
        detail::require(output.extent<axis::value_dim>() == shape.value_dim,
                        "head dimension of the output", output.extent<axis::value_dim>(),
                        "that of values, ", shape.value_dim);
        if (options_.check_finite) {
            given.require_finite();
        }
        return shape;
    }

    template <storage_float T>
    static dlzs::key_index<Predictor> build_index(Execution& x, key_view<T const> keys) {
        if constexpr (std::same_as<Predictor, dlzs::unpredicted>) {
            return {};
        } else {
            if constexpr (Predictor::key == dlzs::operand::leading_zero) {
                x.probe(probe::stage::key_prediction, probe::event::lz_encode,
                        static_cast<std::uint64_t>(keys.size()));
            }
            if constexpr (Predictor::rotated) {
                x.probe(probe::stage::key_prediction, probe::event::add,
                        rotation_adds(keys.template extent<axis::key>(),
                                      keys.template extent<axis::dim>()));
            }
            return dlzs::key_index<Predictor>(keys);
        }
    }

    static std::uint64_t rotation_adds(index_t rows, index_t dims) noexcept {
        return static_cast<std::uint64_t>(rows * hadamard_adds(dims));
    }

    template <class Query, class Indexed, class Key, class Value, class OnKept, class OnRow,
              class... Generate>
    void run_kv_head(Execution& x, problem_shape const& shape, index_t kv,
                     view<Query const, axis::head, axis::query, axis::dim> all_queries,
                     dlzs::key_index<Predictor> const& index, key_view<Indexed const> indexed,
                     key_view<Key const> keys, value_view<Value const> values,
                     view<float, axis::head, axis::query, axis::value_dim> output,
                     workspace& scratch, OnKept& on_kept, OnRow& on_row, attention_result& result,
                     Generate... generate) const {
        // Certificates estimate weights; they do not change what a selector reads.
        constexpr bool calibrates = weighs || !std::same_as<OnRow, ignore_rows>;
        dlzs::key_means<Predictor> means;
        if constexpr (calibrates) {
            means = dlzs::key_means<Predictor>(indexed, index);
        }
        sufa::tail_values<Tail> const prepared = prepare_tail(x, values);
        auto certificates = make_certificates<OnRow>(indexed, index, values, prepared, scratch);
        std::vector<dlzs::score_calibration> calibration(static_cast<std::size_t>(scratch.heads));
        for (index_t in_group = 0; in_group < shape.group(); in_group += scratch.heads) {
            index_t const head = kv * shape.group() + in_group;
            auto const queries = all_queries.template range<axis::head>(head, scratch.heads);
            dlzs::query_codes<Predictor> codes;
            if constexpr (!std::same_as<Predictor, dlzs::unpredicted>) {
                codes = dlzs::query_codes<Predictor>(queries, index);
            }
            if constexpr (calibrates && dlzs::needs_slope<Predictor>) {
                for (index_t h = 0; h < scratch.heads; ++h) {
                    calibration[static_cast<std::size_t>(h)] = dlzs::calibrate<Predictor>(
                        queries.template slice<axis::head>(h), codes, h, indexed, index,
                        [&](index_t q) { return shape.visible(q); });
                }
            }
            for (index_t first = 0; first < shape.queries; first += query_block) {
                block const b{head, first, std::min(query_block, shape.queries - first),
                              shape.visible(std::min(first + query_block, shape.queries) - 1)};
                begin_block(shape, b, queries, codes, means, calibration, scratch);
                begin_certificates(certificates, shape, b, queries, codes, means, calibration,
                                   scratch);
                pipeline const stages(
                    predict_step<Predictor>{&codes, &index, scratch.heads, scratch.scores},
                    select_step<Selector, score>{scratch.heads,
                                                 scratch.rules,
                                                 first,
                                                 {options_.tile_keys},
                                                 scratch.shared,
                                                 &scratch.select,
                                                 scratch.kept,
                                                 scratch.rows},
                    keep_listener(on_kept, b, scratch, result), generate...,
                    attend_step<Attender, Query, Key, Value, real>{
                        queries, keys, values, shape.scale, options_.tile_keys, first, b.rows,
                        scratch.lines, scratch.logits, scratch.states, scratch.computed_by},
                    certify_step<decltype(certificates)>{&certificates, scratch.heads, first,
                                                         b.rows, scratch.certified_lines},
                    tail_step<Tail, Value, real>{values, &prepared, scratch.heads, first, b.rows,
                                                 scratch.lines, scratch.states, scratch.tails,
                                                 &scratch.tail});
                run_block(x, shape, b, index, stages, scratch, result);
                finish_block(x, shape, b, output, scratch, certificates, on_row);
            }
        }
    }

    /// A KV head's values in the form the tail reads, once for all its queries.
    template <storage_float Value>
    static sufa::tail_values<Tail> prepare_tail(Execution& x, value_view<Value const> values) {
        if constexpr (compensates) {
            if constexpr (sufa::tail_values<Tail>::has_sums) {
                x.probe(probe::stage::compensation, probe::event::add,
                        static_cast<std::uint64_t>(values.size()));
            }
            return sufa::tail_values<Tail>(values);
        } else {
            return {};
        }
    }

    /// A certifier, if anybody wants to know.
    template <class OnRow, class Indexed, class Value>
    static auto
    make_certificates(key_view<Indexed const> indexed, dlzs::key_index<Predictor> const& index,
                      value_view<Value const> values, sufa::tail_values<Tail> const& prepared,
                      workspace const& scratch) {
        if constexpr (std::same_as<OnRow, ignore_rows>) {
            return no_certificates{};
        } else {
            static_assert(!std::same_as<Predictor, dlzs::unpredicted>,
                          "attention: nothing is dropped without a predictor, nor certified");
            return certifier<Predictor, Tail, sufa::logits_from<Attender>>(
                indexed, index, values, prepared, scratch.heads * query_block);
        }
    }

    template <class Certificates, class Query>
    static void
    begin_certificates(Certificates& certificates, problem_shape const& shape, block const& b,
                       view<Query const, axis::head, axis::query, axis::dim> queries,
                       dlzs::query_codes<Predictor> const& codes,
                       dlzs::key_means<Predictor> const& means,
                       std::span<dlzs::score_calibration const> calibration, workspace& scratch) {
        if constexpr (!std::same_as<Certificates, no_certificates>) {
            constexpr auto epsilon =
                static_cast<double>(std::numeric_limits<typename Execution::real_type>::epsilon());
            scratch.certified_lines.resize(scratch.lines.size());
            for (index_t h = 0; h < scratch.heads; ++h) {
                for (index_t r = 0; r < b.rows; ++r) {
                    index_t const q = b.first_query + r;
                    index_t const at = h * b.rows + r;
                    auto const query =
                        queries.template slice<axis::head>(h).template slice<axis::query>(q);
                    certificates.begin(at, query, codes, h, q, shape.scale, shape.visible(q),
                                       epsilon);
                    scratch.certified_lines[static_cast<std::size_t>(at)] =
                        means.line(query, codes.row(h, q), codes.product_step(q), shape.scale,
                                   calibration[static_cast<std::size_t>(h)], shape.visible(q));
                }
            }
        }
    }

    template <class Query>
    void
    begin_block(problem_shape const& shape, block const& b,
                view<Query const, axis::head, axis::query, axis::dim> queries,
                dlzs::query_codes<Predictor> const& codes, dlzs::key_means<Predictor> const& means,
                std::span<dlzs::score_calibration const> calibration, workspace& scratch) const {
        auto const dims = static_cast<std::size_t>(shape.value_dim);
        for (index_t h = 0; h < scratch.heads; ++h) {
            for (index_t r = 0; r < b.rows; ++r) {
                auto const at = static_cast<std::size_t>(h * b.rows + r);
                scratch.states[at] = sufa::softmax_state<real>::empty(
                    std::span(scratch.outputs).subspan(at * dims, dims));
                if constexpr (compensates) {
                    scratch.tails[at] = sufa::tail_state<real>::empty(
                        std::span(scratch.tail_sums).subspan(at * dims, dims));
                }
                index_t const q = b.first_query + r;
                score_line& line = scratch.lines[at];
                line = {0.0, shape.scale};
                if constexpr (weighs) {
                    line = means.line(
                        queries.template slice<axis::head>(h).template slice<axis::query>(q),
                        codes.row(h, q), codes.product_step(q), shape.scale,
                        calibration[static_cast<std::size_t>(h)], shape.visible(q));
                } else if constexpr (!std::same_as<Predictor, dlzs::unpredicted>) {
                    line.per_score *= codes.product_step(q);
                }
            }
        }
        for (index_t r = 0; r < b.rows; ++r) {
            index_t const q = b.first_query + r;
            auto const at = static_cast<std::size_t>(r);
            scratch.rows[at] = {};
            // Heads that select together are weighed as the first of them.
            scratch.rules[at] = sads::row_rule::of(options_.budget_of(b.head), shape.visible(q),
                                                   scratch.lines[at].per_score, shape.position(q));
        }
    }

    /// The step between selection and attention that remembers who wants which key.
    template <class OnKept>
    static auto keep_listener(OnKept& on_kept, block const& b, workspace& scratch,
                              attention_result& result) {
        return
            [&on_kept, &b, &scratch, &result]([[maybe_unused]] auto& x, run_kept<score> const& in) {
                if constexpr (requires { x.probe.row_kept(in.kept.size()); }) {
                    x.probe.row_kept(in.kept.size());
                }
                for (auto const& entry : in.kept) {
                    scratch.wanted_by[static_cast<std::size_t>(entry.key - in.run.first_key)].set(
                        in.run.query - b.first_query);
                }
                for (index_t h = 0; h < scratch.heads; ++h) {
                    on_kept(b.head + h, in.run.query, in.kept);
                }
                result.kept_pairs += in.kept.size() * static_cast<std::size_t>(scratch.heads);
                return in;
            };
    }

    template <class Stages>
    void run_block(Execution& x, problem_shape const& shape, block const& b,
                   dlzs::key_index<Predictor> const& index, Stages const& stages,
                   workspace& scratch, attention_result& result) const {
        for (index_t first_key = 0; first_key < b.visible; first_key += scratch.run_keys) {
            index_t const keys = std::min(scratch.run_keys, b.visible - first_key);
            x.probe.begin_tile({b.head, b.first_query, first_key});
            for (index_t q = b.first_query; q < b.first_query + b.rows; ++q) {
                index_t const seen = std::clamp<index_t>(shape.visible(q) - first_key, 0, keys);
                result.visible_pairs += static_cast<std::uint64_t>(seen * scratch.heads);
                if (seen > 0) {
                    stages(x, query_run{q, first_key, seen});
                }
            }
            load_run(x, shape, first_key, keys, scratch, result);
            if constexpr (Execution::probe_type::enabled &&
                          !std::same_as<Predictor, dlzs::unpredicted>) {
                x.probe(
                    probe::stage::score_prediction, probe::event::index_bytes,
                    static_cast<std::uint64_t>(ceil_div<index_t>(keys * index.bits_per_key(), 8)));
            }
        }
    }

    /// Schedules the values that the block wants of this run, with the keys, and counts the loads.
    void load_run(Execution& x, problem_shape const& shape, index_t first_key, index_t keys,
                  workspace& scratch, attention_result& result) const {
        std::uint64_t const values = loads_of(scratch.wanted_by, first_key, keys, scratch);
        std::uint64_t const computed =
            reuses ? loads_of(scratch.computed_by, first_key, keys, scratch) : values;
        result.value_loads += values;
        result.key_loads += computed;
        if constexpr (Execution::probe_type::enabled) {
            auto const bytes_of = [](std::uint64_t count, index_t dims) {
                return count * static_cast<std::uint64_t>(dims) * probe::formal_operand_bytes;
            };
            auto const at = probe::stage::schedule;
            x.probe(at, probe::event::key_bytes, bytes_of(computed, shape.dim));
            x.probe(at, probe::event::value_bytes, bytes_of(values, shape.value_dim));
        }
    }

    /// Loads of what a block's queries want of a run; clears the wishes.
    static std::uint64_t loads_of(std::span<query_mask> wishes, index_t first_key, index_t keys,
                                  workspace& scratch) {
        std::size_t wanted = 0;
        for (index_t k = 0; k < keys; ++k) {
            query_mask& by = wishes[static_cast<std::size_t>(k)];
            if (!by.empty()) {
                scratch.wanted[wanted++] = {static_cast<key_id>(first_key + k), by};
                by = {};
            }
        }
        rass::totals const loads =
            Schedule{}(std::span<rass::wanted_key const>(scratch.wanted).first(wanted),
                       scratch.order, [](rass::load) {});
        return static_cast<std::uint64_t>(loads.key_loads);
    }

    template <class Certificates, class OnRow>
    void finish_block(Execution& x, problem_shape const& shape, block const& b,
                      view<float, axis::head, axis::query, axis::value_dim> output,
                      workspace& scratch, Certificates& certificates, OnRow& on_row) const {
        for (index_t h = 0; h < scratch.heads; ++h) {
            for (index_t r = 0; r < b.rows; ++r) {
                auto const at = static_cast<std::size_t>(h * b.rows + r);
                [[maybe_unused]] auto const dims = static_cast<std::uint64_t>(shape.value_dim);
                if constexpr (Tail::by == sufa::stand_in::row_mean) {
                    sufa::emit_joins(x, scratch.tails[at].is_empty() ? 0 : 1, dims, true);
                    scratch.tails[at].compensate(scratch.states[at]);
                }
                sufa::normalise{}(x, scratch.states[at], scratch.row);
                for (index_t d = 0; d < shape.value_dim; ++d) {
                    output(b.head + h, b.first_query + r, d) =
                        scratch.row[static_cast<std::size_t>(d)];
                }
                if constexpr (!std::same_as<Certificates, no_certificates>) {
                    on_row(b.head + h, b.first_query + r,
                           certificates.finish(h * b.rows + r, scratch.states[at], scratch.row));
                }
            }
        }
        if constexpr (Execution::probe_type::enabled) {
            auto const rows = static_cast<std::uint64_t>(scratch.heads * b.rows);
            auto const dims = static_cast<std::uint64_t>(shape.dim);
            auto const at = probe::stage::attention;
            x.probe(at, probe::event::query_bytes, rows * dims * probe::formal_operand_bytes);
            x.probe(at, probe::event::output_bytes,
                    rows * static_cast<std::uint64_t>(shape.value_dim) *
                        probe::formal_operand_bytes);
            if constexpr (Predictor::query == dlzs::operand::leading_zero) {
                x.probe(probe::stage::score_prediction, probe::event::lz_encode, rows * dims);
            }
            if constexpr (Predictor::rotated) {
                x.probe(probe::stage::score_prediction, probe::event::add,
                        rotation_adds(scratch.heads * b.rows, shape.dim));
            }
        }
    }

    attention_options options_;
};

} // namespace sofattn
