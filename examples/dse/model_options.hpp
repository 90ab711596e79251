// SPDX-License-Identifier: MIT
// Which windows of a text a search for a model's budgets reads.
#pragma once

#include <sofattn/core/types.hpp>

namespace sofattn::dse {

/// What a window is for. No window is for two things: what is found is judged on tokens that nothing
/// was chosen by.
enum class part { search, settle, judge };

struct model_options {
    index_t context = 2048;      ///< tokens of a window
    index_t first = 256;         ///< tokens before are context only
    index_t search_windows = 2;  ///< heads are measured and budgets searched on these
    index_t settle_windows = 16; ///< how large the budgets are altogether is decided on these
    index_t judge_windows = 16;
    bool begins_with_bos = true;

    [[nodiscard]] index_t windows_of(part p) const noexcept {
        return p == part::search   ? search_windows
               : p == part::settle ? settle_windows
                                   : judge_windows;
    }
};

} // namespace sofattn::dse
