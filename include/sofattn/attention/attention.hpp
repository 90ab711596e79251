// SPDX-License-Identifier: MIT
// The SOFA pipeline: predict, select, attend, tile by tile, paper Fig. 6 and 11.
#pragma once

#include <sofattn/attention/block_pass.hpp>
#include <sofattn/attention/certificate.hpp>
#include <sofattn/attention/options.hpp>
#include <sofattn/attention/policies.hpp>
#include <sofattn/attention/prepared.hpp>
#include <sofattn/attention/problem.hpp>
#include <sofattn/attention/result.hpp>
#include <sofattn/attention/stages.hpp>
#include <sofattn/core/output_array.hpp>
#include <sofattn/core/query_mask.hpp>
#include <sofattn/core/tensor.hpp>
#include <sofattn/dlzs/predict_keys.hpp>
#include <sofattn/exec/executor.hpp>
#include <sofattn/exec/parallel.hpp>
#include <sofattn/rass/schedule.hpp>
#include <sofattn/sads/segment_topk.hpp>
#include <sofattn/sufa/logit_source.hpp>
#include <sofattn/sufa/sorted_updating.hpp>
#include <sofattn/sufa/tail.hpp>

#include <algorithm>
#include <concepts>
#include <cstdint>
#include <memory>
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
///        run      whose threads; without it, the calling one. Callbacks then come from any of them,
///                 and what does not fit into memory ends the program
/// out    output   [head, query, value_dim] in f32, f16 or bf16; rows that see no key are zero
/// pre    none beyond what is checked
/// error  sofattn::error, before anything is written, for shapes, options or numbers that make no
///        attention (problem_shape, attention_options, require_finite)
/// events those of the stages; query, index and output bytes once per block of 128 queries, key and
///        value bytes per load of the schedule
/// exact  selections and predicted scores bit-identical on every executor; outputs as the attender
///        says, on vector registers within 2e-5 (relative, Frobenius) of double precision on the same
///        keys; nothing depends on the number of threads
/// paper  Fig. 6, 10 and 11: a tile of keys is predicted, sorted and consumed before the next;
///        where a policy needs whole rows, the hand-over is by row, as in earlier designs (Fig. 3)
template <dlzs::policy Predictor, selector_policy Selector, attender_policy Attender,
          exec::executor_like Execution = exec::reference,
          schedule_policy Schedule = rass::reuse_aware,
          dlzs::key_prediction_policy KeyPrediction = dlzs::coded_weights,
          sufa::tail_policy Tail = sufa::no_tail>
class attention {
    using pass = detail::block_pass<Predictor, Selector, Attender, Execution, Schedule, Tail>;
    using workspace = typename pass::workspace;

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
                                output_array const& output, OnKept on_kept = {},
                                OnRow on_row = {}) const {
        return (*this)(x, exec::serial{}, given, output, std::move(on_kept), std::move(on_row));
    }

    /// On several threads, blocks of queries side by side; certificates, KV heads side by side.
    template <exec::parallel_for Run, storage_float Query, storage_float KeyValue,
              class OnKept = ignore_kept, class OnRow = ignore_rows>
    attention_result operator()(Execution& x, Run const& run, problem<Query, KeyValue> const& given,
                                output_array const& output, OnKept on_kept = {},
                                OnRow on_row = {}) const {
        constexpr bool certifies = !std::same_as<OnRow, ignore_rows>;
        static_assert(!certifies || !Execution::probe_type::enabled,
                      "attention: certificates are no part of the circuit and not counted; ask an "
                      "executor without a probe for them");
        check_threads<Run>();
        problem_shape const shape = checked(given, output);
        using head_type =
            detail::prepared_head<Predictor, Tail, Execution, KeyValue, KeyValue, KeyValue>;
        using queries_type = detail::prepared_queries<Predictor, Execution, Query>;
        // Certificates estimate weights; they do not change what a selector reads.
        constexpr bool calibrates = pass::weighs || certifies;
        auto const prepared = [&](index_t kv) {
            auto const keys = given.keys.template slice<axis::kv_head>(kv);
            return head_type(x, keys, keys, given.values.template slice<axis::kv_head>(kv),
                             calibrates);
        };
        auto const queries_of = [&](index_t first_head, head_type const& head) {
            return selection<queries_type>(shape, given.queries, first_head, head, calibrates);
        };
        auto scratch = workspaces(shape, run.threads());
        if (certifies || run.threads() == 1) {
            run(shape.kv_heads, [&](index_t kv, index_t thread) {
                auto const head = prepared(kv);
                workspace& mine = scratch[static_cast<std::size_t>(thread)];
                auto certificates = make_certificates<OnRow>(head, mine);
                for_each_selection(shape, kv, [&](index_t first_head) {
                    auto const queries = queries_of(first_head, head);
                    for (index_t b = 0; b < blocks_of(shape); ++b) {
                        detail::attention_block const block = block_at(shape, first_head, b);
                        pass(shape, options_, block, mine)(x, head, queries, output, certificates,
                                                           on_kept, on_row);
                    }
                });
            });
            return total(scratch);
        }
        std::vector<std::unique_ptr<head_type>> heads(static_cast<std::size_t>(shape.kv_heads));
        run(shape.kv_heads, [&](index_t kv, index_t) {
            heads[static_cast<std::size_t>(kv)] = std::make_unique<head_type>(prepared(kv));
        });
        index_t const together = options_.heads_per_selection(shape);
        index_t const selections = shape.heads / together;
        auto const head_at = [&](index_t s) -> head_type const& {
            return *heads[static_cast<std::size_t>(s * together / shape.group())];
        };
        std::vector<std::unique_ptr<queries_type>> queries(static_cast<std::size_t>(selections));
        run(selections, [&](index_t s, index_t) {
            queries[static_cast<std::size_t>(s)] =
                std::make_unique<queries_type>(queries_of(s * together, head_at(s)));
        });
        // The last blocks see most and go first.
        index_t const blocks = blocks_of(shape);
        run(selections * blocks, [&](index_t task, index_t thread) {
            index_t const s = task % selections;
            detail::attention_block const block =
                block_at(shape, s * together, blocks - 1 - task / selections);
            no_certificates certificates;
            pass(shape, options_, block, scratch[static_cast<std::size_t>(thread)])(
                x, head_at(s), *queries[static_cast<std::size_t>(s)], output, certificates, on_kept,
                on_row);
        });
        return total(scratch);
    }

    template <storage_float Query, storage_float Model, class OnKept = ignore_kept>
    attention_result operator()(Execution& x, projected_problem<Query, Model> const& given,
                                output_array const& output, OnKept on_kept = {}) const {
        return (*this)(x, exec::serial{}, given, output, std::move(on_kept));
    }

    /// On several threads, KV heads side by side: the keys of one come into being in its queries'
    /// order.
    template <exec::parallel_for Run, storage_float Query, storage_float Model,
              class OnKept = ignore_kept>
    attention_result operator()(Execution& x, Run const& run,
                                projected_problem<Query, Model> const& given,
                                output_array const& output, OnKept on_kept = {}) const {
        static_assert(Tail::by == sufa::stand_in::nobody,
                      "attention: values of dropped keys do not exist where K and V are made on "
                      "demand; use sufa::no_tail, or a problem with K and V");
        static_assert(!sufa::reuses_scores<Attender>,
                      "attention: scores of predicted keys are ranks, not logits to attend with; "
                      "use sufa::recomputed, or a problem with K and V");
        check_threads<Run>();
        problem_shape const shape = checked(given, output);
        auto scratch = workspaces(shape, run.threads());
        run(shape.kv_heads, [&](index_t kv, index_t thread) {
            run_projected(x, shape, kv, given, output, scratch[static_cast<std::size_t>(thread)],
                          on_kept);
        });
        return total(scratch);
    }

private:
    static_assert(!pass::reuses || detail::predicts<Predictor>,
                  "attention: there are no scores to reuse; use sufa::recomputed or a predictor");

    template <class Run>
    static constexpr void check_threads() {
        static_assert(!Execution::probe_type::enabled || std::same_as<Run, exec::serial>,
                      "attention: events are heard in the order of one thread; count without a "
                      "thread pool");
    }

    [[nodiscard]] std::vector<workspace> workspaces(problem_shape const& shape,
                                                    index_t threads) const {
        detail::workspace_sizes sizes{};
        sizes.heads = options_.heads_per_selection(shape);
        sizes.run_keys = tile_ready ? std::min(options_.tile_keys, shape.keys) : shape.keys;
        sizes.value_dim = shape.value_dim;
        sizes.tail_segment = pass::compensates ? Tail::segment : 0;
        sizes.reuses = pass::reuses;
        sizes.on_registers = exec::on_registers<Execution>;
        std::vector<workspace> all;
        for (index_t thread = 0; thread < threads; ++thread) {
            all.emplace_back(sizes);
        }
        return all;
    }
    [[nodiscard]] static attention_result total(std::vector<workspace> const& all) noexcept {
        attention_result sum;
        for (workspace const& part : all) {
            sum += part.result;
        }
        return sum;
    }

    [[nodiscard]] static index_t blocks_of(problem_shape const& shape) noexcept {
        return ceil_div(shape.queries, query_block);
    }
    [[nodiscard]] static detail::attention_block block_at(problem_shape const& shape,
                                                          index_t first_head, index_t b) noexcept {
        index_t const first = b * query_block;
        return {first_head, first, std::min(query_block, shape.queries - first),
                shape.visible(std::min(first + query_block, shape.queries) - 1)};
    }
    template <class Each>
    void for_each_selection(problem_shape const& shape, index_t kv, Each each) const {
        for (index_t h = 0; h < shape.group(); h += options_.heads_per_selection(shape)) {
            each(kv * shape.group() + h);
        }
    }
    template <class Queries, class All, class Head>
    [[nodiscard]] Queries selection(problem_shape const& shape, All all, index_t first_head,
                                    Head const& head, bool calibrates) const {
        return Queries(
            all.template range<axis::head>(first_head, options_.heads_per_selection(shape)), head,
            calibrates, [&](index_t q) { return shape.visible(q); });
    }

    template <class Problem>
    problem_shape checked(Problem const& given, output_array const& output) const {
        problem_shape const shape = given.shape();
        options_.validate(shape);
        detail::shape_fault fault;
        fault.require(shape.window == 0, "window", shape.window,
                      "0 here: dense_attention has windows, selection has none");
        fault.require(!shape.terms.any(), "soft caps, ALiBi slopes or sinks", 1,
                      "left out here: dense_attention has them");
        fault.require(output.extent<axis::head>() == shape.heads, "heads of the output",
                      output.extent<axis::head>(), "those of queries, ", shape.heads);
        fault.require(output.extent<axis::query>() == shape.queries, "tokens of the output",
                      output.extent<axis::query>(), "those of queries, ", shape.queries);
        fault.require(output.extent<axis::value_dim>() == shape.value_dim,
                      "head dimension of the output", output.extent<axis::value_dim>(),
                      "that of values, ", shape.value_dim);
        fault.raise();
        if (options_.check_finite) {
            given.require_finite();
        }
        return shape;
    }

    /// One KV head of a projected problem.
    template <class Query, class Model, class OnKept>
    void run_projected(Execution& x, problem_shape const& shape, index_t kv,
                       projected_problem<Query, Model> const& given, output_array const& output,
                       workspace& scratch, OnKept& on_kept) const {
        tensor<float, axis::key, axis::dim> keys({shape.keys, shape.dim});
        tensor<float, axis::key, axis::value_dim> values({shape.keys, shape.value_dim});
        std::vector<char> present(static_cast<std::size_t>(shape.keys));
        dlzs::key_predictor<KeyPrediction> const predict(x, given.tokens, given.key_projection(kv));
        auto const predicted = predict(x, given.tokens);
        detail::prepared_head<Predictor, Tail, Execution, float, float, float> const head(
            x, predicted.cview(), keys, values, pass::weighs);
        on_demand_rows<Model> const rows{given.tokens,
                                         given.key_projection(kv),
                                         given.value_projection(kv),
                                         keys.view(),
                                         values.view(),
                                         present};
        no_certificates certificates;
        ignore_rows uncertified;
        for_each_selection(shape, kv, [&](index_t first_head) {
            auto const queries = selection<detail::prepared_queries<Predictor, Execution, Query>>(
                shape, given.queries, first_head, head, pass::weighs);
            for (index_t b = 0; b < blocks_of(shape); ++b) {
                detail::attention_block const block = block_at(shape, first_head, b);
                pass(shape, options_, block, scratch)(x, head, queries, output, certificates,
                                                      on_kept, uncertified,
                                                      generate_step<Model>{&rows});
            }
        });
        auto const generated = static_cast<std::uint64_t>(std::ranges::count(present, char{1}));
        scratch.result.generated += generated;
        if constexpr (Execution::probe_type::enabled) {
            // The weights stay on chip while tokens stream by (section IV-A).
            if (generated > 0) {
                auto const weights = static_cast<std::uint64_t>(
                    given.tokens.template extent<axis::channel>() * (shape.dim + shape.value_dim));
                x.probe(probe::stage::kv_generation, probe::event::weight_bytes,
                        weights * probe::formal_operand_bytes);
            }
        }
    }

    /// A certifier, if anybody wants to know.
    template <class OnRow, class Head>
    static auto make_certificates(Head const& head, workspace const& scratch) {
        if constexpr (std::same_as<OnRow, ignore_rows>) {
            return no_certificates{};
        } else {
            static_assert(detail::predicts<Predictor>,
                          "attention: nothing is dropped without a predictor, nor certified");
            return certifier<Predictor, Tail, sufa::logits_from<Attender>>(
                head.indexed, head.index, head.values, head.tail, scratch.heads * query_block);
        }
    }

    attention_options options_;
};

} // namespace sofattn
