// SPDX-License-Identifier: MIT
// Earlier designs on the same graph: their engines stepped cycle by cycle, and what they amount to.
#include "hw/layers.hpp"
#include "hw/some_engine.hpp"
#include "hw/systolic_machine.hpp"
#include "support/generators.hpp"
#include <sofattn/core/error.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/hw/attention_time.hpp>
#include <sofattn/hw/config.hpp>
#include <sofattn/hw/prediction_time.hpp>
#include <sofattn/hw/run.hpp>
#include <sofattn/hw/selection_time.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <string>
#include <vector>

using namespace sofattn;
using hw::activity;
using hw::block;
using hw::run_report;
using hw::stage_time;
using hw::workload;

namespace {

std::uint64_t u(index_t n) { return static_cast<std::uint64_t>(n); }

struct scan {
    index_t cycles = 0;
    index_t touched = 0;

    /// `n` scores through a core, a few per cycle.
    void over(index_t n, index_t inputs) {
        for (index_t left = n; left > 0; left -= inputs) {
            ++cycles;
            touched += std::min(left, inputs);
        }
    }
};

/// A row through a rival's selector: runs are merged, partitions halved, thresholds applied, for real.
scan step_row(hw::selection_engine const& e, hw::selection_run const& run) {
    scan s;
    index_t const inputs = e.new_inputs_count;
    if (e.kind_name == "full_sort") {
        std::deque<index_t> lengths; // of sorted runs
        for (index_t left = run.entries; left > 0; left -= inputs) {
            lengths.push_back(std::min(left, inputs));
        }
        s.over(run.entries, inputs);
        while (lengths.size() > 1) {
            std::deque<index_t> merged;
            for (std::size_t n = 0; n < lengths.size(); n += 2) {
                merged.push_back(lengths[n] + (n + 1 < lengths.size() ? lengths[n + 1] : 0));
            }
            s.over(run.entries, inputs);
            lengths = merged;
        }
    } else if (e.kind_name == "mean_threshold") {
        for (index_t const n : {run.entries, run.again}) {
            s.over(n, inputs); // statistics
            s.over(n, inputs); // comparison
        }
    } else if (e.kind_name == "threshold") {
        s.over(run.entries, inputs); // exponentials and their sum
        s.over(run.entries, inputs); // comparison
    } else if (e.kind_name == "quick_select") {
        for (index_t left = run.entries; left > 0; left -= (left + 1) / 2) {
            s.over(left, inputs);
            s.cycles += 3;
        }
    }
    return s;
}

/// Two halves that begin a slot together; each counts its own cycles down.
stage_time step_flash(hw::attention_engine const& e, hw::tile_work const& w) {
    std::uint64_t now = 0;
    std::uint64_t last = 0;
    if (w.kept_most > 0) {
        index_t const units = std::min(e.exp_units_count, e.rows_count);
        auto const exponentials = [&](index_t keys) { // of the busiest unit
            index_t cycles = 0;
            for (index_t row = 0; row < e.rows_count; row += units) {
                for (index_t k = 0; k < keys; ++k) {
                    cycles += e.exp_interval_cycles;
                }
            }
            return cycles;
        };
        index_t rows_left = w.rows;
        while (rows_left > 0) {
            rows_left -= e.rows_count;
            index_t products = 0; // of array 1 in this slot
            index_t sums = exponentials(1);
            for (index_t outputs = w.value_dim; outputs > 0; outputs -= e.keys_per_row_count) {
                ++sums; // a multiplication of every element
            }
            for (index_t keys = w.kept_most; keys > 0; keys -= e.keys_per_row_count) {
                products += w.dim;
                sums += std::max(w.value_dim, exponentials(e.keys_per_row_count));
            }
            std::uint64_t const slot_began = now;
            for (index_t a = products, b = sums; a > 0 || b > 0; --a, --b) {
                ++now;
            }
            // This turn's sums fill the next slot.
            last = now + u(sums);
            CHECK(now > slot_began);
        }
        for (index_t r = 1; r < e.rows_count; ++r) {
            last += u(e.row_skew_cycles);
        }
        last += u(2 * e.mac_latency_cycles + e.exp_latency_cycles);
    }
    std::uint64_t interval = now;
    if (w.finished_rows > 0) {
        std::uint64_t divided = 0;
        for (index_t rows = w.finished_rows; rows > 0;
             rows -= std::min(e.dividers_count, e.rows_count)) {
            divided += u(w.value_dim * e.divide_interval_cycles);
        }
        interval = std::max(interval, divided);
        last = std::max(interval, last + divided + u(e.divide_latency_cycles));
    }
    return {interval, last};
}

std::vector<char const*> const rivals{"fact",   "energon",   "spatten",
                                      "sanger", "dense_fa2", "plain_4bit"};

} // namespace

TEST_CASE("hw.selection_rivals: sorts, thresholds and partitions, cycle by cycle") {
    SOFATTN_GENERATOR(random);
    for (char const* kind : {"full_sort", "mean_threshold", "quick_select", "threshold"}) {
        for (int n = 0; n < 300; ++n) {
            hw::selection_engine e;
            e.kind_name = kind;
            e.cores_count = random.integer<index_t>(1, 9);
            e.new_inputs_count = random.integer<index_t>(1, 13);
            hw::selection_run run;
            run.entries = random.integer<index_t>(0, 300);
            run.again = random.integer<index_t>(0, run.entries);
            hw::tile_work w;
            w.rows = random.integer<index_t>(1, 20);
            w.keys = run.entries;
            scan const row = step_row(e, run);
            index_t turns = 0;
            for (index_t left = w.rows; left > 0; left -= e.cores_count) {
                ++turns;
            }
            CAPTURE(kind);
            CAPTURE(run.entries);
            auto const time = hw::selection_time(e, w, run);
            CHECK(time.interval_cycles == u(turns * row.cycles));
            CHECK(time.latency_cycles ==
                  (row.cycles == 0 ? 0
                                   : time.interval_cycles +
                                         u(e.clip_latency_cycles + e.output_latency_cycles)));
            hw::activity_counts done;
            hw::add_selection_activity(e, {}, w, done, run);
            bool const sorts = std::string(kind) == "full_sort";
            CHECK(done[activity::sort_pass] == (sorts ? u(w.rows * row.cycles) : 0));
            CHECK(done[activity::select_compare] == (sorts ? 0 : u(w.rows * row.touched)));
            CHECK(done[activity::temporary_read_bytes] == u(w.rows * row.touched * 2));
        }
    }
}

TEST_CASE("hw.flash_time: products of a tile, then its sums, cycle by cycle") {
    SOFATTN_GENERATOR(random);
    for (int n = 0; n < 2000; ++n) {
        hw::attention_engine e = test::some_attention_engine(random);
        e.kind_name = "flash_attention_2";
        hw::tile_work w = test::some_attended_tile(random);
        w.max_updates = 0; // for SU-FA below: keys came in order
        CAPTURE(n);
        CHECK(hw::attention_time(e, w) == step_flash(e, w));
        hw::activity_counts done;
        hw::add_attention_activity(e, w, done);
        std::uint64_t const rescaled = w.kept_most == 0 ? 0 : u(w.rows);
        CHECK(done[activity::exp] == w.kept_pairs + rescaled);
        CHECK(done[activity::multiply_add] ==
              w.kept_pairs * u(w.dim + w.value_dim) + rescaled * u(w.value_dim));
        // The arrays never do more than they have elements for.
        CHECK(done[activity::multiply_add] <= hw::attention_time(e, w).interval_cycles *
                                                  u(2 * e.rows_count * e.keys_per_row_count));
        // SU-FA has no rescaling and overlaps keys, not tiles.
        hw::attention_engine sufa = e;
        sufa.kind_name = "sufa";
        CHECK(hw::attention_time(sufa, w).interval_cycles <=
              hw::attention_time(e, w).interval_cycles);
    }
}

TEST_CASE("hw.prediction_time: rivals' passes on the array, cycle by cycle") {
    SOFATTN_GENERATOR(random);
    for (int n = 0; n < 200; ++n) {
        hw::prediction_engine e;
        e.array_rows_count = random.integer<index_t>(1, 6);
        e.array_columns_count = random.integer<index_t>(1, 6);
        e.lz_encoders_count = e.array_rows_count + e.array_columns_count;
        e.survivors_share = random.uniform(0.0, 1.0);
        for (char const* kind : {"two_sided_lz", "multiply", "multi_round"}) {
            e.kind_name = kind;
            hw::tile_work w;
            w.rows = random.integer<index_t>(1, 12);
            w.keys = random.integer<index_t>(1, 20);
            w.dim = random.integer<index_t>(1, 16);
            w.encoded_values = random.chance(0.5) ? w.rows * w.dim : 0;
            w.visible_pairs = u(w.rows * w.keys);
            w.score_product = hw::product_of(e, w.score_product);
            w.skipped_score_products = random.integer<std::uint64_t>(0, w.visible_pairs * u(w.dim));
            index_t const again = hw::survivors(e, w.keys);
            CHECK((again > 0) <= (std::string(kind) == "multi_round"));
            CHECK(again <= w.keys);
            index_t passes = 0;
            for (index_t r = 0; r < w.rows; r += e.array_rows_count) {
                for (index_t const keys : {w.keys, again}) {
                    for (index_t k = 0; k < keys; k += e.array_columns_count) {
                        ++passes;
                    }
                }
            }
            test::systolic_machine array(e.array_rows_count, e.array_columns_count);
            test::pass_feeder feeder(passes, w.dim, 1);
            std::uint64_t now = 0;
            std::uint64_t taken = 0;
            std::uint64_t out = 0;
            index_t left = passes * e.array_rows_count * e.array_columns_count;
            while (left > 0 || taken == 0) {
                if (taken == 0 && feeder.is_done() && array.can_begin(w.dim)) {
                    taken = now;
                }
                feeder.step(array);
                index_t const sums = array.step();
                ++now;
                left -= sums;
                out = sums > 0 ? now : out;
            }
            bool const is_coded = std::string(kind) == "two_sided_lz";
            index_t const registers =
                e.result_latency_cycles + (is_coded ? e.encoder_latency_cycles : 0);
            CAPTURE(kind);
            auto const time = hw::prediction_time(e, w);
            CHECK(time.interval_cycles == taken);
            CHECK(time.latency_cycles == std::max(taken, out + u(registers)));
            hw::activity_counts done;
            hw::add_prediction_activity(e, w, done);
            CHECK(done[is_coded ? activity::shift_add_16 : activity::predictor_multiply_add_4] ==
                  (w.visible_pairs + u(w.rows * again)) * u(w.dim) -
                      (is_coded ? w.skipped_score_products : 0)); // zeros cost a multiplier, too
            CHECK((done[activity::lz_encode] > 0) == is_coded);
        }
    }
}

TEST_CASE("hw.run: rivals' sums close, and nothing that they lack costs anything") {
    SOFATTN_GENERATOR(random);
    for (int n = 0; n < 160; ++n) {
        workload const w = test::random_workload(random);
        hw::machine m = hw::find_machine(rivals[static_cast<std::size_t>(n) % rivals.size()]);
        m.selection.kind_name = m.selection.kind_name == "full_sort" && random.chance(0.5)
                                    ? "quick_select"
                                    : m.selection.kind_name;
        m.pipeline.hand_over_name = random.chance(0.5) ? "row_ready" : "tile_ready";
        CAPTURE(n);
        CAPTURE(m.base_name);
        run_report const r = hw::run(w, m);
        for (auto const& e : r.timing.engines) {
            CHECK(e.busy + e.stalled() + e.idle_before + e.idle_after == r.timing.total);
        }
        CHECK(r.mac_utilisation() <= 1);
        CHECK(r.memory_share() <= 1);
        bool const is_dense = m.base_name == "dense_fa2";
        if (is_dense) {
            CHECK(r.kept_pairs == r.visible_pairs);
            CHECK(r.traffic.index_bytes + r.traffic.token_bytes + r.traffic.code_bytes +
                      r.traffic.spilled_score_bytes ==
                  0);
            for (block const b : {block::prediction, block::selection}) {
                auto const at = static_cast<std::size_t>(b);
                CHECK(r.dynamic_picojoules[at] + r.static_picojoules[at] +
                          r.square_micrometres[at] ==
                      0);
            }
        }
        bool const shifts = m.base_name == "fact";
        CHECK((r.done[activity::shift_add_16] > 0) == shifts);
        CHECK((r.done[activity::lz_encode] > 0) == shifts);
        CHECK((r.done[activity::predictor_multiply_add_4] > 0) ==
              (!shifts && !is_dense && m.base_name != "spatten"));
        CHECK((r.done[activity::select_compare] > 0) ==
              (m.selection.kind_name == "mean_threshold" || m.selection.kind_name == "threshold" ||
               m.selection.kind_name == "quick_select"));
        CHECK((r.done[activity::sort_pass] > 0) == (m.selection.kind_name == "full_sort"));
    }
}

TEST_CASE(
    "hw.run: with 2 MB and whole rows, memory's share of the time grows with the queries served "
    "at a time, as in Fig. 3") {
    for (char const* name : {"fact", "energon"}) {
        for (double const kept : {0.074, 0.187}) {
            workload w;
            w.has_kv_cache = true;
            w.kept_share = kept;
            double first = 0;
            double last = 0;
            for (index_t rows = 32; rows <= 1024; rows *= 2) {
                run_report const r =
                    hw::run(w, hw::with_parallel_queries(hw::find_machine(name), rows));
                CAPTURE(name);
                CAPTURE(rows);
                // 896 KB hold the scores of 112 queries.
                CHECK((r.traffic.spilled_score_bytes > 0) == (rows > 112));
                CHECK(r.memory_share() > last - 0.01);
                last = r.memory_share();
                first = rows == 32 ? last : first;
            }
            CHECK(last > first + 0.25);
            // Tiles instead of rows: no scores to spill, and so a smaller share.
            hw::machine tiles = hw::with_parallel_queries(hw::find_machine(name), 1024);
            tiles.pipeline.hand_over_name = "tile_ready";
            CHECK(hw::run(w, tiles).memory_share() < last);
        }
    }
}

TEST_CASE("hw.packed_time: products take the elements that the packing fills, and no row waits") {
    SOFATTN_GENERATOR(random);
    for (int n = 0; n < 500; ++n) {
        hw::attention_engine e = test::some_attention_engine(random);
        e.kind_name = "packed_rows";
        e.packed_use_share = random.uniform(0.1, 1.0);
        hw::tile_work w = test::some_attended_tile(random);
        w.finished_rows = 0;
        auto const time = hw::attention_time(e, w);
        hw::activity_counts done;
        hw::add_attention_activity(e, w, done);
        CHECK(done[activity::multiply_add] == w.kept_pairs * u(w.dim + w.value_dim));
        CHECK(done[activity::exp] == w.kept_pairs);
        // Rounds of one pair per element that is filled, until all pairs are done.
        double const filled =
            2.0 * static_cast<double>(e.rows_count * e.keys_per_row_count) * e.packed_use_share;
        index_t rounds = 0;
        for (double left = static_cast<double>(w.kept_pairs); left > 1e-9; left -= filled) {
            ++rounds;
        }
        CHECK(time.interval_cycles == u(rounds * (w.dim + w.value_dim)));
        hw::tile_work uneven = w;
        uneven.kept_most = w.keys; // one row keeps all
        CHECK(hw::attention_time(e, uneven) == time);
    }
}

TEST_CASE("hw.run: spatten ranks a head's tokens once, and predicts nothing") {
    workload w;
    w.has_kv_cache = true;
    w.kept_share = 0.25;
    run_report const r = hw::run(w, hw::find_machine("spatten"));
    // ceil(n / 16) + 3 over 4096, 2048, ... 1, per head.
    std::uint64_t each = 0;
    for (std::uint64_t left = 4096; left > 0; left /= 2) {
        each += (left + 15) / 16 + 3;
    }
    auto const busy = [&](hw::tile_stage s) {
        return r.timing.engines[static_cast<std::size_t>(s)].busy.count();
    };
    CHECK(busy(hw::tile_stage::selection) == 32 * each);
    CHECK(busy(hw::tile_stage::prediction) == 0);
    CHECK(r.traffic.index_bytes + r.traffic.spilled_score_bytes == 0);
    // All rows keep the same tokens: what is loaded is the kept share.
    CHECK(static_cast<double>(r.done[activity::key_issue]) ==
          doctest::Approx(0.25 * 4096 * 32 * 32).epsilon(0.01));
    CHECK(r.done[activity::select_compare] > r.kept_pairs);
}

TEST_CASE("hw.config: parts of rivals that do not fit together are refused") {
    hw::machine m;
    m.prediction.kind_name = "none";
    CHECK_THROWS_WITH_AS(hw::validate(m),
                         "hardware: selection.kind_name is \"sads\", must be \"none\" where "
                         "prediction.kind_name is, and only there",
                         error);
    m = {};
    m.prediction.kind_name = "two_sided_lz";
    CHECK_THROWS_WITH_AS(hw::validate(m),
                         "hardware: prediction.lz_encoders_count is 128, must be at least one per "
                         "row and column of the array, 160, where both operands are coded",
                         error);
    m = {};
    m.prediction.kind_name = "greedy";
    CHECK_THROWS_AS(hw::validate(m), error);
    for (char const* name : rivals) {
        CHECK_NOTHROW(hw::validate(hw::find_machine(name)));
    }
}
