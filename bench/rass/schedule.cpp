// SPDX-License-Identifier: MIT
// Schedules of one block: 128 queries want a tenth of 128 keys each.
#include "support/data.hpp"
#include <sofattn/core/query_mask.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/rass/schedule.hpp>

#include <benchmark/benchmark.h>

#include <cstddef>
#include <span>
#include <string>
#include <vector>

namespace sofattn::bench {
namespace {

constexpr index_t keys = 128;
constexpr double popular_share = 0.25; ///< of the keys
constexpr double popular = 0.28;       ///< chance that a query wants a popular key
constexpr double other = 0.04;         ///< ... and any other: 0.10 on average

/// Some keys are wanted by many queries, as in trained models.
std::vector<rass::wanted_key> wants() {
    generator random;
    std::vector<rass::wanted_key> wanted;
    for (index_t k = 0; k < keys; ++k) {
        double const chance = random.uniform() < popular_share ? popular : other;
        rass::wanted_key one{static_cast<key_id>(k), {}};
        for (index_t q = 0; q < query_block; ++q) {
            if (random.uniform() < chance) {
                one.by.set(q);
            }
        }
        if (!one.by.empty()) {
            wanted.push_back(one);
        }
    }
    return wanted;
}

template <class Schedule>
void schedule(benchmark::State& state) {
    auto const wanted = wants();
    index_t pairs = 0;
    for (auto const& key : wanted) {
        pairs += key.by.count();
    }
    rass::schedule_scratch scratch(keys);
    rass::totals totals;
    for (auto _ : state) {
        index_t last = 0;
        totals = Schedule{}(std::span(wanted), scratch, [&](rass::load load) { last = load.key; });
        benchmark::DoNotOptimize(last);
    }
    state.SetItemsProcessed(state.iterations() * pairs); // (query, key) pairs
    state.counters["pairs"] = static_cast<double>(pairs);
    state.counters["key_loads"] = static_cast<double>(totals.key_loads);
    state.counters["phases"] = static_cast<double>(totals.phases);
}

template <class... Schedules>
bool add_all() {
    (add("rass/schedule/reference/schedule:" + std::string(Schedules::name) +
             "/queries:128/keys:128",
         schedule<Schedules>),
     ...);
    return true;
}

[[maybe_unused]] bool const added =
    add_all<rass::reuse_aware, rass::left_to_right<rass::load_rule::range>,
            rass::left_to_right<rass::load_rule::wanted>>();

} // namespace
} // namespace sofattn::bench
