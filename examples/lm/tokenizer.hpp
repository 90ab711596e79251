// SPDX-License-Identifier: MIT
// Text to token ids and back: byte-level BPE as in tokenizer.json of Hugging Face's tokenizers.
#pragma once

#include "lm/text_split.hpp"
#include <sofattn/core/types.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace sofattn::lm {

using token_id = std::int32_t;

/// Byte-pair encoding over bytes: every text of any bytes has ids, and they give it back.
///
/// Text is cut at added tokens (leftmost, then longest), then by the pre-tokenizer's expressions;
/// within a piece, the pair with the best merge is joined, the leftmost of equals, until no merge is
/// left. What the post-processor adds (a first token) is left to the caller.
class tokenizer {
public:
    /// Reads the text of a tokenizer.json.
    ///
    /// in     text   JSON
    ///        name   the file's, for messages
    /// error  no JSON object; a model other than BPE over bytes; a vocabulary without one of the 256
    ///        bytes, with an id twice or out of range; merges of what is no token; a normaliser,
    ///        pre-tokenizer, decoder, truncation or padding that this program does not do, by name
    [[nodiscard]] static tokenizer parse(std::string_view text, std::string const& name);

    /// FOLDER/tokenizer.json.
    /// error  as parse and io::input_file
    [[nodiscard]] static tokenizer read(std::filesystem::path const& folder);

    /// Any bytes.
    /// error  text that NFC might change, where the file asks for NFC: this program only sees that
    ///        ASCII, Latin, and the usual Chinese, Japanese and Korean characters stay as they are
    [[nodiscard]] std::vector<token_id> encode(std::string_view text) const;

    /// The bytes of a token, none for an id that has none; streaming appends them.
    [[nodiscard]] std::string_view bytes_of(token_id id) const noexcept;
    /// The same of many, joined.
    [[nodiscard]] std::string decode(std::span<token_id const> ids) const;

    /// Ids are below this.
    [[nodiscard]] index_t size() const noexcept { return std::ssize(bytes_); }

private:
    friend class tokenizer_reader;

    struct merge {
        std::int32_t rank = 0; ///< lowest first
        token_id joined = 0;
    };
    struct pair_hash {
        std::size_t operator()(std::pair<token_id, token_id> const& p) const noexcept {
            auto const both =
                (static_cast<std::uint64_t>(static_cast<std::uint32_t>(p.first)) << 32) |
                static_cast<std::uint32_t>(p.second);
            return static_cast<std::size_t>((both * 0x9e3779b97f4a7c15u) >> 16);
        }
    };
    struct added_token {
        std::string content;
        token_id id = 0;
    };

    tokenizer() = default;
    [[nodiscard]] added_token const* added_at(std::string_view text) const noexcept;
    void encode_plain(std::string_view text, std::vector<token_id>& ids) const;
    void encode_piece(std::string_view piece, std::vector<token_id>& ids) const;

    std::string name_;                              ///< of the file, for messages
    std::vector<std::string> bytes_;                ///< [id]
    std::vector<token_id> of_byte_;                 ///< [256]
    std::unordered_map<std::string, token_id> ids_; ///< by bytes; filled where whole pieces count
    std::unordered_map<std::pair<token_id, token_id>, merge, pair_hash> merges_;
    std::vector<added_token> added_;       ///< longest first
    std::array<bool, 256> begins_added_{}; ///< [byte]
    std::vector<text_split> splits_;
    bool adds_space_ = false; ///< before text that does not begin with one
    bool wants_nfc_ = false;
};

} // namespace sofattn::lm
