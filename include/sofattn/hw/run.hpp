// SPDX-License-Identifier: MIT
// A workload on a machine: cycles, energy, area and traffic.
#pragma once

#include <sofattn/core/query_mask.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/core/units.hpp>
#include <sofattn/hw/activity.hpp>
#include <sofattn/hw/config.hpp>
#include <sofattn/hw/dram_energy.hpp>
#include <sofattn/hw/dram_estimate.hpp>
#include <sofattn/hw/energy_table.hpp>
#include <sofattn/hw/expand.hpp>
#include <sofattn/hw/memory_model.hpp>
#include <sofattn/hw/pipeline.hpp>
#include <sofattn/hw/placement.hpp>
#include <sofattn/hw/prices.hpp>
#include <sofattn/hw/recorded.hpp>
#include <sofattn/hw/tile_model.hpp>
#include <sofattn/hw/tile_work.hpp>
#include <sofattn/hw/workload.hpp>
#include <sofattn/probe/trace.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace sofattn::hw {

/// What a run found. Sums close: every stage's busy, stalled and idle cycles make up the total, and
/// energies are sums over the blocks.
struct run_report {
    machine on{};
    workload of{};
    energy_table prices{}; ///< the ones used
    placement placed{};
    pipeline_timing timing{};
    activity_counts done{};
    tile_traffic traffic{};
    dram_estimate moved{};           ///< bursts and activations, where the memory is not flat
    dram_energy off_chip{};          ///< of them; picojoules
    std::uint64_t visible_pairs = 0; ///< of all heads
    std::uint64_t kept_pairs = 0;
    per_block dynamic_picojoules{};
    per_block static_picojoules{};
    per_block square_micrometres{};

    [[nodiscard]] double seconds() const noexcept {
        return static_cast<double>(timing.total.count()) / (on.process.clock_megahertz * 1e6);
    }
    [[nodiscard]] double kept_share() const noexcept {
        return visible_pairs == 0
                   ? 0
                   : static_cast<double>(kept_pairs) / static_cast<double>(visible_pairs);
    }
    [[nodiscard]] double picojoules() const noexcept {
        return sum(dynamic_picojoules) + sum(static_picojoules);
    }
    [[nodiscard]] double core_picojoules() const noexcept {
        return sum_on_chip(dynamic_picojoules) + sum_on_chip(static_picojoules);
    }
    /// A multiply-add counts as two operations.
    [[nodiscard]] double dense_operations() const noexcept {
        return 2.0 * static_cast<double>(visible_pairs) *
               static_cast<double>(of.head_dim_count + of.value_dim_count);
    }
    /// What dense attention would have computed, over the time of everything that was done.
    [[nodiscard]] double effective_gops() const noexcept {
        return dense_operations() / seconds() / 1e9;
    }
    /// Share of the multiply-adds that the SU-FA and KV arrays could do, which they did.
    [[nodiscard]] double mac_utilisation() const noexcept {
        auto const counts = part_counts(on);
        auto const elements =
            static_cast<double>(counts[static_cast<std::size_t>(part::kv_mac)] +
                                counts[static_cast<std::size_t>(part::attention_mac)]);
        return static_cast<double>(done[activity::multiply_add] + done[activity::kv_multiply_add]) /
               (elements * static_cast<double>(timing.total.count()));
    }
    /// Bytes per cycle that went through the ports of the on-chip memories, on average.
    [[nodiscard]] std::array<double, chip_memory_count> port_bytes_per_cycle() const noexcept {
        std::array<double, chip_memory_count> per_cycle{};
        auto const bytes = port_bytes(done);
        for (std::size_t n = 0; n < chip_memory_count; ++n) {
            per_cycle[n] =
                static_cast<double>(bytes[n]) / static_cast<double>(timing.total.count());
        }
        return per_cycle;
    }
    /// The same over what the ports can carry; never above 1.
    [[nodiscard]] std::array<double, chip_memory_count> port_shares() const noexcept {
        auto shares = port_bytes_per_cycle();
        for (std::size_t n = 0; n < chip_memory_count; ++n) {
            shares[n] /=
                static_cast<double>(buffer_of(on, static_cast<chip_memory>(n)).bytes_per_cycle());
        }
        return shares;
    }
    /// Share of the time in which the DRAM is at work for this layer.
    [[nodiscard]] double memory_share() const noexcept {
        std::uint64_t busy = 0;
        for (tile_stage const s :
             {tile_stage::fetch, tile_stage::spill, tile_stage::gather, tile_stage::write_back}) {
            busy += timing.engines[static_cast<std::size_t>(s)].busy.count();
        }
        return static_cast<double>(busy) / static_cast<double>(timing.total.count());
    }
    /// The paper's accounting, as far as its figures tell: both arrays at their utilisation, as if
    /// all that they did were attention, times what the removed pairs would have cost.
    [[nodiscard]] double paper_gops() const noexcept {
        auto const counts = part_counts(on);
        auto const elements =
            static_cast<double>(counts[static_cast<std::size_t>(part::kv_mac)] +
                                counts[static_cast<std::size_t>(part::attention_mac)]);
        return 2 * elements * on.process.clock_megahertz / 1e3 * mac_utilisation() /
               std::max(kept_share(), 1e-12);
    }
};

namespace detail {

inline void add_tile(run_report& r, tile_work const& tile, memory_model const& memory,
                     std::uint64_t times) {
    if (!memory.is_flat()) {
        for (std::size_t s = 0; s < tile_stage_count; ++s) {
            dram_estimate const one =
                memory.bursts_of(transfer_of(tile, static_cast<tile_stage>(s)));
            r.moved += {times * one.busy_cycles, times * one.read_bursts, times * one.write_bursts,
                        times * one.activates};
        }
    }
    r.done.add_times(activities_of(tile, r.on), times);
    r.traffic.add_times(tile.traffic, times);
    r.visible_pairs += times * tile.visible_pairs;
    r.kept_pairs += times * tile.kept_pairs;
}

/// The most that the predicted scores of a block of `rows` queries take.
[[nodiscard]] inline std::uint64_t row_score_bytes(workload const& w, machine const& m,
                                                   index_t rows) noexcept {
    return count(rows * w.heads_per_selection() * w.keys_count * m.prediction.result_bytes);
}

/// Energies and areas of what was counted.
inline void settle(run_report& r, memory_model const& memory) {
    r.dynamic_picojoules = dynamic_picojoules(r.prices, r.done);
    per_block const power = static_microwatts(r.prices, r.on);
    for (std::size_t b = 0; b < block_count; ++b) {
        r.static_picojoules[b] = power[b] * r.seconds() * 1e6; // uW s = 1e6 pJ
    }
    r.square_micrometres = area_square_micrometres(r.prices, r.on);
    if (!memory.is_flat()) {
        r.off_chip = memory.energy(r.moved, r.timing.total);
        auto const at = static_cast<std::size_t>(block::dram);
        r.dynamic_picojoules[at] =
            (r.off_chip.activate + r.off_chip.read + r.off_chip.write).count();
        r.static_picojoules[at] = (r.off_chip.refresh + r.off_chip.standby).count();
        r.dynamic_picojoules[static_cast<std::size_t>(block::interface)] = r.off_chip.io.count();
    }
}

/// The same tree, in the machine's time.
[[nodiscard]] inline work work_of(tile_run const& run, machine const& on,
                                  memory_model const& memory) {
    if (run.parts.empty()) {
        return work::of(item_of(run.tile, on, memory), count(run.times));
    }
    std::vector<work> parts;
    parts.reserve(run.parts.size());
    for (tile_run const& part : run.parts) {
        parts.push_back(work_of(part, on, memory));
    }
    return work::all(std::move(parts), count(run.times));
}

/// One selection of a KV head as a tree of repetitions; equal blocks in a row become one. What its
/// tiles cost is added `times` times.
inline work selection_work(layer_tiles const& tiles, index_t selection, memory_model const& memory,
                           std::uint64_t times, run_report& r) {
    std::vector<work> blocks;
    std::vector<tile_run> runs;
    std::vector<tile_run> before;
    for (index_t b = 0; b < tiles.blocks(); ++b) {
        runs.clear();
        tiles.append_block(selection, b, runs);
        for (tile_run const& run : runs) {
            run.for_each([&](tile_work const& tile, index_t repeated) {
                add_tile(r, tile, memory, times * count(repeated));
            });
        }
        if (runs == before) {
            ++blocks.back().times;
            continue;
        }
        std::vector<work> parts;
        parts.reserve(runs.size());
        for (tile_run const& run : runs) {
            parts.push_back(work_of(run, r.on, memory));
        }
        blocks.push_back(work::all(std::move(parts)));
        std::swap(runs, before);
    }
    return work::all(std::move(blocks));
}

} // namespace detail

/// An analytic run: the layer that `of` describes. Throws `error` for descriptions that make no
/// sense, before anything is computed. Memory: the distinct blocks of one selection.
[[nodiscard]] inline run_report run(workload const& of, machine const& on,
                                    pipeline_options const& options = {}) {
    validate(on);
    validate(of);
    run_report r;
    r.on = on;
    r.of = of;
    r.prices = prices_for(on);
    memory_model const memory(on);
    layer_tiles const tiles(of, on);
    r.placed = tiles.placed();
    auto const kv_heads = detail::count(of.kv_heads_count);
    // The first selection of a KV head makes what the others find; those are alike.
    std::vector<work> selections;
    selections.push_back(detail::selection_work(tiles, 0, memory, kv_heads, r));
    if (tiles.selections() > 1) {
        auto const others = detail::count(tiles.selections() - 1);
        selections.push_back(detail::selection_work(tiles, 1, memory, kv_heads * others, r));
        selections.back().times = others;
    }
    r.timing = simulate(graph_of(on, detail::row_score_bytes(of, on, on.attention.rows_count)),
                        work::all(std::move(selections), kv_heads), options);
    detail::settle(r, memory);
    return r;
}

/// A run on data: `events` of an executor with a trace, `shape` the shapes of that run (its shares
/// are not read, see recorded_tiles).
[[nodiscard]] inline run_report run(probe::trace const& events, workload const& shape,
                                    machine const& on, pipeline_options const& options = {}) {
    validate(on);
    memory_model const memory(on);
    recorded_tiles const tiles(events, shape, on);
    run_report r;
    r.on = on;
    r.of = shape;
    r.prices = prices_for(on);
    r.placed = tiles.placed();
    std::vector<work> parts;
    parts.reserve(events.tiles().size());
    tiles.for_each([&](tile_work const& tile) {
        detail::add_tile(r, tile, memory, 1);
        parts.push_back(work::of(item_of(tile, on, memory)));
    });
    r.timing = simulate(graph_of(on, detail::row_score_bytes(shape, on, query_block)),
                        work::all(std::move(parts)), options);
    detail::settle(r, memory);
    return r;
}

} // namespace sofattn::hw
