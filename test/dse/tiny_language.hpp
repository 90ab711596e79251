// SPDX-License-Identifier: MIT
// What tests of sofattn-dse model search.
#pragma once

#include "lm/tiny_model.hpp"
#include "support/tool.hpp"

#include <string>

namespace sofattn::test {

/// A model and a text of a few windows, and the command that searches them.
struct tiny_language {
    tiny_model model;
    std::string text = (model.folder / "text.txt").string();

    tiny_language() {
        generator random;
        std::string letters;
        for (int i = 0; i < 700; ++i) {
            letters += static_cast<char>('a' + random.integer(0, 25));
        }
        write_bytes(text, letters);
    }
    [[nodiscard]] std::string file(char const* name) const {
        return (model.folder / name).string();
    }
    [[nodiscard]] words search(words const& more, char const* kl = "0.02",
                               char const* judge_windows = "2") const {
        return words{"model", model.folder.path().string(), text, "--quiet", "--kl", kl} +
               words{"--context", "96", "--first", "48", "--search-windows", "1"} +
               words{"--settle-windows", "2", "--judge-windows", judge_windows} +
               words{"--evaluations", "12", "--batch", "2"} + more;
    }
};

} // namespace sofattn::test
