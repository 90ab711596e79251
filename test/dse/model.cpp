// SPDX-License-Identifier: MIT
// Budgets of a tiny language model: figures, the search, and the command.
#ifdef SOFATTN_HAS_LM
#include "dse/model.hpp"

#include "dse/model_search.hpp"
#include "lm/tiny_model.hpp"
#include "support/tool.hpp"
#include <sofattn/core/error.hpp>

#include <doctest/doctest.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

using namespace sofattn;
using namespace sofattn::dse;
using namespace sofattn::test;

namespace {

std::vector<std::int32_t> random_text(generator& random, index_t tokens) {
    std::vector<std::int32_t> text;
    for (index_t t = 0; t < tokens; ++t) {
        text.push_back(random.integer<std::int32_t>(0, 255));
    }
    return text;
}

model_options small_windows() {
    model_options o;
    o.context = 96;
    o.first = 48;
    o.search_windows = 1;
    o.settle_windows = 2;
    o.judge_windows = 2;
    return o;
}

/// Dense passes done.
model_problem prepared(lm::decoder const& model, std::vector<std::int32_t> const& text) {
    model_problem problem(model, text, small_windows());
    problem.run_dense(2, [](double) {});
    return problem;
}

} // namespace

TEST_CASE("dse.model: figures are those of sofattn-lm on the same windows") {
    SOFATTN_GENERATOR(random);
    tiny_model const tiny;
    lm::decoder const model(tiny.folder.path());
    // As many windows as the parts take: each is used once.
    auto const text = random_text(random, 5 * 95);
    auto const problem = prepared(model, text);
    for (std::string const name : {"error:0.05", "mass:0.7"}) {
        auto const method = lm::find_method(name, 0);
        std::vector<model_figures> all;
        for (part const p : {part::search, part::settle, part::judge}) {
            for (index_t w = 0; w < problem.options().windows_of(p); ++w) {
                all.push_back(problem.run(p, w, method, exec::openmp(1)));
            }
        }
        auto const mean = mean_of(all);
        auto const report =
            lm::perplexity(model, text, std::vector{lm::dense_method(), method}, {96, 48, 0, true},
                           exec::openmp(1), [](double, std::string const&) {});
        CHECK(report.windows == 5);
        CHECK(mean.kl == doctest::Approx(report.methods[1].mean_kl_nats).epsilon(1e-9));
        CHECK(mean.kept_share == doctest::Approx(report.methods[1].kept_share).epsilon(1e-9));
        CHECK(std::exp(mean.loss) == doctest::Approx(report.methods[1].perplexity));
        CHECK(mean.same_top_share == doctest::Approx(report.methods[1].same_top_share));
        auto const read = model_figures_from(to_json(mean));
        CHECK(read.kl == mean.kl);
        CHECK(read.kept_share == mean.kept_share);
    }
    CHECK_THROWS_AS(
        static_cast<void>(model_problem(model, random_text(random, 4 * 95 + 94), small_windows())),
        error);
}

TEST_CASE("dse.model: a head alone is the model with all other heads dense") {
    SOFATTN_GENERATOR(random);
    tiny_model const tiny;
    lm::decoder const model(tiny.folder.path());
    auto const text = random_text(random, 700);
    auto const problem = prepared(model, text);
    std::vector<double> const spreads{0.05, 0.3};
    for (index_t layer = 0; layer < 2; ++layer) {
        for (index_t const head : {0, 3}) {
            auto const samples = problem.measure_head(layer, head, spreads, exec::openmp(1));
            REQUIRE(samples.size() == 2);
            for (std::size_t s = 0; s < 2; ++s) {
                // The whole model, with a method that does it another way round.
                lm::attention_method const dense = lm::dense_method();
                auto const all_sparse = lm::find_method("error:" + std::to_string(spreads[s]), 0);
                lm::attention_method one;
                one.attend = [&](lm::method_call const& call) {
                    auto const shape = call.given.shape();
                    auto const width = static_cast<std::size_t>(shape.value_dim);
                    auto const size = static_cast<std::size_t>(shape.heads * shape.queries) * width;
                    std::vector<float> sparse(size);
                    lm::attention_output const to(sparse.data(),
                                                  {shape.heads, shape.queries, shape.value_dim});
                    auto counts = dense.attend(call);
                    if (call.layer == layer) {
                        static_cast<void>(all_sparse.attend(
                            {call.given, to, call.layer, call.first_row, call.run}));
                        for (index_t q = 0; q < shape.queries; ++q) {
                            for (index_t d = 0; d < shape.value_dim; ++d) {
                                call.output(head, q, d) = to(head, q, d);
                            }
                        }
                    }
                    return counts;
                };
                auto const whole = problem.run(part::search, 0, one, exec::openmp(1));
                CHECK(samples[s].kl == doctest::Approx(whole.kl).epsilon(1e-9));
                CHECK(samples[s].kl > 0.0);
                CHECK(samples[s].error_relative > 0.0);
                CHECK(samples[s].spreads == spreads[s]);
            }
            CHECK(samples[0].kl < samples[1].kl);
            CHECK(samples[0].kept_share > samples[1].kept_share);
        }
    }
}

TEST_CASE("dse.model_search: levels are met, and measured heads beat a uniform budget") {
    SOFATTN_GENERATOR(random);
    tiny_model const tiny;
    lm::decoder const model(tiny.folder.path());
    auto const problem = prepared(model, random_text(random, 700));
    run_log log({}, {});
    model_search search(problem, log, {{1, 0, 1}, false}, 1);
    constexpr double most_kl = 0.01;
    for (auto const kind : {uniform_budget::mass, uniform_budget::output_error}) {
        auto const u = search.uniform(part::judge, kind, most_kl);
        CHECK(u.figures.kl <= most_kl);
        CHECK(u.figures.kl > 0.9 * most_kl);
        CHECK(u.windows.size() == 2);
        auto const again = lm::find_method(u.name, 0);
        CHECK(problem.run(part::judge, 1, again, exec::openmp(1)).kl == u.windows[1].kl);
    }
    search.measure(most_kl);
    auto const found = search.heads(part::search, search.even(), most_kl);
    CHECK(found.figures.kl <= most_kl);
    CHECK(found.figures.kl > 0.9 * most_kl);
    auto const uniform = search.uniform(part::search, uniform_budget::output_error, most_kl);
    CHECK(found.figures.kept_share < uniform.figures.kept_share);
    // An evaluation is that level, between two runs.
    auto const e = search.evaluate(search.even());
    CHECK(e.result.objectives.at(0) == doctest::Approx(found.figures.kept_share).epsilon(0.02));
    point p = search.even();
    p[0] = 8;
    CHECK(search.weights_of(p) == std::vector<double>{2.0, 1.0});
    double const aim = search.settle_kl(search.even(), most_kl);
    CHECK(aim > 0.0);
    CHECK(aim < most_kl);
    CHECK_THROWS_AS(static_cast<void>(search.uniform(part::search, uniform_budget::mass, 1e-9)),
                    error);
}
#endif
