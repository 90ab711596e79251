// SPDX-License-Identifier: MIT
#include "attend/report.hpp"

#include <doctest/doctest.h>

#include <string>

using namespace sofattn;
using namespace sofattn::attend;

namespace {

run_report sample(std::size_t groups) {
    run_report report;
    report.input = "folder";
    layer_report layer;
    layer.model = "model";
    layer.layer = 3;
    layer.query_heads = static_cast<index_t>(groups);
    layer.kv_heads = static_cast<index_t>(groups);
    layer.key_tokens = layer.query_tokens = 64;
    layer.head_dim = layer.value_dim = 16;
    layer.causal = true;
    for (char const* name : {"paper", "int8/full_topk/sufa", "dense"}) {
        policy_report policy;
        policy.policy = name;
        policy.predictor = "dlzs16";
        policy.selector = "sads";
        policy.attender = "sufa";
        policy.overall = {0.1, 0.5, 0.75, 0.25};
        for (std::size_t g = 0; g < groups; ++g) {
            policy.groups.push_back({static_cast<index_t>(g),
                                     {static_cast<int>(g)},
                                     {0.1, 0.5, static_cast<double>(g) / 100, 0.25}});
        }
        policy.operations(probe::stage::attention, probe::event::exp, 1234567);
        policy.operations(probe::stage::schedule, probe::event::key_bytes, 2048);
        policy.complexity = complexities_of(policy.operations);
        layer.policies.push_back(policy);
    }
    report.layers.push_back(layer);
    report.ladder.push_back({"first", "a/b/c", complexities_of(layer.policies[0].operations)});
    report.complexity_weights = all_weights();
    return report;
}

} // namespace

TEST_CASE("attend.report: JSON carries every field under its name with a unit") {
    auto const json = to_json(sample(2));
    auto const& policy = json.at("layers").at(0).at("policies").at(0);
    CHECK(policy.at("overall").at("mass") == 0.75);
    CHECK(policy.at("overall").at("output_error_relative") == 0.25);
    CHECK(policy.at("groups").at(1).at("quality").at("kept_share") == 0.1);
    CHECK(policy.at("operations").at("attention").at("exp_count") == 1234567);
    CHECK(policy.at("operations").at("schedule").at("key_bytes") == 2048);
    CHECK_FALSE(policy.at("operations").contains("selection")); // nothing was counted there
    CHECK(policy.at("budget").at("keep_count_keys").is_null());
    CHECK(json.at("complexity_weights").at(1).at("weight").at("exp") == 34);
    CHECK(json.at("ladder").at(0).at("complexity").at(1).at("total") == 1234567.0 * 34);
}

TEST_CASE("attend.report: no line is wider than a screen, and three policies make two tables") {
    auto const text = to_text(sample(4), "sofa_inferred", false);
    std::size_t at = 0;
    while (at < text.size()) {
        auto const end = text.find('\n', at);
        REQUIRE(end != std::string::npos);
        CAPTURE(text.substr(at, end - at));
        CHECK(end - at <= 100);
        at = end + 1;
    }
    CHECK(text.find("head group") != text.rfind("head group"));
    CHECK(text.find("1.23 M exp") != std::string::npos);
}

TEST_CASE("attend.report: of many groups the worst, the middle and the best are shown, or all") {
    auto const few = to_text(sample(12), "unit", false);
    auto const all = to_text(sample(12), "unit", true);
    auto const rows = [](std::string const& text, int group) {
        return text.find("\n  " + std::to_string(group) + " ") != std::string::npos;
    };
    for (int g = 0; g < 12; ++g) {
        CHECK(rows(few, g) == (g == 0 || g == 6 || g == 11));
        CHECK(rows(all, g));
    }
}

TEST_CASE("attend.report: counts are short") {
    CHECK(short_count(0) == "0 ");
    CHECK(short_count(999) == "999 ");
    CHECK(short_count(1000) == "1.00 k");
    CHECK(short_count(12345) == "12.3 k");
    CHECK(short_count(999600) == "1.00 M");
    CHECK(short_count(1.17e9) == "1.17 G");
}

TEST_CASE("attend.report: the printed table of weights names every set") {
    auto const text = weights_text();
    for (char const* name : {"unit", "sofa_inferred", "bit_level", "energy_28nm", "shift_add_8"}) {
        CHECK(text.find(name) != std::string::npos);
    }
}
