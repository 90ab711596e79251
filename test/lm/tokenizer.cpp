// SPDX-License-Identifier: MIT
#include "lm/tokenizer.hpp"

#include "lm/recorded.hpp"
#include "support/generators.hpp"
#include "support/temporary_folder.hpp"
#include <sofattn/core/error.hpp>
#include <sofattn/io/npy.hpp>

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

using namespace sofattn;
using namespace sofattn::test;
using json = nlohmann::json;

namespace {

/// How byte-level vocabularies spell a byte, told apart from the program's way of saying it.
std::string spelled(int byte) {
    int code = byte;
    if (byte <= 0x20) {
        code = 0x100 + byte;
    } else if (byte >= 0x7f && byte <= 0xa0) {
        code = 0x121 + byte - 0x7f;
    } else if (byte == 0xad) {
        code = 0x143;
    }
    if (code < 0x80) {
        return {static_cast<char>(code)};
    }
    return {static_cast<char>(0xc0 | (code >> 6)), static_cast<char>(0x80 | (code & 0x3f))};
}
std::string spelled(std::string_view bytes) {
    std::string text;
    for (char const c : bytes) {
        text += spelled(static_cast<std::uint8_t>(c));
    }
    return text;
}

using merges = std::vector<std::pair<std::string, std::string>>;

/// Bytes are tokens 0 to 255, merges follow in order; merges of bytes, in one form or the other.
json file_of(merges const& pairs, bool as_arrays = false) {
    json vocab = json::object();
    for (int byte = 0; byte < 256; ++byte) {
        vocab[spelled(byte)] = byte;
    }
    json list = json::array();
    for (auto const& [left, right] : pairs) {
        if (auto const joined = spelled(left + right); !vocab.contains(joined)) {
            vocab[joined] = vocab.size();
        }
        list.push_back(as_arrays ? json{spelled(left), spelled(right)}
                                 : json(spelled(left) + " " + spelled(right)));
    }
    return {{"added_tokens", json::array()},
            {"normalizer", nullptr},
            {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}}},
            {"decoder", {{"type", "ByteLevel"}}},
            {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", list}}}};
}
lm::tokenizer parsed(json const& content) { return lm::tokenizer::parse(content.dump(), "t"); }

/// The tokens' bytes between bars.
std::string cut(lm::tokenizer const& t, std::string_view text) {
    std::string all;
    for (auto const id : t.encode(text)) {
        all += (all.empty() ? "" : "|") + std::string(t.bytes_of(id));
    }
    return all;
}

std::string random_bytes(generator& random, index_t most) {
    static std::vector<std::string> const parts{"a",
                                                "b",
                                                " ",
                                                "  ",
                                                "\n",
                                                "7",
                                                "'s",
                                                ".",
                                                "\xc3",
                                                "\xc3\xa9",
                                                "\xe4\xbd\xa0",
                                                "\xed\xa0\x80",
                                                "\xf0\x9f\x98\x80",
                                                "\xff",
                                                "\x80",
                                                std::string(1, '\0'),
                                                "<|x|>",
                                                "<|x|",
                                                "ab",
                                                "\xe2\x80"};
    std::string text;
    for (index_t n = random.integer<index_t>(0, most); n > 0; --n) {
        text += random.chance(0.1) ? std::string(1, static_cast<char>(random.integer(0, 255)))
                                   : parts[random.integer<std::size_t>(0, parts.size() - 1)];
    }
    return text;
}

/// Merges that could have been learnt: of bytes and of what earlier merges made.
merges random_merges(generator& random, std::string_view alphabet) {
    std::vector<std::string> tokens;
    for (char const c : alphabet) {
        tokens.emplace_back(1, c);
    }
    merges pairs;
    for (index_t n = random.integer(0, 30); n > 0; --n) {
        std::pair const pair(tokens[random.integer<std::size_t>(0, tokens.size() - 1)],
                             tokens[random.integer<std::size_t>(0, tokens.size() - 1)]);
        if (std::ranges::find(pairs, pair) == pairs.end() &&
            (pair.first + pair.second).size() < 9) {
            pairs.push_back(pair);
            tokens.push_back(pair.first + pair.second);
        }
    }
    return pairs;
}

/// BPE as it is defined: look for the best pair, join its leftmost place, again.
std::vector<std::string> merged_slowly(std::string_view text, merges const& pairs) {
    std::vector<std::string> parts;
    for (char const c : text) {
        parts.emplace_back(1, c);
    }
    for (;;) {
        std::size_t best = pairs.size();
        std::size_t at = 0;
        for (std::size_t i = 0; i + 1 < parts.size(); ++i) {
            auto const found = std::ranges::find(pairs, std::pair(parts[i], parts[i + 1]));
            if (auto const rank = static_cast<std::size_t>(found - pairs.begin()); rank < best) {
                best = rank;
                at = i;
            }
        }
        if (best == pairs.size()) {
            return parts;
        }
        parts[at] += parts[at + 1];
        parts.erase(parts.begin() + static_cast<std::ptrdiff_t>(at) + 1);
    }
}

} // namespace

TEST_CASE("lm.tokenizer: merges as their definition does, whatever their form") {
    SOFATTN_GENERATOR(random);
    for (int round = 0; round < 200; ++round) {
        auto const pairs = random_merges(random, "abc");
        auto const t = parsed(file_of(pairs, random.chance(0.5)));
        std::string text;
        for (index_t n = random.integer(0, 40); n > 0; --n) {
            text += "abc"[random.integer(0, 2)]; // letters: one piece
        }
        std::vector<std::string> tokens;
        for (auto const id : t.encode(text)) {
            tokens.emplace_back(t.bytes_of(id));
        }
        CHECK(tokens == merged_slowly(text, pairs));
    }
}

TEST_CASE("lm.tokenizer: any bytes come back") {
    SOFATTN_GENERATOR(random);
    for (int round = 0; round < 300; ++round) {
        json content = file_of(random_merges(random, "ab '\xc3\xa9\xe4\n"));
        content["added_tokens"] = {{{"id", 1000}, {"content", "<|x|>"}}};
        if (random.chance(0.5)) {
            content["pre_tokenizer"] = {
                {"type", "Sequence"},
                {"pretokenizers",
                 {{{"type", "Split"},
                   {"behavior", "Isolated"},
                   {"pattern",
                    {{"Regex", R"((?i:'s)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|\s+(?!\S))"}}}},
                  {{"type", "Digits"}, {"individual_digits", true}},
                  {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}}}}};
        }
        auto const t = parsed(content);
        for (int n = 0; n < 20; ++n) {
            std::string const text = random_bytes(random, 60);
            CAPTURE(text);
            CHECK(t.decode(t.encode(text)) == text);
        }
    }
}

TEST_CASE("lm.tokenizer: cuts as GPT-2 does") {
    // Everything within a piece is merged, so that tokens show the pieces.
    merges pairs;
    std::vector<std::string> seen;
    for (std::string const piece :
         {"Hello", " world", "'s", "'ll", " 123", "456", " ...", "  ", "\n\n", " \xc3\xa9t\xc3\xa9",
          "\xe4\xbd\xa0\xe5\xa5\xbd", " x", " \xe2\x80\x99"}) {
        for (std::size_t n = 2; n <= piece.size(); ++n) {
            std::pair const pair(piece.substr(0, n - 1), piece.substr(n - 1, 1));
            if (std::ranges::find(pairs, pair) == pairs.end()) {
                pairs.push_back(pair);
            }
        }
    }
    auto const t = parsed(file_of(pairs));
    CHECK(cut(t, "Hello world's") == "Hello| world|'s");
    CHECK(cut(t, "Hello'll 123456") == "Hello|'ll| 123|456");
    CHECK(cut(t, "Hello 123 ...") == "Hello| 123| ...");
    CHECK(cut(t, "Hello   x") == "Hello|  | x"); // the last space belongs to the word
    CHECK(cut(t, "x  ") == "x|  ");
    CHECK(cut(t, "x\n\nx") == "x|\n|\n|x"); // before a word, the last newline is a piece of its own
    CHECK(cut(t, "x\n\n") == "x|\n\n");
    CHECK(cut(t, "x \xc3\xa9t\xc3\xa9.\xe4\xbd\xa0") == "x| \xc3\xa9t\xc3\xa9|.|\xe4\xbd\xa0");
    CHECK(cut(t, "123\xe4\xbd\xa0\xe5\xa5\xbd") == "1|2|3|\xe4\xbd\xa0\xe5\xa5\xbd");
    CHECK(cut(t, "x\xff\xfe x") == "x|\xff|\xfe| x"); // bytes that are no UTF-8: pieces between
    CHECK(cut(t, "x\xe2\x80 x") == "x|\xe2|\x80| x");
    CHECK(cut(t, "") == "");
}

TEST_CASE(
    "lm.tokenizer: added tokens are found leftmost and longest, and never merged with others") {
    json content = file_of({{"a", "b"}});
    content["added_tokens"] = {{{"id", 400}, {"content", "<a>"}, {"special", true}},
                               {{"id", 401}, {"content", "<a>b"}},
                               {{"id", 256}, {"content", "ab"}}};
    auto const t = parsed(content);
    CHECK(t.encode("a<a>b<a><a") == std::vector<lm::token_id>{'a', 401, 400, '<', 'a'});
    CHECK(t.encode("xab") == std::vector<lm::token_id>{'x', 256});
    CHECK(t.decode(std::vector<lm::token_id>{400, 'x', 399, -1, 1'000'000}) == "<a>x");
    CHECK(t.size() == 402);
}

TEST_CASE("lm.tokenizer: a space before the text and whole pieces, where the file asks for them") {
    json content = file_of({{" ", "a"}, {"b", "c"}, {"a", "bc"}});
    content["pre_tokenizer"]["add_prefix_space"] = true;
    CHECK(cut(parsed(content), "a") == " a");
    CHECK(cut(parsed(content), " a") == " a");
    json whole = file_of({{"a", "b"}});
    whole["model"]["vocab"]["abc"] = 300;
    CHECK(cut(parsed(whole), "abc") == "ab|c");
    whole["model"]["ignore_merges"] = true;
    CHECK(cut(parsed(whole), "abc") == "abc");
}

TEST_CASE("lm.tokenizer: NFC is accepted where it changes nothing") {
    json content = file_of({});
    content["normalizer"] = {{"type", "NFC"}};
    auto const t = parsed(content);
    std::string const fine = "ab \xc3\xa9 \xe4\xbd\xa0 \xff";
    CHECK(t.decode(t.encode(fine)) == fine);
    CHECK_THROWS_WITH_AS(static_cast<void>(t.encode("e\xcc\x81")), // e and a combining acute
                         "t: normalizer NFC: text with U+0301 is there, must be left out: this "
                         "program cannot bring it into NFC",
                         error);
}

TEST_CASE("lm.tokenizer: what this program does not do is refused by name") {
    auto const refuses = [](json const& changes, std::vector<std::string> const& parts) {
        json content = file_of({{"a", "b"}});
        content.merge_patch(changes);
        CAPTURE(changes.dump());
        try {
            static_cast<void>(parsed(content));
            FAIL("was read");
        } catch (error const& e) {
            std::string const message = e.what();
            CAPTURE(message);
            CHECK(message.starts_with("t: "));
            for (auto const& part : parts) {
                CAPTURE(part);
                CHECK(message.find(part) != std::string::npos);
            }
        }
    };
    auto const model = [&](json const& changes, std::vector<std::string> const& parts) {
        refuses({{"model", changes}}, parts);
    };
    CHECK_THROWS_WITH_AS(static_cast<void>(lm::tokenizer::parse("{", "t")),
                         "t: content is not JSON from byte 2 on, must be JSON", error);
    refuses({{"model", nullptr}}, {"model", "missing"});
    model({{"type", "Unigram"}}, {"model: type", "Unigram", "BPE"});
    model({{"type", nullptr}}, {"type", "missing"});
    model({{"byte_fallback", true}}, {"byte_fallback"});
    model({{"dropout", 0.1}}, {"dropout is 0.1"});
    model({{"end_of_word_suffix", "</w>"}}, {"end_of_word_suffix", "</w>"});
    model({{"vocab", {{"a", nullptr}}}}, {"vocab: token of byte 97", "\"a\"", "missing"});
    model({{"vocab", {{"a", 98}}}}, {"98", "an id that no other token has"});
    model({{"vocab", {{"a", -1}}}}, {"vocab[\"a\"] is -1"});
    model({{"vocab", {{"a", 1u << 31}}}}, {"vocab[\"a\"] is 2147483648"});
    model({{"vocab", 1}}, {"vocab is 1"});
    model({{"merges", 1}}, {"merges is 1"});
    model({{"merges", nullptr}}, {"merges is missing"});
    model({{"merges", {"a"}}}, {"merges[0] is \"a\"", "two tokens"});
    model({{"merges", {"a b c"}}}, {"merges[0]", "two tokens"});
    model({{"merges", json::array({json::array({"a", 1})})}}, {"merges[0] is 1", "a string"});
    model({{"merges", {"a c"}}}, {"merges[0] is of \"ac\"", "of the vocabulary"});
    model({{"merges", {"a b", "a b"}}}, {"merges[1]", "an earlier one joins"});
    refuses({{"normalizer", {{"type", "NFKC"}}}}, {"normalizer: type", "NFKC"});
    refuses({{"normalizer", "NFC"}}, {"normalizer is \"NFC\""});
    refuses({{"pre_tokenizer", nullptr}}, {"pre_tokenizer is null", "ByteLevel"});
    refuses({{"pre_tokenizer", {{"type", "Metaspace"}}}}, {"pre_tokenizer: type", "Metaspace"});
    refuses({{"decoder", {{"type", "WordPiece"}}}}, {"decoder: type", "WordPiece"});
    refuses({{"post_processor", {{"type", "BertProcessing"}}}}, {"post_processor", "Bert"});
    refuses({{"truncation", {{"max_length", 5}}}}, {"truncation"});
    refuses({{"padding", {{"direction", "Left"}}}}, {"padding"});

    auto const sequence = [&](json const& parts, std::vector<std::string> const& says) {
        refuses({{"pre_tokenizer", {{"type", "Sequence"}, {"pretokenizers", parts}}}}, says);
    };
    json const last = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}};
    auto const split = [](char const* pattern, char const* behaviour) {
        return json{{"type", "Split"}, {"behavior", behaviour}, {"pattern", {{"Regex", pattern}}}};
    };
    sequence(1, {"pretokenizers is 1"});
    sequence(json::array(), {"without ByteLevel"});
    sequence(json::array({split("a", "Isolated")}), {"without ByteLevel"});
    sequence({split("(", "Isolated"), last}, {"\"(\"", "a regular expression", "at byte 1"});
    sequence({split("a\\C", "Isolated"), last}, {"a regular expression"}); // ends within characters
    sequence({split("a", "Removed"), last}, {"behavior", "Removed", "Isolated"});
    sequence({last, split("a", "Isolated")}, {"after ByteLevel"});
    sequence({{{"type", "Split"}, {"behavior", "Isolated"}, {"pattern", {{"String", "a"}}}}, last},
             {"pattern", "Regex"});
    sequence({{{"type", "Sequence"}, {"pretokenizers", json::array()}}, last}, {"Sequences"});
    sequence({split("a", "Isolated"), {{"type", "ByteLevel"}, {"add_prefix_space", true}}},
             {"add_prefix_space"});

    auto const added = [&](json const& tokens, std::vector<std::string> const& says) {
        refuses({{"added_tokens", tokens}}, says);
    };
    added(1, {"added_tokens is 1"});
    added({1}, {"added_tokens[0] is 1"});
    added({{{"id", 300}}}, {"content is missing"});
    added({{{"id", 300}, {"content", ""}}}, {"content is \"\""});
    added({{{"content", "x"}}}, {"id is missing"});
    added({{{"id", 5}, {"content", "<x>"}}}, {"id is 5", "no other"});
    added({{{"id", 300}, {"content", "a"}}}, {"id is 300", "in the vocabulary"});
    added({{{"id", 300}, {"content", "x1"}}, {{"id", 300}, {"content", "x2"}}}, {"id is 300"});
    added({{{"id", 300}, {"content", "x1"}}, {{"id", 301}, {"content", "x1"}}}, {"content"});
    added({{{"id", 300}, {"content", "<x>"}, {"lstrip", true}}}, {"lstrip is true"});
}

TEST_CASE("lm.tokenizer: broken files are refused or read, and nothing else happens") {
    SOFATTN_GENERATOR(random);
    json content = file_of({{"a", "b"}});
    content["added_tokens"] = {{{"id", 400}, {"content", "<a>"}}};
    std::string const good = content.dump();
    for (int round = 0; round < 400; ++round) {
        std::string text = good;
        for (index_t n = random.integer(1, 3); n > 0; --n) {
            auto const at = random.integer<std::size_t>(0, text.size() - 1);
            text[at] = random.chance(0.5) ? static_cast<char>(random.integer(0, 255))
                                          : "0123456789-{}[],:\""[random.integer(0, 17)];
        }
        try {
            auto const t = lm::tokenizer::parse(text, "t");
            CHECK(t.decode(t.encode("ab \xff")).size() >= 4);
        } catch (error const& e) {
            CHECK(std::string_view(e.what()).starts_with("t: "));
        }
    }
}

TEST_CASE("lm.tokenizer: a trained tokenizer gives the recorded ids of a long text") {
    auto const folder = small_model();
    if (folder.empty()) {
        return;
    }
    auto const t = lm::tokenizer::read(folder);
    CHECK(t.size() == 6400);
    std::string text = read_bytes(folder / "wiki.test.raw.txt");
    std::erase(text, '\r'); // the ids were made of a text with plain line ends
    auto const ids = t.encode(text);
    auto const recorded = io::read_npy(folder / "wiki_test_ids.npy");
    auto const expected = recorded.values<std::int32_t>();
    CHECK(std::ranges::equal(ids, expected));
    CHECK(t.decode(ids) == text);
}
