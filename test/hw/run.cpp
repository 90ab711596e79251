// SPDX-License-Identifier: MIT
#include "hw/layers.hpp"
#include "support/generators.hpp"
#include <sofattn/core/error.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/hw/config.hpp>
#include <sofattn/hw/run.hpp>
#include <sofattn/hw/workload.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>

using namespace sofattn;
using hw::activity;
using hw::block;
using hw::run_report;
using hw::tile_stage;
using hw::workload;

namespace {

hw::engine_timing const& stage(run_report const& r, tile_stage s) {
    return r.timing.engines[static_cast<std::size_t>(s)];
}
double busy(run_report const& r, tile_stage s) {
    return static_cast<double>(stage(r, s).busy.count());
}
double at(hw::per_block const& of, block b) { return of[static_cast<std::size_t>(b)]; }

/// A Llama-7B layer whose K and V exist.
workload cached_llama() {
    workload w;
    w.has_kv_cache = true;
    return w;
}

} // namespace

TEST_CASE("hw.run: cycles and energies are made up of their parts, and none is negative") {
    SOFATTN_GENERATOR(random);
    for (int n = 0; n < 150; ++n) {
        workload const w = test::random_workload(random);
        hw::machine m;
        m.pipeline.hand_over_name = random.chance(0.3) ? "row_ready" : "tile_ready";
        m.pipeline.buffered_tiles_count = random.integer<index_t>(1, 4);
        m.process.energy_table_name = random.chance(0.5) ? "sofa_table3" : "public_28nm";
        m.attention.exp_units_count = random.integer<index_t>(1, 128);
        run_report const r = hw::run(w, m);
        CAPTURE(n);
        std::uint64_t const total = r.timing.total.count();
        CHECK(total > 0);
        for (auto const& e : r.timing.engines) {
            CAPTURE(e.name);
            CHECK((e.busy + e.stalled() + e.idle_before + e.idle_after).count() == total);
            CHECK(e.busy.count() <= total);
        }
        double parts = 0;
        for (std::size_t b = 0; b < hw::block_count; ++b) {
            CHECK(r.dynamic_picojoules[b] >= 0);
            CHECK(r.static_picojoules[b] >= 0);
            parts += r.dynamic_picojoules[b] + r.static_picojoules[b];
        }
        CHECK(r.picojoules() == doctest::Approx(parts));
        double by_hand = 0;
        for (std::size_t a = 0; a < hw::activity_count; ++a) {
            by_hand += static_cast<double>(r.done[static_cast<activity>(a)]) *
                       r.prices.activities[a].picojoules;
        }
        CHECK(hw::sum(r.dynamic_picojoules) == doctest::Approx(by_hand));
        CHECK(static_cast<double>(r.visible_pairs) ==
              w.visible_pairs() * static_cast<double>(w.heads_count));
        // In = out + skipped.
        CHECK(r.done[activity::multiply_add] ==
              r.kept_pairs * static_cast<std::uint64_t>(w.head_dim_count + w.value_dim_count));
        CHECK(r.done[activity::exp] == r.kept_pairs);
        CHECK(r.done[activity::dram_read_bits] == 8 * r.traffic.read());
        CHECK(r.done[activity::interface_bits] ==
              r.done[activity::dram_read_bits] + r.done[activity::dram_write_bits]);
        CHECK(r.mac_utilisation() <= 1);
    }
}

TEST_CASE("hw.run: groups of heads are expanded as one by one") {
    // Memory and time are saved by repeating the second selection of a KV head for the others: it
    // must be the same work.
    SOFATTN_GENERATOR(random);
    for (int n = 0; n < 60; ++n) {
        workload w = test::random_workload(random);
        w.is_selection_shared = false;
        w.kept_share = random.uniform(0.1, 1.0);
        w.union_share = 0;
        hw::tile_traffic one_by_one;
        for (auto const& run : test::runs_of(w, {})) {
            one_by_one.add_times(run.tile.traffic,
                                 static_cast<std::uint64_t>(run.times * w.kv_heads_count));
        }
        CHECK(hw::run(w, {}).traffic == one_by_one);
    }
}

TEST_CASE("hw.run: a Llama-7B layer takes the cycles of the closed forms, but for rounding") {
    // K^: S H H / 4096; A^: S S H / 4096; KV: 2 S H H u / 512; SU-FA: kappa S S H / 256.
    workload w;
    w.kept_share = 0.125; // 16 keys per tile: whole phases
    run_report const r = hw::run(w, {});
    double const cube = 4096.0 * 4096 * 4096;
    CHECK(busy(r, tile_stage::attention) == 0.125 * cube / 256);
    CHECK(busy(r, tile_stage::prediction) > 2 * cube / 4096); // fill and drain between the phases
    CHECK(busy(r, tile_stage::prediction) < 1.02 * 2 * cube / 4096);
    CHECK(busy(r, tile_stage::kv_generation) == 2 * cube / 512); // every key is kept by somebody
    CHECK(busy(r, tile_stage::selection) == 32.0 * 32 * 32 * 4 * 11);
    CHECK(r.kept_share() == 0.125);

    workload cached = w;
    cached.has_kv_cache = true;
    run_report const c = hw::run(cached, {});
    CHECK(busy(c, tile_stage::prediction) == cube / 4096);
    CHECK(busy(c, tile_stage::kv_generation) == 0);
    CHECK(c.timing.total < r.timing.total);
    CHECK(static_cast<double>(c.timing.total.count()) < 1.001 * 0.125 * cube / 256);

    cached.is_causal = true;
    run_report const half = hw::run(cached, {});
    CHECK(busy(half, tile_stage::prediction) == cube / 4096 * 33 / 64);
    CHECK(std::abs(half.kept_share() / 0.125 - 1) < 0.002);
}

TEST_CASE("hw.run: SU-FA and the predictor cross where 6.25 % are kept, whatever S and d") {
    // kappa = 2 / 32: two elements for Q.K per row against 32 columns of the shift array.
    for (index_t const keys : {index_t{2048}, index_t{8192}}) {
        for (index_t const dim : {index_t{64}, index_t{128}}) {
            workload w = cached_llama();
            w.keys_count = w.queries_count = keys;
            w.head_dim_count = w.value_dim_count = dim;
            for (int const per_tile : {2, 4, 6, 8, 10, 12, 16}) {
                w.kept_share = per_tile / 128.0;
                hw::machine m; // engines alone: the DRAM must not be the bottleneck
                m.memory.peak_bytes_per_cycle = 2048; // nor the ports
                m.buffers.token.ports_count = m.buffers.temporary.ports_count = 64;
                run_report const r = hw::run(w, m);
                CAPTURE(keys);
                CAPTURE(dim);
                CAPTURE(per_tile);
                double const formal = busy(r, tile_stage::attention);
                double const prediction = busy(r, tile_stage::prediction);
                CHECK((formal < prediction) == (per_tile < 8));
                CHECK((formal == prediction) == (per_tile == 8));
                CHECK(static_cast<double>(r.timing.total.count()) ==
                      doctest::Approx(std::max(formal, prediction)).epsilon(0.01));
            }
        }
    }
}

TEST_CASE("hw.run: more work takes longer, more machine does not") {
    SOFATTN_GENERATOR(random);
    for (int n = 0; n < 60; ++n) {
        workload w = test::random_workload(random);
        w.union_share = 1;
        hw::machine m;
        m.memory.peak_bytes_per_cycle = random.uniform(1, 300);
        run_report const base = hw::run(w, m);
        workload more = w;
        more.kept_share = std::min(1.0, w.kept_share + 0.2);
        run_report const kept = hw::run(more, m);
        CHECK(busy(kept, tile_stage::attention) >= busy(base, tile_stage::attention));
        CHECK(busy(kept, tile_stage::selection) >= busy(base, tile_stage::selection));
        CHECK(at(kept.dynamic_picojoules, block::attention) >=
              at(base.dynamic_picojoules, block::attention));
        hw::machine wide = m;
        wide.memory.peak_bytes_per_cycle *= 2;
        CHECK(hw::run(w, wide).timing.total <= base.timing.total);
        wide = m;
        wide.attention.keys_per_row_count = wide.schedule.keys_per_phase_count = 4;
        wide.prediction.array_columns_count = 64;
        run_report const larger = hw::run(w, wide);
        CHECK(busy(larger, tile_stage::attention) <= busy(base, tile_stage::attention));
        CHECK(hw::sum(larger.square_micrometres) > hw::sum(base.square_micrometres));
        hw::machine small = m;
        small.buffers.token.capacity_bytes /= 64;
        small.buffers.weight.capacity_bytes /= 64;
        CHECK(hw::run(w, small).traffic.total() >= base.traffic.total());
    }
}

TEST_CASE("hw.run: whole rows that do not fit go to the DRAM and back, tiles do not") {
    workload const w = cached_llama();
    run_report const tiles = hw::run(w, hw::sofa_28nm());
    run_report const rows = hw::run(w, hw::sofa_row_ready());
    CHECK(tiles.traffic.spilled_score_bytes == 0);
    CHECK(rows.traffic.spilled_score_bytes == 2 * rows.visible_pairs);
    CHECK(busy(rows, tile_stage::spill) > 0);
    CHECK(rows.timing.total > tiles.timing.total);
    CHECK(rows.picojoules() > tiles.picojoules());
    CHECK(rows.traffic.total() - tiles.traffic.total() == 4 * rows.visible_pairs);
    // With little bandwidth, rows wait for the DRAM first.
    hw::machine slow = hw::sofa_row_ready();
    slow.memory.peak_bytes_per_cycle = 64;
    run_report const waiting = hw::run(w, slow);
    CHECK(stage(waiting, tile_stage::attention).busy <
          stage(rows, tile_stage::attention).busy + cycles(1));
    CHECK(waiting.timing.total.count() > rows.timing.total.count() * 3 / 2);
}

TEST_CASE("hw.run: the table is the one used: a price times k moves its own block's share only") {
    workload const w = cached_llama();
    hw::machine m;
    run_report const base = hw::run(w, m);
    m.memory.dram_picojoules_per_bit *= 2;
    run_report const dear = hw::run(w, m);
    for (std::size_t b = 0; b < hw::block_count; ++b) {
        double const factor = static_cast<block>(b) == block::dram ? 2 : 1;
        CHECK(dear.dynamic_picojoules[b] ==
              doctest::Approx(factor * base.dynamic_picojoules[b]).epsilon(1e-12));
    }
    CHECK(dear.prices.of(activity::dram_read_bits).picojoules == 2 * 4.01);
    CHECK(dear.timing == base.timing);
}

TEST_CASE("hw.run: power at full activity does not exceed Table III's") {
    // No unit can do more in a cycle than the calibration point says; memories may, see below.
    workload w;
    w.kept_share = 0.125;
    run_report const r = hw::run(w, {});
    for (auto const& row : hw::table3) {
        if (row.of != block::memory) {
            double const watts =
                (at(r.dynamic_picojoules, row.of) + at(r.static_picojoules, row.of)) / r.seconds() /
                1e12;
            CHECK(watts <= row.milliwatts / 1e3);
        }
    }
}

TEST_CASE("hw.run_report: ports in use, tile by tile") {
    workload w = cached_llama();
    w.kept_share = 0.125;
    run_report const r = hw::run(w, {});
    auto const per_cycle = r.port_bytes_per_cycle();
    // Per tile of 1024 cycles: 128 x 128 scores of 16 bits written and read, the mask too, and a
    // thirty-second of the outputs.
    double const bytes = 2 * (128 * 128 * 2 + 128 * 128 / 8 + 128 * 128 * 2 / 32);
    CHECK(per_cycle[2] == doctest::Approx(bytes / 1024).epsilon(0.01));
    CHECK(per_cycle[2] > 64); // more than two words of the width that Table III's power is for
    CHECK(per_cycle[1] == 0);
    CHECK(r.port_shares()[2] == doctest::Approx(per_cycle[2] / (16 * 32)));
    hw::machine wide;
    wide.buffers.temporary.ports_count = 32;
    CHECK(hw::run(w, wide).port_shares()[2] == doctest::Approx(r.port_shares()[2] / 2));
    CHECK(hw::run(w, wide).timing.total == r.timing.total);
}

TEST_CASE("hw.run: too few ports limit the time, and the stall tells which") {
    workload w = cached_llama();
    w.kept_share = 0.125;
    run_report const served = hw::run(w, hw::sofa_28nm());
    run_report const narrow = hw::run(w, hw::sofa_one_port());
    CHECK(narrow.done == served.done); // the same accesses
    auto const port = [](run_report const& r, hw::chip_memory m) {
        return r.timing.engines[hw::tile_stage_count + static_cast<std::size_t>(m)];
    };
    // The token memory's 64 bytes per cycle decide, but for the first and the last tiles.
    double const token =
        served.port_bytes_per_cycle()[0] * static_cast<double>(served.timing.total.count()) / 64;
    CHECK(static_cast<double>(narrow.timing.total.count()) ==
          doctest::Approx(token).epsilon(0.005));
    CHECK(narrow.timing.total > served.timing.total);
    CHECK(narrow.port_shares()[0] > 0.99);
    CHECK(port(narrow, hw::chip_memory::token).name == "token ports");
    CHECK(static_cast<double>(port(narrow, hw::chip_memory::token).busy.count()) ==
          doctest::Approx(token));
    auto const waits = stage(narrow, tile_stage::fetch).stalled(hw::stall_cause::memory_port);
    CHECK(waits.count() > narrow.timing.total.count() / 2);
    CHECK(stage(served, tile_stage::fetch).stalled(hw::stall_cause::memory_port).count() <
          served.timing.total.count() / 100);
    // On demand the weights' ports do.
    w.has_kv_cache = false;
    run_report const made = hw::run(w, hw::sofa_one_port());
    CHECK(made.port_shares()[1] > 0.9); // but for tiles whose keys are there already
    CHECK(stage(made, tile_stage::gather).stalled(hw::stall_cause::memory_port) > cycles(0));
}

TEST_CASE("hw.run: the banks of sofa_28nm keep up with its engines on the paper's heads") {
    hw::machine many;
    for (hw::sram_buffer* memory :
         {&many.buffers.token, &many.buffers.weight, &many.buffers.temporary}) {
        memory->ports_count = 4096;
    }
    for (bool const is_cached : {true, false}) {
        for (double const kept_share : {0.05, 0.074, 0.187}) {
            for (index_t const dim : {index_t{64}, index_t{128}}) {
                workload w = cached_llama();
                w.has_kv_cache = is_cached;
                w.kept_share = kept_share;
                w.head_dim_count = w.value_dim_count = dim;
                CAPTURE(is_cached);
                CAPTURE(kept_share);
                CAPTURE(dim);
                CHECK(static_cast<double>(hw::run(w, {}).timing.total.count()) <
                      1.005 * static_cast<double>(hw::run(w, many).timing.total.count()));
            }
        }
    }
}

TEST_CASE("hw.run: ports are never used more than they can be, and more of them never slow down") {
    SOFATTN_GENERATOR(random);
    for (int n = 0; n < 100; ++n) {
        workload const w = test::random_workload(random);
        hw::machine m;
        m.pipeline.hand_over_name = random.chance(0.3) ? "row_ready" : "tile_ready";
        m.buffers.token.ports_count = random.integer<index_t>(1, 8);
        m.buffers.weight.ports_count = random.integer<index_t>(1, 4);
        m.buffers.temporary.ports_count = random.integer<index_t>(1, 16);
        run_report const few = hw::run(w, m);
        CAPTURE(n);
        for (double const share : few.port_shares()) {
            CHECK(share >= 0);
            CHECK(share <= 1);
        }
        hw::machine more = m;
        more.buffers.token.ports_count *= 2;
        more.buffers.temporary.ports_count *= 2;
        run_report const faster = hw::run(w, more);
        CHECK(faster.done == few.done);
        // First come, first served on the DRAM: tiles that come sooner may come in a worse order.
        CHECK(static_cast<double>(faster.timing.total.count()) <=
              1.02 * static_cast<double>(few.timing.total.count()));
    }
}

TEST_CASE("hw.run: RoPE after key prediction is charged, two multiplications per element of K^") {
    workload w;
    w.rope_name = "after_key_prediction";
    run_report const r = hw::run(w, {});
    CHECK(r.done[activity::key_rotation] == 2u * 4096u * 4096u);
    w.rope_name = "left_out";
    CHECK(hw::run(w, {}).done[activity::key_rotation] == 0);
}

TEST_CASE("hw.run: decoding is bound by rows that stand empty") {
    workload w = cached_llama();
    w.is_causal = true;
    w.queries_count = 1;
    w.first_position_count = 4095;
    run_report const one = hw::run(w, {});
    w.queries_count = 128;
    w.first_position_count = 4096 - 128;
    run_report const block = hw::run(w, {});
    CHECK(block.timing.total.count() < one.timing.total.count() * 11 / 10);
    CHECK(block.effective_gops() > 100 * one.effective_gops());
}

TEST_CASE("hw.run: a million keys are counted, not simulated tile by tile") {
    workload w;
    w.keys_count = w.queries_count = 1 << 20;
    run_report const r = hw::run(w, {});
    CHECK(r.timing.items == 8192ull * 8192 * 32);
    CHECK(r.timing.items_simulated < 10'000);
    CHECK(r.visible_pairs == (1ull << 40) * 32);
    // Under a causal mask every block is longer than the one before, with groups of heads as well.
    w.is_causal = true;
    w.kv_heads_count = 8;
    for (double const kept_most_share : {0.0, 0.104}) {
        w.kept_most_share = kept_most_share;
        run_report const causal = hw::run(w, {});
        CHECK(causal.timing.items == 8192ull * 8193 / 2 * 32);
        CHECK(causal.timing.items_simulated < 10'000);
    }
}

TEST_CASE("hw.run: bad machines and workloads are refused before anything runs") {
    workload w;
    w.heads_count = 0;
    CHECK_THROWS_WITH_AS((void)hw::run(w, {}),
                         "workload: heads_count is 0, must be a whole number from 1 to 4096",
                         error);
    hw::machine m;
    m.process.clock_megahertz = -1;
    CHECK_THROWS_WITH_AS((void)hw::run(workload{}, m),
                         "hardware: process.clock_megahertz is -1, must be from 1 to 10000", error);
}

TEST_CASE("hw.run_report: both accountings of throughput") {
    workload w = cached_llama();
    w.kept_share = 0.125;
    run_report const r = hw::run(w, {});
    // 4 S S H operations of dense attention over the time of everything.
    CHECK(r.effective_gops() == doctest::Approx(4 * 4096.0 * 4096 * 4096 / r.seconds() / 1e9));
    // 2 * 1024 MAC * U / kept; only the SU-FA half is at work here.
    CHECK(std::abs(r.mac_utilisation() / 0.5 - 1) < 0.01);
    CHECK(r.paper_gops() == doctest::Approx(2 * 1024 * 0.5 / 0.125).epsilon(0.01));
}

TEST_CASE("hw.run: a DRAM with banks and rows in place of flat numbers") {
    workload const w = cached_llama();
    run_report const flat = hw::run(w, hw::sofa_28nm());
    run_report const banks = hw::run(w, hw::sofa_hbm2());
    CHECK(banks.traffic == flat.traffic);
    CHECK(flat.moved == hw::dram_estimate{});
    // Whole bursts: as many bytes as were asked for, or a little more.
    auto const bytes =
        static_cast<double>(64 * (banks.moved.read_bursts + banks.moved.write_bursts));
    CHECK(bytes >= static_cast<double>(banks.traffic.total()));
    CHECK(bytes < 1.001 * static_cast<double>(banks.traffic.total()));
    CHECK(banks.moved.activates >
          banks.traffic.key_bytes / 1024 / 2); // scattered vectors open rows
    // Table IV's 4.01 pJ per bit hold at 59.8 GB/s; here more than 100 GB/s share the standby power.
    double const per_bit =
        (at(banks.dynamic_picojoules, block::dram) + at(banks.static_picojoules, block::dram)) /
        (8 * bytes);
    CHECK(per_bit > 1.5);
    CHECK(per_bit < 4.01);
    CHECK(at(banks.dynamic_picojoules, block::interface) ==
          doctest::Approx(banks.off_chip.io.count()));
    CHECK(at(banks.static_picojoules, block::dram) > 0);
    CHECK(banks.picojoules() ==
          doctest::Approx(hw::sum(banks.dynamic_picojoules) + hw::sum(banks.static_picojoules)));
    CHECK(banks.prices.of(activity::dram_read_bits).picojoules == 0);
    // A tenth of the bandwidth: the DRAM is the bottleneck.
    run_report const slow = hw::run(w, hw::sofa_ddr4());
    CHECK(slow.timing.total.count() > 3 * banks.timing.total.count());
    double const gb_per_s = static_cast<double>(slow.traffic.total()) / slow.seconds() / 1e9;
    CHECK(gb_per_s > 0.5 * 25.6);
    CHECK(gb_per_s < 25.6);
}

TEST_CASE("hw.memory_model: time grows with bytes, and nothing takes none") {
    SOFATTN_GENERATOR(random);
    for (char const* name : {"flat", "hbm2_16x64", "ddr4_3200"}) {
        hw::machine m;
        m.memory.model_name = name;
        hw::memory_model const memory(m);
        CHECK(memory.time({}) == hw::stage_time{});
        for (int n = 0; n < 100; ++n) {
            hw::tile_transfer t{random.integer<std::uint64_t>(0, 100'000),
                                random.integer<std::uint64_t>(0, 100'000),
                                256 * random.integer<std::uint64_t>(0, 200), 256};
            auto const time = memory.time(t);
            CHECK(time.latency_cycles >= time.interval_cycles);
            t.read_bytes += 4096;
            CHECK(memory.time(t).interval_cycles > time.interval_cycles);
        }
    }
}
