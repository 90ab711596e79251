// SPDX-License-Identifier: MIT
// Named choices: what the paper does, and what is recommended.
#pragma once

#include <sofattn/attention/attention.hpp>
#include <sofattn/attention/options.hpp>
#include <sofattn/dlzs/policy.hpp>
#include <sofattn/rass/schedule.hpp>
#include <sofattn/sads/row_selectors.hpp>
#include <sofattn/sads/segment_topk.hpp>
#include <sofattn/sufa/rivals.hpp>
#include <sofattn/sufa/sorted_updating.hpp>

namespace sofattn::presets {

/// What the paper does: 16-bit DLZS, contiguous segments, one keep ratio, dropped keys ignored,
/// descending SU-FA, RASS. `ratio` 0.10 lies in the middle of its figures.
struct paper {
    static constexpr char const* name = "paper";
    using predictor = dlzs::dlzs16;
    using selector = sads::segment_topk<sads::contiguous>;
    using attender = sufa::sorted_updating<sufa::descending>;
    using schedule = rass::reuse_aware;

    [[nodiscard]] static attention_options options(double ratio = 0.10) {
        attention_options o;
        o.budget = sads::budget::of_ratio(ratio);
        return o;
    }
};

/// Best on the reference executor so far, by measurement on recorded data (bench/RESULTS.md): int8
/// prediction with a step per query, strided segments, a minimum count, the first key and the last
/// 16 always kept. Not in the paper.
struct recommended {
    static constexpr char const* name = "recommended";
    using predictor = dlzs::int8_per_query;
    using selector = sads::segment_topk<sads::strided>;
    using attender = sufa::sorted_updating<sufa::descending>;
    using schedule = rass::reuse_aware;

    [[nodiscard]] static attention_options options(double ratio = 0.10) {
        attention_options o;
        o.budget = sads::budget::of_ratio(ratio);
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
                       typename Preset::attender, Execution, typename Preset::schedule>;

} // namespace sofattn::presets
