// SPDX-License-Identifier: MIT
#include "speed/speed.hpp"

#include <sofattn/core/error.hpp>

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include <string>
#include <string_view>
#include <utility>
#include <vector>

using namespace sofattn::speed;
using nlohmann::json;

namespace {

json row(std::string const& data, int tokens, int percent, double over_f32,
         double over_bf16 = 0.5) {
    return {{"name", "attention/prefill/simd/data:" + data +
                         "/method:keys_reused/tokens:" + std::to_string(tokens) +
                         "/dim:128/kept_percent:" + std::to_string(percent) +
                         "/threads:1/manual_time"},
            {"run_type", "iteration"},
            {"threads", 1},
            {"real_time", 2000.0},
            {"time_unit", "us"},
            {"kept", percent / 100.0},
            {"error", 0.25 / percent},
            {"bf16_error", 0.004},
            {"index_ms", 2.0},
            {"over_f32", over_f32},
            {"over_bf16", over_bf16},
            {"over_int8", over_bf16 / 2}};
}

json file_of(std::vector<json> const& rows) {
    return {{"context", {{"date", "2026-11-24T10:00:00+00:00"}}}, {"benchmarks", json(rows)}};
}

measurements read_rows(std::vector<json> const& rows) {
    return parse(file_of(rows).dump(), "f.json");
}

/// The message has all the parts.
void refused(std::string const& text, std::vector<std::string> const& parts) {
    std::string message;
    try {
        static_cast<void>(parse(text, "f.json"));
    } catch (sofattn::error const& e) {
        message = e.what();
    }
    CAPTURE(message);
    for (auto const& part : parts) {
        CAPTURE(part);
        CHECK(message.find(part) != std::string::npos);
    }
}

void refused(json const& only_row, std::vector<std::string> const& parts) {
    refused(file_of(std::vector<json>{only_row}).dump(), parts);
}

/// The row with one field changed, or taken out where `value` is null.
json changed(std::string const& key, json const& value) {
    json one = row("random", 8192, 5, 2);
    one[key] = value;
    if (value.is_null()) {
        one.erase(key);
    }
    return one;
}

std::size_t count(std::string_view text, std::string_view part) {
    std::size_t found = 0;
    for (std::size_t at = 0; (at = text.find(part, at)) != std::string_view::npos; ++at) {
        ++found;
    }
    return found;
}

} // namespace

TEST_CASE("speed.parse: a row's name, unit and counters are read, others are passed over") {
    auto const all = read_rows({row("recorded/layer:16", 2048, 10, 3, 1.5),
                                json{{"name", "attention/dense/simd/tokens:512"}},
                                json{{"name", "sads/segment_topk"}, {"error_occurred", true}}});
    REQUIRE(all.rows.size() == 1);
    measurement const& m = all.rows.front();
    CHECK(m.recorded);
    CHECK(m.layer == 16);
    CHECK(m.method == "keys_reused");
    CHECK(m.tokens == 2048);
    CHECK(m.dim == 128);
    CHECK(m.kept_percent == 10);
    CHECK(m.threads == 1);
    CHECK(m.kept == 0.1);
    CHECK(m.error == 0.025);
    CHECK(m.time_ms == doctest::Approx(2.0));
    CHECK(m.index_ms == 2.0);
    CHECK(m.over_f32 == 3.0);
    CHECK(m.over_bf16 == 1.5);
    CHECK(m.over_int8 == 0.75);
    CHECK(m.bf16_error == 0.004);
    CHECK(m.lost_permille == 0);
    CHECK(all.date == "2026-11-24");
}

TEST_CASE("speed.parse: of aggregates only medians count, and only without the single runs") {
    auto const aggregate = [](std::string const& kind, double over) {
        json one = row("random", 8192, 5, over);
        one["run_name"] = one["name"];
        one["name"] = one["name"].get<std::string>() + "_" + kind;
        one["run_type"] = "aggregate";
        one["aggregate_name"] = kind;
        return one;
    };
    auto const alone =
        read_rows({aggregate("mean", 7), aggregate("median", 3), aggregate("cv", 0)});
    REQUIRE(alone.rows.size() == 1);
    CHECK(alone.rows.front().over_f32 == 3);
    auto const both =
        read_rows({row("random", 8192, 5, 1), row("random", 8192, 5, 2), aggregate("median", 9)});
    CHECK(both.rows.size() == 2);
}

TEST_CASE("speed.parse: foreign files are refused, with the place and the limit") {
    refused(std::string("{\n\"benchmarks\": [,"),
            {"f.json", "line 2, column 16", "Google Benchmark"});
    refused(std::string(), {"f.json", "line 1, column 1"});
    refused(std::string("{\"benchmarks\": [1e999]}"), {"f.json", "double", "Google Benchmark"});
    refused(std::string("[]"), {"f.json: benchmarks", "missing", "a list"});
    refused(std::string("{}"), {"f.json: benchmarks", "missing", "a list"});
    refused(std::string("{\"benchmarks\": 3}"), {"f.json: benchmarks", "number", "a list"});
    refused(std::string("{\"benchmarks\": [3]}"), {"benchmarks[0]", "number", "an object"});
    refused(std::string("{\"benchmarks\": []}"), {"measured rows", "is 0", "at least 1"});
    refused(json{{"name", "other"}}, {"measured rows", "is 0", "at least 1"});
}

TEST_CASE("speed.parse: skipped rows are told only where nothing is left") {
    json skipped = row("recorded/layer:5", 8192, 5, 1);
    skipped["error_occurred"] = true;
    skipped["error_message"] = "skipped: no recorded data";
    skipped.erase("kept");
    CHECK(read_rows({skipped, row("random", 8192, 5, 1)}).rows.size() == 1);
    refused(skipped, {"measured rows", "skipped: no recorded data", "at least 1"});
}

TEST_CASE("speed.parse: a number that is missing, of another type or out of range is refused") {
    refused(changed("kept", nullptr), {"benchmarks[0].kept", "missing", "above 0"});
    refused(changed("kept", 1.5), {"benchmarks[0].kept", "1.5", "at most 1"});
    refused(changed("kept", 0), {"benchmarks[0].kept", "0", "above 0"});
    refused(changed("error", -1), {"benchmarks[0].error", "-1", "at least 0"});
    refused(changed("over_f32", "2"), {"benchmarks[0].over_f32", "2", "a number"});
    refused(changed("over_bf16", 0), {"benchmarks[0].over_bf16", "above 0"});
    refused(changed("time_unit", "h"), {"benchmarks[0].time_unit", "\"h\"", "ns, us, ms or s"});
    refused(changed("real_time", nullptr), {"benchmarks[0].real_time", "missing"});
    auto const named = [](std::string const& name) {
        return changed("name", "attention/prefill/simd/" + name);
    };
    refused(named("tokens:8192"), {"benchmarks[0].name", "data:..."});
    refused(named("data:other"), {"name: data", "\"other\"", "recorded or random"});
    refused(named("data:recorded"), {"benchmarks[0].name", "layer:..."});
    refused(named("data:random/method:keys_reused/tokens:8k/dim:128/kept_percent:5/threads:1"),
            {"name: tokens", "\"8k\"", "whole number"});
    refused(
        named("data:random/method:keys_reused/tokens:99999999999/dim:128/kept_percent:5/threads:1"),
        {"name: tokens", "whole number"});
}

TEST_CASE(
    "speed.curves: layers are averaged, points sorted, and the index counts where it should") {
    auto const rows = read_rows({row("random", 8192, 5, 2), row("random", 8192, 10, 1.5),
                                 row("random", 512, 5, 0.5), row("recorded/layer:5", 8192, 5, 1),
                                 row("recorded/layer:16", 8192, 5, 4)});
    curves const all = curves_of(rows, {});
    REQUIRE(all.over_error.size() == 2);
    curve const& recorded = all.over_error[0];
    CHECK(recorded.data == "recorded, layers 5, 16");
    REQUIRE(recorded.points.size() == 1);
    CHECK(recorded.points[0].layers.size() == 2);
    CHECK(recorded.points[0].mean.over_f32 == doctest::Approx(2.0)); // geometric
    CHECK(recorded.points[0].mean.over_f32_with_index == doctest::Approx(1.0));
    CHECK(recorded.points[0].mean.error == doctest::Approx(0.05));
    CHECK(all.over_error[1].data == "random");
    REQUIRE(all.over_error[1].points.size() == 2);
    CHECK(all.over_error[1].points[0].mean.kept == 0.1);
    REQUIRE(all.over_tokens[1].points.size() == 2);
    CHECK(all.over_tokens[1].points[0].mean.tokens == 512);
    std::string const text = to_text(all);
    CHECK(text.find("2.00 (1.00 to 4.00)") != std::string::npos);
    CHECK(text.find("| keys_reused, random ") != std::string::npos);
}

TEST_CASE("speed.curves: a choice without rows is refused with what there is") {
    auto const rows = read_rows({row("random", 8192, 5, 2), row("random", 512, 10, 2)});
    auto const says = [&](choice const& wanted, std::vector<std::string> const& parts) {
        std::string message;
        try {
            static_cast<void>(curves_of(rows, wanted));
        } catch (sofattn::error const& e) {
            message = e.what();
        }
        CAPTURE(message);
        for (auto const& part : parts) {
            CHECK(message.find(part) != std::string::npos);
        }
    };
    choice wanted;
    wanted.tokens = 4096;
    says(wanted, {"--tokens is 4096", "one of 512, 8192", "f.json"});
    wanted = {};
    wanted.kept_percent = 3;
    says(wanted, {"--kept is 3", "one of 5, 10"});
    wanted = {};
    wanted.dim = 64;
    says(wanted, {"--dim is 64", "must be 128"});
    wanted = {};
    wanted.threads = 2;
    says(wanted, {"--threads is 2", "must be 1"});
    wanted = {};
    wanted.methods = {"all", "none"};
    says(wanted, {"--methods is all, none", "among keys_reused"});
    auto const pages = [&](int permille) {
        json one = row("random", 512, 5, 3);
        one["name"] = "attention/prefill/simd/data:random/method:pages_bf16/tokens:512/dim:128/"
                      "lost_permille:" +
                      std::to_string(permille) + "/threads:1/manual_time";
        return one;
    };
    auto const both = read_rows({row("random", 512, 5, 2), pages(3), pages(10)});
    wanted = {};
    wanted.tokens = 512;
    curves const all = curves_of(both, wanted);
    REQUIRE(all.over_error.size() == 2);
    CHECK(all.over_error[1].method == "pages_bf16");
    CHECK(all.over_error[1].points.size() == 2);
    REQUIRE(all.over_tokens.size() == 2);
    CHECK(all.over_tokens[1].points.size() == 1);
    wanted.methods = {"pages_bf16"};
    wanted.lost_permille = 30;
    std::string message;
    try {
        static_cast<void>(curves_of(both, wanted));
    } catch (sofattn::error const& e) {
        message = e.what();
    }
    CHECK(message.find("--lost is 30") != std::string::npos);
    CHECK(message.find("one of 3, 10") != std::string::npos);
}

TEST_CASE(
    "speed.picture: both panels, a line at 1 in each, colours for dark pages, no bad numbers") {
    auto const rows =
        read_rows({row("random", 8192, 5, 2), row("recorded/layer:5", 8192, 5, 1),
                   row("recorded/layer:16", 8192, 5, 4), row("recorded/layer:16", 512, 5, 4)});
    std::string const svg = to_svg(curves_of(rows, {}));
    CHECK(svg.starts_with("<svg "));
    CHECK(svg.ends_with("</svg>\n"));
    CHECK(count(svg, "class=\"even\"") == 2);
    CHECK(count(svg, "<path ") == 5); // two panels, two data sets; dense bf16
    CHECK(count(svg, "dense bf16") == 1);
    CHECK(count(svg, "prefers-color-scheme: dark") == 1);
    CHECK(svg.find("tokens</text>") != std::string::npos);
    CHECK(svg.find("2026-11-24") != std::string::npos);
    CHECK(svg.find("nan") == std::string::npos);
    CHECK(svg.find("inf") == std::string::npos);
    // One row has neither spread nor layers.
    std::string const one = to_svg(curves_of(read_rows({row("random", 8192, 5, 0.1)}), {}));
    CHECK(count(one, "<path ") == 3);
    CHECK(count(one, " layer\"") == 0);
    CHECK(one.find("nan") == std::string::npos);
    CHECK(one.find("inf") == std::string::npos);
}
