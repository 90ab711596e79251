// SPDX-License-Identifier: MIT
// A model folder with random weights, and what it computes, straight from the formulas in double.
#pragma once

#include "lm/config.hpp"
#include "lm/folders.hpp"
#include "support/generators.hpp"
#include "support/temporary_folder.hpp"
#include <sofattn/core/element.hpp>
#include <sofattn/core/types.hpp>

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace sofattn::test {

/// What differs between models of the family.
struct tiny_shape {
    std::string architecture = "LlamaForCausalLM";
    std::string dtype = "F32";
    index_t layers = 2;
    index_t hidden = 24;
    index_t intermediate = 40;
    index_t heads = 4;
    index_t kv_heads = 2;
    index_t head_dim = 8;
    index_t vocabulary = 258; ///< 256 bytes, then <s> and </s>
    index_t positions = 4096;
    bool tied = false;
    bool attention_bias = false;
    bool mlp_bias = false;
    bool stretched = false;
};

/// config.json, tokenizer.json and model.safetensors.
class tiny_model {
public:
    temporary_folder folder;
    tiny_shape shape;
    std::map<std::string, std::vector<double>> weights; ///< as stored

    explicit tiny_model(tiny_shape const& wanted = {}, std::uint64_t seed = 1) : shape(wanted) {
        generator random(seed);
        tiny_shape const& s = shape;
        add(random, "model.embed_tokens.weight", {s.vocabulary, s.hidden}, 1.0);
        if (!s.tied) {
            add(random, "lm_head.weight", {s.vocabulary, s.hidden}, 0.5);
        }
        add(random, "model.norm.weight", {s.hidden}, 1.0);
        bool const is_qwen = s.architecture == "Qwen2ForCausalLM";
        for (index_t l = 0; l < s.layers; ++l) {
            std::string const at = "model.layers." + std::to_string(l) + ".";
            add(random, at + "input_layernorm.weight", {s.hidden}, 1.0);
            add(random, at + "post_attention_layernorm.weight", {s.hidden}, 1.0);
            index_t const q = s.heads * s.head_dim;
            index_t const kv = s.kv_heads * s.head_dim;
            bool const has_bias = s.attention_bias || is_qwen;
            product(random, at + "self_attn.q_proj", q, s.hidden, has_bias);
            product(random, at + "self_attn.k_proj", kv, s.hidden, has_bias);
            product(random, at + "self_attn.v_proj", kv, s.hidden, has_bias);
            product(random, at + "self_attn.o_proj", s.hidden, q, s.attention_bias && !is_qwen);
            product(random, at + "mlp.gate_proj", s.intermediate, s.hidden, s.mlp_bias);
            product(random, at + "mlp.up_proj", s.intermediate, s.hidden, s.mlp_bias);
            product(random, at + "mlp.down_proj", s.hidden, s.intermediate, s.mlp_bias);
        }
        write();
    }

    json config() const {
        tiny_shape const& s = shape;
        json c = {{"architectures", {s.architecture}},
                  {"hidden_size", s.hidden},
                  {"intermediate_size", s.intermediate},
                  {"max_position_embeddings", s.positions},
                  {"num_attention_heads", s.heads},
                  {"num_key_value_heads", s.kv_heads},
                  {"num_hidden_layers", s.layers},
                  {"head_dim", s.head_dim},
                  {"vocab_size", s.vocabulary},
                  {"rope_theta", 1000.0},
                  {"rms_norm_eps", 1e-5},
                  {"tie_word_embeddings", s.tied},
                  {"attention_bias", s.attention_bias},
                  {"mlp_bias", s.mlp_bias},
                  {"bos_token_id", 256},
                  {"eos_token_id", 257}};
        if (s.stretched) {
            c["rope_scaling"] = {{"rope_type", "llama3"},
                                 {"factor", 4.0},
                                 {"low_freq_factor", 1.0},
                                 {"high_freq_factor", 4.0},
                                 {"original_max_position_embeddings", 64}};
        }
        return c;
    }
    void write() const {
        write_bytes(folder / "config.json", config().dump(1));
        write_bytes(folder / "tokenizer.json", tokenizer().dump(1));
        write_bytes(folder / "model.safetensors", safetensors_bytes(tensors_));
    }
    std::vector<written_tensor>& tensors() { return tensors_; }

    /// Logits of every token, [token][vocabulary].
    std::vector<std::vector<double>> logits(std::vector<std::int32_t> const& tokens) const;

private:
    static json tokenizer() {
        json vocab = json::object();
        int next = 0x100; // bytes that do not print are spelled from here on
        for (int byte = 0; byte < 256; ++byte) {
            bool const prints = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte != 0xad);
            int const code = prints ? byte : next++;
            std::string const letter = code < 0x80
                                           ? std::string{static_cast<char>(code)}
                                           : std::string{static_cast<char>(0xc0 | (code >> 6)),
                                                         static_cast<char>(0x80 | (code & 0x3f))};
            vocab[letter] = byte;
        }
        return {{"added_tokens",
                 {{{"id", 256}, {"content", "<s>"}}, {{"id", 257}, {"content", "</s>"}}}},
                {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}}},
                {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", json::array()}}}};
    }

    void product(generator& random, std::string const& name, index_t out, index_t in,
                 bool has_bias) {
        add(random, name + ".weight", {out, in}, 1.5 / std::sqrt(static_cast<double>(in)));
        if (has_bias) {
            add(random, name + ".bias", {out}, 0.5);
        }
    }
    void add(generator& random, std::string const& name, std::vector<index_t> const& extents,
             double deviation) {
        index_t count = 1;
        for (index_t const extent : extents) {
            count *= extent;
        }
        std::vector<float> values;
        for (index_t i = 0; i < count; ++i) {
            values.push_back(static_cast<float>(random.normal(deviation)));
        }
        if (shape.dtype == "F16") {
            store<half>(name, extents, values);
        } else if (shape.dtype == "BF16") {
            store<bfloat16>(name, extents, values);
        } else {
            store<float>(name, extents, values);
        }
    }
    template <class T>
    void store(std::string const& name, std::vector<index_t> const& extents,
               std::vector<float> const& values) {
        std::vector<T> stored;
        for (float const x : values) {
            stored.push_back(T(x));
            weights[name].push_back(static_cast<double>(to_float(stored.back())));
        }
        tensors_.push_back({name, shape.dtype, extents, bytes_of(stored)});
    }

    std::vector<written_tensor> tensors_;
};

namespace detail {

using row = std::vector<double>;

inline row times(row const& weights, row const& x, row const* bias) {
    row y(weights.size() / x.size());
    for (std::size_t o = 0; o < y.size(); ++o) {
        y[o] = bias != nullptr ? (*bias)[o] : 0.0;
        for (std::size_t i = 0; i < x.size(); ++i) {
            y[o] += weights[o * x.size() + i] * x[i];
        }
    }
    return y;
}
inline row normed(row const& x, row const& weight) {
    double squares = 0;
    for (double const v : x) {
        squares += v * v;
    }
    row y = x;
    for (std::size_t i = 0; i < x.size(); ++i) {
        y[i] *= weight[i] / std::sqrt(squares / static_cast<double>(x.size()) + 1e-5);
    }
    return y;
}
/// Llama 3's rule, from its definition over wavelengths.
inline double frequency(tiny_shape const& s, std::size_t pair) {
    double const pi = std::acos(-1.0);
    double const f =
        std::pow(1000.0, -2.0 * static_cast<double>(pair) / static_cast<double>(s.head_dim));
    double const wavelength = 2 * pi / f;
    if (!s.stretched || wavelength < 64.0 / 4.0) {
        return f;
    }
    if (wavelength > 64.0 / 1.0) {
        return f / 4.0;
    }
    double const smooth = (64.0 / wavelength - 1.0) / (4.0 - 1.0);
    return (1 - smooth) * f / 4.0 + smooth * f;
}

} // namespace detail

inline std::vector<std::vector<double>>
tiny_model::logits(std::vector<std::int32_t> const& tokens) const {
    using detail::row;
    tiny_shape const& s = shape;
    auto const size = [](index_t n) { return static_cast<std::size_t>(n); };
    auto const product = [&](std::string const& name, row const& x) {
        auto const bias = weights.find(name + ".bias");
        return detail::times(weights.at(name + ".weight"), x,
                             bias == weights.end() ? nullptr : &bias->second);
    };
    auto const rotated = [&](row x, std::size_t position) {
        for (std::size_t h = 0; h < x.size(); h += size(s.head_dim)) {
            for (std::size_t i = 0; i < size(s.head_dim / 2); ++i) {
                double const angle = static_cast<double>(position) * detail::frequency(s, i);
                double const a = x[h + i];
                double const b = x[h + i + size(s.head_dim / 2)];
                x[h + i] = a * std::cos(angle) - b * std::sin(angle);
                x[h + i + size(s.head_dim / 2)] = b * std::cos(angle) + a * std::sin(angle);
            }
        }
        return x;
    };
    std::vector<row> states;
    for (auto const id : tokens) {
        auto const& table = weights.at("model.embed_tokens.weight");
        auto const from = table.begin() + id * s.hidden;
        states.emplace_back(from, from + s.hidden);
    }
    for (index_t l = 0; l < s.layers; ++l) {
        std::string const at = "model.layers." + std::to_string(l) + ".";
        std::vector<row> keys;
        std::vector<row> values;
        for (std::size_t t = 0; t < states.size(); ++t) {
            row& x = states[t];
            row const n = detail::normed(x, weights.at(at + "input_layernorm.weight"));
            row const q = rotated(product(at + "self_attn.q_proj", n), t);
            keys.push_back(rotated(product(at + "self_attn.k_proj", n), t));
            values.push_back(product(at + "self_attn.v_proj", n));
            row attended(q.size());
            for (std::size_t h = 0; h < size(s.heads); ++h) {
                std::size_t const kv = h / size(s.heads / s.kv_heads) * size(s.head_dim);
                std::size_t const own = h * size(s.head_dim);
                row weight;
                double sum = 0;
                for (std::size_t k = 0; k <= t; ++k) {
                    double logit = 0;
                    for (std::size_t d = 0; d < size(s.head_dim); ++d) {
                        logit += q[own + d] * keys[k][kv + d];
                    }
                    weight.push_back(std::exp(logit / std::sqrt(static_cast<double>(s.head_dim))));
                    sum += weight.back();
                }
                for (std::size_t k = 0; k <= t; ++k) {
                    for (std::size_t d = 0; d < size(s.head_dim); ++d) {
                        attended[own + d] += weight[k] / sum * values[k][kv + d];
                    }
                }
            }
            row const step = product(at + "self_attn.o_proj", attended);
            std::transform(x.begin(), x.end(), step.begin(), x.begin(), std::plus());
            row const m = detail::normed(x, weights.at(at + "post_attention_layernorm.weight"));
            row gate = product(at + "mlp.gate_proj", m);
            row const up = product(at + "mlp.up_proj", m);
            for (std::size_t i = 0; i < gate.size(); ++i) {
                gate[i] = gate[i] / (1 + std::exp(-gate[i])) * up[i];
            }
            row const down = product(at + "mlp.down_proj", gate);
            std::transform(x.begin(), x.end(), down.begin(), x.begin(), std::plus());
        }
    }
    std::vector<row> result;
    for (row const& x : states) {
        result.push_back(
            detail::times(weights.at(s.tied ? "model.embed_tokens.weight" : "lm_head.weight"),
                          detail::normed(x, weights.at("model.norm.weight")), nullptr));
    }
    return result;
}

} // namespace sofattn::test
