// SPDX-License-Identifier: MIT
// config.json: sizes that are read are ones that can be computed with.
#include "lm/config.hpp"

#include "fuzz/fuzzed.hpp"

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>

namespace {

std::string valid() {
    return R"({"architectures":["LlamaForCausalLM"],"model_type":"llama","hidden_size":24,)"
           R"("intermediate_size":40,"max_position_embeddings":64,"num_attention_heads":4,)"
           R"("num_key_value_heads":2,"num_hidden_layers":2,"head_dim":8,"vocab_size":258,)"
           R"("rope_theta":1000.0,"rms_norm_eps":1e-5,"tie_word_embeddings":false,)"
           R"("attention_bias":false,"mlp_bias":true,"bos_token_id":256,"eos_token_id":[257],)"
           R"("hidden_act":"silu","rope_scaling":{"rope_type":"llama3","factor":4.0,)"
           R"("low_freq_factor":1.0,"high_freq_factor":4.0,)"
           R"("original_max_position_embeddings":64}})";
}

} // namespace

SOFATTN_FUZZ_FROM(valid)

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
    using namespace sofattn;
    fuzz::refused_or_read([&] {
        lm::model_config const c = lm::parse_config(fuzz::text_of(data, size), "fuzzed");
        fuzz::require(c.layers > 0 && c.hidden > 0 && c.intermediate > 0 && c.vocabulary > 0 &&
                          c.positions > 0,
                      "sizes are positive");
        fuzz::require(c.kv_heads > 0 && c.heads > 0 && c.heads % c.kv_heads == 0,
                      "KV heads divide heads");
        fuzz::require(c.head_dim > 0 && c.head_dim <= max_head_dim, "heads have a size");
        fuzz::require(std::isfinite(c.rope_theta) && c.rope_theta > 0 &&
                          std::isfinite(c.norm_epsilon) && c.norm_epsilon >= 0,
                      "numbers are finite");
        for (auto const id : c.eos) {
            fuzz::require(id >= 0 && id < c.vocabulary, "ids are of the vocabulary");
        }
    });
    return 0;
}
