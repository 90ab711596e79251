// SPDX-License-Identifier: MIT
#include "lm/config.hpp"

#include "support/generators.hpp"
#include <sofattn/core/error.hpp>

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include <string>
#include <string_view>
#include <vector>

using namespace sofattn;
using namespace sofattn::test;
using json = nlohmann::json;

namespace {

json small() {
    return {{"architectures", {"LlamaForCausalLM"}},
            {"model_type", "llama"},
            {"hidden_size", 64},
            {"intermediate_size", 160},
            {"max_position_embeddings", 512},
            {"num_attention_heads", 4},
            {"num_hidden_layers", 3},
            {"vocab_size", 300}};
}
json with(json const& changes) {
    json all = small();
    all.merge_patch(changes); // null removes
    return all;
}
lm::model_config parsed(json const& content) { return lm::parse_config(content.dump(), "c"); }

void refuses_text(std::string const& text, std::vector<std::string> const& parts) {
    CAPTURE(text);
    try {
        static_cast<void>(lm::parse_config(text, "c"));
        FAIL("was read");
    } catch (error const& e) {
        std::string const message = e.what();
        CAPTURE(message);
        CHECK(message.starts_with("c: "));
        for (auto const& part : parts) {
            CAPTURE(part);
            CHECK(message.find(part) != std::string::npos);
        }
    }
}
void refuses(json const& changes, std::vector<std::string> const& parts) {
    refuses_text(with(changes).dump(), parts);
}

} // namespace

TEST_CASE("lm.config: what is not said has the family's defaults") {
    auto const c = parsed(small());
    CHECK(c.architecture == "LlamaForCausalLM");
    CHECK(c.layers == 3);
    CHECK(c.hidden == 64);
    CHECK(c.intermediate == 160);
    CHECK(c.heads == 4);
    CHECK(c.kv_heads == 4);
    CHECK(c.head_dim == 16);
    CHECK(c.vocabulary == 300);
    CHECK(c.positions == 512);
    CHECK(c.rope_theta == 10000);
    CHECK_FALSE(c.stretch);
    CHECK(c.norm_epsilon == 1e-6);
    CHECK_FALSE(c.tied_head);
    CHECK_FALSE(c.qkv_bias);
    CHECK_FALSE(c.output_bias);
    CHECK_FALSE(c.mlp_bias);
    CHECK_FALSE(c.bos);
    CHECK(c.eos.empty());
}

TEST_CASE("lm.config: what is said is read") {
    auto const c = parsed(with({{"num_key_value_heads", 2},
                                {"head_dim", 32},
                                {"rope_theta", 1e6},
                                {"rms_norm_eps", 1e-5},
                                {"tie_word_embeddings", true},
                                {"attention_bias", true},
                                {"mlp_bias", true},
                                {"bos_token_id", 1},
                                {"eos_token_id", {2, 3}},
                                {"torch_dtype", "float16"},
                                {"hidden_act", "silu"}}));
    CHECK(c.kv_heads == 2);
    CHECK(c.head_dim == 32);
    CHECK(c.rope_theta == 1e6);
    CHECK(c.norm_epsilon == 1e-5);
    CHECK(c.tied_head);
    CHECK(c.qkv_bias);
    CHECK(c.output_bias);
    CHECK(c.mlp_bias);
    CHECK(c.bos == 1);
    CHECK(c.eos == std::vector<std::int32_t>{2, 3});
    CHECK(parsed(with({{"eos_token_id", 7}})).eos == std::vector<std::int32_t>{7});

    auto const qwen = parsed(with({{"architectures", {"Qwen2ForCausalLM"}},
                                   {"use_sliding_window", false},
                                   {"sliding_window", 128},
                                   {"max_window_layers", 2}}));
    CHECK(qwen.qkv_bias);
    CHECK_FALSE(qwen.output_bias);
}

TEST_CASE("lm.config: both spellings of RoPE") {
    json const llama3 = {{"rope_type", "llama3"},
                         {"factor", 8},
                         {"low_freq_factor", 1},
                         {"high_freq_factor", 4},
                         {"original_max_position_embeddings", 256}};
    auto const old = parsed(with({{"rope_theta", 5e5}, {"rope_scaling", llama3}}));
    REQUIRE(old.stretch);
    CHECK(old.rope_theta == 5e5);
    CHECK(old.stretch->factor == 8);
    CHECK(old.stretch->low_frequency == 1);
    CHECK(old.stretch->high_frequency == 4);
    CHECK(old.stretch->original_positions == 256);
    auto const later =
        parsed(with({{"rope_parameters", {{"rope_type", "default"}, {"rope_theta", 3e5}}}}));
    CHECK(later.rope_theta == 3e5);
    CHECK_FALSE(later.stretch);

    refuses({{"rope_scaling", {{"type", "linear"}, {"factor", 2}}}},
            {"rope_scaling: type", "linear", "llama3"});
    refuses({{"rope_scaling", {{"rope_type", "yarn"}, {"factor", 2}}}}, {"rope_type", "yarn"});
    refuses({{"rope_scaling", {{"type", "default"}, {"rope_type", "yarn"}}}}, {"rope_type"});
    refuses({{"rope_scaling", {{"rope_type", "llama3"}}}}, {"factor", "missing"});
    refuses({{"rope_scaling", {{"rope_type", "default"}, {"surprise", 2}}}}, {"surprise"});
    refuses({{"rope_scaling", 2}}, {"rope_scaling is 2", "an object"});
    json wrong = llama3;
    wrong["high_freq_factor"] = 1;
    refuses({{"rope_scaling", wrong}}, {"high_freq_factor", "above low_freq_factor"});
    refuses({{"rope_theta", 0}}, {"rope_theta is 0", "above 0"});
    refuses({{"rope_theta", 0.5}}, {"rope_theta is 0.5", "above 1"});
}

TEST_CASE("lm.config: what this program does not compute is refused by name") {
    refuses_text("", {"not JSON"});
    refuses_text("[]", {"JSON array"});
    refuses_text(R"({"a": 1, "a": 1})", {"\"a\"", "twice"});
    refuses_text(R"({"a": 6e666666})", {"a number that no double holds"});
    refuses({{"architectures", {"GPT2LMHeadModel"}}}, {"GPT2LMHeadModel", "LlamaForCausalLM"});
    refuses({{"architectures", json::array()}}, {"architectures"});
    refuses({{"architectures", nullptr}}, {"architectures is null"});
    for (char const* key : {"hidden_size", "intermediate_size", "max_position_embeddings",
                            "num_attention_heads", "num_hidden_layers", "vocab_size"}) {
        CAPTURE(key);
        refuses({{key, nullptr}}, {key, "missing"});
        refuses({{key, 0}}, {key, "0", "a whole number from 1"});
        refuses({{key, -4}}, {key, "-4"});
        refuses({{key, 1.5}}, {key, "1.5"});
        refuses({{key, "x"}}, {key, "\"x\""});
        refuses({{key, 1e300}}, {key});
        refuses({{key, 18446744073709551615u}}, {key, "18446744073709551615"});
    }
    refuses({{"num_key_value_heads", 3}}, {"num_attention_heads is 4", "num_key_value_heads, 3"});
    refuses({{"hidden_size", 66}}, {"hidden_size is 66", "no head_dim"});
    refuses({{"head_dim", 15}}, {"head_dim is 15", "even"});
    refuses({{"head_dim", 258}}, {"head_dim is 258"});
    refuses({{"hidden_size", 4096}}, {"head_dim is 1024", "to 256"});
    refuses({{"hidden_act", "gelu"}}, {"hidden_act", "gelu", "silu"});
    refuses({{"rms_norm_eps", -1}}, {"rms_norm_eps is -1"});
    refuses({{"tie_word_embeddings", 1}}, {"tie_word_embeddings is 1", "true or false"});
    refuses({{"pretraining_tp", 2}}, {"pretraining_tp is 2"});
    refuses({{"quantization_config", {{"bits", 4}}}}, {"quantization_config"});
    refuses({{"bos_token_id", 300}}, {"bos_token_id is 300", "to 299"});
    refuses({{"eos_token_id", {1, -1}}}, {"eos_token_id is -1"});
    refuses({{"logit_scale", 2.0}}, {"\"logit_scale\" is 2.0", "does not know"});
    refuses({{"attn_logit_softcapping", 50}}, {"attn_logit_softcapping", "does not know"});
    refuses({{"line\nbreak", 1}}, {R"("line\x0abreak" is 1)"});
    refuses({{"sliding_window", 128}, {"architectures", {"MistralForCausalLM"}}},
            {"sliding_window is 128", "no windows"});
    refuses({{"sliding_window", 128}, {"use_sliding_window", true}}, {"sliding_window is 128"});
    refuses({{"layer_types", {"full_attention", "sliding_attention"}}}, {"layer_types"});
    CHECK(parsed(with({{"sliding_window", 512}, {"architectures", {"MistralForCausalLM"}}}))
              .positions == 512); // nobody would see that window
}

TEST_CASE("lm.config: broken text is refused or read, and nothing else happens") {
    SOFATTN_GENERATOR(random);
    std::string const good =
        with({{"rope_scaling", {{"rope_type", "default"}}}, {"eos_token_id", {2, 3}}}).dump();
    for (int round = 0; round < 5000; ++round) {
        std::string text = good;
        for (index_t n = random.integer(1, 3); n > 0; --n) {
            auto const at = random.integer<std::size_t>(0, text.size() - 1);
            text[at] = random.chance(0.3) ? static_cast<char>(random.integer(0, 255))
                                          : "0123456789-.eE{}[],:\"ntf"[random.integer(0, 22)];
        }
        try {
            auto const c = lm::parse_config(text, "c");
            CHECK(c.heads % c.kv_heads == 0);
        } catch (error const& e) {
            CHECK(std::string_view(e.what()).starts_with("c: "));
        }
    }
}
