// SPDX-License-Identifier: MIT
// What a tile costs on a machine: time in every stage, and activities.
#pragma once

#include <sofattn/core/types.hpp>
#include <sofattn/hw/activity.hpp>
#include <sofattn/hw/attention_time.hpp>
#include <sofattn/hw/config.hpp>
#include <sofattn/hw/generation_time.hpp>
#include <sofattn/hw/kinds.hpp>
#include <sofattn/hw/memory_model.hpp>
#include <sofattn/hw/pipeline_graph.hpp>
#include <sofattn/hw/prediction_time.hpp>
#include <sofattn/hw/schedule_time.hpp>
#include <sofattn/hw/selection_rivals.hpp>
#include <sofattn/hw/selection_time.hpp>
#include <sofattn/hw/tile_work.hpp>
#include <sofattn/hw/work.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

namespace sofattn::hw {

/// What one row is selected from at this tile.
[[nodiscard]] inline selection_run run_of(tile_work const& w, machine const& m) noexcept {
    return selection_run::of(m.prediction, w, m.pipeline.hand_over_name == "row_ready");
}

/// Time in every stage. Transfers share the DRAM, one at a time; what the memory takes to answer is
/// hidden from the next transfer, not from the tile.
[[nodiscard]] inline tile_times times_of(tile_work const& w, machine const& m,
                                         memory_model const& memory) {
    tile_times t;
    auto const set = [&](tile_stage s, stage_time time) { t[static_cast<std::size_t>(s)] = time; };
    for (tile_stage const s :
         {tile_stage::fetch, tile_stage::spill, tile_stage::gather, tile_stage::write_back}) {
        set(s, memory.time(transfer_of(w, s)));
    }
    set(tile_stage::prediction, prediction_time(m.prediction, w,
                                                {m.buffers.token.bytes_per_cycle(),
                                                 m.buffers.temporary.bytes_per_cycle()}));
    set(tile_stage::selection, selection_time(m.selection, w, run_of(w, m)));
    set(tile_stage::schedule, schedule_time(m.schedule, w));
    set(tile_stage::kv_generation, generation_time(m.generation, w));
    set(tile_stage::attention, attention_time(m.attention, w));
    return t;
}

/// Everything that costs energy: what the engines do, and what moves between DRAM and chip.
[[nodiscard]] inline activity_counts activities_of(tile_work const& w, machine const& m) noexcept {
    activity_counts done;
    add_prediction_activity(m.prediction, w, done);
    add_selection_activity(m.selection, m.prediction, w, done, run_of(w, m));
    add_schedule_activity(w, done);
    add_generation_activity(m.generation, w, done);
    add_attention_activity(m.attention, w, done);
    tile_traffic const& bytes = w.traffic;
    // What comes is written into a memory first; what goes is read from one.
    done.add(activity::weight_write_bytes, bytes.code_bytes + bytes.weight_bytes);
    done.add(activity::token_write_bytes, bytes.query_bytes + bytes.token_bytes +
                                              bytes.index_bytes + bytes.kept_token_bytes +
                                              bytes.key_bytes + bytes.value_bytes);
    done.add(activity::token_read_bytes, bytes.stored_bytes);
    done.add(activity::temporary_write_bytes, bytes.output_bytes + bytes.spilled_score_bytes);
    done.add(activity::temporary_read_bytes, bytes.output_bytes + bytes.spilled_score_bytes);
    done.add(activity::dram_read_bits, 8 * bytes.read());
    done.add(activity::dram_write_bits, 8 * bytes.written());
    done.add(activity::interface_bits, 8 * bytes.total());
    return done;
}

/// Bytes that a tile moves through the ports of each on-chip memory, in any stage.
[[nodiscard]] constexpr std::array<std::uint64_t, chip_memory_count>
port_bytes(activity_counts const& done) noexcept {
    return {done[activity::token_read_bytes] + done[activity::token_write_bytes],
            done[activity::weight_read_bytes] + done[activity::weight_write_bytes],
            done[activity::temporary_read_bytes] + done[activity::temporary_write_bytes]};
}
[[nodiscard]] inline sram_buffer const& buffer_of(machine const& m, chip_memory which) noexcept {
    return which == chip_memory::token    ? m.buffers.token
           : which == chip_memory::weight ? m.buffers.weight
                                          : m.buffers.temporary;
}
/// The stage that waits where a memory's ports fall behind: the one before the engine whose products
/// need most of them, so that ports and engine are busy with a tile at the same time.
[[nodiscard]] constexpr tile_stage stage_before(chip_memory which) noexcept {
    return which == chip_memory::token    ? tile_stage::fetch  // K^ along the columns, K and V
           : which == chip_memory::weight ? tile_stage::gather // W_k and W_v
                                          : tile_stage::spill; // scores that are sorted
}

/// The stages as a chain. All transfers use the one DRAM. The ports of an on-chip memory are an
/// engine that is busy with a tile for the bytes of all stages over what they carry in a cycle;
/// they may be a few tiles behind, as stages after the one that waits still ask for them. Where
/// whole rows are handed over, a row block's scores wait before selection, in the DRAM if they do
/// not fit the chip; `row_score_bytes` is what a block takes at most, and there is room for two.
[[nodiscard]] inline pipeline_graph graph_of(machine const& m, std::uint64_t row_score_bytes) {
    pipeline_graph graph;
    graph.resources = {"dram"};
    for (std::size_t s = 0; s < tile_stage_count; ++s) {
        auto const which = static_cast<tile_stage>(s);
        engine e{std::string(name(which))};
        if (which == tile_stage::fetch || which == tile_stage::spill ||
            which == tile_stage::gather || which == tile_stage::write_back) {
            e.resource = 0;
        }
        graph.engines.push_back(std::move(e));
        if (s == 0) {
            continue;
        }
        buffer b{s - 1, s};
        b.slots = detail::count(m.pipeline.buffered_tiles_count);
        if (which == tile_stage::selection && m.pipeline.hand_over_name == "row_ready") {
            b.ready = hand_over::row;
            b.slots = unbounded;
            b.capacity_bytes = 2 * row_score_bytes;
        }
        graph.buffers.push_back(b);
    }
    for (std::size_t n = 0; n < chip_memory_count; ++n) {
        auto const which = static_cast<chip_memory>(n);
        buffer b{static_cast<std::size_t>(stage_before(which)), graph.engines.size()};
        b.slots = detail::count(m.pipeline.buffered_tiles_count) + 2;
        graph.engines.push_back({std::string(name(which)) + " ports", {}, true});
        graph.buffers.push_back(b);
    }
    return graph;
}

[[nodiscard]] inline work_item item_of(tile_work const& w, machine const& m,
                                       memory_model const& memory) {
    work_item item;
    item.busy_cycles.reserve(tile_stage_count + chip_memory_count);
    item.latency_cycles.reserve(tile_stage_count + chip_memory_count);
    for (stage_time const& t : times_of(w, m, memory)) {
        item.busy_cycles.push_back(t.interval_cycles);
        item.latency_cycles.push_back(t.latency_cycles);
    }
    auto const bytes = port_bytes(activities_of(w, m));
    for (std::size_t n = 0; n < chip_memory_count; ++n) {
        auto const wide =
            detail::count(buffer_of(m, static_cast<chip_memory>(n)).bytes_per_cycle());
        item.busy_cycles.push_back(ceil_div(bytes[n], wide));
        item.latency_cycles.push_back(item.busy_cycles.back());
    }
    if (m.pipeline.hand_over_name == "row_ready") {
        item.output_bytes.assign(tile_stage_count - 1 + chip_memory_count, 0);
        // Buffer n lies before stage n + 1.
        item.output_bytes[static_cast<std::size_t>(tile_stage::selection) - 1] =
            !predicts(m.prediction) ? 0
                                    : w.visible_pairs * detail::count(m.prediction.result_bytes);
    }
    item.ends_row = w.last_of_rows;
    return item;
}

} // namespace sofattn::hw
