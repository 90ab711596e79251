// SPDX-License-Identifier: MIT
#include "lm/perplexity.hpp"

#include "lm/recorded.hpp"
#include "lm/tiny_model.hpp"
#include "support/generators.hpp"
#include <sofattn/core/error.hpp>
#include <sofattn/io/npy.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

using namespace sofattn;
using namespace sofattn::test;

namespace {

void silent(double, std::string const&) {}

std::vector<lm::attention_method> methods_of(std::vector<std::string> const& names) {
    std::vector<lm::attention_method> methods;
    for (auto const& name : names) {
        methods.push_back(lm::find_method(name, 0));
    }
    return methods;
}

double log_of_softmax(std::vector<double> const& logits, std::size_t at) {
    double sum = 0;
    for (double const x : logits) {
        sum += std::exp(x - logits[at]);
    }
    return -std::log(sum);
}

} // namespace

TEST_CASE("lm.perplexity: losses are those of the formulas, and dense is no way from itself") {
    SOFATTN_GENERATOR(random);
    tiny_model const tiny({}, random.next());
    lm::decoder const model(tiny.folder.path());
    std::vector<lm::token_id> window;
    for (int t = 0; t < 150; ++t) { // more than the logits of one piece
        window.push_back(random.integer(0, 255));
    }
    auto const methods = methods_of({"dense", "dense", "mass:1"});
    double most_progress = 0;
    auto const outcomes = lm::judge_window(model, window, 3, methods, exec::openmp(2),
                                           [&](double share, std::string const&) {
                                               CHECK(share >= most_progress);
                                               most_progress = share;
                                           });
    CHECK(most_progress > 0.9);
    CHECK(most_progress <= 1.0);
    auto const logits = tiny.logits(window);
    REQUIRE(outcomes.size() == 3);
    for (auto const& outcome : outcomes) {
        REQUIRE(outcome.tokens.size() == 147);
        CHECK(outcome.layers.size() == 2);
        CHECK(outcome.total_seconds >= outcome.attention_seconds);
    }
    for (std::size_t t = 0; t < 147; ++t) {
        double const loss = -log_of_softmax(logits[t + 2], static_cast<std::size_t>(window[t + 3]));
        CHECK(std::abs(outcomes[0].tokens[t].loss - loss) < 2e-4);
        CHECK(outcomes[0].tokens[t].kl == 0.0);
        CHECK(outcomes[1].tokens[t].loss == outcomes[0].tokens[t].loss);
        CHECK(std::abs(outcomes[1].tokens[t].kl) < 1e-12);
        CHECK(outcomes[1].tokens[t].same_top);
    }
    // Queries 2 to 149 of 4 heads see 3 to 150 keys; a mass of 1 keeps all but what weighs nothing.
    CHECK(outcomes[2].layers[0].visible == 4 * (150 * 151 / 2 - 3));
    CHECK(outcomes[0].layers[1].kept == outcomes[0].layers[1].visible);
}

TEST_CASE("lm.perplexity: windows are cut from the text, each behind the first token") {
    tiny_shape shape;
    shape.layers = 1;
    shape.positions = 64;
    tiny_model const tiny(shape);
    lm::decoder const model(tiny.folder.path());
    std::vector<lm::token_id> text;
    for (int t = 0; t < 100; ++t) {
        text.push_back(t);
    }
    auto const methods = methods_of({"dense", "radius:2"});
    auto const run_on = [&](std::span<lm::token_id const> of,
                            lm::perplexity_options const& options) {
        return lm::perplexity(model, of, methods, options, exec::openmp(1), silent);
    };
    auto const some = run_on(text, {16, 4, 3, true});
    CHECK(some.windows == 3);
    CHECK(some.windows_in_text == 6); // of 15 tokens of text
    CHECK(some.context_tokens == 16);
    CHECK(some.judged_tokens == 3 * 12);
    REQUIRE(some.methods.size() == 2);
    CHECK(some.methods[0].kept_share == 1.0);
    CHECK(some.methods[1].kept_share <= 1.0);
    CHECK(some.methods[1].layer_kept_share.size() == 1);
    CHECK(run_on(text, {16, 4, 0, true}).windows == 6);
    CHECK(run_on(text, {20, 4, 0, false}).windows == 5);
    CHECK(run_on(std::span(text).first(10), {16, 4, 0, true}).judged_tokens == 7);

    // The same tokens by hand.
    std::vector<std::int32_t> window{256};
    window.insert(window.end(), text.begin(), text.begin() + 15);
    auto const logits = tiny.logits(window);
    double loss = 0;
    for (std::size_t t = 4; t < 16; ++t) {
        loss -= log_of_softmax(logits[t - 1], static_cast<std::size_t>(window[t])) / 12;
    }
    CHECK(run_on(text, {16, 4, 1, true}).methods[0].perplexity ==
          doctest::Approx(std::exp(loss)).epsilon(1e-4));

    CHECK_THROWS_WITH_AS(static_cast<void>(run_on(text, {65, 4, 0, true})),
                         "--context is 65, must be at most the positions of the model, 64", error);
    CHECK_THROWS_WITH_AS(static_cast<void>(run_on(std::span(text).first(3), {16, 4, 0, true})),
                         "window of the text is 4 tokens, must be more than --first, 4", error);
    CHECK_THROWS_AS(static_cast<void>(run_on({}, {16, 4, 0, true})), error);
    std::string const shown = lm::to_text(some, true);
    CHECK(shown.find("| radius:2 ") != std::string::npos);
    CHECK(shown.find("3 of 6 windows of 16 tokens, 36 judged") != std::string::npos);
    CHECK(shown.find("kept by layer") != std::string::npos);
}

TEST_CASE("lm.perplexity: a trained model predicts as recorded, and sparse attention stays close") {
    auto const folder = small_model();
    if (folder.empty()) {
        return;
    }
    lm::decoder const model(folder);
    auto const file = io::read_npy(folder / "wiki_test_ids.npy");
    auto const text = file.values<std::int32_t>();
    exec::openmp const run(2);
    std::vector<lm::token_id> window{1};
    window.insert(window.end(), text.begin(), text.begin() + 2047);
    auto const methods = methods_of({"dense", "error:0.004"});
    auto const outcomes =
        lm::judge_window(model, window, 1, std::span(methods).first(1), run, silent);
    auto const recorded = io::read_npy(folder / "ref_nll_2048.npy");
    auto const losses = recorded.values<float>();
    double worst = 0;
    for (std::size_t t = 0; t < 2047; ++t) {
        worst =
            std::max(worst, std::abs(outcomes[0].tokens[t].loss - static_cast<double>(losses[t])));
    }
    CHECK(worst < 2e-3); // measured: 7e-5

    auto const report = lm::perplexity(model, text, methods, {2048, 256, 1, true}, run, silent);
    CHECK(report.methods[0].perplexity == doctest::Approx(34.90).epsilon(1e-3));
    auto const& sparse = report.methods[1]; // measured: 12.5 % kept, KL 0.0011, 97.5 %
    CHECK(sparse.kept_share <= 0.15);
    CHECK(sparse.mean_kl_nats <= 0.003);
    CHECK(sparse.same_top_share >= 0.97);
    CHECK(sparse.perplexity == doctest::Approx(report.methods[0].perplexity).epsilon(0.01));
}
