// SPDX-License-Identifier: MIT
#include "lm/generate.hpp"

#include <sofattn/attention/decode.hpp>
#include <sofattn/attention/sparse_decode.hpp>
#include <sofattn/core/error.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>

namespace sofattn::lm {

void decode_attention::operator()(index_t layer, problem<float> const& given,
                                  attention_output output) {
    problem_shape const shape = given.shape();
    auto const pairs = detail::visible_pairs(shape, 0);
    counts_.visible += pairs;
    if (keep_) {
        decode_sparsely(layer, given, output);
        return;
    }
    counts_.kept += pairs;
    workspace_.resize(std::max(workspace_.size(), decode_workspace_bytes(shape, run_.threads())));
    dense_decode(given, output, workspace_, run_);
}

void decode_attention::decode_sparsely(index_t layer, problem<float> const& given,
                                       attention_output output) {
    problem_shape const shape = given.shape();
    auto& indexes = indexes_[static_cast<std::size_t>(layer)];
    if (!indexes.empty() && indexes.front().size() > shape.keys - shape.queries) {
        indexes.clear(); // the cache was truncated meanwhile: it may hold other keys now
    }
    if (indexes.empty()) {
        // Later keys may be larger than the prompt's; beyond the headroom they are clipped.
        constexpr float headroom = 1.25f;
        for (index_t h = 0; h < shape.kv_heads; ++h) {
            indexes.emplace_back(dlzs::key_calibration<dlzs::centred_int4>::of(
                given.keys.slice<axis::kv_head>(h), headroom));
        }
    }
    for (index_t h = 0; h < shape.kv_heads; ++h) {
        auto& of_head = indexes[static_cast<std::size_t>(h)];
        for (index_t key = of_head.size(); key < shape.keys; ++key) {
            of_head.append(given.keys.slice<axis::kv_head>(h).slice<axis::key>(key));
        }
    }
    sparse_decode_options options;
    options.count = *keep_;
    options.sinks = std::min<index_t>(options.sinks, *keep_);
    options.window = std::min(options.window, *keep_ - options.sinks);
    workspace_.resize(
        std::max(workspace_.size(), sparse_decode_workspace_bytes(given, options, run_.threads())));
    std::atomic<std::uint64_t> kept = 0; // by several threads
    sparse_decode(given, std::span<index const>(indexes), options, output, workspace_, run_,
                  [&](index_t, index_t, std::span<key_id const> keys) { kept += keys.size(); });
    counts_.kept += kept * static_cast<std::uint64_t>(shape.group()); // which select together
}

double sampler::uniform() noexcept { // splitmix64 (Steele, Lea, Flood 2014)
    std::uint64_t z = (state_ += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return static_cast<double>((z ^ (z >> 31)) >> 11) * 0x1p-53;
}

token_id sampler::operator()(std::span<float const> logits) {
    auto const best = std::ranges::max_element(logits);
    if (!(temperature_ > 0)) {
        return static_cast<token_id>(best - logits.begin());
    }
    weights_.resize(logits.size());
    double sum = 0;
    std::ranges::transform(logits, weights_.begin(), [&](float x) {
        double const w =
            std::exp((static_cast<double>(x) - static_cast<double>(*best)) / temperature_);
        sum += w;
        return w;
    });
    double left = uniform() * sum;
    for (std::size_t i = 0; i < weights_.size(); ++i) {
        left -= weights_[i];
        if (left < 0) {
            return static_cast<token_id>(i);
        }
    }
    return static_cast<token_id>(best - logits.begin()); // rounding ate the last one's share
}

generation generate(decoder const& model, std::span<token_id const> prompt,
                    attention_method const& prefill, generate_options const& options,
                    exec::openmp const& run, std::function<void(token_id)> const& on_token) {
    auto const& config = model.config();
    if (prompt.empty()) {
        throw error("prompt", "empty", "one token or more");
    }
    if (std::ssize(prompt) >= config.positions) {
        throw error("prompt", std::to_string(prompt.size()) + " tokens",
                    "fewer than the positions of the model, " + std::to_string(config.positions));
    }
    using clock = std::chrono::steady_clock;
    auto const seconds = [](clock::time_point from) {
        return std::chrono::duration<double>(clock::now() - from).count();
    };
    generation result;
    result.prompt_tokens = std::ssize(prompt);
    index_t const room = config.positions - result.prompt_tokens;
    kv_cache cache(config, result.prompt_tokens + std::min(options.tokens, room));
    std::vector<float> logits(static_cast<std::size_t>(config.vocabulary));

    auto start = clock::now();
    pair_counts counts;
    auto const states = model(
        prompt, cache,
        [&](index_t layer, problem<float> const& given, attention_output output) {
            counts += prefill.attend({given, output, layer, 0, run});
        },
        run);
    model.logits(states.data() + (result.prompt_tokens - 1) * config.hidden, 1, logits.data(), run);
    result.prefill_kept_share = counts.kept_share();
    result.prefill_time_seconds = seconds(start);

    start = clock::now();
    decode_attention attend(config, options.keep, run);
    sampler pick(options.temperature, options.seed);
    while (std::ssize(result.tokens) < options.tokens) {
        token_id const next = pick(logits);
        if (std::ranges::find(config.eos, next) != config.eos.end()) {
            result.ended = true;
            break;
        }
        result.tokens.push_back(next);
        on_token(next);
        if (cache.size() == cache.capacity() ||
            std::ssize(result.tokens) == options.tokens) { // nobody asks for what follows
            break;
        }
        auto const state = model(std::span(&next, 1), cache, std::ref(attend), run);
        model.logits(state.data(), 1, logits.data(), run);
    }
    result.decode_time_seconds = seconds(start);
    result.decode_kept_share = attend.counts().kept_share();
    return result;
}

} // namespace sofattn::lm
