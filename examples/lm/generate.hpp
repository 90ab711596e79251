// SPDX-License-Identifier: MIT
// Text token by token: the prompt through any method, then decoding over the cache.
#pragma once

#include "lm/decoder.hpp"
#include "lm/method.hpp"
#include "lm/tokenizer.hpp"
#include <sofattn/core/types.hpp>
#include <sofattn/engine/descriptor.hpp>
#include <sofattn/engine/kv_pool.hpp>
#include <sofattn/engine/kv_sequence.hpp>
#include <sofattn/exec/parallel.hpp>
#include <sofattn/io/fields.hpp>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace sofattn::lm {

/// Attention of the newest tokens over a KV cache of the library's: to all keys, or to as many as asked
/// for, which codes of 4 bits find.
class decode_attention {
public:
    /// capacity: tokens at most; keep: keys per query head, sinks and recent ones included; nothing: all;
    /// tiles: of dense attention
    /// error  no memory for the cache
    decode_attention(model_config const& model, index_t capacity, std::optional<index_t> keep,
                     exec::openmp run, engine::tile_sizes tiles = {});

    /// An attend_layer. The last keys given are those of the queries; the cache takes what it has not.
    /// error  what the cache or the descriptor refuses
    void operator()(index_t layer, problem<float> const& given, attention_output output);

    /// Forgets all tokens but the first `tokens`, as the model's own cache does.
    void truncate(index_t tokens);

    /// Of all calls so far.
    [[nodiscard]] pair_counts const& counts() const noexcept { return counts_; }
    /// Of a token in all layers, keys, values and codes.
    [[nodiscard]] double bytes_per_token() const noexcept;

private:
    std::optional<index_t> keep_;
    exec::openmp run_;
    engine::tile_sizes tiles_;
    std::unique_ptr<engine::kv_pool<float>> pool_; // sequences point to it
    engine::kv_sequence<float> sequence_;
    std::vector<std::byte> workspace_;
    std::vector<std::int32_t> chosen_;
    std::vector<std::int32_t> chosen_counts_;
    pair_counts counts_;
};

/// Picks tokens: the likeliest, or by chance.
class sampler {
public:
    /// temperature 0: greedy. The same seed gives the same tokens on every machine that computes
    /// the same logits.
    sampler(double temperature, std::uint64_t seed) : temperature_(temperature), state_(seed) {}

    /// logits [vocabulary], finite
    [[nodiscard]] token_id operator()(std::span<float const> logits);

private:
    [[nodiscard]] double uniform() noexcept; ///< in [0, 1)

    double temperature_;
    std::uint64_t state_;
    std::vector<double> weights_;
};

struct generate_options {
    index_t tokens = 128; ///< at most
    double temperature = 0;
    std::uint64_t seed = 0;
    std::optional<index_t> keep; ///< as decode_attention
    /// Tokens of the prompt at a time, at least 1; nothing: all. Of sparse methods only those of pages have an
    /// index that grows; others make one for every chunk.
    std::optional<index_t> chunk;
    engine::tile_sizes tiles{}; ///< of dense decode
};

struct generation {
    std::vector<token_id> tokens; ///< without the one that ended it
    bool ended = false;           ///< by the model's end-of-sequence
    index_t prompt_tokens = 0;
    double prefill_time_seconds = 0; ///< up to the first token's logits
    double decode_time_seconds = 0;
    double prefill_kept_share = 0;
    double decode_kept_share = 0;
    double cache_bytes_per_token = 0; ///< of decode, in all layers, codes included

    [[nodiscard]] double decode_tokens_per_second() const noexcept {
        return decode_time_seconds > 0 ? static_cast<double>(tokens.size()) / decode_time_seconds
                                       : 0.0;
    }
};

/// in     prompt    one token or more
///        prefill   how the prompt attends
///        on_token  called with each token as soon as it is chosen
/// error  a prompt that is empty, or leaves no position of the model; a token that the model does
///        not have
[[nodiscard]] generation generate(decoder const& model, std::span<token_id const> prompt,
                                  attention_method const& prefill, generate_options const& options,
                                  exec::openmp const& run,
                                  std::function<void(token_id)> const& on_token);

} // namespace sofattn::lm
