// SPDX-License-Identifier: MIT
// Cuts text into the pieces within which a tokenizer merges.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace sofattn::lm {

/// Bytes of the longest prefix of `text` that is UTF-8; all of it if it is valid.
[[nodiscard]] std::size_t valid_utf8_prefix(std::string_view text) noexcept;

/// Cuts text so that every match of a regular expression is a piece, and whatever lies between two
/// matches. Bytes that are no UTF-8 match nothing.
///
/// The expressions of tokenizer files are meant for Oniguruma; PCRE2 reads those of GPT-2, Llama 3
/// and Qwen2 alike, with Unicode's properties.
class text_split {
public:
    /// `where` names file and field, for messages.
    /// error  no regular expression
    text_split(std::string pattern, std::string where);

    /// Appends the pieces, in order; together they are the text.
    /// error  the expression would need more steps than PCRE2's limit
    void operator()(std::string_view text, std::vector<std::string_view>& pieces) const;

private:
    struct compiled; ///< keeps PCRE2's header out of this one
    std::string where_;
    std::shared_ptr<compiled const> expression_;
};

} // namespace sofattn::lm
