// SPDX-License-Identifier: MIT
#include "lm/model_folder.hpp"

#include "lm/json_input.hpp"
#include <sofattn/core/error.hpp>
#include <sofattn/io/file.hpp>
#include <sofattn/io/npy.hpp>

#include <cstdint>
#include <string>

namespace sofattn::lm {

model_folder::model_folder(std::filesystem::path const& folder)
    : model(folder), text(tokenizer::read(folder)) {
    if (text.size() > model.config().vocabulary) {
        throw error(
            io::shown(folder / "tokenizer.json") + ": largest id", std::to_string(text.size() - 1),
            "below vocab_size of config.json, " + std::to_string(model.config().vocabulary));
    }
}

std::vector<token_id> model_folder::tokens_of(std::filesystem::path const& file) const {
    if (file.extension() == ".npy") {
        auto const array = io::read_npy(file);
        if (array.shape().size() != 1) {
            throw error(array.name() + ": shape", io::shape_text(array.shape()),
                        "that of a list of tokens");
        }
        auto const ids = array.values<std::int32_t>();
        return {ids.begin(), ids.end()};
    }
    constexpr std::uintmax_t most_bytes = 1 << 30;
    return text.encode(read_text(file, most_bytes));
}

} // namespace sofattn::lm
