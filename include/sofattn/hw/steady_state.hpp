// SPDX-License-Identifier: MIT
// Recognises that a repeating stream has driven a pipeline into a state that it was in before.
#pragma once

#include <sofattn/core/assert.hpp>
#include <sofattn/hw/work_cursor.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <utility>
#include <vector>

namespace sofattn::hw::detail {

/// What is compared (relative to now and to the first engine's item) and what is added up.
struct pipeline_snapshot {
    std::uint64_t cycle = 0;
    std::vector<std::uint64_t> state;
    std::vector<std::uint64_t> counters;
};

/// Whole repetitions that can be jumped over, and what they add.
struct pipeline_jump {
    std::size_t depth = 0;         ///< level of the repeating node
    std::uint64_t repetitions = 0; ///< of it
    std::uint64_t items = 0;       ///< of the stream
    std::uint64_t periods = 0;     ///< so often the difference to `since`
    pipeline_snapshot const* since = nullptr;
};

/// One cycle detector (Brent 1980) per level of nesting: a snapshot is kept at repetition 1, 2, 4, 8
/// ... and compared with every later one, so that periods of any length are found with one copy.
/// Same state, same offset in the repeating node, and every engine inside of it: then the
/// simulation between the two snapshots would be repeated as long as repetitions last.
class steady_state {
public:
    /// The first engine has moved on, and the cursor before it. Is a snapshot of use now?
    [[nodiscard]] bool at_boundary(work_cursor const& first) {
        auto const levels = first.levels();
        found_.resize(std::min(found_.size(), levels.size()));
        bool any = false;
        for (std::size_t d = 0; d < levels.size(); ++d) {
            auto const& here = levels[d];
            if (d == found_.size()) {
                found_.emplace_back();
            }
            detector& one = found_[d];
            if (one.start != here.start || one.node != here.node ||
                one.program != first.program()) {
                one = detector{.program = first.program(),
                               .node = here.node,
                               .start = here.start,
                               .seen = here.repetition};
            }
            one.due = here.repetition != one.seen && here.repetition + 1 < first.node(here).times;
            one.seen = here.repetition;
            any = any || one.due;
        }
        return any;
    }

    /// `earliest`: the item of the slowest engine.
    [[nodiscard]] std::optional<pipeline_jump>
    find(work_cursor const& first, std::uint64_t earliest, pipeline_snapshot const& now) {
        std::uint64_t const latest = first.index();
        for (std::size_t d = 0; d < found_.size(); ++d) {
            detector& one = found_[d];
            if (!one.due) {
                continue;
            }
            auto const& here = first.levels()[d];
            auto const& node = first.node(here);
            std::uint64_t const end = here.start + node.times * node.length;
            if (earliest < here.start || latest >= end) {
                continue; // somebody works on what does not repeat
            }
            std::uint64_t const offset = (first.index() - here.start) % node.length;
            if (one.saved && offset == one.offset && now.state == one.saved->state) {
                std::uint64_t const period = here.repetition - one.saved_at;
                std::uint64_t const periods = (end - 1 - latest) / (period * node.length);
                if (periods > 0) {
                    return pipeline_jump{.depth = d,
                                         .repetitions = periods * period,
                                         .items = periods * period * node.length,
                                         .periods = periods,
                                         .since = &*one.saved};
                }
            }
            if (!one.saved || here.repetition >= one.replace_at) {
                std::uint64_t const gap = one.saved ? 2 * (one.replace_at - one.saved_at) : 1;
                one.saved = now;
                one.saved_at = here.repetition;
                one.replace_at = here.repetition + gap;
                one.offset = offset;
            }
        }
        return std::nullopt;
    }

    /// The jump was made: what lies inside the repeated node begins elsewhere now.
    void jumped(pipeline_jump const& by) {
        found_[by.depth].seen += by.repetitions;
        found_[by.depth].saved.reset();
        found_.resize(by.depth + 1);
    }

private:
    struct detector {
        std::uint64_t program = 0;
        std::size_t node = 0;
        std::uint64_t start = 0;
        std::uint64_t seen = 0; ///< repetition
        bool due = false;
        std::optional<pipeline_snapshot> saved{};
        std::uint64_t saved_at = 0;
        std::uint64_t replace_at = 0;
        std::uint64_t offset = 0;
    };

    std::vector<detector> found_;
};

} // namespace sofattn::hw::detail
