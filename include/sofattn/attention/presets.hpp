// SPDX-License-Identifier: MIT
// Named choices: what the paper does, and what is recommended.
#pragma once

#include <sofattn/attention/attention.hpp>
#include <sofattn/attention/options.hpp>
#include <sofattn/dlzs/policy.hpp>
#include <sofattn/dlzs/predict_keys.hpp>
#include <sofattn/rass/schedule.hpp>
#include <sofattn/sads/adaptive.hpp>
#include <sofattn/sads/row_selectors.hpp>
#include <sofattn/sads/segment_topk.hpp>
#include <sofattn/sufa/logit_source.hpp>
#include <sofattn/sufa/rivals.hpp>
#include <sofattn/sufa/sorted_updating.hpp>
#include <sofattn/sufa/tail.hpp>

namespace sofattn::presets {

/// What the paper does: 16-bit DLZS, contiguous segments, one keep ratio, dropped keys ignored,
/// descending SU-FA, RASS. `ratio` 0.10 lies in the middle of its figures.
struct paper {
    static constexpr char const* name = "paper";
    using predictor = dlzs::dlzs16;
    using selector = sads::segment_topk<sads::contiguous>;
    using attender = sufa::sorted_updating<sufa::descending>;
    using schedule = rass::reuse_aware;
    using tail = sufa::no_tail;

    [[nodiscard]] static attention_options options(double ratio = 0.10) {
        attention_options o;
        o.budget = sads::budget::of_ratio(ratio);
        return o;
    }
};

/// Best on every executor so far, by measurement on recorded data (bench/RESULTS.md): int8
/// prediction of rotated queries and keys; as many keys as an output error asks for, at least 32,
/// the first key and the last 16 among them; attended with the predicted logits, but for those near
/// the row's best; dropped keys stood in for by the mean value of their segment. Not in the paper.
struct recommended {
    static constexpr char const* name = "recommended";
    using predictor = dlzs::rotated_int8;
    using selector = sads::adaptive<sads::whole_row>;
    using attender = sufa::sorted_updating<sufa::descending, sufa::reused>;
    using schedule = rass::reuse_aware;
    using tail = sufa::segment_tail;

    /// `output_error` in spreads of the values (sads::drop_rule); 0.01 kept 13 % of TinyLlama's keys
    /// on average over layers, 2 % in peaked ones and half in the diffuse first.
    [[nodiscard]] static attention_options options(double output_error = 0.01) {
        attention_options o;
        o.budget = sads::budget::of_output_error(output_error);
        o.budget.at_least = 32;
        o.budget.sinks = 1;
        o.budget.window = 16;
        return o;
    }
};

/// A preset as a pipeline: presets::attention<presets::paper, exec::counting>.
template <class Preset, exec::executor_like Execution = exec::reference>
using attention =
    sofattn::attention<typename Preset::predictor, typename Preset::selector,
                       typename Preset::attender, Execution, typename Preset::schedule,
                       dlzs::coded_weights, typename Preset::tail>;

/// What most people write: presets::attention_on<exec::simd>, with recommended::options(...).
template <exec::executor_like Execution>
using attention_on = presets::attention<recommended, Execution>;

} // namespace sofattn::presets
