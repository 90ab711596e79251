// SPDX-License-Identifier: MIT
#include "dse/model.hpp"

#include <sofattn/core/assert.hpp>
#include <sofattn/core/error.hpp>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <mutex>
#include <thread>
#include <utility>

namespace sofattn::dse {

namespace {

constexpr std::array all_parts{part::search, part::settle, part::judge};

/// FNV-1a, 64 bits.
class hash {
public:
    void add(std::int32_t value) noexcept {
        for (int byte = 0; byte < 4; ++byte) {
            state_ ^= static_cast<std::uint32_t>(value) >> (8 * byte) & 0xffu;
            state_ *= 1099511628211u;
        }
    }
    [[nodiscard]] std::string text() const {
        std::array<char, 24> digits{};
        std::snprintf(digits.data(), digits.size(), "%016llx",
                      static_cast<unsigned long long>(state_));
        return digits.data();
    }

private:
    std::uint64_t state_ = 14695981039346656037u;
};

/// The i-th of `count` windows goes to the part that lags most behind its share.
part next_part(model_options const& options, std::array<index_t, 3> const& taken, index_t i,
               index_t count) {
    part best = part::search;
    double most = -1e300;
    for (part const p : all_parts) {
        double const due = static_cast<double>(options.windows_of(p)) * static_cast<double>(i + 1) /
                           static_cast<double>(count);
        double const lag = due - static_cast<double>(taken[static_cast<std::size_t>(p)]);
        bool const has_room = taken[static_cast<std::size_t>(p)] < options.windows_of(p);
        if (has_room && lag > most) {
            most = lag;
            best = p;
        }
    }
    return best;
}

/// Relative, Frobenius: of rows from `first` on.
class relative_error {
public:
    void add(lm::attention_output truth, lm::attention_output output, index_t first) {
        for (index_t q = first; q < truth.extent<axis::query>(); ++q) {
            for (index_t d = 0; d < truth.extent<axis::value_dim>(); ++d) {
                auto const x = static_cast<double>(truth(0, q, d));
                auto const off = static_cast<double>(output(0, q, d)) - x;
                difference_ += off * off;
                norm_ += x * x;
            }
        }
    }
    [[nodiscard]] double value() const noexcept {
        return norm_ > 0 ? std::sqrt(difference_ / norm_) : 0.0;
    }

private:
    double difference_ = 0;
    double norm_ = 0;
};

} // namespace

json to_json(model_figures const& f) {
    return {{"kept_share", f.kept_share},
            {"mean_kl_nats", f.kl},
            {"mean_loss_nats", f.loss},
            {"same_top_share", f.same_top_share}};
}

model_figures model_figures_from(json const& object) {
    return {object.at("kept_share").get<double>(), object.at("mean_kl_nats").get<double>(),
            object.at("mean_loss_nats").get<double>(), object.at("same_top_share").get<double>()};
}

model_figures mean_of(std::vector<model_figures> const& windows) {
    model_figures mean;
    auto const each = 1.0 / static_cast<double>(windows.size());
    for (model_figures const& f : windows) {
        mean.kept_share += f.kept_share * each;
        mean.kl += f.kl * each;
        mean.loss += f.loss * each;
        mean.same_top_share += f.same_top_share * each;
    }
    return mean;
}

model_problem::model_problem(lm::decoder const& model, std::span<lm::token_id const> text,
                             model_options const& options)
    : model_(&model), options_(options) {
    auto const all = lm::windows_of(model.config(), text,
                                    {options.context, options.first, 0, options.begins_with_bos});
    windows_in_text_ = std::ssize(all);
    index_t const count = options.search_windows + options.settle_windows + options.judge_windows;
    if (windows_in_text_ < count) {
        throw error("windows of " + std::to_string(options.context) + " tokens in the text",
                    std::to_string(windows_in_text_),
                    "at least " + std::to_string(count) +
                        ", what searching, settling and judging take");
    }
    std::array<index_t, 3> taken{};
    hash tokens;
    for (index_t i = 0; i < count; ++i) {
        index_t const at = (2 * i + 1) * windows_in_text_ / (2 * count);
        part const p = next_part(options_, taken, i, count);
        ++taken[static_cast<std::size_t>(p)];
        dense_window w;
        w.tokens = all[static_cast<std::size_t>(at)];
        std::for_each(w.tokens.begin(), w.tokens.end(), [&](auto id) { tokens.add(id); });
        windows_[static_cast<std::size_t>(p)].push_back(std::move(w));
    }
    text_hash_ = tokens.text();
}

void model_problem::pass(part p, dense_window& w) const {
    exec::openmp const one_thread(1);
    lm::kv_cache cache(model(), std::ssize(w.tokens));
    lm::attention_method const dense = lm::dense_method();
    lm::see_state keep;
    if (p == part::search) {
        keep = [&](index_t, std::span<float const> state) {
            w.layer_states.emplace_back(state.begin(), state.end());
        };
    }
    w.states = model_->run_layers(
        model_->embed(w.tokens), 0, cache,
        [&](index_t layer, problem<float> const& given, lm::attention_output output) {
            static_cast<void>(dense.attend({given, output, layer, 0, one_thread}));
        },
        one_thread, keep);
    auto const judged =
        lm::judge_states(*model_, w.tokens, options_.first, std::span(&w.states, 1), one_thread);
    for (lm::token_judgement const& t : judged.front().tokens) {
        w.loss += t.loss / static_cast<double>(judged.front().tokens.size());
    }
}

void model_problem::run_dense(index_t at_once, std::function<void(double share)> const& progress) {
    std::vector<std::pair<part, dense_window*>> todo;
    for (part const p : all_parts) {
        for (dense_window& w : windows_[static_cast<std::size_t>(p)]) {
            todo.emplace_back(p, &w);
        }
    }
    // Not OpenMP's threads: a process that has had some must not fork others that want them.
    std::atomic<std::size_t> next = 0;
    std::mutex mutex;
    std::exception_ptr failure;
    double done = 0;
    auto const work = [&] {
        for (std::size_t i = next++; i < todo.size(); i = next++) {
            try {
                pass(todo[i].first, *todo[i].second);
            } catch (...) {
                std::scoped_lock const lock(mutex);
                failure = std::current_exception();
                next = todo.size();
                return;
            }
            std::scoped_lock const lock(mutex);
            progress(++done / static_cast<double>(todo.size()));
        }
    };
    std::vector<std::jthread> threads;
    for (index_t t = 1; t < std::min<index_t>(at_once, std::ssize(todo)); ++t) {
        threads.emplace_back(work);
    }
    work();
    threads.clear();
    if (failure) {
        std::rethrow_exception(failure);
    }
}

double model_problem::dense_loss(part p) const {
    double sum = 0;
    for (dense_window const& w : windows(p)) {
        sum += w.loss / static_cast<double>(windows(p).size());
    }
    return sum;
}

json model_problem::purpose() const {
    lm::model_config const& c = model();
    double loss = 0;
    for (part const p : all_parts) {
        loss += dense_loss(p) / static_cast<double>(all_parts.size());
    }
    std::array<char, 32> perplexity{}; // BLAS may differ in the last bits
    std::snprintf(perplexity.data(), perplexity.size(), "%.3f", std::exp(loss));
    return {{"architecture", c.architecture},
            {"layers", c.layers},
            {"heads", c.heads},
            {"text_hash", text_hash_},
            {"context_tokens", options_.context},
            {"first_token", options_.first},
            {"search_windows", options_.search_windows},
            {"settle_windows", options_.settle_windows},
            {"judge_windows", options_.judge_windows},
            {"begins_with_bos", options_.begins_with_bos},
            {"dense_perplexity", perplexity.data()}};
}

model_figures model_problem::run(part p, index_t window, lm::attention_method const& method,
                                 exec::openmp const& on) const {
    dense_window const& w = windows(p)[static_cast<std::size_t>(window)];
    lm::kv_cache cache(model(), std::ssize(w.tokens));
    model_figures f;
    auto const states = (*model_)(
        w.tokens, cache,
        [&](index_t layer, problem<float> const& given, lm::attention_output output) {
            auto const counts = method.attend({given, output, layer, options_.first - 1, on});
            f.kept_share += counts.kept_share() / static_cast<double>(model().layers);
        },
        on);
    std::array const both{w.states, states};
    auto const judged = lm::judge_states(*model_, w.tokens, options_.first, both, on);
    auto const& tokens = judged.back().tokens;
    auto const each = 1.0 / static_cast<double>(tokens.size());
    for (lm::token_judgement const& t : tokens) {
        f.kl += t.kl * each;
        f.loss += t.loss * each;
        f.same_top_share += t.same_top ? each : 0.0;
    }
    return f;
}

std::vector<head_sample> model_problem::measure_head(index_t layer, index_t head,
                                                     std::span<double const> spreads,
                                                     exec::openmp const& on) const {
    lm::attention_method const dense = lm::dense_method();
    std::vector<head_sample> samples(spreads.size());
    auto const each = 1.0 / static_cast<double>(windows(part::search).size());
    for (dense_window const& w : windows(part::search)) {
        std::vector<std::vector<float>> states{w.states};
        for (std::size_t s = 0; s < spreads.size(); ++s) {
            samples[s].spreads = spreads[s];
            auto const sparse = lm::with_output_errors("head", {{spreads[s]}}, 0);
            lm::kv_cache cache(model(), std::ssize(w.tokens));
            states.push_back(model_->run_layers(
                w.layer_states[static_cast<std::size_t>(layer)], layer, cache,
                [&](index_t at, problem<float> const& given, lm::attention_output output) {
                    static_cast<void>(dense.attend({given, output, at, 0, on}));
                    if (at != layer) {
                        return;
                    }
                    problem<float> own = given;
                    own.queries = own.queries.range<axis::head>(head, 1);
                    index_t const kv = head / given.shape().group();
                    own.keys = own.keys.range<axis::kv_head>(kv, 1);
                    own.values = own.values.range<axis::kv_head>(kv, 1);
                    auto const to = output.range<axis::head>(head, 1);
                    index_t const queries = to.extent<axis::query>();
                    index_t const width = to.extent<axis::value_dim>();
                    std::vector<float> truth(static_cast<std::size_t>(queries * width));
                    lm::attention_output const dense_output(truth.data(), {1, queries, width});
                    for (index_t q = 0; q < queries; ++q) {
                        std::copy_n(&to(0, q, 0), width, &dense_output(0, q, 0));
                    }
                    auto const counts = sparse.attend({own, to, 0, options_.first - 1, on});
                    samples[s].kept_share += counts.kept_share() * each;
                    relative_error off;
                    off.add(dense_output, to, options_.first - 1);
                    samples[s].error_relative += off.value() * each;
                },
                on));
        }
        auto const judged = lm::judge_states(*model_, w.tokens, options_.first, states, on);
        for (std::size_t s = 0; s < spreads.size(); ++s) {
            auto const& tokens = judged[s + 1].tokens;
            for (lm::token_judgement const& t : tokens) {
                samples[s].kl += t.kl * each / static_cast<double>(tokens.size());
            }
        }
    }
    return samples;
}

} // namespace sofattn::dse
