// SPDX-License-Identifier: MIT
#include "lm/tasks.hpp"

#include <sofattn/core/error.hpp>
#include <sofattn/io/file.hpp>
#include <sofattn/io/table.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdio>
#include <numeric>
#include <set>
#include <utility>

namespace sofattn::lm {

namespace {

/// splitmix64 (Steele, Lea, Flood 2014): the same numbers everywhere.
class random_numbers {
public:
    explicit random_numbers(std::uint64_t seed) : state_(seed) {}

    /// In [0, count).
    [[nodiscard]] std::size_t below(std::size_t count) noexcept {
        std::uint64_t z = (state_ += 0x9e3779b97f4a7c15u);
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
        return static_cast<std::size_t>((z ^ (z >> 31)) % count);
    }

private:
    std::uint64_t state_;
};

constexpr std::array<std::string_view, 12> haystack{
    "The river was low that summer.",
    "A cart went slowly up the hill.",
    "Nobody remembered who had built the wall.",
    "In the evening the lamps were lit.",
    "The baker opened his shop at six.",
    "Rain fell on the fields for two days.",
    "She closed the book and looked outside.",
    "The train was late again.",
    "Two dogs slept in front of the door.",
    "They talked about the weather for a while.",
    "The garden was full of bees.",
    "A letter lay on the table.",
};

/// A word that no vocabulary holds as one token, of three or four syllables.
std::string made_up_word(random_numbers& random) {
    constexpr std::string_view consonants = "bdfghklmnprstvz";
    constexpr std::string_view vowels = "aeiou";
    std::string word;
    for (std::size_t n = 3 + random.below(2); n > 0; --n) {
        word += consonants[random.below(consonants.size())];
        word += vowels[random.below(vowels.size())];
    }
    return word;
}
std::vector<std::string> different_words(random_numbers& random, std::size_t count) {
    std::vector<std::string> words;
    std::set<std::string> seen;
    while (words.size() < count) {
        if (auto word = made_up_word(random); seen.insert(word).second) {
            words.push_back(std::move(word));
        }
    }
    return words;
}
std::string made_up_number(random_numbers& random) {
    std::string digits(1, static_cast<char>('1' + random.below(9)));
    while (digits.size() < 6) {
        digits += static_cast<char>('0' + random.below(10));
    }
    return digits;
}

std::string joined(std::vector<std::string> const& parts, char const* between) {
    std::string all;
    for (auto const& part : parts) {
        all += all.empty() ? "" : between;
        all += part;
    }
    return all;
}

/// Sentences that matter, in their order, among `straw` that do not.
std::string hidden(std::vector<std::string> const& facts, std::size_t straw,
                   random_numbers random) {
    std::vector<std::size_t> places; // sentences of straw before each fact
    for (std::size_t i = 0; i < facts.size(); ++i) {
        places.push_back(random.below(straw + 1));
    }
    std::ranges::sort(places);
    std::vector<std::string> sentences;
    for (std::size_t s = 0, fact = 0; s <= straw; ++s) {
        for (; fact < facts.size() && places[fact] == s; ++fact) {
            sentences.push_back(facts[fact]);
        }
        if (s < straw) {
            sentences.emplace_back(haystack[random.below(haystack.size())]);
        }
    }
    return joined(sentences, " ");
}

task_text needle(random_numbers random, std::size_t straw) {
    constexpr std::size_t facts_count = 4; // one is asked for
    auto const names = different_words(random, facts_count);
    std::vector<std::string> facts;
    std::vector<std::string> numbers;
    for (auto const& name : names) {
        numbers.push_back(made_up_number(random));
        facts.push_back("The secret number of " + name + " is " + numbers.back() + ".");
    }
    std::size_t const asked = random.below(facts_count);
    return {hidden(facts, straw, random) + "\nWhat is the secret number of " + names[asked] +
                "? The secret number of " + names[asked] + " is",
            " " + numbers[asked] + "."};
}

task_text variables(random_numbers random, std::size_t straw) {
    constexpr std::size_t hops = 4;
    auto const names = different_words(random, 2 * (hops + 1));
    std::vector<std::string> chain(names.begin(), names.begin() + hops + 1);
    std::vector<std::string> other(names.begin() + hops + 1, names.end());
    std::string const value = made_up_number(random);
    std::string const other_value = made_up_number(random);
    std::vector<std::string> facts;
    for (std::size_t i = 0; i <= hops; ++i) { // the two chains take turns
        facts.push_back(chain[i] + " = " + (i == 0 ? value : chain[i - 1]) + ".");
        facts.push_back(other[i] + " = " + (i == 0 ? other_value : other[i - 1]) + ".");
    }
    return {hidden(facts, straw, random) + "\nWhich names have the value " + value +
                ", in order? They are",
            " " + joined(chain, ", ") + "."};
}

/// A round of the list has every common word twice and as many words that come once.
task_text frequent_words(random_numbers random, std::size_t rounds) {
    constexpr std::size_t common_count = 5;
    auto const words = different_words(random, common_count * (1 + 2 * rounds));
    std::vector<std::string> const common(words.begin(), words.begin() + common_count);
    std::vector<std::string> list;
    for (std::size_t r = 0; r < rounds; ++r) {
        auto const rare = words.begin() + static_cast<std::ptrdiff_t>(common_count * (1 + 2 * r));
        std::vector<std::string> round(rare, rare + 2 * common_count);
        for (int twice = 0; twice < 2; ++twice) {
            round.insert(round.end(), common.begin(), common.end());
        }
        for (std::size_t i = round.size(); i > 1; --i) {
            std::swap(round[i - 1], round[random.below(i)]);
        }
        list.insert(list.end(), round.begin(), round.end());
    }
    std::vector<std::string> in_order; // of their first places
    for (auto const& word : list) {
        if (std::ranges::find(common, word) != common.end() &&
            std::ranges::find(in_order, word) == in_order.end()) {
            in_order.push_back(word);
        }
    }
    return {"A list of words: " + joined(list, ", ") +
                ".\nThe words that come most often, in the order in which they come first, are",
            " " + joined(in_order, ", ") + "."};
}

task_text of_size(task_kind kind, std::uint64_t seed, std::size_t size) {
    // Facts are drawn before the haystack, so that they are the same in any length.
    random_numbers const random(seed * all_tasks.size() + static_cast<std::uint64_t>(kind));
    switch (kind) {
    case task_kind::needle: return needle(random, size);
    case task_kind::variables: return variables(random, size);
    case task_kind::words: break;
    }
    return frequent_words(random, size + 1);
}

std::string number(char const* format, double value) {
    std::array<char, 64> text{};
    std::snprintf(text.data(), text.size(), format, value);
    return text.data();
}

} // namespace

std::string_view name_of(task_kind kind) noexcept {
    constexpr std::array<std::string_view, all_tasks.size()> names{"needle", "variables", "words"};
    return names[static_cast<std::size_t>(kind)];
}

task_kind find_task(std::string_view name) {
    for (task_kind const kind : all_tasks) {
        if (name_of(kind) == name) {
            return kind;
        }
    }
    throw error("task", io::quoted(name), "needle, variables or words");
}

task_text make_task(task_kind kind, index_t tokens, std::uint64_t seed,
                    std::function<index_t(std::string const&)> const& length) {
    auto const measured = [&](std::size_t size) {
        task_text const text = of_size(kind, seed, size);
        return length(text.prompt) + length(text.answer);
    };
    if (index_t const least = measured(0); least > tokens) {
        throw error("context of task " + std::string(name_of(kind)), std::to_string(tokens),
                    "at least " + std::to_string(least) + " tokens");
    }
    // Every sentence and every round takes a token or more. A haystack's sentences differ in
    // length, so a longer one might fit by chance; the first that does not ends the search.
    std::size_t fits = 0;
    std::size_t too_long = static_cast<std::size_t>(tokens) + 1;
    while (too_long - fits > 1) {
        std::size_t const middle = std::midpoint(fits, too_long);
        (measured(middle) <= tokens ? fits : too_long) = middle;
    }
    return of_size(kind, seed, fits);
}

task_sample tokenised(task_kind kind, index_t context, std::uint64_t seed, tokenizer const& text,
                      std::optional<token_id> bos) {
    task_text const made =
        make_task(kind, context - (bos ? 1 : 0), seed,
                  [&](std::string const& s) { return std::ssize(text.encode(s)); });
    task_sample sample;
    sample.kind = kind;
    sample.seed = seed;
    sample.answer = made.answer;
    if (bos) {
        sample.tokens.push_back(*bos);
    }
    for (std::string const* const part : {&made.prompt, &made.answer}) {
        sample.prompt_tokens = std::ssize(sample.tokens);
        auto const ids = text.encode(*part);
        sample.tokens.insert(sample.tokens.end(), ids.begin(), ids.end());
    }
    return sample;
}

std::vector<task_report> judge_tasks(decoder const& model, std::span<task_sample const> samples,
                                     std::span<attention_method const> methods,
                                     exec::openmp const& run, on_progress const& progress) {
    std::vector<task_report> reports;
    std::vector<index_t> tokens; // [report], of answers
    auto const at = [&](task_kind kind, std::size_t method) {
        for (std::size_t r = 0; r < reports.size(); ++r) {
            if (reports[r].task == name_of(kind) && reports[r].method == methods[method].name) {
                return r;
            }
        }
        reports.push_back({});
        reports.back().task = name_of(kind);
        reports.back().method = methods[method].name;
        tokens.push_back(0);
        return reports.size() - 1;
    };
    for (std::size_t s = 0; s < samples.size(); ++s) {
        task_sample const& sample = samples[s];
        if (std::ssize(sample.tokens) > model.config().positions) {
            throw error("--context", std::to_string(sample.tokens.size()),
                        "at most the positions of the model, " +
                            std::to_string(model.config().positions));
        }
        auto const outcomes = judge_window(
            model, sample.tokens, sample.prompt_tokens, methods, run,
            [&](double share, std::string const& what) {
                progress((static_cast<double>(s) + share) / static_cast<double>(samples.size()),
                         std::string(name_of(sample.kind)) + ", " + what);
            });
        for (std::size_t m = 0; m < methods.size(); ++m) {
            std::size_t const r = at(sample.kind, m);
            task_report& report = reports[r];
            bool is_exact = true;
            for (token_judgement const& t : outcomes[m].tokens) {
                is_exact = is_exact && t.is_top;
                report.answer_loss += t.loss;
                report.mean_kl_nats += t.kl;
                report.same_top_share += t.same_top ? 1 : 0;
            }
            tokens[r] += std::ssize(outcomes[m].tokens);
            report.samples += 1;
            report.exact_share += is_exact ? 1 : 0;
            for (pair_counts const& layer : outcomes[m].layers) {
                report.kept_share +=
                    layer.kept_share() / static_cast<double>(outcomes[m].layers.size());
            }
        }
    }
    for (std::size_t r = 0; r < reports.size(); ++r) {
        auto const answers = static_cast<double>(reports[r].samples);
        auto const predicted = static_cast<double>(tokens[r]);
        reports[r].exact_share /= answers;
        reports[r].kept_share /= answers;
        reports[r].answer_loss /= predicted;
        reports[r].mean_kl_nats /= predicted;
        reports[r].same_top_share /= predicted;
    }
    return reports;
}

std::string to_text(std::span<task_report const> reports) {
    io::table table(
        {"task", "attention", "samples", "exact", "answer loss", "mean KL", "same top", "kept"});
    for (auto const& r : reports) {
        table.add({r.task, r.method, std::to_string(r.samples),
                   number("%.0f %%", 100 * r.exact_share), number("%.3f", r.answer_loss),
                   number("%.5f", r.mean_kl_nats), number("%.1f %%", 100 * r.same_top_share),
                   number("%.1f %%", 100 * r.kept_share)});
    }
    return table.markdown();
}

} // namespace sofattn::lm
