// SPDX-License-Identifier: MIT
#include "lm/tasks.hpp"

#include "lm/tiny_model.hpp"
#include "support/generators.hpp"
#include <sofattn/core/error.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

using namespace sofattn;
using namespace sofattn::test;

namespace {

index_t count_bytes(std::string const& text) { return std::ssize(text); }

/// What stands between two texts.
std::string between(std::string const& text, std::string const& before, std::string const& after) {
    auto const from = text.find(before);
    REQUIRE(from != std::string::npos);
    auto const to = text.find(after, from + before.size());
    REQUIRE(to != std::string::npos);
    return text.substr(from + before.size(), to - from - before.size());
}
std::vector<std::string> split(std::string const& text, std::string const& at) {
    std::vector<std::string> parts;
    std::size_t from = 0;
    for (std::size_t to = 0; (to = text.find(at, from)) != std::string::npos;
         from = to + at.size()) {
        parts.push_back(text.substr(from, to - from));
    }
    parts.push_back(text.substr(from));
    return parts;
}
/// " a, b, c." -> a, b, c
std::vector<std::string> listed(std::string const& answer) {
    REQUIRE(answer.front() == ' ');
    REQUIRE(answer.back() == '.');
    return split(answer.substr(1, answer.size() - 2), ", ");
}

} // namespace

TEST_CASE("lm.tasks: a needle's answer stands in the haystack, once, among others") {
    for (std::uint64_t seed = 0; seed < 50; ++seed) {
        auto const task = lm::make_task(lm::task_kind::needle, 2000, seed, count_bytes);
        auto const name = between(task.prompt, "What is the secret number of ", "?");
        auto const fact = "The secret number of " + name + " is" + task.answer;
        CHECK(task.prompt.find(fact) != std::string::npos);
        CHECK(task.prompt.find(fact) == task.prompt.rfind(fact));
        CHECK(split(task.prompt, "The secret number of ").size() == 1 + 4 + 1);
        CHECK(task.prompt.ends_with("The secret number of " + name + " is"));
    }
}

TEST_CASE("lm.tasks: a chain of variables leads to its value, in order") {
    for (std::uint64_t seed = 0; seed < 50; ++seed) {
        auto const task = lm::make_task(lm::task_kind::variables, 2000, seed, count_bytes);
        auto const value = between(task.prompt, "have the value ", ",");
        // Runs the assignments from the beginning.
        std::map<std::string, std::string> values;
        std::vector<std::string> chain;
        for (auto const& sentence : split(task.prompt.substr(0, task.prompt.find('\n')), ". ")) {
            auto const sides = split(sentence, " = ");
            if (sides.size() == 2) {
                std::string right = sides[1];
                std::erase(right, '.');
                values[sides[0]] = values.contains(right) ? values.at(right) : right;
                if (values[sides[0]] == value) {
                    chain.push_back(sides[0]);
                }
            }
        }
        CHECK(values.size() == 10);
        CHECK(chain.size() == 5);
        CHECK(listed(task.answer) == chain);
    }
}

TEST_CASE("lm.tasks: the words asked for are the most frequent, in the order of the list") {
    for (std::uint64_t seed = 0; seed < 30; ++seed) {
        auto const task = lm::make_task(lm::task_kind::words, 3000, seed, count_bytes);
        auto const words = split(between(task.prompt, "A list of words: ", ".\n"), ", ");
        std::map<std::string, int> counts;
        for (auto const& word : words) {
            ++counts[word];
        }
        std::vector<std::string> frequent;
        for (auto const& word : words) {
            if (counts[word] > 1 && std::ranges::find(frequent, word) == frequent.end()) {
                frequent.push_back(word);
                CHECK(counts[word] == static_cast<int>(words.size()) / 20 * 2);
            }
        }
        CHECK(frequent.size() == 5);
        CHECK(listed(task.answer) == frequent);
    }
}

TEST_CASE("lm.tasks: as long as asked for, and the same facts in any length") {
    for (lm::task_kind const kind : lm::all_tasks) {
        CAPTURE(std::string(lm::name_of(kind)));
        CHECK(lm::find_task(lm::name_of(kind)) == kind);
        for (std::uint64_t seed = 0; seed < 10; ++seed) {
            std::set<std::string> answers;
            for (index_t const length : {1200, 5000, 40000}) {
                auto const task = lm::make_task(kind, length, seed, count_bytes);
                auto const got = count_bytes(task.prompt) + count_bytes(task.answer);
                CHECK(got <= length);
                CHECK(got > length - 400); // a sentence, or a round of words
                auto parts = listed(task.answer);
                std::ranges::sort(parts); // words come first in another order
                std::string all;
                for (auto const& part : parts) {
                    all += part + " ";
                }
                answers.insert(all);
            }
            CHECK(answers.size() == 1);
            CHECK(lm::make_task(kind, 1200, seed, count_bytes).prompt ==
                  lm::make_task(kind, 1200, seed, count_bytes).prompt);
            CHECK(lm::make_task(kind, 1200, seed, count_bytes).answer !=
                  lm::make_task(kind, 1200, seed + 1, count_bytes).answer);
        }
        CHECK_THROWS_AS(static_cast<void>(lm::make_task(kind, 100, 0, count_bytes)), error);
    }
    CHECK_THROWS_AS(static_cast<void>(lm::find_task("haystack")), error);
}

TEST_CASE("lm.tasks: reports are means over the answers' tokens") {
    tiny_shape shape;
    shape.layers = 1;
    tiny_model const tiny(shape);
    lm::decoder const model(tiny.folder.path());
    auto const text = lm::tokenizer::read(tiny.folder.path());
    std::vector<lm::task_sample> samples;
    for (std::uint64_t seed = 3; seed < 5; ++seed) {
        samples.push_back(lm::tokenised(lm::task_kind::needle, 700, seed, text, 256));
        CHECK(samples.back().tokens.size() <= 700);
        CHECK(samples.back().tokens.front() == 256);
        auto const answer = std::span(samples.back().tokens)
                                .subspan(static_cast<std::size_t>(samples.back().prompt_tokens));
        CHECK(text.decode(answer) == samples.back().answer);
    }
    std::vector<lm::attention_method> const methods{lm::dense_method(),
                                                    lm::find_method("mass:0.7", 0)};
    exec::openmp const run(1);
    auto const ignore = [](double, std::string const&) {};
    auto const reports = lm::judge_tasks(model, samples, methods, run, ignore);
    REQUIRE(reports.size() == 2);
    double loss = 0;
    double kl = 0;
    double count = 0;
    for (auto const& sample : samples) {
        auto const outcomes =
            lm::judge_window(model, sample.tokens, sample.prompt_tokens, methods, run, ignore);
        for (auto const& token : outcomes[1].tokens) {
            loss += token.loss;
            kl += token.kl;
            count += 1;
        }
    }
    CHECK(reports[1].task == "needle");
    CHECK(reports[1].method == "mass:0.7");
    CHECK(reports[1].samples == 2);
    CHECK(reports[1].answer_loss == doctest::Approx(loss / count));
    CHECK(reports[1].mean_kl_nats == doctest::Approx(kl / count));
    CHECK(reports[1].kept_share < 0.9);
    CHECK(reports[0].kept_share == 1.0);
    CHECK(reports[0].exact_share == 0.0); // random weights know no number
    CHECK(lm::to_text(reports).find(" mass:0.7 |") != std::string::npos);
    lm::task_sample too_long = samples[0];
    too_long.tokens.resize(5000);
    CHECK_THROWS_AS(
        static_cast<void>(lm::judge_tasks(model, std::span(&too_long, 1), methods, run, ignore)),
        error);
}
