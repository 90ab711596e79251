// SPDX-License-Identifier: MIT
// Score prediction: one query against 1024 keys, with every integer predictor.
#include "support/data.hpp"
#include <sofattn/core/types.hpp>
#include <sofattn/dlzs/operands.hpp>
#include <sofattn/dlzs/policy.hpp>
#include <sofattn/dlzs/predict_scores.hpp>
#include <sofattn/exec/executor.hpp>

#include <benchmark/benchmark.h>

#include <cstddef>
#include <string>
#include <vector>

namespace sofattn::bench {
namespace {

constexpr index_t keys = 1024;

template <dlzs::policy Policy>
void predict(benchmark::State& state) {
    index_t const dim = state.range(0);
    generator random;
    auto const query = normal_tensor<axis::head, axis::query, axis::dim>(random, {1, 1, dim});
    auto const key = normal_tensor<axis::key, axis::dim>(random, {keys, dim});
    dlzs::key_index<Policy> const index(key.view());
    dlzs::query_codes<Policy> const codes(query.view(), index);
    std::vector<dlzs::score_type<Policy>> scores(static_cast<std::size_t>(keys));
    exec::reference x;
    for (auto _ : state) {
        dlzs::predict_scores<Policy>{}(x, codes.row(0, 0), index.codes(), scores);
        benchmark::DoNotOptimize(scores.data());
        benchmark::ClobberMemory();
    }
    state.SetItemsProcessed(state.iterations() * keys * dim); // products
}

template <dlzs::policy... Policies>
bool add_all() {
    (add("dlzs/predict_scores/reference/predictor:" + std::string(Policies::name),
         predict<Policies>)
         ->ArgName("dim")
         ->Arg(64)
         ->Arg(128),
     ...);
    return true;
}

[[maybe_unused]] bool const added =
    add_all<dlzs::dlzs8, dlzs::dlzs16, dlzs::two_sided, dlzs::lz_keys, dlzs::int8,
            dlzs::int8_per_query, dlzs::centred_int4, dlzs::int4>();

} // namespace
} // namespace sofattn::bench
