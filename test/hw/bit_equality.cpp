// SPDX-License-Identifier: MIT
// The modelled circuits on recorded layers: predicted scores, selected keys and outputs are those
// of the reference, to the bit.
#include "hw/recorded_layer.hpp"
#include "support/same_bits.hpp"
#include "support/sanitized.hpp"
#include <sofattn/attention/attention.hpp>
#include <sofattn/attention/presets.hpp>
#include <sofattn/core/order.hpp>
#include <sofattn/core/tensor.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/dlzs/operands.hpp>
#include <sofattn/dlzs/predict_scores.hpp>
#include <sofattn/exec/executor.hpp>
#include <sofattn/io/npy.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <functional>
#include <span>
#include <vector>

using namespace sofattn;

namespace {

/// A whole block of queries, and a part; sanitizers would take minutes.
constexpr index_t some_queries = test::is_sanitized ? 20 : 130;

using preset = presets::paper;
using score = dlzs::score_type<preset::predictor>;
using kept_row = std::vector<ranked<score>>;

/// What a run computed.
template <class Execution>
struct observed {
    Execution x{};
    tensor<float, axis::head, axis::query, axis::value_dim> output;
    std::vector<kept_row> kept; ///< [head * queries + query], in the order of consumption
    attention_result result;
};

template <class Execution, class Problem>
observed<Execution> observe(Problem const& given, double kept_share) {
    problem_shape const s = given.shape();
    observed<Execution> run;
    run.output =
        tensor<float, axis::head, axis::query, axis::value_dim>({s.heads, s.queries, s.value_dim});
    run.kept.resize(static_cast<std::size_t>(s.heads * s.queries));
    presets::attention<preset, Execution> const attend(preset::options(kept_share));
    run.result = attend(run.x, given, run.output.view(), [&](index_t h, index_t q, auto kept) {
        auto& row = run.kept[static_cast<std::size_t>(h * s.queries + q)];
        row.insert(row.end(), kept.begin(), kept.end());
    });
    return run;
}

template <class A, class B>
void check_same(observed<A> const& a, observed<B> const& b) {
    CHECK(a.kept == b.kept); // keys, their order, and the scores they were kept by
    CHECK(test::same_bits(a.output, b.output));
    CHECK(a.result.visible_pairs == b.result.visible_pairs);
    CHECK(a.result.kept_pairs == b.result.kept_pairs);
    CHECK(a.result.key_loads == b.result.key_loads);
    CHECK(a.result.generated == b.result.generated);
}

/// All three executors; the reference's run.
template <class Problem>
observed<exec::reference> check_executors(Problem const& given, double kept_share) {
    auto const reference = observe<exec::reference>(given, kept_share);
    auto const counting = observe<exec::counting>(given, kept_share);
    auto const hardware = observe<exec::hardware>(given, kept_share);
    check_same(hardware, reference);
    check_same(counting, reference);
    // What the machine is charged for is what was counted.
    CHECK(hardware.x.probe.total() == counting.x.probe);
    CHECK(!hardware.x.probe.tiles().empty());
    // The comparison means something: rows differ, and nearly all keys are dropped.
    CHECK(reference.result.kept_share() < 2 * kept_share);
    CHECK(reference.kept.front() != reference.kept.back());
    return reference;
}

/// Every predicted score of a layer, by a row's query and head.
template <class Execution>
std::vector<score> predicted(problem<float> const& given) {
    problem_shape const s = given.shape();
    Execution x;
    std::vector<score> all(static_cast<std::size_t>(s.heads * s.queries * s.keys));
    for (index_t h = 0; h < s.heads; ++h) {
        dlzs::key_index<preset::predictor> const index(
            given.keys.slice<axis::kv_head>(h / s.group()));
        dlzs::query_codes<preset::predictor> const codes(given.queries.range<axis::head>(h, 1),
                                                         index);
        for (index_t q = 0; q < s.queries; ++q) {
            dlzs::predict_scores<preset::predictor>{}(
                x, codes.row(0, q), index.codes(),
                std::span(all).subspan(static_cast<std::size_t>((h * s.queries + q) * s.keys),
                                       static_cast<std::size_t>(s.keys)));
        }
    }
    return all;
}

} // namespace

TEST_CASE("hw: on recorded layers the circuits compute what the reference computes, to the bit") {
    for (test::recorded_name const& name : test::recorded_layers()) {
        CAPTURE(name.name);
        test::recorded_layer const layer = name.read(some_queries);
        problem<float> const given = layer.given();
        problem_shape const s = given.shape();
        auto const scores = predicted<exec::reference>(given);
        CHECK(predicted<exec::hardware>(given) == scores);
        CHECK(predicted<exec::counting>(given) == scores);
        CHECK(std::ranges::adjacent_find(scores, std::not_equal_to{}) != scores.end());
        for (double const kept_share : {0.05, 0.2}) {
            CAPTURE(kept_share);
            auto const run = check_executors(given, kept_share);
            // And those scores are what the selections went by.
            bool went_by = true;
            for (std::size_t row = 0; row < run.kept.size(); ++row) {
                for (auto const& entry : run.kept[row]) {
                    went_by =
                        went_by && entry.score == scores[row * static_cast<std::size_t>(s.keys) +
                                                         static_cast<std::size_t>(entry.key)];
                }
            }
            CHECK(went_by);
        }
    }
}

TEST_CASE("hw: so they do where keys are predicted from recorded tokens and made on demand") {
    std::filesystem::path const folder = test::recorded_folder();
    if (folder.empty()) {
        return;
    }
    test::recorded_name const files{folder, "gtesmall_L01", false};
    test::recorded_layer const layer = files.read(some_queries);
    problem_shape const s = layer.given().shape();
    auto const x = io::read_npy(files.part("x")).to_tensor<axis::key, axis::channel>();
    auto const weights = [&](char const* which) {
        return io::read_npy(files.part(which)).to_tensor<axis::channel, axis::dim>();
    };
    auto const wk = weights("wk");
    auto const wv = weights("wv");
    auto const bk = io::read_npy(files.part("bk")).to_tensor<axis::dim>();
    auto const bv = io::read_npy(files.part("bv")).to_tensor<axis::dim>();
    index_t const channels = x.cview().extent<axis::channel>();
    REQUIRE(wk.cview().extent<axis::dim>() == s.kv_heads * s.dim);

    projected_problem<float> given;
    given.queries = layer.given().queries;
    given.tokens = x.view();
    // Heads lie side by side.
    given.key_weights = {wk.cview().data(), {channels, s.kv_heads, s.dim}};
    given.value_weights = {wv.cview().data(), {channels, s.kv_heads, s.value_dim}};
    given.key_bias = {bk.cview().data(), {s.kv_heads, s.dim}};
    given.value_bias = {bv.cview().data(), {s.kv_heads, s.value_dim}};
    auto const run = check_executors(given, 0.05);
    CHECK(run.result.generated > 0);
}
