// SPDX-License-Identifier: MIT
#include "lm/perplexity.hpp"

#include <sofattn/core/assert.hpp>
#include <sofattn/core/error.hpp>
#include <sofattn/io/table.hpp>

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstdio>
#include <utility>

namespace sofattn::lm {

namespace {

using clock = std::chrono::steady_clock;

double seconds_since(clock::time_point start) {
    return std::chrono::duration<double>(clock::now() - start).count();
}

/// log of the sum of exponentials, [vocabulary]
double log_sum(std::span<float const> logits) {
    auto const most = static_cast<double>(*std::ranges::max_element(logits));
    double sum = 0;
    for (float const x : logits) {
        sum += std::exp(static_cast<double>(x) - most);
    }
    return most + std::log(sum);
}

/// What a row of logits says of the text's token, and how far it is from the truth.
token_judgement judged(std::span<float const> truth, std::span<float const> logits,
                       token_id token) {
    token_judgement j;
    double const sum = log_sum(logits);
    j.loss = sum - static_cast<double>(logits[static_cast<std::size_t>(token)]);
    auto const top = std::ranges::max_element(logits) - logits.begin();
    j.is_top = top == token;
    if (truth.data() != logits.data()) {
        double const true_sum = log_sum(truth);
        for (std::size_t i = 0; i < truth.size(); ++i) {
            double const log_p = static_cast<double>(truth[i]) - true_sum;
            j.kl += std::exp(log_p) * (log_p - (static_cast<double>(logits[i]) - sum));
        }
        j.same_top = std::ranges::max_element(truth) - truth.begin() == top;
    }
    return j;
}

} // namespace

std::vector<window_outcome> judge_window(decoder const& model, std::span<token_id const> window,
                                         index_t first, std::span<attention_method const> methods,
                                         exec::openmp const& run, on_progress const& progress) {
    auto const& config = model.config();
    auto const count = std::ssize(window);
    SOFATTN_ASSERT(first >= 1 && first < count && !methods.empty());
    std::vector<window_outcome> outcomes(methods.size());
    std::vector<std::vector<float>> states; // [method]
    auto const steps =
        static_cast<double>(methods.size()) * (static_cast<double>(config.layers) + 1);
    double done = 0;
    kv_cache cache(config, count);
    for (std::size_t m = 0; m < methods.size(); ++m) {
        auto& outcome = outcomes[m];
        cache.truncate(0);
        cache.keep_page_codes(methods[m].codes);
        auto const start = clock::now();
        states.push_back(model(
            window, cache,
            [&](index_t layer, problem<float> const& given, attention_output output) {
                progress(done / steps, methods[m].name);
                auto const attention_start = clock::now();
                auto const* const codes =
                    cache.page_codes_of(layer, given.keys.extent<axis::key>());
                outcome.layers.push_back(
                    methods[m].attend({given, output, layer, first - 1, run, codes}));
                outcome.attention_seconds += seconds_since(attention_start);
                ++done;
            },
            run));
        outcome.total_seconds = seconds_since(start);
    }

    auto judged_methods = judge_states(model, window, first, states, run, [&](double share) {
        progress((done + static_cast<double>(methods.size()) * share) / steps, "comparing");
    });
    for (std::size_t m = 0; m < methods.size(); ++m) {
        outcomes[m].tokens = std::move(judged_methods[m].tokens);
        outcomes[m].total_seconds += judged_methods[m].seconds;
    }
    return outcomes;
}

std::vector<judged_states> judge_states(decoder const& model, std::span<token_id const> window,
                                        index_t first, std::span<std::vector<float> const> states,
                                        exec::openmp const& run,
                                        std::function<void(double share)> const& on_rows) {
    auto const& config = model.config();
    auto const count = std::ssize(window);
    SOFATTN_ASSERT(first >= 1 && first < count && !states.empty());
    std::vector<judged_states> all(states.size());
    constexpr index_t rows_most = 128; // their logits fit memory whatever the vocabulary
    auto const vocabulary = static_cast<std::size_t>(config.vocabulary);
    std::vector<float> truth(static_cast<std::size_t>(rows_most) * vocabulary);
    std::vector<float> others(states.size() > 1 ? truth.size() : 0);
    auto const row_of = [&](std::vector<float> const& logits, index_t r) {
        return std::span(logits).subspan(static_cast<std::size_t>(r) * vocabulary, vocabulary);
    };
    for (index_t at = first - 1; at < count - 1; at += rows_most) {
        index_t const rows = std::min(rows_most, count - 1 - at);
        if (on_rows) {
            on_rows(static_cast<double>(at) / static_cast<double>(count));
        }
        for (std::size_t m = 0; m < states.size(); ++m) {
            auto& logits = m == 0 ? truth : others;
            auto const start = clock::now();
            model.logits(states[m].data() + at * config.hidden, rows, logits.data(), run);
            all[m].seconds += seconds_since(start);
            auto& tokens = all[m].tokens;
            auto const begin = static_cast<index_t>(tokens.size());
            tokens.resize(static_cast<std::size_t>(begin + rows));
            run(rows, [&](index_t r, index_t) {
                tokens[static_cast<std::size_t>(begin + r)] =
                    judged(row_of(truth, r), row_of(logits, r),
                           window[static_cast<std::size_t>(at + r + 1)]);
            });
        }
    }
    return all;
}

std::vector<std::vector<token_id>> windows_of(model_config const& config,
                                              std::span<token_id const> text,
                                              perplexity_options const& options) {
    bool const has_bos = options.begins_with_bos && config.bos;
    if (options.context > config.positions) {
        throw error("--context", std::to_string(options.context),
                    "at most the positions of the model, " + std::to_string(config.positions));
    }
    auto const room = static_cast<std::size_t>(options.context - (has_bos ? 1 : 0));
    std::vector<std::vector<token_id>> windows;
    while (!text.empty() && (windows.empty() || text.size() >= room)) {
        std::vector<token_id> window;
        if (has_bos) {
            window.push_back(*config.bos);
        }
        auto const part = text.first(std::min(room, text.size()));
        window.insert(window.end(), part.begin(), part.end());
        windows.push_back(std::move(window));
        text = text.subspan(part.size());
    }
    std::size_t const tokens = windows.empty() ? 0 : windows.front().size();
    if (static_cast<index_t>(tokens) <= options.first) {
        throw error("window of the text", std::to_string(tokens) + " tokens",
                    "more than --first, " + std::to_string(options.first));
    }
    return windows;
}

namespace {

/// The value that 99 % of them do not exceed.
double ninety_ninth(std::vector<double> values) {
    auto const at = values.begin() + static_cast<std::ptrdiff_t>(values.size() * 99 / 100);
    std::ranges::nth_element(values, at);
    return *at;
}

method_report summed(attention_method const& method, std::span<window_outcome const> outcomes,
                     double tokens) {
    method_report r;
    r.method = method.name;
    r.description = method.what;
    r.is_timed = method.is_timed;
    std::vector<double> divergences;
    std::vector<pair_counts> layers(outcomes.front().layers.size());
    double loss = 0;
    for (window_outcome const& o : outcomes) {
        for (token_judgement const& t : o.tokens) {
            loss += t.loss;
            r.mean_kl_nats += t.kl;
            r.same_top_share += t.same_top ? 1 : 0;
            divergences.push_back(t.kl);
        }
        for (std::size_t l = 0; l < layers.size(); ++l) {
            layers[l] += o.layers[l];
        }
        r.attention_time_seconds += o.attention_seconds;
        r.total_time_seconds += o.total_seconds;
    }
    auto const judged_tokens = static_cast<double>(divergences.size());
    r.perplexity = std::exp(loss / judged_tokens);
    r.mean_kl_nats /= judged_tokens;
    r.same_top_share /= judged_tokens;
    r.p99_kl_nats = ninety_ninth(std::move(divergences));
    for (pair_counts const& l : layers) {
        r.layer_kept_share.push_back(l.kept_share());
        r.kept_share += l.kept_share() / static_cast<double>(layers.size());
    }
    r.tokens_per_second = tokens / r.total_time_seconds;
    return r;
}

std::string number(char const* format, double value) {
    std::array<char, 64> text{};
    std::snprintf(text.data(), text.size(), format, value);
    return text.data();
}

} // namespace

perplexity_report perplexity(decoder const& model, std::span<token_id const> text,
                             std::span<attention_method const> methods,
                             perplexity_options const& options, exec::openmp const& run,
                             on_progress const& progress) {
    auto windows = windows_of(model.config(), text, options);
    perplexity_report report;
    report.windows_in_text = std::ssize(windows);
    if (options.windows > 0 && options.windows < std::ssize(windows)) {
        windows.resize(static_cast<std::size_t>(options.windows));
    }
    report.windows = std::ssize(windows);
    report.context_tokens = std::ssize(windows.front());
    report.first_token = options.first;
    report.threads = run.threads();
    std::vector<std::vector<window_outcome>> outcomes(methods.size()); // [method][window]
    double tokens = 0;
    for (std::size_t w = 0; w < windows.size(); ++w) {
        auto each = judge_window(model, windows[w], options.first, methods, run,
                                 [&](double share, std::string const& what) {
                                     progress((static_cast<double>(w) + share) /
                                                  static_cast<double>(windows.size()),
                                              what);
                                 });
        tokens += static_cast<double>(windows[w].size());
        report.judged_tokens += std::ssize(each.front().tokens);
        for (std::size_t m = 0; m < methods.size(); ++m) {
            outcomes[m].push_back(std::move(each[m]));
        }
    }
    for (std::size_t m = 0; m < methods.size(); ++m) {
        report.methods.push_back(summed(methods[m], outcomes[m], tokens));
    }
    return report;
}

std::string to_text(perplexity_report const& report, bool with_layers) {
    io::table table({"attention", "perplexity", "mean KL", "p99 KL", "same top", "kept",
                     "attention s", "total s", "tokens/s"});
    for (auto const& m : report.methods) {
        // Of an implementation that was not written to be fast, a time would say nothing.
        auto const timed = [&](char const* format, double value) {
            return m.is_timed ? number(format, value) : std::string("-");
        };
        table.add({m.method, number("%.3f", m.perplexity), number("%.5f", m.mean_kl_nats),
                   number("%.4f", m.p99_kl_nats), number("%.2f %%", 100 * m.same_top_share),
                   number("%.1f %%", 100 * m.kept_share), timed("%.3f", m.attention_time_seconds),
                   timed("%.3f", m.total_time_seconds), timed("%.0f", m.tokens_per_second)});
    }
    std::string out = report.model + ": " + std::to_string(report.windows) + " of " +
                      std::to_string(report.windows_in_text) + " windows of " +
                      std::to_string(report.context_tokens) + " tokens, " +
                      std::to_string(report.judged_tokens) + " judged (from " +
                      std::to_string(report.first_token) + " on), " +
                      std::to_string(report.threads) + " threads\n\n" + table.markdown();
    if (with_layers) {
        std::vector<std::string> header{"kept by layer"};
        for (std::size_t l = 0; l < report.methods.front().layer_kept_share.size(); ++l) {
            header.push_back(std::to_string(l));
        }
        io::table layers(header);
        for (auto const& m : report.methods) {
            std::vector<std::string> row{m.method};
            for (double const share : m.layer_kept_share) {
                row.push_back(number("%.1f %%", 100 * share));
            }
            layers.add(std::move(row));
        }
        out += '\n';
        out += layers.markdown();
    }
    return out;
}

} // namespace sofattn::lm
