// SPDX-License-Identifier: MIT
#include "lm/tokenizer.hpp"

#include <sofattn/core/error.hpp>

#include <algorithm>
#include <array>
#include <cstdio>
#include <functional>
#include <queue>

namespace sofattn::lm {

namespace {

struct code_points {
    std::uint32_t first;
    std::uint32_t last;
};
/// Neither changed by NFC nor joined with a neighbour by it (NFC_Quick_Check = Yes, combining class
/// 0 in Unicode's tables): a conservative choice of what is common.
constexpr std::array<code_points, 10> stable_under_nfc{{{0x0000, 0x02ff},
                                                        {0x0400, 0x0482},
                                                        {0x2010, 0x2027},
                                                        {0x2030, 0x205e},
                                                        {0x20a0, 0x20c0},
                                                        {0x3000, 0x3029},
                                                        {0x3041, 0x3096},
                                                        {0x30a0, 0x30ff},
                                                        {0x4e00, 0x9fff},
                                                        {0xac00, 0xd7a3}}};

/// The code point at `at` of valid UTF-8, and how many bytes it takes.
std::pair<std::uint32_t, std::size_t> code_point(std::string_view text, std::size_t at) {
    auto const byte = [&](std::size_t i) { return static_cast<std::uint8_t>(text[at + i]); };
    std::uint32_t const first = byte(0);
    if (first < 0x80) {
        return {first, 1};
    }
    std::size_t const length = first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
    std::uint32_t value = first & (0x7fu >> length);
    for (std::size_t i = 1; i < length; ++i) {
        value = (value << 6) | (byte(i) & 0x3fu);
    }
    return {value, length};
}

void require_nfc(std::string_view text, std::string const& name) {
    while (!text.empty()) {
        std::size_t const valid = valid_utf8_prefix(text);
        for (std::size_t at = 0; at < valid;) {
            auto const [value, length] = code_point(text, at);
            bool const is_stable =
                std::ranges::any_of(stable_under_nfc, [v = value](code_points const& range) {
                    return v >= range.first && v <= range.last;
                });
            if (!is_stable) {
                std::array<char, 16> shown{};
                std::snprintf(shown.data(), shown.size(), "U+%04X", static_cast<unsigned>(value));
                throw error(name + ": normalizer NFC: text with " + shown.data(), "there",
                            "left out: this program cannot bring it into NFC");
            }
            at += length;
        }
        text.remove_prefix(std::min(text.size(), valid + 1));
    }
}

} // namespace

std::string_view tokenizer::bytes_of(token_id id) const noexcept {
    return id >= 0 && id < size() ? std::string_view(bytes_[static_cast<std::size_t>(id)])
                                  : std::string_view();
}

std::string tokenizer::decode(std::span<token_id const> ids) const {
    std::string text;
    for (token_id const id : ids) {
        text += bytes_of(id);
    }
    return text;
}

std::vector<token_id> tokenizer::encode(std::string_view text) const {
    std::vector<token_id> ids;
    std::size_t from = 0;
    for (std::size_t at = 0; at < text.size();) {
        if (added_token const* const added = added_at(text.substr(at))) {
            encode_plain(text.substr(from, at - from), ids);
            ids.push_back(added->id);
            from = at += added->content.size();
        } else {
            ++at;
        }
    }
    encode_plain(text.substr(from), ids);
    return ids;
}

tokenizer::added_token const* tokenizer::added_at(std::string_view text) const noexcept {
    if (!begins_added_[static_cast<std::uint8_t>(text.front())]) {
        return nullptr;
    }
    auto const found = std::ranges::find_if(
        added_, [&](added_token const& a) { return text.starts_with(a.content); });
    return found == added_.end() ? nullptr : &*found;
}

void tokenizer::encode_plain(std::string_view text, std::vector<token_id>& ids) const {
    if (text.empty()) {
        return;
    }
    if (wants_nfc_) {
        require_nfc(text, name_);
    }
    std::string spaced;
    if (adds_space_ && text.front() != ' ') {
        spaced = ' ';
        spaced += text;
        text = spaced;
    }
    std::vector<std::string_view> pieces{text};
    for (text_split const& split : splits_) {
        std::vector<std::string_view> finer;
        for (std::string_view const piece : pieces) {
            split(piece, finer);
        }
        pieces = std::move(finer);
    }
    for (std::string_view const piece : pieces) {
        encode_piece(piece, ids);
    }
}

void tokenizer::encode_piece(std::string_view piece, std::vector<token_id>& ids) const {
    if (!ids_.empty()) {
        if (auto const whole = ids_.find(std::string(piece)); whole != ids_.end()) {
            ids.push_back(whole->second);
            return;
        }
    }
    // A list of parts, of which merges take out the right one of a pair.
    constexpr auto none = static_cast<std::size_t>(-1);
    struct part {
        token_id id;
        std::size_t before;
        std::size_t after;
    };
    std::vector<part> parts;
    parts.reserve(piece.size());
    for (std::size_t i = 0; i < piece.size(); ++i) {
        parts.push_back({of_byte_[static_cast<std::uint8_t>(piece[i])], i == 0 ? none : i - 1,
                         i + 1 == piece.size() ? none : i + 1});
    }
    // Best merge first, the leftmost of equals. What a later merge has changed is passed over.
    struct candidate {
        std::int32_t rank;
        std::size_t at;
        token_id left;
        token_id right;

        bool operator>(candidate const& other) const noexcept {
            return rank != other.rank ? rank > other.rank : at > other.at;
        }
    };
    std::priority_queue<candidate, std::vector<candidate>, std::greater<>> queue;
    auto const offer = [&](std::size_t at) {
        if (at == none || parts[at].after == none) {
            return;
        }
        token_id const left = parts[at].id;
        token_id const right = parts[parts[at].after].id;
        if (auto const found = merges_.find({left, right}); found != merges_.end()) {
            queue.push({found->second.rank, at, left, right});
        }
    };
    constexpr token_id taken = -1;
    for (std::size_t i = 0; i < parts.size(); ++i) {
        offer(i);
    }
    while (!queue.empty()) {
        candidate const best = queue.top();
        queue.pop();
        part& left = parts[best.at];
        if (left.id != best.left || left.after == none || parts[left.after].id != best.right) {
            continue;
        }
        part& right = parts[left.after];
        left.id = merges_.at({best.left, best.right}).joined;
        right.id = taken;
        left.after = right.after;
        if (left.after != none) {
            parts[left.after].before = best.at;
        }
        offer(left.before);
        offer(best.at);
    }
    for (part const& p : parts) {
        if (p.id != taken) {
            ids.push_back(p.id);
        }
    }
}

} // namespace sofattn::lm
