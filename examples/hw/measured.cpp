// SPDX-License-Identifier: MIT
#include "hw/measured.hpp"

#include "hw/report.hpp"
#include <sofattn/attention/attention.hpp>
#include <sofattn/attention/presets.hpp>
#include <sofattn/core/tensor.hpp>
#include <sofattn/dlzs/policy.hpp>
#include <sofattn/exec/executor.hpp>
#include <sofattn/hw/run.hpp>
#include <sofattn/io/npy.hpp>
#include <sofattn/probe/complexity.hpp>
#include <sofattn/rass/schedule.hpp>
#include <sofattn/sads/row_selectors.hpp>
#include <sofattn/sads/segment_topk.hpp>
#include <sofattn/sufa/rivals.hpp>
#include <sofattn/sufa/sorted_updating.hpp>

#include <array>
#include <cmath>
#include <string>
#include <utility>

namespace sofattn::hw {

namespace {

constexpr index_t fine_tile = 16; // Fig. 5
constexpr index_t coarse_tile = 128;
constexpr double at_0_percent_loss = 0.187;
constexpr double at_2_percent_loss = 0.074;
constexpr probe::complexity_weights const& weights = probe::sofa_weights;

using sorts_rows = sads::full_topk;
using sorts_segments = sads::segment_topk<sads::contiguous>;
using descends = sufa::sorted_updating<sufa::descending>;
using ascends = sufa::sorted_updating<sufa::ascending>;
using ranges = rass::left_to_right<rass::load_rule::range>;

struct layer {
    tensor<float, axis::head, axis::query, axis::dim> q;
    tensor<float, axis::kv_head, axis::key, axis::dim> k;
    tensor<float, axis::kv_head, axis::key, axis::value_dim> v;
    bool is_causal = false;

    [[nodiscard]] static layer read(std::filesystem::path const& folder, std::string const& name,
                                    bool is_causal) {
        auto const part = [&](char const* which) {
            return io::read_npy(folder / (name + "_" + which + ".npy"));
        };
        return {part("q").to_tensor<axis::head, axis::query, axis::dim>(),
                part("k").to_tensor<axis::kv_head, axis::key, axis::dim>(),
                part("v").to_tensor<axis::kv_head, axis::key, axis::value_dim>(), is_causal};
    }
    [[nodiscard]] problem<float> given() const { return {q.view(), k.view(), v.view(), is_causal}; }
};

template <class Probe>
struct outcome {
    Probe counts{};
    attention_result result{};
};

template <class Predictor, class Selector, class Attender, class Schedule = rass::reuse_aware,
          class Execution = exec::counting>
outcome<typename Execution::probe_type> attend(layer const& of, double kept_share,
                                               index_t tile_keys = fine_tile) {
    problem<float> const given = of.given();
    problem_shape const shape = given.shape();
    attention_options options = presets::paper::options(kept_share);
    options.tile_keys = tile_keys;
    tensor<float, axis::head, axis::query, axis::value_dim> output(
        {shape.heads, shape.queries, shape.value_dim});
    Execution x;
    attention<Predictor, Selector, Attender, Execution, Schedule> const run(options);
    auto result = run(x, given, output.view());
    return {std::move(x.probe), result};
}

double of_attention(probe::ledger const& counts) {
    return complexity(counts, probe::stage::attention, weights);
}
/// Without the products q.k and p.v and the divisions, which no order saves.
double of_softmax(outcome<probe::ledger> const& of, problem_shape const& shape) {
    auto const kept = static_cast<double>(of.result.kept_pairs);
    auto const dims = static_cast<double>(shape.dim + shape.value_dim);
    return of_attention(of.counts) -
           kept * ((dims + 1) * weights.of(probe::event::multiply) +
                   dims * weights.of(probe::event::add)) -
           static_cast<double>(of.counts.count(probe::stage::attention, probe::event::divide)) *
               weights.of(probe::event::divide);
}

std::string percents(char const* format, double first, double second) {
    return number(format, first) + " and " + number(format, second);
}

void add(std::vector<table_row>& into, std::string table, std::string what, double paper,
         double ours, double points, std::string reason) {
    into.push_back({std::move(table), std::move(what), paper, ours, "%",
                    std::abs(ours - paper) <= points ? status::reproduced : status::contradicted,
                    std::move(reason)});
}

/// Fig. 17: one stage after the other is exchanged.
void add_ladder(std::vector<table_row>& into, layer const& encoder) {
    using fa2 = sufa::flash_attention_2;
    struct loss {
        double kept_share;
        char const* name;
    };
    for (loss const at : {loss{at_0_percent_loss, "0"}, loss{at_2_percent_loss, "2"}}) {
        auto const all =
            complexity(attend<dlzs::int4, sorts_rows, fa2>(encoder, at.kept_share).counts, weights);
        auto const with_dlzs = attend<dlzs::dlzs8, sorts_rows, fa2>(encoder, at.kept_share);
        auto const with_sads = attend<dlzs::dlzs8, sorts_segments, fa2>(encoder, at.kept_share);
        auto const with_sufa =
            attend<dlzs::dlzs8, sorts_segments, descends>(encoder, at.kept_share);
        std::string const where = std::string(", ") + at.name + " % loss";
        std::string const reason =
            number("%.3g", 100 * at.kept_share) +
            " % kept, Bc = 16, weights sofa_inferred; gte-small of examples/data";
        auto const share = [&](outcome<probe::ledger> const& of) {
            return 100 * complexity(of.counts, weights) / all;
        };
        add(into, "Fig. 17", "DLZS" + where, 82, share(with_dlzs), 5, reason);
        add(into, "Fig. 17", "+ SADS" + where, 75, share(with_sads), 5, reason);
        add(into, "Fig. 17", "+ SU-FA" + where, 72, share(with_sufa), 5, reason);
        add(into, "Sec. III-C", "gain on FA-2" + where, 25,
            100 * (1 - of_attention(with_sufa.counts) / of_attention(with_sads.counts)), 5,
            "of the formal stage; " + reason);
    }
    double const coarse = of_attention(
        attend<dlzs::dlzs8, sorts_segments, descends>(encoder, at_2_percent_loss, coarse_tile)
            .counts);
    double const rival = of_attention(
        attend<dlzs::dlzs8, sorts_segments, fa2>(encoder, at_2_percent_loss, coarse_tile).counts);
    add(into, "Sec. III-C", "gain on FA-2, Bc = 128", 25, 100 * (1 - coarse / rival), 5,
        "7.4 % kept: a larger tile rescales less often");
    problem_shape const shape = encoder.given().shape();
    double const down =
        of_softmax(attend<dlzs::dlzs8, sorts_rows, descends>(encoder, at_2_percent_loss), shape);
    double const up =
        of_softmax(attend<dlzs::dlzs8, sorts_rows, ascends>(encoder, at_2_percent_loss), shape);
    add(into, "Sec. III-C", "gain on ascending, measured", 11, 100 * (1 - down / up), 5,
        "without products, whole rows sorted: the predicted order makes a third of the keys "
        "maxima");
}

std::uint64_t bytes_of(layer const& of, probe::trace const& events, machine const& m) {
    problem_shape const shape = of.given().shape();
    workload w;
    w.keys_count = shape.keys;
    w.queries_count = shape.queries;
    w.first_position_count = shape.causal ? shape.keys - shape.queries : 0;
    w.width_count = shape.heads * shape.dim;
    w.heads_count = shape.heads;
    w.kv_heads_count = shape.kv_heads;
    w.head_dim_count = shape.dim;
    w.value_dim_count = shape.value_dim;
    w.tile_keys_count = fine_tile;
    w.is_causal = shape.causal;
    w.has_kv_cache = true;
    return run(events, w, m).traffic.total();
}

/// Fig. 20a: RASS against loads from left to right, and with tiles handed over instead of rows.
void add_traffic(std::vector<table_row>& into, std::array<layer, 2> const& layers) {
    std::array<double, 2> loads{};
    std::array<double, 2> bytes{};
    for (std::size_t n = 0; n < layers.size(); ++n) {
        auto const in_range =
            attend<dlzs::dlzs16, sorts_segments, descends, ranges, exec::hardware>(
                layers[n], at_2_percent_loss);
        auto const reused =
            attend<dlzs::dlzs16, sorts_segments, descends, rass::reuse_aware, exec::hardware>(
                layers[n], at_2_percent_loss);
        auto const saved = [](std::uint64_t now, std::uint64_t before) {
            return 100 * (1 - static_cast<double>(now) / static_cast<double>(before));
        };
        loads[n] = saved(reused.result.key_loads, in_range.result.key_loads);
        bytes[n] = saved(bytes_of(layers[n], reused.counts, sofa_28nm()),
                         bytes_of(layers[n], in_range.counts, sofa_row_ready()));
    }
    add(into, "Fig. 20a", "loads that RASS saves", 23, (loads[0] + loads[1]) / 2, 10,
        "vectors, on ranges as in Fig. 15; Bc = 16, 7.4 % kept: gte-small, TinyLlama " +
            percents("%.1f %%", loads[0], loads[1]));
    double const coarse_ranges =
        static_cast<double>(attend<dlzs::dlzs16, sorts_segments, descends, ranges>(
                                layers[0], at_2_percent_loss, coarse_tile)
                                .result.key_loads);
    double const coarse_reused = static_cast<double>(
        attend<dlzs::dlzs16, sorts_segments, descends>(layers[0], at_2_percent_loss, coarse_tile)
            .result.key_loads);
    add(into, "Fig. 20a", "loads RASS saves, Bc = 128", 23,
        100 * (1 - coarse_reused / coarse_ranges), 10,
        "gte-small, 7.4 % kept: a range of a larger tile has more that nobody wants");
    add(into, "Fig. 20a", "traffic saved, with tiles", 79, (bytes[0] + bytes[1]) / 2, 10,
        "DRAM bytes, on whole rows with ranges; the same: " +
            percents("%.1f %%", bytes[0], bytes[1]));
}

} // namespace

std::vector<table_row> measured_rows(std::filesystem::path const& folder) {
    std::array<layer, 2> const layers{layer::read(folder, "gtesmall_L05", false),
                                      layer::read(folder, "tinyllama_L16", true)};
    std::vector<table_row> rows;
    add_ladder(rows, layers[0]);
    add_traffic(rows, layers);
    return rows;
}

} // namespace sofattn::hw
