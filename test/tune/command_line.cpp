// SPDX-License-Identifier: MIT
// sofattn-tune as its users run it.
#include "support/tool.hpp"

#include <doctest/doctest.h>

#include <filesystem>
#include <string>

using namespace sofattn::test;

namespace {

/// Small heads, and nothing tried but the defaults.
words quick(std::string const& file, words const& more = {}) {
    return words{"--out", file, "--dim", "8", "--threads", "2", "--evaluations", "1", "--quiet"} +
           more;
}

} // namespace

TEST_CASE("tune: sizes are measured once, then read, and measured again if asked") {
    temporary_folder const folder;
    std::string const file = (folder / "cache" / "tiles.json").string();
    outcome const first = accepted(quick(file));
    CHECK(holds(first.out, "written to " + file));
    CHECK(holds(first.out, "Nothing is faster than the defaults beyond noise: they stay."));
    auto const bytes = read_bytes(file);
    CHECK(json::parse(bytes)["tiles"]["dense_f32"]["keys"] == 192);
    CHECK(json::parse(bytes)["tiles"]["dense_int8"]["rows"] == 768);
    CHECK(json::parse(bytes)["tiles"]["dense_decode"]["keys_least"] == 1024);
    CHECK(json::parse(bytes)["measured"]["dense_f32"]["evaluations_count"] == 1);

    outcome const second = accepted(quick(file));
    CHECK(holds(second.out, "from " + file));
    CHECK_FALSE(holds(second.out, "written"));
    CHECK(read_bytes(file) == bytes);

    refused(folder, words{"--out", file, "--dim", "16", "--threads", "2"},
            {file, "dim is 8", "must be 16", "--again"});
    write_bytes(file, "{");
    refused(folder, quick(file), {file, "valid JSON"});
    CHECK(read_bytes(file) == "{");
    CHECK(holds(accepted(quick(file, {"--again"})).out, "written to"));
    CHECK(json::parse(read_bytes(file))["dim"] == 8);
}

TEST_CASE("tune: bad input is refused in one line") {
    temporary_folder const folder;
    std::string const file = (folder / "tiles.json").string();
    refused(folder, quick(file, {"--seconds", "0"}), {"--seconds"});
    refused(folder, words{"--dim", "257", "--out", file}, {"--dim"});
    refused(folder, words{"--out", folder.path().string()}, {"folder", "regular file"});
    refused(folder, words{"--out", "/proc/none/tiles.json"}, {"/proc/none"});
    CHECK(holds(accepted({"--help"}).out, "--again"));
}
