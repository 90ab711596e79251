// SPDX-License-Identifier: MIT
// A model folder's two halves, decoder and tokenizer, and texts as its tokens.
#pragma once

#include "lm/decoder.hpp"
#include "lm/tokenizer.hpp"

#include <filesystem>
#include <vector>

namespace sofattn::lm {

struct model_folder {
    decoder model;
    tokenizer text;

    /// error  as decoder and tokenizer::read; a tokenizer of more tokens than the model has
    explicit model_folder(std::filesystem::path const& folder);

    /// Tokens of a text file, or the ids of an int32 array [tokens] in a .npy file.
    /// error  a file that cannot be read; an array of another shape or type
    [[nodiscard]] std::vector<token_id> tokens_of(std::filesystem::path const& file) const;
};

} // namespace sofattn::lm
