// SPDX-License-Identifier: MIT
// Compensation for nine tenths of a row that were dropped, with every tail.
#include "support/data.hpp"
#include <sofattn/core/order.hpp>
#include <sofattn/core/score_line.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/exec/executor.hpp>
#include <sofattn/sufa/softmax_state.hpp>
#include <sofattn/sufa/tail.hpp>

#include <benchmark/benchmark.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace sofattn::bench {
namespace {

constexpr index_t keys = 1024;
constexpr index_t dim = 64;
constexpr index_t every = 10; // one of ten is kept

template <class Tail>
void compensate(benchmark::State& state) {
    generator random;
    auto const values = normal_tensor<axis::key, axis::value_dim>(random, {keys, dim});
    sufa::tail_values<Tail> const prepared(values.cview());
    std::vector<std::int32_t> scores(static_cast<std::size_t>(keys));
    std::vector<ranked<std::int32_t>> kept;
    for (index_t k = 0; k < keys; ++k) {
        auto& score = scores[static_cast<std::size_t>(k)];
        score = static_cast<std::int32_t>(20000.0 * random.normal());
        if (k % every == 0) {
            kept.push_back({score, static_cast<key_id>(k)});
        }
    }
    exec::reference x;
    sufa::tail_scratch<double> scratch(keys, dim);
    std::vector<double> output(static_cast<std::size_t>(dim));
    std::vector<double> sum(static_cast<std::size_t>(dim));
    for (auto _ : state) {
        auto row = sufa::softmax_state<double>::empty(output);
        auto tail = sufa::tail_state<double>::empty(sum);
        sufa::tail_compensation<Tail>{}(x, values.cview(), prepared, score_line{0.0, 1e-4}, 0,
                                        std::span<std::int32_t const>(scores),
                                        std::span<ranked<std::int32_t> const>(kept), scratch, row,
                                        tail);
        tail.compensate(row);
        benchmark::DoNotOptimize(row);
        benchmark::ClobberMemory();
    }
    state.SetItemsProcessed(state.iterations() * (keys - std::ssize(kept))); // dropped keys
}

template <class... Tails>
bool add_all() {
    (add("sufa/tail/reference/tail:" + std::string(Tails::name) + "/n:1024/dim:64",
         compensate<Tails>),
     ...);
    return true;
}

[[maybe_unused]] bool const added = add_all<sufa::mean_tail, sufa::segment_tail, sufa::int8_tail>();

} // namespace
} // namespace sofattn::bench
