// SPDX-License-Identifier: MIT
// In which phases the kept keys of a query block are loaded, paper section IV-D, Fig. 15.
#pragma once

#include <sofattn/core/assert.hpp>
#include <sofattn/core/query_mask.hpp>
#include <sofattn/core/types.hpp>

#include <algorithm>
#include <array>
#include <concepts>
#include <cstdint>
#include <span>
#include <vector>

namespace sofattn::rass {

/// Keys that one query can consume per phase: two per row of the SU-FA array (Fig. 14).
inline constexpr int keys_per_phase = 2;

/// A key that some query of the block kept.
struct wanted_key {
    key_id key = 0;
    query_mask by;
};

/// A key vector (and its value vector) brought in for one phase.
struct load {
    key_id key = 0;
    index_t phase = 0;

    friend bool operator==(load const&, load const&) = default;
};

/// What a schedule amounts to.
struct totals {
    index_t phases = 0;
    index_t key_loads = 0; ///< key vectors; as many value vectors come along
};

/// Buffers of a schedule, made once for the longest list.
struct schedule_scratch {
    schedule_scratch() = default;
    explicit schedule_scratch(index_t keys) : order(static_cast<std::size_t>(keys)) {}

    std::vector<std::uint32_t> order; ///< keys still to be issued, or the phase that took them
};

/// RASS: the key wanted by most queries goes first, then keys wanted only by queries that can still
/// take one, until none is left for this phase. A key is consumed by all its queries in the phase
/// that loads it, so it is loaded once; what a worse order costs is phases, in which some queries
/// idle.
///
/// in     keys  [wanted]  kept keys of the block, ascending, each with the queries that kept it
/// out    loads in order of issue, through on_load(load); returns the totals, count
/// pre    masks not empty, keys ascending (SOFATTN_DASSERT); scratch.order has a place per key
/// error  none
/// events none; the pipeline emits key and value bytes for the loads
/// exact  integers; ties go to the lower key
/// paper  RASS, section IV-D, Fig. 15: the ID buffer is a mask per key here
struct reuse_aware {
    static constexpr char const* name = "rass";
    /// As many loads as keys, whatever the order.
    static constexpr bool loads_once = true;

    template <std::invocable<load> OnLoad>
    totals operator()(std::span<wanted_key const> keys, schedule_scratch& scratch,
                      OnLoad on_load) const {
        SOFATTN_ASSERT(scratch.order.size() >= keys.size());
        auto left = std::span(scratch.order).first(keys.size());
        for (std::size_t i = 0; i < keys.size(); ++i) {
            SOFATTN_DASSERT(!keys[i].by.empty());
            SOFATTN_DASSERT(i == 0 || keys[i - 1].key < keys[i].key);
            left[i] = static_cast<std::uint32_t>(i);
        }
        std::ranges::sort(left, [&](std::uint32_t a, std::uint32_t b) {
            index_t const na = keys[a].by.count();
            index_t const nb = keys[b].by.count();
            return na != nb ? na > nb : a < b;
        });
        totals sum;
        while (!left.empty()) {
            std::array<query_mask, keys_per_phase> served{}; // who has taken 1, 2, ... keys
            std::size_t waiting = 0;
            for (std::uint32_t const i : left) {
                query_mask const by = keys[i].by;
                if (!(by & served.back()).empty()) { // somebody is full: the key waits
                    left[waiting++] = i;
                    continue;
                }
                for (std::size_t n = served.size(); n-- > 1;) {
                    served[n] |= by & served[n - 1];
                }
                served.front() |= by;
                on_load(load{keys[i].key, sum.phases});
                ++sum.key_loads;
            }
            left = left.first(waiting);
            ++sum.phases;
        }
        return sum;
    }
};

/// What a left-to-right phase brings in.
enum class load_rule {
    range, ///< the contiguous range of keys that covers the phase's wants, as Fig. 15 counts
    wanted ///< only the keys that some query consumes in the phase
};

/// Every query takes its keys in ascending order, two per phase; nothing survives a phase, so a key
/// that queries reach in different phases is loaded again.
///
/// in     keys  [wanted]  as for reuse_aware
/// out    loads in order of issue, through on_load(load); returns the totals, count
/// pre    masks not empty, keys ascending; scratch.order has a place per key (SOFATTN_ASSERT)
/// error  none
/// events none; the pipeline emits key and value bytes for the loads
/// exact  integers
/// paper  the baseline of section IV-D, Fig. 15
template <load_rule Rule = load_rule::range>
struct left_to_right {
    static constexpr char const* name =
        Rule == load_rule::range ? "left_to_right" : "left_to_right_wanted";

    template <std::invocable<load> OnLoad>
    totals operator()(std::span<wanted_key const> keys, schedule_scratch& scratch,
                      OnLoad on_load) const {
        SOFATTN_ASSERT(scratch.order.size() >= keys.size());
        // order[i]: one more than the last phase that consumed keys[i].
        auto const consumed = scratch.order.begin();
        std::fill_n(consumed, keys.size(), 0u);
        std::array<std::size_t, static_cast<std::size_t>(query_block)> next{};
        totals sum;
        for (;; ++sum.phases) {
            auto const mark = static_cast<std::uint32_t>(sum.phases + 1);
            std::size_t first = keys.size();
            std::size_t last = 0;
            for (index_t q = 0; q < query_block; ++q) {
                std::size_t& at = next[static_cast<std::size_t>(q)];
                for (int taken = 0; at < keys.size() && taken < keys_per_phase; ++at) {
                    if (keys[at].by.test(q)) {
                        consumed[static_cast<index_t>(at)] = mark;
                        first = std::min(first, at);
                        last = std::max(last, at);
                        ++taken;
                    }
                }
            }
            if (first == keys.size()) {
                return sum;
            }
            auto const issue = [&](key_id key) {
                on_load(load{key, sum.phases});
                ++sum.key_loads;
            };
            if constexpr (Rule == load_rule::range) {
                for (key_id key = keys[first].key; key <= keys[last].key; ++key) {
                    issue(key);
                }
            } else {
                for (std::size_t i = first; i <= last; ++i) {
                    if (consumed[static_cast<index_t>(i)] == mark) {
                        issue(keys[i].key);
                    }
                }
            }
        }
    }
};

} // namespace sofattn::rass
