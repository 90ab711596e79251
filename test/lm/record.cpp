// SPDX-License-Identifier: MIT
// What a model attends to, written as recorded data; and budgets that were found on it.
#include "lm/record.hpp"

#include "attend/budgets.hpp"
#include "lm/method.hpp"
#include "lm/tiny_model.hpp"
#include "support/generators.hpp"
#include <sofattn/core/error.hpp>
#include <sofattn/io/npy.hpp>
#include <sofattn/ref/dense_attention.hpp>

#include <doctest/doctest.h>

#include <cmath>
#include <filesystem>
#include <string>
#include <vector>

using namespace sofattn;
using namespace sofattn::test;
namespace fs = std::filesystem;

namespace {

void silent(double) {}

/// A table of the same budget for some heads of some layers.
attend::budget_table table_of(int layers, int heads, double error) {
    attend::budget_table table;
    table.policy = "rotated_int8/adaptive/sufa_reusing/segment_means";
    for (int l = 0; l < layers; ++l) {
        attend::layer_budgets layer{"tiny", l, {}};
        for (int h = 0; h < heads; ++h) {
            layer.heads.push_back({h, error, 0, 0});
        }
        table.layers.push_back(layer);
    }
    return table;
}

} // namespace

TEST_CASE("lm.record: arrays are what the layers attended to") {
    SOFATTN_GENERATOR(random);
    tiny_model const tiny({}, random.next());
    lm::decoder const model(tiny.folder.path());
    std::vector<lm::token_id> window;
    for (int t = 0; t < 50; ++t) {
        window.push_back(random.integer(0, 255));
    }
    exec::openmp const run(1);
    fs::path const folder = tiny.folder / "recorded";
    lm::record(model, window, folder, {"tiny", "text", {}}, run, silent);
    json const manifest = json::parse(read_bytes(folder / "manifest.json"));
    CHECK(manifest.at("model") == "tiny");
    CHECK(manifest.at("causal") == true);
    CHECK(manifest.at("files").size() == 6);

    auto const dense = lm::dense_method();
    lm::kv_cache cache(model.config(), 50);
    static_cast<void>(model(
        window, cache,
        [&](index_t layer, problem<float> const& given, lm::attention_output output) {
            static_cast<void>(dense.attend({given, output, layer, 0, run}));
            auto const same = [&](char const* part, auto expected) {
                auto const file =
                    io::read_npy(folder / ("L0" + std::to_string(layer) + "_" + part + ".npy"));
                auto const numbers = file.values<half>();
                REQUIRE(std::ssize(numbers) == expected.size());
                std::size_t next = 0;
                bool equal = true;
                for_each_index(expected.extents(), [&](auto const& i) {
                    equal = equal && numbers[next++] == half(at(expected, i));
                });
                CHECK(equal);
            };
            same("q", given.queries);
            same("k", given.keys);
            same("v", given.values);
        },
        run));

    CHECK_THROWS_AS(lm::record(model, window, folder, {"tiny", "text", {}}, run, silent), error);
    CHECK_THROWS_AS(
        lm::record(model, window, tiny.folder / "other", {"tiny", "text", {2}}, run, silent),
        error);
    CHECK_FALSE(fs::exists(tiny.folder / "other"));
    lm::record(model, window, tiny.folder / "other", {"tiny", "text", {1}}, run, silent);
    CHECK_FALSE(fs::exists(tiny.folder / "other" / "L00_q.npy"));
    CHECK(fs::exists(tiny.folder / "other" / "L01_q.npy"));
}

TEST_CASE("lm.record: what f16 does not hold is refused, and leaves no manifest") {
    tiny_shape shape;
    shape.attention_bias = true;
    tiny_model tiny(shape);
    for (auto& tensor : tiny.tensors()) {
        if (tensor.name == "model.layers.1.self_attn.v_proj.bias") {
            tensor.bytes = bytes_of(std::vector<float>(16, 1e6f));
        }
    }
    tiny.write();
    lm::decoder const model(tiny.folder.path());
    std::vector<lm::token_id> const window{1, 2, 3};
    fs::path const folder = tiny.folder / "recorded";
    try {
        lm::record(model, window, folder, {"tiny", "text", {}}, exec::openmp(1), silent);
        FAIL("was recorded");
    } catch (error const& e) {
        CHECK(std::string(e.what()).find("L01_v.npy") != std::string::npos);
        CHECK(std::string(e.what()).find("range of f16") != std::string::npos);
    }
    CHECK_FALSE(fs::exists(folder / "manifest.json"));
}

TEST_CASE("lm.method: budgets per head are read from a table, and must be those of the model") {
    temporary_folder const folder;
    fs::path const file = folder / "budgets.json";
    auto const written = [&](attend::budget_table const& table) {
        write_bytes(file, attend::to_json_text(table));
        return lm::find_method("budgets:" + file.string(), 0);
    };
    auto const method = written(table_of(2, 4, 0.05));
    method.check({"tiny", 2, 4});
    for (lm::model_shape const& other : {lm::model_shape{"tiny", 3, 4},
                                         {"tiny", 2, 5},
                                         {"tiny", 1, 4},
                                         {"tiny", 2, 3},
                                         {"small", 2, 4}}) {
        CAPTURE(other.name);
        CAPTURE(other.layers);
        CAPTURE(other.heads);
        CHECK_THROWS_AS(method.check(other), error);
    }

    // One budget for all heads is what error:E says.
    SOFATTN_GENERATOR(random);
    auto const q = random_matrix<float, axis::head, axis::query, axis::dim>(random, {4, 90, 16});
    auto const k = random_matrix<float, axis::kv_head, axis::key, axis::dim>(random, {2, 90, 16});
    auto const v =
        random_matrix<float, axis::kv_head, axis::key, axis::value_dim>(random, {2, 90, 16});
    problem<float> const given{q.cview(), k.cview(), v.cview(), true};
    auto const output_of = [&](lm::attention_method const& m, index_t layer) {
        std::vector<float> output(4 * 90 * 16);
        exec::openmp const run(1);
        static_cast<void>(m.attend({given, {output.data(), {4, 90, 16}}, layer, 0, run}));
        return output;
    };
    CHECK(output_of(method, 1) == output_of(lm::find_method("error:0.05", 0), 0));
    auto uneven = table_of(2, 4, 0.05);
    uneven.layers[1].heads[2].output_error_spreads = 0.5;
    auto const other = written(uneven);
    auto const as_numbers =
        lm::with_output_errors("uneven", {{0.05, 0.05, 0.05, 0.05}, {0.05, 0.05, 0.5, 0.05}}, 0);
    CHECK(output_of(as_numbers, 0) == output_of(other, 0));
    CHECK(output_of(as_numbers, 1) == output_of(other, 1));
    CHECK(output_of(other, 0) == output_of(method, 0));
    CHECK(output_of(other, 1) != output_of(method, 1));

    auto table = table_of(1, 4, 0.05);
    table.policy = "dlzs8/adaptive/sufa/none";
    CHECK_THROWS_AS(static_cast<void>(written(table)), error);
    CHECK_THROWS_AS(static_cast<void>(written(table_of(0, 4, 0.05))), error);
    table = table_of(2, 4, 0.05);
    table.layers[1].model = "another";
    CHECK_THROWS_AS(static_cast<void>(written(table)), error);
    CHECK_THROWS_AS(static_cast<void>(lm::find_method("budgets:", 0)), error);
    CHECK_THROWS_AS(static_cast<void>(lm::find_method("budgets:/none", 0)), error);
}
