// SPDX-License-Identifier: MIT
#include "lm/generate.hpp"

#include "lm/recorded.hpp"
#include "lm/tiny_model.hpp"
#include "support/generators.hpp"
#include <sofattn/core/error.hpp>
#include <sofattn/io/npy.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

using namespace sofattn;
using namespace sofattn::test;

namespace {

lm::generation generated(lm::decoder const& model, std::vector<lm::token_id> const& prompt,
                         lm::generate_options const& options, index_t threads = 1) {
    std::vector<lm::token_id> streamed;
    auto result = lm::generate(model, prompt, lm::dense_method(), options, exec::openmp(threads),
                               [&](lm::token_id id) { streamed.push_back(id); });
    CHECK(streamed == result.tokens);
    return result;
}

} // namespace

TEST_CASE("lm.generate: greedy tokens are those of the formulas") {
    SOFATTN_GENERATOR(random);
    tiny_model const tiny({}, random.next());
    lm::decoder const model(tiny.folder.path());
    std::vector<lm::token_id> const prompt{256, 'a', 'b', 'c'};
    lm::generate_options options;
    options.tokens = 12;
    auto const result = generated(model, prompt, options);
    CHECK(result.prompt_tokens == 4);
    CHECK(result.prefill_kept_share == 1.0);
    std::vector<lm::token_id> tokens = prompt;
    for (auto const id : result.tokens) {
        auto const logits = tiny.logits(tokens).back();
        // Of two that are as good as equal, rounding decides.
        CHECK(logits[static_cast<std::size_t>(id)] > *std::ranges::max_element(logits) - 1e-3);
        tokens.push_back(id);
    }
    CHECK((result.ended || result.tokens.size() == 12));
    options.keep = 1000; // the index, but nothing is dropped
    CHECK(generated(model, prompt, options).tokens == result.tokens);
    options.keep = 3;
    CHECK(generated(model, prompt, options).decode_kept_share < 0.6);
    CHECK(generated(model, prompt, options, 3).tokens == generated(model, prompt, options).tokens);
}

TEST_CASE("lm.generate: prompts by pages, in chunks over the cache's codes") {
    SOFATTN_GENERATOR(random);
    tiny_shape shape;
    shape.head_dim = 16;
    tiny_model const tiny(shape, random.next());
    lm::decoder const model(tiny.folder.path());
    std::vector<lm::token_id> prompt{256};
    for (int t = 0; t < 600; ++t) {
        prompt.push_back(random.integer(0, 255));
    }
    auto const prompted = [&](std::string const& method, std::optional<index_t> chunk) {
        lm::generate_options options;
        options.tokens = 10;
        options.chunk = chunk;
        return lm::generate(model, prompt, lm::find_method(method, 0), options, exec::openmp(2),
                            [](lm::token_id) {});
    };
    // Where nothing may be skipped, tokens are dense's.
    auto const dense = prompted("dense", {});
    CHECK((dense.ended || dense.tokens.size() == 10));
    CHECK(prompted("dense", 50).tokens == dense.tokens);
    for (std::string const method : {"mass:1/pages", "mass:1/pages/bf16"}) {
        for (std::optional<index_t> const chunk :
             {std::optional<index_t>(), std::optional<index_t>(96), std::optional<index_t>(1)}) {
            auto const all = prompted(method, chunk);
            CHECK(all.prefill_kept_share == 1.0);
            if (method == "mass:1/pages") { // rounding may decide another way
                CHECK(all.tokens == dense.tokens);
            }
        }
    }
    for (std::string const method : {"mass:0.6/pages", "mass:0.6/pages/bf16"}) {
        auto const whole = prompted(method, {});
        auto const chunks = prompted(method, 96); // teams of six rows are cut alike
        for (auto const& some : {whole, chunks}) {
            CHECK(some.prompt_tokens == 601);
            CHECK((some.ended || some.tokens.size() == 10));
            CHECK(some.prefill_kept_share < 0.95);
            CHECK(some.prefill_kept_share > 0.1);
        }
        CHECK(std::abs(chunks.prefill_kept_share - whole.prefill_kept_share) < 0.05);
    }
}

TEST_CASE("lm.generate: ends at the end of sequence, at the last position, and at once") {
    tiny_shape shape;
    shape.positions = 8;
    shape.tied = true;
    tiny_model tiny(shape);
    lm::generate_options options;
    options.tokens = 100;
    {
        lm::decoder const model(tiny.folder.path());
        auto const full = generated(model, {256, 1, 2}, options);
        CHECK((full.ended || full.tokens.size() == 6)); // five more in the cache, one beyond
        options.tokens = 0;
        CHECK(generated(model, {256}, options).tokens.empty());
        options.tokens = 100;
        CHECK_THROWS_AS(static_cast<void>(generated(model, {}, options)), error);
        CHECK_THROWS_AS(static_cast<void>(generated(model, {1, 2, 3, 4, 5, 6, 7, 8}, options)),
                        error);
        CHECK_THROWS_AS(static_cast<void>(generated(model, {300}, options)), error);
    }
    // Every token ends the sequence.
    json config = tiny.config();
    config["eos_token_id"] = json::array();
    for (int id = 0; id < 258; ++id) {
        config["eos_token_id"].push_back(id);
    }
    write_bytes(tiny.folder / "config.json", config.dump());
    lm::decoder const model(tiny.folder.path());
    auto const none = generated(model, {256, 1}, options);
    CHECK(none.tokens.empty());
    CHECK(none.ended);
}

TEST_CASE("lm.sampler: greedy takes the first of the likeliest, temperature draws as it should") {
    std::vector<float> const logits{0.0f, 2.0f, -1.0f, 2.0f};
    CHECK(lm::sampler(0, 7)(logits) == 1);
    for (double const temperature : {0.5, 1.0, 3.0}) {
        CAPTURE(temperature);
        std::vector<double> expected;
        double sum = 0;
        for (float const x : logits) {
            expected.push_back(std::exp(static_cast<double>(x) / temperature));
            sum += expected.back();
        }
        lm::sampler pick(temperature, 7);
        constexpr int draws = 20000;
        std::vector<double> counts(4);
        for (int i = 0; i < draws; ++i) {
            counts[static_cast<std::size_t>(pick(logits))] += 1;
        }
        for (std::size_t i = 0; i < 4; ++i) {
            double const p = expected[i] / sum;
            // Five standard deviations: once in a million.
            CHECK(std::abs(counts[i] / draws - p) < 5 * std::sqrt(p * (1 - p) / draws));
        }
    }
    auto const draw = [&](std::uint64_t seed) {
        lm::sampler pick(2, seed);
        std::vector<lm::token_id> tokens;
        for (int i = 0; i < 30; ++i) {
            tokens.push_back(pick(logits));
        }
        return tokens;
    };
    CHECK(draw(1) == draw(1));
    CHECK(draw(1) != draw(2));
}

TEST_CASE("lm.generate: on a trained model, decode's logits are prefill's") {
    auto const folder = small_model();
    if (folder.empty()) {
        return;
    }
    lm::decoder const model(folder);
    auto const& config = model.config();
    auto const file = io::read_npy(folder / "wiki_test_ids.npy");
    constexpr index_t count = 600;
    constexpr index_t prompt = 560;
    std::vector<lm::token_id> tokens{1};
    auto const ids = file.values<std::int32_t>().first(count - 1);
    tokens.insert(tokens.end(), ids.begin(), ids.end());
    exec::openmp const run(2);
    auto const dense = lm::dense_method();
    lm::attend_layer const attend = [&](index_t layer, problem<float> const& given,
                                        lm::attention_output output) {
        static_cast<void>(dense.attend({given, output, layer, 0, run}));
    };
    auto const vocabulary = static_cast<std::size_t>(config.vocabulary);
    lm::kv_cache whole(config, count);
    auto const states = model(tokens, whole, attend, run);
    std::vector<float> expected(static_cast<std::size_t>(count) * vocabulary);
    model.logits(states.data(), count, expected.data(), run);

    lm::kv_cache cache(config, count);
    static_cast<void>(model(std::span(tokens).first(prompt), cache, attend, run));
    lm::decode_attention decode(config, 4096, std::nullopt, run);
    double worst = 0;
    std::vector<float> logits(vocabulary);
    for (index_t t = prompt; t < count; ++t) {
        auto const at = static_cast<std::size_t>(t);
        auto const state = model(std::span(tokens).subspan(at, 1), cache, std::ref(decode), run);
        model.logits(state.data(), 1, logits.data(), run);
        for (std::size_t i = 0; i < vocabulary; ++i) {
            worst = std::max(worst, std::abs(static_cast<double>(logits[i]) -
                                             static_cast<double>(expected[at * vocabulary + i])));
        }
    }
    MESSAGE("largest difference of a logit: ", worst);
    CHECK(worst < 1e-4);
}
