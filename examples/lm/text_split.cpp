// SPDX-License-Identifier: MIT
#include "lm/text_split.hpp"

#include <sofattn/core/error.hpp>
#include <sofattn/io/file.hpp>

#define PCRE2_CODE_UNIT_WIDTH 8 // NOLINT: PCRE2 asks for it
#include <pcre2.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <new>
#include <utility>

namespace sofattn::lm {

std::size_t valid_utf8_prefix(std::string_view text) noexcept {
    auto const byte = [&](std::size_t at) {
        return at < text.size() ? static_cast<std::uint8_t>(text[at]) : std::uint8_t{0};
    };
    auto const continues = [&](std::size_t at) { return (byte(at) & 0xc0) == 0x80; };
    std::size_t at = 0;
    while (at < text.size()) {
        std::uint8_t const first = byte(at);
        std::uint8_t const second = byte(at + 1);
        std::size_t length = 0;
        if (first < 0x80) {
            length = 1;
        } else if (first >= 0xc2 && first <= 0xdf) { // c0 and c1 would be longer than need be
            length = continues(at + 1) ? 2 : 0;
        } else if ((first & 0xf0) == 0xe0) {
            bool const fits = continues(at + 1) && continues(at + 2) &&
                              (first != 0xe0 || second >= 0xa0) && // longer than need be
                              (first != 0xed || second < 0xa0);    // surrogates
            length = fits ? 3 : 0;
        } else if (first >= 0xf0 && first <= 0xf4) {
            bool const fits = continues(at + 1) && continues(at + 2) && continues(at + 3) &&
                              (first != 0xf0 || second >= 0x90) && // longer than need be
                              (first != 0xf4 || second < 0x90);    // beyond U+10FFFF
            length = fits ? 4 : 0;
        }
        if (length == 0) {
            return at;
        }
        at += length;
    }
    return at;
}

struct text_split::compiled {
    pcre2_code* code = nullptr;

    explicit compiled(pcre2_code* owned) noexcept : code(owned) {}
    compiled(compiled const&) = delete;
    compiled& operator=(compiled const&) = delete;
    ~compiled() { pcre2_code_free(code); }
};

namespace {

std::string message_of(int number) {
    std::array<unsigned char, 256> text{};
    pcre2_get_error_message(number, text.data(), text.size());
    return reinterpret_cast<char const*>(text.data());
}

struct free_match {
    void operator()(pcre2_match_data* match) const noexcept { pcre2_match_data_free(match); }
};

} // namespace

text_split::text_split(std::string pattern, std::string where) : where_(std::move(where)) {
    int number = 0;
    std::size_t at = 0;
    // \C would end a match within a character, where the next must not begin: UTF-8 is checked once.
    pcre2_code* const code =
        pcre2_compile(reinterpret_cast<unsigned char const*>(pattern.data()), pattern.size(),
                      PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &number, &at, nullptr);
    if (code == nullptr) {
        throw error(where_, io::quoted(pattern),
                    "a regular expression (" + message_of(number) + " at byte " +
                        std::to_string(at) + ")");
    }
    expression_ = std::make_shared<compiled const>(code);
    pcre2_jit_compile(code, PCRE2_JIT_COMPLETE); // where it cannot, matching is only slower
}

void text_split::operator()(std::string_view text, std::vector<std::string_view>& pieces) const {
    std::unique_ptr<pcre2_match_data, free_match> const match(
        pcre2_match_data_create_from_pattern(expression_->code, nullptr));
    if (!match) {
        throw std::bad_alloc();
    }
    std::size_t const* const found = pcre2_get_ovector_pointer(match.get());
    while (!text.empty()) {
        // Checked once, not at every match: that would be quadratic.
        std::size_t const valid = valid_utf8_prefix(text);
        std::size_t done = 0; // bytes that are in pieces
        std::size_t from = 0; // where to look for a match
        while (from < valid) {
            auto const match_from = [&](std::uint32_t options) {
                return pcre2_match(
                    expression_->code, reinterpret_cast<unsigned char const*>(text.data()), valid,
                    from, PCRE2_NO_UTF_CHECK | PCRE2_NOTEMPTY | options, match.get(), nullptr);
            };
            int number = match_from(0);
            if (number == PCRE2_ERROR_JIT_STACKLIMIT) { // the interpreter's is on the heap
                number = match_from(PCRE2_NO_JIT);
            }
            if (number == PCRE2_ERROR_NOMATCH) {
                break;
            }
            if (number < 0) {
                throw error(where_, "too hard to match (" + message_of(number) + ")",
                            "an expression that PCRE2 can match on this text");
            }
            if (found[0] > done) {
                pieces.push_back(text.substr(done, found[0] - done));
            }
            // \K in a lookahead can set a match's start behind its end.
            std::size_t const end = std::max(found[0], found[1]);
            if (end <= std::max(found[0], done)) {
                throw error(where_, "an expression that matches nothing", "one that moves on");
            }
            pieces.push_back(text.substr(std::max(found[0], done), end - std::max(found[0], done)));
            done = from = end;
        }
        if (done < valid) {
            pieces.push_back(text.substr(done, valid - done));
        }
        std::size_t wrong = valid;
        while (wrong < text.size() && valid_utf8_prefix(text.substr(wrong, 4)) == 0) {
            ++wrong;
        }
        if (wrong > valid) {
            pieces.push_back(text.substr(valid, wrong - valid));
        }
        text.remove_prefix(wrong);
    }
}

} // namespace sofattn::lm
