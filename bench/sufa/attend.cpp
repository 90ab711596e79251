// SPDX-License-Identifier: MIT
// Attention of one row to 128 kept keys, with every attender.
#include "support/data.hpp"
#include <sofattn/core/order.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/exec/executor.hpp>
#include <sofattn/sufa/rivals.hpp>
#include <sofattn/sufa/row_arithmetic.hpp>
#include <sofattn/sufa/softmax_state.hpp>
#include <sofattn/sufa/sorted_updating.hpp>

#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstddef>
#include <span>
#include <string>
#include <vector>

namespace sofattn::bench {
namespace {

constexpr index_t keys = 128;
constexpr index_t dim = 64;

template <class Attender>
void attend(benchmark::State& state) {
    generator random;
    auto const query = normal_tensor<axis::query, axis::dim>(random, {1, dim});
    auto const key = normal_tensor<axis::key, axis::dim>(random, {keys, dim});
    auto const value = normal_tensor<axis::key, axis::value_dim>(random, {keys, dim});
    sufa::attend_inputs<float, float, float> const in{query.view().slice<axis::query>(0),
                                                      key.view(), value.view(), 0.125};
    exec::reference x;

    // Sorted by exact logits: the prediction is right, as SU-FA hopes.
    std::vector<ranked<double>> kept;
    for (index_t k = 0; k < keys; ++k) {
        double sum = 0;
        for (index_t d = 0; d < dim; ++d) {
            sum += static_cast<double>(query(0, d)) * static_cast<double>(key(k, d));
        }
        kept.push_back({sum, static_cast<key_id>(k)});
    }
    std::ranges::sort(kept, [](auto const& a, auto const& b) { return comes_before(a, b); });

    std::vector<double> logits(static_cast<std::size_t>(keys));
    std::vector<double> output(static_cast<std::size_t>(dim));
    for (auto _ : state) {
        auto row = sufa::softmax_state<double>::empty(output);
        Attender{}(x, in, std::span<ranked<double> const>(kept), std::span(logits), row);
        benchmark::DoNotOptimize(row);
        benchmark::ClobberMemory();
    }
    state.SetItemsProcessed(state.iterations() * keys); // kept keys
}

template <class... Attenders>
bool add_all() {
    (add("sufa/attend/reference/attender:" + std::string(Attenders::name) + "/kept:128/dim:64",
         attend<Attenders>),
     ...);
    return true;
}

[[maybe_unused]] bool const added =
    add_all<sufa::sorted_updating<sufa::descending>, sufa::sorted_updating<sufa::ascending>,
            sufa::flash_attention_2, sufa::two_pass>();

} // namespace
} // namespace sofattn::bench
