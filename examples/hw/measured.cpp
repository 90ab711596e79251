// SPDX-License-Identifier: MIT
#include "hw/measured.hpp"

#include "hw/report.hpp"
#include "hw/shared_runs.hpp"
#include <sofattn/attention/problem.hpp>
#include <sofattn/attention/result.hpp>
#include <sofattn/dlzs/policy.hpp>
#include <sofattn/exec/executor.hpp>
#include <sofattn/hw/run.hpp>
#include <sofattn/probe/complexity.hpp>
#include <sofattn/rass/schedule.hpp>
#include <sofattn/sads/row_selectors.hpp>
#include <sofattn/sads/segment_topk.hpp>
#include <sofattn/sufa/rivals.hpp>
#include <sofattn/sufa/sorted_updating.hpp>

#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <string>
#include <utility>
#include <vector>

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
using fa2 = sufa::flash_attention_2;
using ranges = rass::left_to_right<rass::load_rule::range>;

double of_attention(probe::ledger const& counts) {
    return complexity(counts, probe::stage::attention, weights);
}
/// Without the products q.k and p.v and the divisions, which no order saves.
double of_softmax(probe::ledger const& counts, attention_result const& result,
                  problem_shape const& shape) {
    auto const kept = static_cast<double>(result.kept_pairs);
    auto const dims = static_cast<double>(shape.dim + shape.value_dim);
    return of_attention(counts) -
           kept * ((dims + 1) * weights.of(probe::event::multiply) +
                   dims * weights.of(probe::event::add)) -
           static_cast<double>(counts.count(probe::stage::attention, probe::event::divide)) *
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

/// Counts of Fig. 17's ladder at one loss.
struct ladder {
    double kept_share = 0;
    char const* name = "";
    probe::ledger all{};
    probe::ledger with_dlzs{};
    probe::ledger with_sads{};
    probe::ledger with_sufa{};
};

/// All that is measured. The runs are independent of each other; the longest come first.
struct measurements {
    std::array<ladder, 2> ladders{{{.kept_share = at_0_percent_loss, .name = "0"},
                                   {.kept_share = at_2_percent_loss, .name = "2"}}};
    std::array<double, 2> coarse{};              ///< of the formal stage: SU-FA, FlashAttention-2
    std::array<double, 2> orders{};              ///< of the softmax: descending, ascending
    std::array<std::uint64_t, 2> coarse_loads{}; ///< ranges, RASS
    struct traffic {
        std::array<std::uint64_t, 2> loads{}; ///< ranges, RASS
        std::array<std::uint64_t, 2> bytes{}; ///< the same, with whole rows and with tiles
    };
    std::array<traffic, 2> of_layers{};
};

std::uint64_t bytes_of(problem_shape const& shape, probe::trace const& events, machine const& m) {
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

measurements::traffic measure_traffic(layer const& of) {
    problem_shape const shape = of.given().shape();
    wishes wanted(fine_tile);
    auto const reused = attend<exec::hardware, dlzs::dlzs16, sorts_segments, descends>(
        of, at_2_percent_loss, fine_tile, &wanted);
    probe::trace const in_ranges = scheduled_by<ranges>(reused.counts, wanted, shape);
    return {{key_loads(in_ranges, shape), reused.result.key_loads},
            {bytes_of(shape, in_ranges, sofa_row_ready()),
             bytes_of(shape, reused.counts, sofa_28nm())}};
}

measurements measure(std::array<layer, 2> const& layers) {
    measurements m;
    layer const& encoder = layers[0];
    problem_shape const shape = encoder.given().shape();
    std::vector<std::function<void()>> jobs;
    for (std::size_t const n : {std::size_t{1}, std::size_t{0}}) {
        jobs.emplace_back([&, n] { m.of_layers[n] = measure_traffic(layers[n]); });
    }
    for (ladder& at : m.ladders) {
        jobs.emplace_back([&] {
            if (at.kept_share != at_2_percent_loss) {
                at.with_dlzs =
                    count<dlzs::dlzs8, sorts_rows, fa2>(encoder, at.kept_share, fine_tile).counts;
                return;
            }
            auto const found = count<dlzs::dlzs8, sorts_rows, fa2, descends, ascends>(
                encoder, at.kept_share, fine_tile);
            at.with_dlzs = found.counts;
            for (std::size_t n = 0; n < 2; ++n) {
                m.orders[n] = of_softmax(found.others[n], found.result, shape);
            }
        });
        jobs.emplace_back([&] {
            auto const found = count<dlzs::dlzs8, sorts_segments, fa2, descends>(
                encoder, at.kept_share, fine_tile);
            at.with_sads = found.counts;
            at.with_sufa = found.others[0];
        });
        jobs.emplace_back([&] {
            at.all = count<dlzs::int4, sorts_rows, fa2>(encoder, at.kept_share, fine_tile).counts;
        });
    }
    jobs.emplace_back([&] {
        auto const found = count<dlzs::dlzs8, sorts_segments, descends, fa2>(
            encoder, at_2_percent_loss, coarse_tile);
        m.coarse = {of_attention(found.counts), of_attention(found.others[0])};
    });
    jobs.emplace_back([&] {
        wishes wanted(coarse_tile);
        auto const reused = attend<exec::hardware, dlzs::dlzs16, sorts_segments, descends>(
            encoder, at_2_percent_loss, coarse_tile, &wanted);
        m.coarse_loads = {key_loads(scheduled_by<ranges>(reused.counts, wanted, shape), shape),
                          reused.result.key_loads};
    });
    std::exception_ptr failed;
#pragma omp parallel for schedule(dynamic)
    for (std::size_t n = 0; n < jobs.size(); ++n) {
        try {
            jobs[n]();
        } catch (...) {
#pragma omp critical
            failed = std::current_exception();
        }
    }
    if (failed) {
        std::rethrow_exception(failed);
    }
    return m;
}

/// Fig. 17: one stage after the other is exchanged.
void add_ladder(std::vector<table_row>& into, measurements const& m) {
    for (ladder const& at : m.ladders) {
        auto const all = complexity(at.all, weights);
        std::string const where = std::string(", ") + at.name + " % loss";
        std::string const reason =
            number("%.3g", 100 * at.kept_share) +
            " % kept, Bc = 16, weights sofa_inferred; gte-small of examples/data";
        auto const share = [&](probe::ledger const& of) {
            return 100 * complexity(of, weights) / all;
        };
        add(into, "Fig. 17", "DLZS" + where, 82, share(at.with_dlzs), 5, reason);
        add(into, "Fig. 17", "+ SADS" + where, 75, share(at.with_sads), 5, reason);
        add(into, "Fig. 17", "+ SU-FA" + where, 72, share(at.with_sufa), 5, reason);
        add(into, "Sec. III-C", "gain on FA-2" + where, 25,
            100 * (1 - of_attention(at.with_sufa) / of_attention(at.with_sads)), 5,
            "of the formal stage; " + reason);
    }
    add(into, "Sec. III-C", "gain on FA-2, Bc = 128", 25, 100 * (1 - m.coarse[0] / m.coarse[1]), 5,
        "7.4 % kept: a larger tile rescales less often");
    add(into, "Sec. III-C", "gain on ascending, measured", 11,
        100 * (1 - m.orders[0] / m.orders[1]), 5,
        "without products, whole rows sorted: the predicted order makes a third of the keys "
        "maxima");
}

/// Fig. 20a: RASS against loads from left to right, and with tiles handed over instead of rows.
void add_traffic(std::vector<table_row>& into, measurements const& m) {
    auto const saved = [](std::array<std::uint64_t, 2> const& before_and_now) {
        return 100 * (1 - static_cast<double>(before_and_now[1]) /
                              static_cast<double>(before_and_now[0]));
    };
    std::array<double, 2> loads{};
    std::array<double, 2> bytes{};
    for (std::size_t n = 0; n < m.of_layers.size(); ++n) {
        loads[n] = saved(m.of_layers[n].loads);
        bytes[n] = saved(m.of_layers[n].bytes);
    }
    add(into, "Fig. 20a", "loads that RASS saves", 23, (loads[0] + loads[1]) / 2, 10,
        "vectors, on ranges as in Fig. 15; Bc = 16, 7.4 % kept: gte-small, TinyLlama " +
            percents("%.1f %%", loads[0], loads[1]));
    add(into, "Fig. 20a", "loads RASS saves, Bc = 128", 23, saved(m.coarse_loads), 10,
        "gte-small, 7.4 % kept: a range of a larger tile has more that nobody wants");
    add(into, "Fig. 20a", "traffic saved, with tiles", 79, (bytes[0] + bytes[1]) / 2, 10,
        "DRAM bytes, on whole rows with ranges; the same: " +
            percents("%.1f %%", bytes[0], bytes[1]));
}

} // namespace

std::vector<table_row> measured_rows(std::filesystem::path const& folder) {
    measurements const m = measure(
        {layer::read(folder, "gtesmall_L05", false), layer::read(folder, "tinyllama_L16", true)});
    std::vector<table_row> rows;
    add_ladder(rows, m);
    add_traffic(rows, m);
    return rows;
}

} // namespace sofattn::hw
