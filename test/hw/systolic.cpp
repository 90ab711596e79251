// SPDX-License-Identifier: MIT
#include "hw/systolic_machine.hpp"
#include "support/generators.hpp"
#include <sofattn/core/types.hpp>
#include <sofattn/hw/config_parts.hpp>
#include <sofattn/hw/generation_time.hpp>
#include <sofattn/hw/prediction_time.hpp>
#include <sofattn/hw/systolic.hpp>
#include <sofattn/hw/tile_work.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <vector>

using namespace sofattn;
using hw::stage_time;

namespace {

/// Runs of passes one after the other on one array. Each run but the first begins when the results
/// of the run before are in use (`waits`), or as soon as the array takes it.
struct run_of_passes {
    index_t passes = 0;
    index_t depth = 0;
    index_t first_pace = 1;
    bool waits = false;
};

/// Interval: cycles until another pass of the last run's depth could enter. Latency: until the last result is in use.
stage_time step_by_step(hw::systolic_array const& a, std::vector<run_of_passes> const& runs) {
    test::systolic_machine machine(a.rows, a.columns);
    std::uint64_t now = 0;
    std::uint64_t in_use = 0; // when the last result was
    stage_time found;
    for (run_of_passes const& run : runs) {
        index_t left = run.depth > 0 ? run.passes * a.rows * a.columns : 0;
        if (left == 0) {
            continue;
        }
        while (run.waits && now < in_use) {
            machine.step();
            ++now;
        }
        test::pass_feeder feeder(run.passes, run.depth, run.first_pace);
        bool took_next = false;
        while (true) {
            if (!took_next && feeder.is_done() && machine.can_begin(run.depth)) {
                took_next = true;
                found.interval_cycles = now;
            }
            if (left == 0 && took_next) {
                break;
            }
            feeder.step(machine);
            index_t const completed = machine.step();
            ++now;
            left -= completed;
            if (left == 0 && completed > 0) {
                in_use = now + static_cast<std::uint64_t>(a.result_latency);
            }
        }
    }
    found.latency_cycles = std::max(in_use, found.interval_cycles);
    return found;
}

} // namespace

TEST_CASE("hw.systolic_array: the closed form is what the array does, cycle by cycle") {
    SOFATTN_GENERATOR(random);
    for (int n = 0; n < 400; ++n) {
        hw::systolic_array const a{random.integer<index_t>(1, 7), random.integer<index_t>(1, 7),
                                   random.integer<index_t>(0, 3)};
        index_t const passes = random.integer<index_t>(0, 6);
        index_t const depth = random.integer<index_t>(0, 20);
        index_t const pace = random.integer<index_t>(1, 4);
        CAPTURE(a.rows);
        CAPTURE(a.columns);
        CAPTURE(passes);
        CAPTURE(depth);
        CAPTURE(pace);
        stage_time const stepped = step_by_step(a, {{passes, depth, pace, false}});
        stage_time const closed = a.time(passes, depth, pace);
        CHECK(closed.interval_cycles == stepped.interval_cycles);
        CHECK(closed.latency_cycles == stepped.latency_cycles);
    }
}

TEST_CASE("hw.prediction_time: both phases on one array, cycle by cycle") {
    SOFATTN_GENERATOR(random);
    for (int n = 0; n < 300; ++n) {
        hw::prediction_engine e;
        e.array_rows_count = random.integer<index_t>(1, 6);
        e.array_columns_count = random.integer<index_t>(1, 6);
        e.lz_encoders_count = random.integer<index_t>(1, 8);
        e.encoder_latency_cycles = random.integer<index_t>(0, 2);
        e.result_latency_cycles = random.integer<index_t>(0, 2);
        hw::tile_work w;
        w.rows = random.integer<index_t>(0, 14);
        w.keys = random.integer<index_t>(0, 14);
        w.dim = random.integer<index_t>(1, 9);
        w.channels = random.integer<index_t>(1, 15);
        w.predicted_keys = random.chance(0.5) ? w.keys : 0;
        w.encoded_values = random.chance(0.5) ? w.rows * w.dim : 0;
        index_t const in_step = std::min(w.rows, e.array_rows_count);
        index_t const pace = w.encoded_values > 0 ? ceil_div(in_step, e.lz_encoders_count) : 1;
        stage_time const stepped = step_by_step(
            hw::array_of(e),
            {{ceil_div(w.predicted_keys, e.array_rows_count) *
                  ceil_div(w.dim, e.array_columns_count),
              w.channels, 1, false},
             {ceil_div(w.rows, e.array_rows_count) * ceil_div(w.keys, e.array_columns_count), w.dim,
              pace, true}});
        stage_time const closed = hw::prediction_time(e, w);
        CAPTURE(e.array_rows_count);
        CAPTURE(e.array_columns_count);
        CAPTURE(e.encoder_latency_cycles + e.result_latency_cycles);
        CAPTURE(w.rows);
        CAPTURE(w.keys);
        CAPTURE(w.dim);
        CAPTURE(w.channels);
        CAPTURE(w.predicted_keys);
        CAPTURE(pace);
        CHECK(closed.interval_cycles == stepped.interval_cycles);
        CHECK(closed.latency_cycles == stepped.latency_cycles);
    }
}

TEST_CASE("hw.generation_time: cycle by cycle") {
    SOFATTN_GENERATOR(random);
    for (int n = 0; n < 200; ++n) {
        hw::generation_engine e;
        e.array_rows_count = random.integer<index_t>(1, 6);
        e.array_columns_count = random.integer<index_t>(1, 4);
        e.mac_latency_cycles = random.integer<index_t>(0, 3);
        hw::tile_work w;
        w.dim = random.integer<index_t>(1, 8);
        w.value_dim = random.integer<index_t>(1, 8);
        w.channels = random.integer<index_t>(0, 20);
        w.generated_keys = random.integer<index_t>(0, 9);
        stage_time const stepped =
            step_by_step({e.array_rows_count, e.array_columns_count, e.mac_latency_cycles},
                         {{ceil_div(w.dim + w.value_dim, e.array_rows_count) *
                               ceil_div(w.generated_keys, e.array_columns_count),
                           w.channels, 1, false}});
        CHECK(hw::generation_time(e, w) == stepped);
    }
}

TEST_CASE("hw: without fill and drain, intervals are the counts of products over elements") {
    hw::tile_work w;
    w.rows = 128;
    w.keys = 128;
    w.dim = 128;
    w.value_dim = 128;
    w.channels = 4096;
    hw::prediction_engine const e;
    CHECK(hw::score_prediction_time(e, w).interval_cycles == 128u * 128u / 32u); // S d / 32
    w.predicted_keys = 128;
    CHECK(hw::key_prediction_time(e, w).interval_cycles == 128u * 4096u * 128u / 4096u);
    w.generated_keys = 128;
    CHECK(hw::generation_time({}, w).interval_cycles == 2u * 128u * 4096u * 128u / 512u);
}

TEST_CASE("hw.prediction: zeros and products add up, and traffic follows the passes") {
    hw::tile_work w;
    w.rows = 100;
    w.keys = 70;
    w.dim = 64;
    w.visible_pairs = 7000;
    w.channels = 512;
    w.predicted_keys = 70;
    w.encoded_values = 6400;
    w.skipped_key_products = 1234;
    w.skipped_score_products = 321;
    w.rotates_keys = true;
    hw::activity_counts done;
    hw::add_prediction_activity({}, w, done);
    CHECK(done[hw::activity::shift_add_8] + 1234 == 70u * 512u * 64u);
    CHECK(done[hw::activity::shift_add_16] + 321 == 7000u * 64u);
    CHECK(done[hw::activity::lz_encode] == 6400u);
    CHECK(done[hw::activity::key_rotation] == 2u * 70u * 64u);
    CHECK(done[hw::activity::token_read_bytes] == 2u * 70u * 512u + 2u * 70u * 64u);
    CHECK(done[hw::activity::weight_read_bytes] == 64u * 512u / 2u);
    CHECK(done[hw::activity::temporary_write_bytes] == 14000u);
}
