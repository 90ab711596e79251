// SPDX-License-Identifier: MIT
// The pipeline's inner loops: a block of queries of one selection meets the keys it sees, run by run.
#pragma once

#include <sofattn/attention/certificate.hpp>
#include <sofattn/attention/options.hpp>
#include <sofattn/attention/pipeline.hpp>
#include <sofattn/attention/policies.hpp>
#include <sofattn/attention/prepared.hpp>
#include <sofattn/attention/problem.hpp>
#include <sofattn/attention/register_stages.hpp>
#include <sofattn/attention/result.hpp>
#include <sofattn/attention/stages.hpp>
#include <sofattn/attention/workspace.hpp>
#include <sofattn/core/output_array.hpp>
#include <sofattn/core/query_mask.hpp>
#include <sofattn/core/score_line.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/core/view.hpp>
#include <sofattn/exec/executor.hpp>
#include <sofattn/exec/store_row.hpp>
#include <sofattn/sads/candidates.hpp>
#include <sofattn/sufa/logit_source.hpp>
#include <sofattn/sufa/rivals.hpp>
#include <sofattn/sufa/tail.hpp>

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>

namespace sofattn::detail {

/// A block of queries of the heads of one selection.
struct attention_block {
    index_t head = 0; ///< first of the selection
    index_t first_query = 0;
    index_t rows = 0;
    index_t visible = 0; ///< keys that its last query sees
};

/// One block's way through the stages. Reads what was prepared, writes its rows of the output, and
/// adds to the workspace's result: blocks of one problem may run side by side, each with a workspace
/// of its own.
template <dlzs::policy Predictor, class Selector, class Attender, exec::executor_like Execution,
          class Schedule, sufa::tail_policy Tail>
class block_pass {
public:
    using score = dlzs::score_type<Predictor>;
    using real = sufa::detail::real_number<Execution>;
    using workspace = attention_workspace<score, real>;

    static constexpr bool compensates = Tail::by != sufa::stand_in::nobody;
    static constexpr bool reuses = sufa::reuses_scores<Attender>;
    /// Weights of scores matter, so scores must be calibrated logits.
    static constexpr bool weighs =
        predicts<Predictor> && (compensates || reuses || weighs_scores<Selector>);

    block_pass(problem_shape const& shape, attention_options const& options,
               attention_block const& block, workspace& scratch) noexcept
        : shape_(shape), options_(options), block_(block), scratch_(scratch) {}

    /// `generate`: a step that makes keys and values exist, if one is needed.
    template <class Head, class Queries, class Certificates, class OnKept, class OnRow,
              class... Generate>
    void operator()(Execution& x, Head const& head, Queries const& queries,
                    output_array const& output, Certificates& certificates, OnKept& on_kept,
                    OnRow& on_row, Generate... generate) const {
        begin(head, queries);
        begin_certificates(certificates, head, queries);
        pipeline const stages(predicting(head, queries),
                              select_step<Selector, score>{scratch_.heads,
                                                           scratch_.rules,
                                                           block_.first_query,
                                                           {options_.tile_keys},
                                                           scratch_.shared,
                                                           &scratch_.select,
                                                           scratch_.kept,
                                                           scratch_.rows},
                              keep_listener(on_kept), generate..., attending(head, queries),
                              certify_step<Certificates>{&certificates, scratch_.heads,
                                                         block_.first_query, block_.rows,
                                                         scratch_.certified_lines},
                              compensating(head));
        run(x, head.index, stages);
        finish(x, output, certificates, on_row);
    }

private:
    [[nodiscard]] std::size_t row_at(index_t head, index_t row) const noexcept {
        return static_cast<std::size_t>(head * block_.rows + row);
    }

    // --- steps, as the executor has them ----------------------------------------------------------

    template <class Head, class Queries>
    [[nodiscard]] auto predicting(Head const& head, Queries const& queries) const {
        if constexpr (exec::on_registers<Execution>) {
            return predict_rows_step<Predictor>{&queries.registers.codes,
                                                &head.registers.columns,
                                                &shape_,
                                                scratch_.heads,
                                                block_.first_query + block_.rows,
                                                scratch_.run_keys,
                                                scratch_.scores,
                                                &scratch_.ahead};
        } else {
            return predict_step<Predictor>{&queries.codes, &head.index, scratch_.heads,
                                           scratch_.scores};
        }
    }
    template <class Predicted, class Key, class Value, class Query>
    [[nodiscard]] auto
    attending(prepared_head<Predictor, Tail, Execution, Predicted, Key, Value> const& head,
              prepared_queries<Predictor, Execution, Query> const& queries) const {
        if constexpr (exec::on_registers<Execution>) {
            return attend_rows_step<Attender>{queries.registers.heads,
                                              head.registers.keys.rows(),
                                              head.registers.values.rows(),
                                              shape_.scale,
                                              options_.tile_keys,
                                              block_.first_query,
                                              block_.rows,
                                              scratch_.lines,
                                              &scratch_.attend,
                                              scratch_.states,
                                              scratch_.computed_by};
        } else {
            return attend_step<Attender, Query, Key, Value, real>{
                queries.queries,    head.keys,          head.values,         shape_.scale,
                options_.tile_keys, block_.first_query, block_.rows,         scratch_.lines,
                scratch_.logits,    scratch_.states,    scratch_.computed_by};
        }
    }
    template <class Predicted, class Key, class Value>
    [[nodiscard]] auto compensating(
        prepared_head<Predictor, Tail, Execution, Predicted, Key, Value> const& head) const {
        if constexpr (exec::on_registers<Execution>) {
            return tail_rows_step<Tail>{head.registers.values.rows(),
                                        head.registers.stand_ins.rows(),
                                        scratch_.heads,
                                        block_.first_query,
                                        block_.rows,
                                        scratch_.lines,
                                        scratch_.states,
                                        scratch_.tails,
                                        &scratch_.tail_rows};
        } else {
            return tail_step<Tail, Value, real>{head.values,        &head.tail,     scratch_.heads,
                                                block_.first_query, block_.rows,    scratch_.lines,
                                                scratch_.states,    scratch_.tails, &scratch_.tail};
        }
    }
    /// The step between selection and attention that remembers who wants which key.
    template <class OnKept>
    [[nodiscard]] auto keep_listener(OnKept& on_kept) const {
        return [this, &on_kept]([[maybe_unused]] auto& x, run_kept<score> const& in) {
            if constexpr (requires { x.probe.row_kept(in.kept.size()); }) {
                x.probe.row_kept(in.kept.size());
            }
            for (auto const& entry : in.kept) {
                scratch_.wanted_by[static_cast<std::size_t>(entry.key - in.run.first_key)].set(
                    in.run.query - block_.first_query);
            }
            for (index_t h = 0; h < scratch_.heads; ++h) {
                on_kept(block_.head + h, in.run.query, in.kept);
            }
            scratch_.result.kept_pairs += in.kept.size() * static_cast<std::size_t>(scratch_.heads);
            return in;
        };
    }

    // --- before the first run ---------------------------------------------------------------------

    template <class Head, class Queries>
    [[nodiscard]] score_line line_of(Head const& head, Queries const& queries, index_t h,
                                     index_t q) const {
        return head.means.line(
            queries.queries.template slice<axis::head>(h).template slice<axis::query>(q),
            queries.codes.row(h, q), queries.codes.product_step(q), shape_.scale,
            queries.calibration[static_cast<std::size_t>(h)], shape_.visible(q));
    }

    template <class Head, class Queries>
    void begin(Head const& head, Queries const& queries) const {
        auto const dims = static_cast<std::size_t>(scratch_.value_width);
        scratch_.ahead = {};
        for (index_t h = 0; h < scratch_.heads; ++h) {
            for (index_t r = 0; r < block_.rows; ++r) {
                std::size_t const at = row_at(h, r);
                scratch_.states[at] = sufa::softmax_state<real>::empty(
                    std::span(scratch_.outputs).subspan(at * dims, dims));
                if constexpr (compensates) {
                    scratch_.tails[at] = sufa::tail_state<real>::empty(
                        std::span(scratch_.tail_sums).subspan(at * dims, dims));
                }
                index_t const q = block_.first_query + r;
                score_line& line = scratch_.lines[at];
                line = {0.0, shape_.scale};
                if constexpr (weighs) {
                    line = line_of(head, queries, h, q);
                } else if constexpr (predicts<Predictor>) {
                    line.per_score *= queries.codes.product_step(q);
                }
            }
        }
        for (index_t r = 0; r < block_.rows; ++r) {
            index_t const q = block_.first_query + r;
            auto const at = static_cast<std::size_t>(r);
            scratch_.rows[at] = {};
            // Heads that select together are weighed as the first of them.
            scratch_.rules[at] =
                sads::row_rule::of(options_.budget_of(block_.head), shape_.visible(q),
                                   scratch_.lines[at].per_score, shape_.position(q));
        }
    }

    template <class Certificates, class Head, class Queries>
    void begin_certificates(Certificates& certificates, Head const& head,
                            Queries const& queries) const {
        if constexpr (!std::same_as<Certificates, no_certificates>) {
            constexpr auto epsilon =
                static_cast<double>(std::numeric_limits<typename Execution::real_type>::epsilon());
            scratch_.certified_lines.resize(scratch_.lines.size());
            for (index_t h = 0; h < scratch_.heads; ++h) {
                for (index_t r = 0; r < block_.rows; ++r) {
                    index_t const q = block_.first_query + r;
                    std::size_t const at = row_at(h, r);
                    certificates.begin(
                        static_cast<index_t>(at),
                        queries.queries.template slice<axis::head>(h).template slice<axis::query>(
                            q),
                        queries.codes, h, q, shape_.scale, shape_.visible(q), epsilon);
                    scratch_.certified_lines[at] = line_of(head, queries, h, q);
                }
            }
        }
    }

    // --- runs -------------------------------------------------------------------------------------

    template <class Stages>
    void run(Execution& x, dlzs::key_index<Predictor> const& index, Stages const& stages) const {
        for (index_t first_key = 0; first_key < block_.visible; first_key += scratch_.run_keys) {
            index_t const keys = std::min(scratch_.run_keys, block_.visible - first_key);
            x.probe.begin_tile({block_.head, block_.first_query, first_key});
            for (index_t q = block_.first_query; q < block_.first_query + block_.rows; ++q) {
                index_t const seen = std::clamp<index_t>(shape_.visible(q) - first_key, 0, keys);
                scratch_.result.visible_pairs += static_cast<std::uint64_t>(seen * scratch_.heads);
                if (seen > 0) {
                    stages(x, query_run{q, first_key, seen});
                }
            }
            load_run(x, first_key, keys);
            if constexpr (Execution::probe_type::enabled && predicts<Predictor>) {
                x.probe(
                    probe::stage::score_prediction, probe::event::index_bytes,
                    static_cast<std::uint64_t>(ceil_div<index_t>(keys * index.bits_per_key(), 8)));
            }
        }
    }

    /// Schedules the values that the block wants of this run, with the keys, and counts the loads.
    void load_run(Execution& x, index_t first_key, index_t keys) const {
        std::uint64_t const values = loads_of(scratch_.wanted_by, first_key, keys);
        std::uint64_t const computed =
            reuses ? loads_of(scratch_.computed_by, first_key, keys) : values;
        scratch_.result.value_loads += values;
        scratch_.result.key_loads += computed;
        if constexpr (Execution::probe_type::enabled) {
            auto const bytes_of = [](std::uint64_t count, index_t dims) {
                return count * static_cast<std::uint64_t>(dims) * probe::formal_operand_bytes;
            };
            auto const at = probe::stage::schedule;
            x.probe(at, probe::event::key_bytes, bytes_of(computed, shape_.dim));
            x.probe(at, probe::event::value_bytes, bytes_of(values, shape_.value_dim));
        }
    }

    /// Loads of what a block's queries want of a run; clears the wishes.
    [[nodiscard]] std::uint64_t loads_of(std::span<query_mask> wishes, index_t first_key,
                                         index_t keys) const {
        std::size_t wanted = 0;
        for (index_t k = 0; k < keys; ++k) {
            query_mask& by = wishes[static_cast<std::size_t>(k)];
            if (!by.empty()) {
                scratch_.wanted[wanted++] = {static_cast<key_id>(first_key + k), by};
                by = {};
            }
        }
        if constexpr (loads_once<Schedule>) {
            return wanted;
        } else {
            rass::totals const loads =
                Schedule{}(std::span<rass::wanted_key const>(scratch_.wanted).first(wanted),
                           scratch_.order, [](rass::load) {});
            return static_cast<std::uint64_t>(loads.key_loads);
        }
    }

    // --- after the last one -----------------------------------------------------------------------

    template <class Certificates, class OnRow>
    void finish(Execution& x, output_array const& output, Certificates& certificates,
                OnRow& on_row) const {
        for (index_t h = 0; h < scratch_.heads; ++h) {
            for (index_t r = 0; r < block_.rows; ++r) {
                std::size_t const at = row_at(h, r);
                [[maybe_unused]] auto const dims = static_cast<std::uint64_t>(shape_.value_dim);
                if constexpr (Tail::by == sufa::stand_in::row_mean) {
                    sufa::emit_joins(x, scratch_.tails[at].is_empty() ? 0 : 1, dims, true);
                    scratch_.tails[at].compensate(scratch_.states[at]);
                }
                sufa::normalise{}(x, scratch_.states[at], scratch_.row);
                auto const row =
                    std::span(scratch_.row).first(static_cast<std::size_t>(shape_.value_dim));
                exec::store_row(output.row(block_.head + h, block_.first_query + r), row.data());
                if constexpr (!std::same_as<Certificates, no_certificates>) {
                    on_row(block_.head + h, block_.first_query + r,
                           certificates.finish(static_cast<index_t>(at), scratch_.states[at],
                                               std::span<float const>(row)));
                }
            }
        }
        if constexpr (Execution::probe_type::enabled) {
            auto const rows = static_cast<std::uint64_t>(scratch_.heads * block_.rows);
            auto const dims = static_cast<std::uint64_t>(shape_.dim);
            auto const at = probe::stage::attention;
            x.probe(at, probe::event::query_bytes, rows * dims * probe::formal_operand_bytes);
            x.probe(at, probe::event::output_bytes,
                    rows * static_cast<std::uint64_t>(shape_.value_dim) *
                        probe::formal_operand_bytes);
            if constexpr (Predictor::query == dlzs::operand::leading_zero) {
                x.probe(probe::stage::score_prediction, probe::event::lz_encode, rows * dims);
            }
            if constexpr (Predictor::rotated) {
                x.probe(probe::stage::score_prediction, probe::event::add,
                        rotation_adds(scratch_.heads * block_.rows, shape_.dim));
            }
        }
    }

    problem_shape const& shape_;
    attention_options const& options_;
    attention_block const& block_;
    workspace& scratch_;
};

} // namespace sofattn::detail
