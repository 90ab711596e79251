// SPDX-License-Identifier: MIT
// RASS engine: ID buffer, finite-state machine, issue FIFO, paper section IV-D, Fig. 15.
#pragma once

#include <sofattn/core/types.hpp>
#include <sofattn/hw/activity.hpp>
#include <sofattn/hw/config_parts.hpp>
#include <sofattn/hw/tile_work.hpp>

#include <algorithm>

namespace sofattn::hw {

/// Phases in which a tile's loads are issued: as many as the row with most keys needs. A schedule
/// in which some query idles takes more; the trace does not tell how many.
[[nodiscard]] constexpr index_t issue_phases(schedule_engine const& e,
                                             tile_work const& w) noexcept {
    return w.loads == 0 ? 0 : std::max<index_t>(1, ceil_div(w.kept_most, e.keys_per_phase_count));
}

/// Masks come with the selection; the machine issues a key per `issue_interval` and pauses between
/// phases.
[[nodiscard]] constexpr stage_time schedule_time(schedule_engine const& e,
                                                 tile_work const& w) noexcept {
    if (w.loads == 0) {
        return {};
    }
    index_t const busy =
        w.loads * e.issue_interval_cycles + issue_phases(e, w) * e.phase_switch_cycles;
    return {detail::count(busy), detail::count(busy + e.issue_latency_cycles)};
}

/// The mask is read once.
constexpr void add_schedule_activity(tile_work const& w, activity_counts& into) noexcept {
    into.add(activity::key_issue, detail::count(w.loads));
    into.add(activity::temporary_read_bytes,
             detail::count(w.loads == 0 ? 0 : ceil_div(w.rows * w.keys, index_t{8})));
}

} // namespace sofattn::hw
