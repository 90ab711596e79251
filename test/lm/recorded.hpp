// SPDX-License-Identifier: MIT
// The small trained model beside the checkout, if it is there.
#pragma once

#include <doctest/doctest.h>

#include <filesystem>

namespace sofattn::test {

/// The model's folder, or an empty path after a message.
inline std::filesystem::path small_model() {
    std::filesystem::path const folder =
        std::filesystem::path(SOFATTN_DATA_DIR) / "models" / "minimind2-small";
    if (SOFATTN_DATA_DIR[0] == '\0' || !std::filesystem::exists(folder / "config.json")) {
        MESSAGE("skipped: models/minimind2-small is not in SOFATTN_DATA_DIR");
        return {};
    }
    return folder;
}

} // namespace sofattn::test
