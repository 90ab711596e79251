// SPDX-License-Identifier: MIT
// tokenizer.json: what is read gives every text back.
#include "lm/tokenizer.hpp"

#include "fuzz/fuzzed.hpp"

#include <nlohmann/json.hpp>

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace {

/// All 256 bytes as the format spells them, two merges, two added tokens.
std::string valid() {
    using nlohmann::json;
    json vocabulary = json::object();
    int next = 0x100;
    for (int byte = 0; byte < 256; ++byte) {
        bool const prints = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte != 0xad);
        int const code = prints ? byte : next++;
        vocabulary[code < 0x80 ? std::string{static_cast<char>(code)}
                               : std::string{static_cast<char>(0xc0 | (code >> 6)),
                                             static_cast<char>(0x80 | (code & 0x3f))}] = byte;
    }
    vocabulary["th"] = 256;
    vocabulary["the"] = 257;
    json const file = {
        {"added_tokens", {{{"id", 258}, {"content", "<s>"}}, {{"id", 259}, {"content", "</s>"}}}},
        {"normalizer", {{"type", "NFC"}}},
        {"pre_tokenizer",
         {{"type", "Sequence"},
          {"pretokenizers",
           {{{"type", "Split"},
             {"pattern", {{"Regex", "\\p{L}+| ?[^\\s]+|\\s+"}}},
             {"behavior", "Isolated"},
             {"invert", false}},
            {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}}}}}},
        {"decoder", {{"type", "ByteLevel"}}},
        {"model", {{"type", "BPE"}, {"vocab", vocabulary}, {"merges", {"t h", "th e"}}}}};
    // The parts that are worth changing come first.
    return file.dump();
}

/// `back` is the text with up to `most` spaces put in: one in front of each part between added tokens, where the
/// file asks for them.
bool gives_back(std::string_view back, std::string_view text, std::size_t most) {
    std::size_t at = 0;
    for (char const c : back) {
        if (at < text.size() && c == text[at]) {
            ++at;
        } else if (c != ' ' || most-- == 0) {
            return false;
        }
    }
    return at == text.size();
}

} // namespace

SOFATTN_FUZZ_FROM(valid)

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
    using namespace sofattn;
    std::string_view const file = fuzz::text_of(data, size);
    fuzz::refused_or_read([&] {
        lm::tokenizer const t = lm::tokenizer::parse(file, "fuzzed");
        for (std::string_view const text :
             {std::string_view("the other </s>\n\xc3\xa9t\xe2\x82\xac \xff\xc3"), // some no UTF-8
              file.substr(file.size() - std::min<std::size_t>(file.size(), 64))}) {
            fuzz::refused_or_read([&] {
                std::vector<lm::token_id> const ids = t.encode(text);
                for (lm::token_id const id : ids) {
                    fuzz::require(id >= 0 && id < t.size(), "ids are of the vocabulary");
                }
                fuzz::require(gives_back(t.decode(ids), text, ids.size() + 1),
                              "ids give the text back");
            });
        }
    });
    return 0;
}
