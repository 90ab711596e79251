// SPDX-License-Identifier: MIT
#include "lm/config.hpp"

#include "lm/json_input.hpp"
#include <sofattn/core/error.hpp>
#include <sofattn/io/file.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <set>

namespace sofattn::lm {

namespace {

constexpr index_t most_layers = 10'000;
constexpr index_t most_width = 1 << 24; // products of two stay far below 2^63

/// Fields that change no result of inference, or only of training.
constexpr std::array<std::string_view, 33> harmless{"_name_or_path",
                                                    "add_cross_attention",
                                                    "attention_dropout",
                                                    "auto_map",
                                                    "dtype",
                                                    "embd_pdrop",
                                                    "hidden_dropout",
                                                    "id2label",
                                                    "initializer_range",
                                                    "is_decoder",
                                                    "is_encoder_decoder",
                                                    "label2id",
                                                    "license",
                                                    "max_window_layers",
                                                    "output_attentions",
                                                    "output_hidden_states",
                                                    "pad_token_id",
                                                    "problem_type",
                                                    "resid_pdrop",
                                                    "return_dict",
                                                    "rope_interleaved",
                                                    "task_specific_params",
                                                    "tokenizer_class",
                                                    "torch_dtype",
                                                    "torchscript",
                                                    "transformers.js_config",
                                                    "transformers_version",
                                                    "unk_token_id",
                                                    "use_bfloat16",
                                                    "use_cache",
                                                    "use_return_dict",
                                                    "vocab_file",
                                                    "max_length"};

/// The fields of one object; remembers which it was asked for.
class reader {
public:
    reader(json const& object, std::string where) : object_(object), where_(std::move(where)) {}

    [[nodiscard]] std::string what(char const* key) const { return where_ + ": " + key; }
    /// Null if it is not there.
    [[nodiscard]] json const& value(char const* key) {
        asked_.insert(key);
        return field_or_null(object_, key);
    }

    [[nodiscard]] index_t size(char const* key, index_t most) {
        asked_.insert(key);
        return whole_number(field(object_, key, where_, "a whole number"), what(key), 1, most);
    }
    [[nodiscard]] index_t size_or(char const* key, index_t most, index_t otherwise) {
        return value(key).is_null() ? otherwise : size(key, most);
    }
    [[nodiscard]] double positive_or(char const* key, std::optional<double> otherwise) {
        json const& given = value(key);
        if (given.is_null() && otherwise) {
            return *otherwise;
        }
        if (!given.is_number() || !(given.get<double>() > 0) ||
            !std::isfinite(given.get<double>())) {
            throw error(what(key), given.is_null() ? "missing" : shown_value(given),
                        "a finite number above 0");
        }
        return given.get<double>();
    }
    [[nodiscard]] bool flag(char const* key, bool otherwise) {
        json const& given = value(key);
        if (!given.is_null() && !given.is_boolean()) {
            throw error(what(key), shown_value(given), "true or false");
        }
        return given.is_null() ? otherwise : given.get<bool>();
    }
    /// Absent, null or `only`: there is one value that this program computes.
    void must_be(char const* key, json const& only) {
        json const& given = value(key);
        if (!given.is_null() && given != only) {
            throw error(what(key), shown_value(given),
                        shown_value(only) + ", as this program computes nothing else");
        }
    }
    void refuse_others() const {
        for (auto const& [key, given] : object_.items()) {
            if (!asked_.contains(key) &&
                std::ranges::find(harmless, std::string_view(key)) == harmless.end()) {
                throw error(where_ + ": " + io::quoted(key), shown_value(given),
                            "left out: this program does not know the field, and would compute "
                            "another model");
            }
        }
    }

private:
    json const& object_;
    std::string where_;
    std::set<std::string, std::less<>> asked_;
};

std::optional<rope_stretch> stretch_of(reader& rope, char const* type_key, double positions) {
    json const& type = rope.value(type_key);
    if (type.is_null() || type == "default") {
        return std::nullopt;
    }
    if (type != "llama3") {
        throw error(rope.what(type_key), shown_value(type), "\"default\" or \"llama3\"");
    }
    rope_stretch s;
    s.factor = rope.positive_or("factor", std::nullopt);
    s.low_frequency = rope.positive_or("low_freq_factor", std::nullopt);
    s.high_frequency = rope.positive_or("high_freq_factor", std::nullopt);
    s.original_positions = rope.positive_or("original_max_position_embeddings", positions);
    if (!(s.high_frequency > s.low_frequency)) {
        throw error(rope.what("high_freq_factor"), std::to_string(s.high_frequency),
                    "above low_freq_factor, " + std::to_string(s.low_frequency));
    }
    return s;
}

/// Both spellings: rope_theta beside rope_scaling, and rope_parameters with all of it.
void read_rope(reader& fields, std::string const& name, model_config& c) {
    auto const positions = static_cast<double>(c.positions);
    c.rope_theta = fields.positive_or("rope_theta", c.rope_theta);
    for (char const* key : {"rope_scaling", "rope_parameters"}) {
        json const& given = fields.value(key);
        if (given.is_null()) {
            continue;
        }
        if (!given.is_object()) {
            throw error(fields.what(key), shown_value(given), "an object or null");
        }
        reader rope(given, name + ": " + key);
        c.rope_theta = rope.positive_or("rope_theta", c.rope_theta);
        auto stretch = stretch_of(rope, given.contains("type") ? "type" : "rope_type", positions);
        if (given.contains("type") && given.contains("rope_type")) { // the same in two spellings
            rope.must_be("rope_type", given.at("type"));
        }
        rope.must_be("partial_rotary_factor", 1.0);
        rope.refuse_others();
        c.stretch = stretch ? stretch : c.stretch;
    }
    if (!(c.rope_theta > 1)) {
        throw error(name + ": rope_theta", std::to_string(c.rope_theta), "above 1");
    }
}

/// Sliding windows are left out only where none would ever be seen.
void read_window(reader& fields, model_config const& c) {
    bool const used = fields.flag("use_sliding_window", c.architecture == "MistralForCausalLM");
    json const& window = fields.value("sliding_window");
    if (used && !window.is_null() &&
        whole_number(window, fields.what("sliding_window"), 0,
                     std::numeric_limits<index_t>::max()) < c.positions) {
        throw error(fields.what("sliding_window"), shown_value(window),
                    "null, as this program has no windows");
    }
    json const& types = fields.value("layer_types");
    if (!types.is_null() && (!types.is_array() || std::ranges::any_of(types, [](json const& t) {
            return t != "full_attention";
        }))) {
        throw error(fields.what("layer_types"), "not full_attention everywhere",
                    "full_attention, as this program has no windows");
    }
}

std::int32_t token(json const& value, std::string const& what, index_t vocabulary) {
    return static_cast<std::int32_t>(whole_number(value, what, 0, vocabulary - 1));
}

} // namespace

model_config parse_config(std::string_view text, std::string const& name) {
    json const content = parsed_object(text, name);
    reader fields(content, name);
    model_config c;

    json const& architectures = fields.value("architectures");
    if (!architectures.is_array() || architectures.size() != 1 || !architectures[0].is_string()) {
        throw error(name + ": architectures", shown_value(architectures), "an array of one name");
    }
    c.architecture = architectures[0].get<std::string>();
    constexpr std::array<std::string_view, 3> known{"LlamaForCausalLM", "MistralForCausalLM",
                                                    "Qwen2ForCausalLM"};
    if (std::ranges::find(known, std::string_view(c.architecture)) == known.end()) {
        throw error(name + ": architectures", io::quoted(c.architecture),
                    "LlamaForCausalLM, MistralForCausalLM or Qwen2ForCausalLM");
    }
    static_cast<void>(fields.value("model_type")); // architectures say more

    c.layers = fields.size("num_hidden_layers", most_layers);
    c.hidden = fields.size("hidden_size", most_width);
    c.intermediate = fields.size("intermediate_size", most_width);
    c.heads = fields.size("num_attention_heads", most_width);
    c.kv_heads = fields.size_or("num_key_value_heads", most_width, c.heads);
    c.vocabulary = fields.size("vocab_size", std::numeric_limits<std::int32_t>::max());
    c.positions = fields.size("max_position_embeddings", std::numeric_limits<std::int32_t>::max());
    if (c.heads % c.kv_heads != 0) {
        throw error(name + ": num_attention_heads", std::to_string(c.heads),
                    "a multiple of num_key_value_heads, " + std::to_string(c.kv_heads));
    }
    if (fields.value("head_dim").is_null() && c.hidden % c.heads != 0) {
        throw error(name + ": hidden_size", std::to_string(c.hidden),
                    "a multiple of num_attention_heads, " + std::to_string(c.heads) +
                        ", where there is no head_dim");
    }
    c.head_dim = fields.size_or("head_dim", max_head_dim, c.hidden / c.heads);
    if (c.head_dim < 2 || c.head_dim % 2 != 0 || c.head_dim > max_head_dim) {
        throw error(name + ": head_dim", std::to_string(c.head_dim),
                    "even, and from 2 to " + std::to_string(max_head_dim));
    }

    c.norm_epsilon = fields.positive_or("rms_norm_eps", c.norm_epsilon);
    c.tied_head = fields.flag("tie_word_embeddings", false);
    bool const is_qwen = c.architecture == "Qwen2ForCausalLM";
    bool const attention_bias = fields.flag("attention_bias", is_qwen);
    c.qkv_bias = attention_bias || is_qwen;
    c.output_bias = attention_bias && !is_qwen;
    c.mlp_bias = fields.flag("mlp_bias", false);
    read_rope(fields, name, c);
    read_window(fields, c);

    fields.must_be("hidden_act", "silu");
    fields.must_be("partial_rotary_factor", 1.0);
    fields.must_be("pretraining_tp", 1); // else: products in pieces, which round otherwise
    fields.must_be("quantization_config", nullptr);

    json const& bos = fields.value("bos_token_id");
    if (!bos.is_null()) {
        c.bos = token(bos, fields.what("bos_token_id"), c.vocabulary);
    }
    json const& eos = fields.value("eos_token_id");
    for (json const& one : eos.is_array() ? eos : json::array({eos})) {
        if (!one.is_null()) {
            c.eos.push_back(token(one, fields.what("eos_token_id"), c.vocabulary));
        }
    }
    fields.refuse_others();
    return c;
}

model_config read_config(std::filesystem::path const& folder) {
    constexpr std::uintmax_t most_bytes = 1 << 24; // a page of text is usual
    std::filesystem::path const path = folder / "config.json";
    return parse_config(read_text(path, most_bytes), io::shown(path));
}

} // namespace sofattn::lm
