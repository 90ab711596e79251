// SPDX-License-Identifier: MIT
// tokenizer.json: what its parts mean, and which of them this program does.
#include "lm/json_input.hpp"
#include "lm/tokenizer.hpp"
#include <sofattn/core/error.hpp>
#include <sofattn/io/file.hpp>

#include <algorithm>
#include <array>
#include <cstdint>
#include <limits>
#include <optional>
#include <set>

namespace sofattn::lm {

namespace {

/// GPT-2's expression, which a ByteLevel pre-tokenizer has built in.
constexpr char const* gpt2_pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

constexpr index_t most_tokens = 1 << 24; // a hundred times what there is

std::string utf8(std::uint32_t code) { // below U+0800
    if (code < 0x80) {
        return {static_cast<char>(code)};
    }
    return {static_cast<char>(0xc0 | (code >> 6)), static_cast<char>(0x80 | (code & 0x3f))};
}

/// Byte-level vocabularies spell bytes as characters that can be printed: a byte that is one in
/// Latin-1 as that, the others as U+0100 on, in order.
class byte_spelling {
public:
    byte_spelling() {
        std::uint32_t next = 0x100;
        for (std::uint32_t byte = 0; byte < 256; ++byte) {
            bool const prints = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte != 0xad);
            spelled_[byte] = utf8(prints ? byte : next++);
            bytes_.emplace(spelled_[byte], static_cast<char>(byte));
        }
    }
    [[nodiscard]] std::string const& of(std::size_t byte) const { return spelled_[byte]; }
    /// Nothing if a character stands for no byte.
    [[nodiscard]] std::optional<std::string> bytes(std::string_view text) const {
        std::string result;
        while (!text.empty()) {
            std::size_t const length = static_cast<std::uint8_t>(text[0]) < 0x80 ? 1 : 2;
            auto const found = bytes_.find(std::string(text.substr(0, length)));
            if (found == bytes_.end()) {
                return std::nullopt;
            }
            result += found->second;
            text.remove_prefix(length);
        }
        return result;
    }

private:
    std::array<std::string, 256> spelled_;
    std::unordered_map<std::string, char> bytes_;
};

std::string const& text_of(json const& value, std::string const& what) {
    if (!value.is_string()) {
        throw error(what, shown_value(value), "a string");
    }
    return value.get_ref<std::string const&>();
}
bool flag(json const& object, char const* key, std::string const& where, bool otherwise) {
    json const& value = field_or_null(object, key);
    if (!value.is_null() && !value.is_boolean()) {
        throw error(where + ": " + key, shown_value(value), "true or false");
    }
    return value.is_null() ? otherwise : value.get<bool>();
}
/// Field "type" of a part, and that it is an object.
std::string type_of(json const& part, std::string const& what) {
    if (!part.is_object()) {
        throw error(what, shown_value(part), "an object or null");
    }
    return text_of(field(part, "type", what, "a string"), what + ": type");
}

} // namespace

class tokenizer_reader {
public:
    tokenizer_reader(json const& content, std::string name)
        : content_(content), name_(std::move(name)) {
        result_.name_ = name_;
    }

    tokenizer operator()() && {
        for (char const* key : {"truncation", "padding"}) {
            if (json const& part = field_or_null(content_, key); !part.is_null()) {
                throw error(what(key), shown_value(part), "null, as this program has none");
            }
        }
        json const& model = field(content_, "model", name_, "an object");
        if (std::string const type = type_of(model, what("model")); type != "BPE") {
            throw error(what("model: type"), io::quoted(type), "BPE");
        }
        read_model_options(model);
        read_vocabulary(model);
        read_added();
        read_merges(model);
        read_normalizer();
        json const& pre = field_or_null(content_, "pre_tokenizer");
        bool is_byte_level = false;
        if (!pre.is_null()) {
            read_pre_tokenizer(pre, what("pre_tokenizer"), is_byte_level);
        }
        if (!is_byte_level) {
            throw error(what("pre_tokenizer"), pre.is_null() ? "null" : "without ByteLevel",
                        "ByteLevel, or a Sequence that ends with it");
        }
        check_rest();
        return std::move(result_);
    }

private:
    [[nodiscard]] std::string what(char const* key) const { return name_ + ": " + key; }

    void read_model_options(json const& model) {
        std::string const where = what("model");
        if (flag(model, "byte_fallback", where, false)) {
            throw error(where + ": byte_fallback", "true", "false: the vocabulary has all bytes");
        }
        for (char const* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
            json const& value = field_or_null(model, key);
            if (!value.is_null() &&
                !(value.is_string() && value.get_ref<std::string const&>().empty())) {
                throw error(where + ": " + key, shown_value(value), "null or empty");
            }
        }
        json const& dropout = field_or_null(model, "dropout");
        if (!dropout.is_null() && dropout != 0.0) {
            throw error(where + ": dropout", shown_value(dropout), "null or 0");
        }
        whole_pieces_ = flag(model, "ignore_merges", where, false);
    }

    /// Gives `id` its bytes.
    void set_bytes(token_id id, std::string bytes) {
        auto const at = static_cast<std::size_t>(id);
        if (at >= result_.bytes_.size()) {
            result_.bytes_.resize(at + 1);
        }
        result_.bytes_[at] = std::move(bytes);
    }

    void read_vocabulary(json const& model) {
        json const& vocab = field(model, "vocab", what("model"), "an object");
        if (!vocab.is_object()) {
            throw error(what("model: vocab"), shown_value(vocab), "an object");
        }
        std::set<token_id> taken;
        for (auto const& [spelled, value] : vocab.items()) {
            std::string const token = what("model: vocab[") + io::quoted(spelled) + "]";
            auto const id = static_cast<token_id>(whole_number(value, token, 0, most_tokens - 1));
            if (!taken.insert(id).second) {
                throw error(token, std::to_string(id), "an id that no other token has");
            }
            ids_.emplace(spelled, id);
            auto bytes = spelling_.bytes(spelled);
            if (bytes && whole_pieces_) {
                result_.ids_.emplace(*bytes, id);
            }
            // What spells no bytes (an added token) stands for itself.
            set_bytes(id, bytes ? *std::move(bytes) : spelled);
        }
        for (std::size_t byte = 0; byte < 256; ++byte) {
            auto const found = ids_.find(spelling_.of(byte));
            if (found == ids_.end()) {
                throw error(what("model: vocab: token of byte ") + std::to_string(byte) + ", " +
                                io::quoted(spelling_.of(byte)),
                            "missing", "there: not every text would have tokens");
            }
            result_.of_byte_.push_back(found->second);
        }
    }

    void read_added() {
        json const& added = field_or_null(content_, "added_tokens");
        if (!added.is_null() && !added.is_array()) {
            throw error(what("added_tokens"), shown_value(added), "an array");
        }
        std::set<std::string> contents;
        std::set<token_id> taken;
        for (std::size_t i = 0; i < added.size(); ++i) {
            std::string const where = what("added_tokens[") + std::to_string(i) + "]";
            json const& token = added[i];
            if (!token.is_object()) {
                throw error(where, shown_value(token), "an object");
            }
            auto const id = static_cast<token_id>(whole_number(
                field(token, "id", where, "a number"), where + ": id", 0, most_tokens - 1));
            std::string const& content =
                text_of(field(token, "content", where, "a string"), where + ": content");
            if (content.empty() || !contents.insert(content).second) {
                throw error(where + ": content", io::quoted(content),
                            "not empty, and another than those before");
            }
            auto const known = ids_.find(content);
            bool const is_others =
                known == ids_.end() ? !result_.bytes_of(id).empty() : known->second != id;
            if (is_others || !taken.insert(id).second) {
                throw error(where + ": id", std::to_string(id),
                            "that of the token in the vocabulary, or of no other");
            }
            for (char const* key : {"single_word", "lstrip", "rstrip"}) {
                if (flag(token, key, where, false)) {
                    throw error(where + ": " + key, "true", "false, as this program has none");
                }
            }
            set_bytes(id, content);
            result_.added_.push_back({content, id});
            result_.begins_added_[static_cast<std::uint8_t>(content[0])] = true;
        }
        std::ranges::stable_sort(result_.added_, std::ranges::greater(),
                                 [](auto const& a) { return a.content.size(); });
    }

    void read_merges(json const& model) {
        json const& merges = field(model, "merges", what("model"), "an array");
        if (!merges.is_array()) {
            throw error(what("model: merges"), shown_value(merges), "an array");
        }
        std::int32_t rank = 0;
        for (json const& merge : merges) {
            std::string const where = what("model: merges[") + std::to_string(rank) + "]";
            auto const [left, right] = halves_of(merge, where);
            auto const id = [&](std::string const& token) {
                auto const found = ids_.find(token);
                if (found == ids_.end()) {
                    throw error(where, "of " + io::quoted(token), "of tokens of the vocabulary");
                }
                return found->second;
            };
            tokenizer::merge const joined{rank++, id(left + right)};
            if (!result_.merges_.try_emplace({id(left), id(right)}, joined).second) {
                throw error(where, "a pair that an earlier one joins", "of another pair");
            }
        }
    }
    /// "a b", or ["a", "b"].
    static std::pair<std::string, std::string> halves_of(json const& merge,
                                                         std::string const& where) {
        if (merge.is_array() && merge.size() == 2) {
            return {text_of(merge[0], where), text_of(merge[1], where)};
        }
        if (merge.is_string()) {
            auto const& text = merge.get_ref<std::string const&>();
            auto const space = text.find(' ');
            if (space != std::string::npos && text.find(' ', space + 1) == std::string::npos) {
                return {text.substr(0, space), text.substr(space + 1)};
            }
        }
        throw error(where, shown_value(merge), "two tokens");
    }

    void read_normalizer() {
        json const& part = field_or_null(content_, "normalizer");
        if (part.is_null()) {
            return;
        }
        std::string const type = type_of(part, what("normalizer"));
        if (type != "NFC") {
            throw error(what("normalizer: type"), io::quoted(type), "null or NFC");
        }
        result_.wants_nfc_ = true;
    }

    void read_pre_tokenizer(json const& part, std::string const& where, bool& is_byte_level) {
        if (is_byte_level) {
            throw error(where, "after ByteLevel", "before it: what follows would see its letters");
        }
        std::string const type = type_of(part, where);
        if (type == "Sequence") {
            json const& parts = field(part, "pretokenizers", where, "an array");
            if (!parts.is_array()) {
                throw error(where + ": pretokenizers", shown_value(parts), "an array");
            }
            for (std::size_t i = 0; i < parts.size(); ++i) {
                if (type_of(parts[i], where) == "Sequence") {
                    throw error(where + ": pretokenizers", "a Sequence of Sequences",
                                "a Sequence of others");
                }
                read_pre_tokenizer(parts[i], where + "[" + std::to_string(i) + "]", is_byte_level);
            }
        } else if (type == "ByteLevel") {
            is_byte_level = true;
            result_.adds_space_ = flag(part, "add_prefix_space", where, true);
            if (result_.adds_space_ && !result_.splits_.empty()) {
                throw error(where + ": add_prefix_space", "true", "false after another splitter");
            }
            if (flag(part, "use_regex", where, true)) {
                result_.splits_.emplace_back(gpt2_pattern, where);
            }
        } else if (type == "Split") {
            read_split(part, where);
        } else if (type == "Digits") {
            result_.splits_.emplace_back(
                flag(part, "individual_digits", where, false) ? R"(\p{N})" : R"(\p{N}+)", where);
        } else {
            throw error(where + ": type", io::quoted(type), "ByteLevel, Split, Digits or Sequence");
        }
    }

    void read_split(json const& part, std::string const& where) {
        json const& behaviour = field(part, "behavior", where, "\"Isolated\"");
        if (behaviour != "Isolated") {
            throw error(where + ": behavior", shown_value(behaviour), "\"Isolated\"");
        }
        if (flag(part, "invert", where, false)) {
            throw error(where + ": invert", "true", "false");
        }
        json const& pattern = field(part, "pattern", where, "an object");
        if (!pattern.is_object() || pattern.size() != 1 || !pattern.contains("Regex")) {
            throw error(where + ": pattern", shown_value(pattern), "an object with \"Regex\"");
        }
        result_.splits_.emplace_back(text_of(pattern.at("Regex"), where + ": pattern"), where);
    }

    void check_rest() const {
        json const& decoder = field_or_null(content_, "decoder");
        if (!decoder.is_null() && type_of(decoder, what("decoder")) != "ByteLevel") {
            throw error(what("decoder: type"), shown_value(decoder.at("type")), "ByteLevel");
        }
        // A post-processor adds tokens around the text, which is the caller's choice; ByteLevel's
        // changes positions only.
        json const& post = field_or_null(content_, "post_processor");
        if (!post.is_null()) {
            std::string const type = type_of(post, what("post_processor"));
            constexpr std::array<std::string_view, 3> known{"ByteLevel", "TemplateProcessing",
                                                            "Sequence"};
            if (std::ranges::find(known, std::string_view(type)) == known.end()) {
                throw error(what("post_processor: type"), io::quoted(type),
                            "ByteLevel, TemplateProcessing or Sequence");
            }
        }
    }

    json const& content_;
    std::string name_;
    byte_spelling spelling_;
    bool whole_pieces_ = false;
    std::unordered_map<std::string, token_id> ids_; ///< as spelled
    tokenizer result_;
};

tokenizer tokenizer::parse(std::string_view text, std::string const& name) {
    json const content = parsed_object(text, name);
    return tokenizer_reader(content, name)();
}

tokenizer tokenizer::read(std::filesystem::path const& folder) {
    constexpr std::uintmax_t most_bytes = 1 << 28; // the largest known have 20 MB
    std::filesystem::path const path = folder / "tokenizer.json";
    return parse(read_text(path, most_bytes), io::shown(path));
}

} // namespace sofattn::lm
