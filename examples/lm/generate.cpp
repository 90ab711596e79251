// SPDX-License-Identifier: MIT
#include "lm/generate.hpp"

#include <sofattn/core/error.hpp>
#include <sofattn/engine/elements.hpp>
#include <sofattn/engine/run.hpp>
#include <sofattn/engine/verdict.hpp>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numeric>
#include <string>

namespace sofattn::lm {

namespace {

void require(engine::verdict const& v) {
    if (!v.ok()) {
        std::string const field = v.field;
        throw error("cache: " + field, std::to_string(v.value), v.limit);
    }
}

template <class Array>
engine::operand operand_of(Array const& rows) {
    return {rows.data(), engine::dtype::f32, rows.strides()[0] * 4, rows.strides()[1] * 4};
}

std::unique_ptr<engine::kv_pool<float>> pool_for(model_config const& model, index_t capacity,
                                                 bool coded) {
    engine::kv_layout layout;
    layout.layers = model.layers;
    layout.kv_heads = model.kv_heads;
    layout.qk_dim = model.head_dim;
    layout.v_dim = model.head_dim;
    layout.pages = ceil_div(std::max<index_t>(capacity, 1), layout.page_tokens);
    layout.coded_from = coded ? 1 : 0;
    auto pool = std::make_unique<engine::kv_pool<float>>();
    require(pool->open(layout));
    return pool;
}

} // namespace

decode_attention::decode_attention(model_config const& model, index_t capacity,
                                   std::optional<index_t> keep, exec::openmp run,
                                   engine::tile_sizes tiles)
    : keep_(keep), run_(run), tiles_(tiles), pool_(pool_for(model, capacity, keep.has_value())),
      sequence_(*pool_) {}

double decode_attention::bytes_per_token() const noexcept {
    auto const codes = static_cast<double>(sequence_.code_bytes());
    return static_cast<double>(pool_->bytes_per_token()) +
           codes / static_cast<double>(std::max<std::int64_t>(sequence_.length(), 1));
}

void decode_attention::truncate(index_t tokens) {
    require(sequence_.truncate(std::min<index_t>(tokens, sequence_.length())));
}

void decode_attention::operator()(index_t layer, problem<float> const& given,
                                  attention_output output) {
    problem_shape const shape = given.shape();
    if (sequence_.length() < shape.keys) {
        require(sequence_.extend(shape.keys - sequence_.length()));
    }
    index_t const first = sequence_.written(layer);
    index_t const count = shape.keys - first;
    require(sequence_.write(layer, count, operand_of(given.keys.range<axis::key>(first, count)),
                            operand_of(given.values.range<axis::key>(first, count))));

    engine::attention_desc d{};
    d.dense_below = 0;
    require(sequence_.describe(layer, d));
    d.heads = shape.heads;
    d.queries = shape.queries;
    d.query = operand_of(given.queries);
    d.output = {output.data(), output.strides()[0] * 4, output.strides()[1] * 4};
    d.scale = shape.scale;
    d.tiles = tiles_;
    if (keep_) {
        d.how = engine::method::best_keys;
        d.count = *keep_;
        d.sinks = std::min<index_t>(d.sinks, *keep_);
        d.recent = std::min(d.recent, *keep_ - d.sinks);
        chosen_.resize(static_cast<std::size_t>(shape.kv_heads * shape.queries * *keep_));
        chosen_counts_.resize(static_cast<std::size_t>(shape.kv_heads * shape.queries));
        d.selected = {chosen_.data(), chosen_counts_.data(), *keep_};
    }
    workspace_.resize(std::max(workspace_.size(), engine::workspace_bytes(d, run_.threads())));
    require(engine::run<engine::elements<engine::dtype::f32>>(d, workspace_.data(),
                                                              workspace_.size(), run_));

    auto const pairs = detail::visible_pairs(shape, 0);
    counts_.visible += pairs;
    if (keep_) {
        auto const kept =
            std::accumulate(chosen_counts_.begin(), chosen_counts_.end(), std::int64_t{0}) *
            shape.group(); // which select together
        counts_.kept += static_cast<std::uint64_t>(kept);
    } else {
        counts_.kept += pairs;
    }
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
    cache.keep_page_codes(prefill.codes);
    auto const attend_prompt = [&](index_t layer, problem<float> const& given,
                                   attention_output output) {
        auto const* const codes = cache.page_codes_of(layer, given.keys.extent<axis::key>());
        counts += prefill.attend({given, output, layer, 0, run, codes});
    };
    index_t const chunk = options.chunk.value_or(result.prompt_tokens);
    for (index_t first = 0; first < result.prompt_tokens; first += chunk) {
        auto const tokens =
            prompt.subspan(static_cast<std::size_t>(first),
                           static_cast<std::size_t>(std::min(chunk, result.prompt_tokens - first)));
        auto const states = model(tokens, cache, attend_prompt, run);
        if (first + chunk >= result.prompt_tokens) {
            model.logits(states.data() + std::ssize(states) - config.hidden, 1, logits.data(), run);
        }
    }
    cache.keep_page_codes(engine::kept_page_codes::none); // decode has no use for them
    result.prefill_kept_share = counts.kept_share();
    result.prefill_time_seconds = seconds(start);

    start = clock::now();
    decode_attention attend(config, cache.capacity(), options.keep, run, options.tiles);
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
    result.cache_bytes_per_token = attend.bytes_per_token();
    return result;
}

} // namespace sofattn::lm
