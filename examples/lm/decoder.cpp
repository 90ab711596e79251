// SPDX-License-Identifier: MIT
#include "lm/decoder.hpp"

#include <sofattn/core/assert.hpp>
#include <sofattn/core/element.hpp>
#include <sofattn/core/error.hpp>
#include <sofattn/io/file.hpp>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <set>
#include <string>
#include <utility>
#include <variant>

namespace sofattn::lm {

namespace {

std::vector<float> to_floats(stored_numbers const& numbers) {
    return std::visit(
        [](auto const& from) {
            std::vector<float> to(from.size());
            std::ranges::transform(from, to.begin(), [](auto x) { return to_float(x); });
            return to;
        },
        numbers);
}

/// to[row] = x[row] / rms(x[row]) * weight, for rows of `width`.
void rms_norm(std::vector<float> const& x, std::vector<float> const& weight, double epsilon,
              std::vector<float>& to, exec::openmp const& run) {
    auto const width = std::ssize(weight);
    to.resize(x.size());
    run(std::ssize(x) / width, [&](index_t row, index_t) {
        float const* const from = x.data() + row * width;
        double sum = 0;
        for (index_t i = 0; i < width; ++i) {
            sum += static_cast<double>(from[i]) * static_cast<double>(from[i]);
        }
        auto const scale =
            static_cast<float>(1 / std::sqrt(sum / static_cast<double>(width) + epsilon));
        for (index_t i = 0; i < width; ++i) {
            to[static_cast<std::size_t>(row * width + i)] =
                from[i] * scale * weight[static_cast<std::size_t>(i)];
        }
    });
}

void add(std::vector<float>& to, std::vector<float> const& x) {
    std::ranges::transform(to, x, to.begin(), std::plus());
}

/// Cosine and sine of every angle of some positions.
class rotation {
public:
    rotation(std::vector<double> const& frequencies, index_t first, index_t count)
        : pairs_(std::ssize(frequencies)),
          turns_(static_cast<std::size_t>(count * std::ssize(frequencies))) {
        for (index_t p = 0; p < count; ++p) {
            for (index_t i = 0; i < pairs_; ++i) {
                double const angle =
                    static_cast<double>(first + p) * frequencies[static_cast<std::size_t>(i)];
                turns_[static_cast<std::size_t>(p * pairs_ + i)] = {
                    static_cast<float>(std::cos(angle)), static_cast<float>(std::sin(angle))};
            }
        }
    }
    /// Element i of a head turns with i + dim / 2. `at`: position less `first`.
    void operator()(float const* from, index_t at, float* to) const noexcept {
        turn const* const turns = turns_.data() + at * pairs_;
        for (index_t i = 0; i < pairs_; ++i) {
            float const a = from[i];
            float const b = from[i + pairs_];
            to[i] = a * turns[i].cosine - b * turns[i].sine;
            to[i + pairs_] = b * turns[i].cosine + a * turns[i].sine;
        }
    }

private:
    struct turn {
        float cosine;
        float sine;
    };
    index_t pairs_;
    std::vector<turn> turns_; ///< [position, pair]
};

} // namespace

std::vector<double> rope_frequencies(model_config const& config) {
    std::vector<double> frequencies;
    for (index_t i = 0; i < config.head_dim / 2; ++i) {
        double frequency = std::pow(config.rope_theta, -2.0 * static_cast<double>(i) /
                                                           static_cast<double>(config.head_dim));
        if (config.stretch) {
            rope_stretch const& s = *config.stretch;
            double const turns = s.original_positions * frequency / (2 * std::numbers::pi);
            double const fast = std::clamp(
                (turns - s.low_frequency) / (s.high_frequency - s.low_frequency), 0.0, 1.0);
            frequency *= fast + (1 - fast) / s.factor;
        }
        frequencies.push_back(frequency);
    }
    return frequencies;
}

/// Takes tensors by name and shape, and knows what was left over.
class decoder::loader {
public:
    explicit loader(weight_files const& files) : files_(files) {}

    [[nodiscard]] stored_numbers numbers(std::string const& name,
                                         std::vector<index_t> const& shape) {
        used_.insert(name);
        return files_.at(name).numbers(shape);
    }
    [[nodiscard]] std::vector<float> floats(std::string const& name, index_t count) {
        return to_floats(numbers(name, {count}));
    }
    [[nodiscard]] linear product(std::string const& name, index_t out, index_t in, bool has_bias) {
        auto const weights = numbers(name + ".weight", {out, in});
        return {weights, out, in, has_bias ? floats(name + ".bias", out) : std::vector<float>()};
    }
    /// Known, and of no use here.
    void pass_over(std::string const& name) { used_.insert(name); }

    void refuse_others() const {
        for (auto const& [name, tensor] : files_.all()) {
            bool const is_table = name.ends_with(".rotary_emb.inv_freq"); // computed here
            if (!is_table && !used_.contains(name)) {
                throw error(tensor.name, "there",
                            "left out: config.json says nothing that would use it");
            }
        }
    }

private:
    weight_files const& files_;
    std::set<std::string, std::less<>> used_;
};

decoder::decoder(std::filesystem::path const& folder)
    : config_(read_config(folder)), files_(folder), frequencies_(rope_frequencies(config_)) {
    model_config const& c = config_;
    loader load(files_);
    embedding_ = load.product("model.embed_tokens", c.vocabulary, c.hidden, false);
    if (c.tied_head) {
        head_ = embedding_;
        load.pass_over("lm_head.weight"); // some files hold a copy
    } else {
        head_ = load.product("lm_head", c.vocabulary, c.hidden, false);
    }
    norm_ = load.floats("model.norm.weight", c.hidden);
    index_t const q = c.heads * c.head_dim;
    index_t const kv = c.kv_heads * c.head_dim;
    for (index_t n = 0; n < c.layers; ++n) {
        std::string const at = "model.layers." + std::to_string(n) + ".";
        layer one;
        one.attention_norm = load.floats(at + "input_layernorm.weight", c.hidden);
        one.mlp_norm = load.floats(at + "post_attention_layernorm.weight", c.hidden);
        one.query = load.product(at + "self_attn.q_proj", q, c.hidden, c.qkv_bias);
        one.key = load.product(at + "self_attn.k_proj", kv, c.hidden, c.qkv_bias);
        one.value = load.product(at + "self_attn.v_proj", kv, c.hidden, c.qkv_bias);
        one.output = load.product(at + "self_attn.o_proj", c.hidden, q, c.output_bias);
        one.gate = load.product(at + "mlp.gate_proj", c.intermediate, c.hidden, c.mlp_bias);
        one.up = load.product(at + "mlp.up_proj", c.intermediate, c.hidden, c.mlp_bias);
        one.down = load.product(at + "mlp.down_proj", c.hidden, c.intermediate, c.mlp_bias);
        layers_.push_back(std::move(one));
    }
    load.refuse_others();
}

std::size_t decoder::weight_bytes() const noexcept {
    std::size_t sum = 0;
    for (auto const& [name, tensor] : files_.all()) {
        sum += tensor.bytes.size();
    }
    return sum;
}

std::vector<float> decoder::operator()(std::span<token_id const> tokens, kv_cache& cache,
                                       attend_layer const& attend, exec::openmp const& run) const {
    return run_layers(embed(tokens), 0, cache, attend, run);
}

std::vector<float> decoder::embed(std::span<token_id const> tokens) const {
    for (token_id const id : tokens) {
        if (id < 0 || id >= config_.vocabulary) {
            throw error("token", std::to_string(id),
                        "below the size of the vocabulary, " + std::to_string(config_.vocabulary));
        }
    }
    std::vector<float> state(tokens.size() * static_cast<std::size_t>(config_.hidden));
    for (std::size_t t = 0; t < tokens.size(); ++t) {
        embedding_.row(tokens[t], state.data() + static_cast<index_t>(t) * config_.hidden);
    }
    return state;
}

std::vector<float> decoder::run_layers(std::vector<float> state, index_t from, kv_cache& cache,
                                       attend_layer const& attend, exec::openmp const& run,
                                       see_state const& seen) const {
    model_config const& c = config_;
    index_t const count = std::ssize(state) / c.hidden;
    index_t const first = cache.size();
    SOFATTN_ASSERT(from >= 0 && from <= c.layers && count * c.hidden == std::ssize(state));
    SOFATTN_ASSERT(first + count <= cache.capacity());
    auto const floats = [&](index_t width) {
        return std::vector<float>(static_cast<std::size_t>(count * width));
    };
    index_t const q_width = c.heads * c.head_dim;
    index_t const kv_width = c.kv_heads * c.head_dim;
    std::vector<float> normed;
    std::vector<float> q = floats(q_width);
    std::vector<float> k = floats(kv_width);
    std::vector<float> v = floats(kv_width);
    std::vector<float> attended = floats(q_width);
    std::vector<float> gate = floats(c.intermediate);
    std::vector<float> up = floats(c.intermediate);
    std::vector<float> step = floats(c.hidden);
    rotation const rotate(frequencies_, first, count);

    for (index_t n = from; n < c.layers; ++n) {
        layer const& l = layers_[static_cast<std::size_t>(n)];
        if (seen) {
            seen(n, state);
        }
        rms_norm(state, l.attention_norm, c.norm_epsilon, normed, run);
        l.query(normed.data(), count, q.data(), run);
        l.key(normed.data(), count, k.data(), run);
        l.value(normed.data(), count, v.data(), run);
        auto const keys = cache.keys_of(n, first + count);
        auto const values = cache.values_of(n, first + count);
        run(count, [&](index_t t, index_t) {
            for (index_t h = 0; h < c.heads; ++h) {
                float* const row = q.data() + t * q_width + h * c.head_dim;
                rotate(row, t, row);
            }
            for (index_t h = 0; h < c.kv_heads; ++h) {
                index_t const at = t * kv_width + h * c.head_dim;
                rotate(k.data() + at, t, &keys(h, first + t, 0));
                std::copy_n(v.data() + at, c.head_dim, &values(h, first + t, 0));
            }
        });
        problem<float> given;
        given.queries = {q.data(), {c.heads, count, c.head_dim}, {c.head_dim, q_width, 1}};
        given.keys = keys;
        given.values = values;
        given.causal = true;
        attend(n, given, {attended.data(), {c.heads, count, c.head_dim}, {c.head_dim, q_width, 1}});
        l.output(attended.data(), count, step.data(), run);
        add(state, step);

        rms_norm(state, l.mlp_norm, c.norm_epsilon, normed, run);
        l.gate(normed.data(), count, gate.data(), run);
        l.up(normed.data(), count, up.data(), run);
        run(count, [&](index_t t, index_t) {
            for (index_t i = t * c.intermediate; i < (t + 1) * c.intermediate; ++i) {
                auto const at = static_cast<std::size_t>(i);
                gate[at] *= up[at] / (1 + std::exp(-gate[at])); // SiLU
            }
        });
        l.down(gate.data(), count, step.data(), run);
        add(state, step);
    }
    cache.advance(count);
    rms_norm(state, norm_, c.norm_epsilon, normed, run);
    return normed;
}

} // namespace sofattn::lm
