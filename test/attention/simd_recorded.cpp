// SPDX-License-Identifier: MIT
// exec::simd against exec::reference on heads of trained models.
#include "attention/simd_case.hpp"
#include <sofattn/attention/attention.hpp>
#include <sofattn/attention/presets.hpp>
#include <sofattn/io/npy.hpp>
#include <sofattn/sads/adaptive.hpp>
#include <sofattn/sads/row_selectors.hpp>

#include <doctest/doctest.h>

#include <filesystem>
#include <string>
#include <string_view>

using namespace sofattn;
using namespace sofattn::test;

namespace {

/// Q, K and V of a layer.
struct recorded_layer {
    recorded_layer(std::filesystem::path const& folder, std::string const& name)
        : q(io::read_npy(folder / (name + "_q.npy"))
                .to_tensor<axis::head, axis::query, axis::dim>()),
          k(io::read_npy(folder / (name + "_k.npy"))
                .to_tensor<axis::kv_head, axis::key, axis::dim>()),
          v(io::read_npy(folder / (name + "_v.npy"))
                .to_tensor<axis::kv_head, axis::key, axis::value_dim>()) {}

    /// The heads of one KV head, and of the sequence's first `tokens` the last `queries`.
    [[nodiscard]] problem<float> part(index_t kv, index_t tokens, index_t queries,
                                      bool causal) const {
        index_t const group = q.cview().extent<axis::head>() / k.cview().extent<axis::kv_head>();
        return {q.cview()
                    .range<axis::head>(kv * group, group)
                    .range<axis::query>(tokens - queries, queries),
                k.cview().range<axis::kv_head>(kv, 1).range<axis::key>(0, tokens),
                v.cview().range<axis::kv_head>(kv, 1).range<axis::key>(0, tokens), causal};
    }

    tensor<float, axis::head, axis::query, axis::dim> q;
    tensor<float, axis::kv_head, axis::key, axis::dim> k;
    tensor<float, axis::kv_head, axis::key, axis::value_dim> v;
};

void check_presets(problem<float> const& given) {
    using paper = on_both<presets::paper::predictor, presets::paper::selector,
                          presets::paper::attender, presets::paper::tail>;
    using recommended = on_both<presets::recommended::predictor, presets::recommended::selector,
                                presets::recommended::attender, presets::recommended::tail>;
    paper::check(given, presets::paper::options());
    recommended::check(given, presets::recommended::options());
    recommended::check(given, presets::recommended::options(0.1));
    auto grouped = presets::recommended::options(0.05);
    grouped.scope = selection_scope::per_group;
    recommended::check(given, grouped);
    on_both<dlzs::int8_per_query, sads::adaptive<sads::grain_by_grain>, sufa::sorted_updating<>,
            sufa::segment_tail>::check(given, presets::recommended::options());
    on_both<dlzs::lz_keys, sads::full_topk, sufa::two_pass, sufa::mean_tail>::check(
        given, presets::paper::options());
}

} // namespace

TEST_CASE("attention.simd: recorded heads, a decoder's and an encoder's") {
    std::filesystem::path const folder = std::string(SOFATTN_SOURCE_DIR) + "/examples/data";
    recorded_layer const decoder(folder, "tinyllama_L16");
    check_presets(decoder.part(0, 700, 700, true));
    check_presets(decoder.part(3, 2048, 40, true));
    recorded_layer const encoder(folder, "gtesmall_L05");
    check_presets(encoder.part(0, 512, 512, false));
    check_presets(encoder.part(7, 512, 100, false));
}

TEST_CASE("attention.simd: other recorded layers, if they are there") {
    std::filesystem::path const folder = std::filesystem::path(SOFATTN_DATA_DIR) / "qkv";
    if (std::string_view(SOFATTN_DATA_DIR).empty() || !std::filesystem::exists(folder)) {
        MESSAGE("skipped: no recorded data (SOFATTN_DATA_DIR)");
        return;
    }
    for (char const* const layer : {"00", "05", "11", "21"}) {
        CAPTURE(layer);
        recorded_layer const of(folder, std::string("tinyllama_L") + layer);
        check_presets(of.part(1, 2048, 30, true));
    }
}
