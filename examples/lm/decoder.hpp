// SPDX-License-Identifier: MIT
// A decoder of the Llama family: everything but attention, which is the caller's.
#pragma once

#include "lm/config.hpp"
#include "lm/kv_cache.hpp"
#include "lm/linear.hpp"
#include "lm/safetensors.hpp"
#include "lm/tokenizer.hpp"
#include <sofattn/attention/problem.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/core/view.hpp>
#include <sofattn/exec/parallel.hpp>

#include <filesystem>
#include <functional>
#include <span>
#include <vector>

namespace sofattn::lm {

using attention_output = view<float, axis::head, axis::query, axis::value_dim>;

/// Attention of a layer's new queries to all keys so far, causal. Must write all of the output.
using attend_layer =
    std::function<void(index_t layer, problem<float> const& given, attention_output output)>;

/// state [token, hidden] that a layer is given
using see_state = std::function<void(index_t layer, std::span<float const> state)>;

/// Weights in memory as in the file, and the arithmetic between attentions, in f32.
class decoder {
public:
    /// Config and weights of a folder.
    /// error  as read_config and weight_files; a tensor missing, of another shape or dtype, or one
    ///        that the configuration has no use for
    explicit decoder(std::filesystem::path const& folder);

    [[nodiscard]] model_config const& config() const noexcept { return config_; }
    /// Bytes of the weights' files.
    [[nodiscard]] std::size_t weight_bytes() const noexcept;

    /// Runs tokens that follow those of the cache, and appends them to it.
    ///
    /// in     tokens  [token], ids below config().vocabulary
    ///        attend  called once per layer, in order
    /// out    the last layer's state, normalised: what `logits` takes, [token, hidden]
    /// pre    the cache has room for them (SOFATTN_ASSERT)
    /// error  a token that the vocabulary does not have; what attend throws, the cache unchanged
    [[nodiscard]] std::vector<float> operator()(std::span<token_id const> tokens, kv_cache& cache,
                                                attend_layer const& attend,
                                                exec::openmp const& run) const;

    /// What the first layer is given, [token, hidden].
    /// error  a token that the vocabulary does not have
    [[nodiscard]] std::vector<float> embed(std::span<token_id const> tokens) const;

    /// The same from the middle: layers `from` on, given their state for tokens that follow those of
    /// the cache. Layers before `from` write nothing to the cache.
    ///
    /// in     state   [token, hidden]
    ///        seen    told what every layer is given, before it runs; may be empty
    [[nodiscard]] std::vector<float> run_layers(std::vector<float> state, index_t from,
                                                kv_cache& cache, attend_layer const& attend,
                                                exec::openmp const& run,
                                                see_state const& seen = {}) const;

    /// states [row, hidden] -> logits [row, vocabulary]
    void logits(float const* states, index_t rows, float* to, exec::openmp const& run) const {
        head_(states, rows, to, run);
    }

private:
    struct layer {
        std::vector<float> attention_norm; ///< [hidden]
        std::vector<float> mlp_norm;       ///< [hidden]
        linear query;
        linear key;
        linear value;
        linear output;
        linear gate;
        linear up;
        linear down;
    };
    class loader;

    model_config config_;
    weight_files files_;
    std::vector<double> frequencies_; ///< of RoPE, radians per position, [head_dim / 2]
    linear embedding_;
    linear head_;
    std::vector<float> norm_; ///< [hidden]
    std::vector<layer> layers_;
};

/// Radians per position of each pair of a head's channels, [head_dim / 2].
[[nodiscard]] std::vector<double> rope_frequencies(model_config const& config);

} // namespace sofattn::lm
