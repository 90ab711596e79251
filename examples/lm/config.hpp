// SPDX-License-Identifier: MIT
// What config.json says of a model of the Llama family.
#pragma once

#include <sofattn/core/types.hpp>

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace sofattn::lm {

/// Frequencies of a model that was stretched to longer texts (rope_type "llama3"): slow pairs turn
/// `factor` times as slowly, fast ones as before, those between are mixed.
struct rope_stretch {
    double factor = 1;
    double low_frequency = 1;      ///< turns per original context, below which a pair is slow
    double high_frequency = 4;     ///< above which it is fast
    double original_positions = 0; ///< the context it was trained with
};

/// A decoder of RMSNorm, rotary grouped-query attention and a gated SiLU network.
struct model_config {
    std::string architecture;
    index_t layers = 0;
    index_t hidden = 0;       ///< width of the residual stream
    index_t intermediate = 0; ///< width within the MLP
    index_t heads = 0;
    index_t kv_heads = 0;
    index_t head_dim = 0;
    index_t vocabulary = 0;
    index_t positions = 0; ///< tokens that the model was made for
    double rope_theta = 10000;
    std::optional<rope_stretch> stretch;
    double norm_epsilon = 1e-6;
    bool tied_head = false; ///< the head's weights are the embedding's
    bool qkv_bias = false;
    bool output_bias = false; ///< of the attention
    bool mlp_bias = false;
    std::optional<std::int32_t> bos;
    std::vector<std::int32_t> eos;
};

/// Reads the text of a config.json. Every field is either read, or known not to change what a model
/// computes, or an error: a model that is computed wrongly looks like a bad model.
///
/// in     text    JSON
///        name    the file's, for messages
/// error  no JSON object; an architecture that is not one of Llama, Mistral, Qwen2; sizes missing,
///        out of range or in disagreement; an activation, RoPE, window or quantisation that this
///        program does not compute; a field that it does not know
[[nodiscard]] model_config parse_config(std::string_view text, std::string const& name);

/// FOLDER/config.json.
/// error  as parse_config and io::input_file
[[nodiscard]] model_config read_config(std::filesystem::path const& folder);

} // namespace sofattn::lm
