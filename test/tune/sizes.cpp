// SPDX-License-Identifier: MIT
// The file of sizes: what was measured comes back, and nothing else is believed.
#include "tune/sizes.hpp"

#include "support/temporary_folder.hpp"
#include "support/tool.hpp"
#include <sofattn/core/error.hpp>

#include <doctest/doctest.h>

#include <cstdlib>
#include <filesystem>
#include <functional>
#include <initializer_list>
#include <iterator>
#include <optional>
#include <string>
#include <utility>

using namespace sofattn;
using namespace sofattn::test;
using namespace sofattn::tune;

namespace {

machine some_machine() { return {"Some processor, model 1", "512-bit registers", "1.2.3", 128, 2}; }

tuned_sizes some_sizes() {
    tuned_sizes all{some_machine(), {}, {}};
    all.found.f32 = {240, 576};
    all.found.int8 = {96, 1536};
    all.found.decode = {2048};
    all.kernels.push_back({"dense_f32", false, {0.95, 0.94, 0.96, 31}, {1, 0.99, 1.01, 6}, 40});
    all.kernels.push_back({"dense_int8", true, {}, {}, 3}); // too few pairs for an interval
    return all;
}

/// A change to the file's JSON, and what the refusal must hold.
struct spoilt {
    std::function<void(tune::json&)> change;
    std::string message;
};

} // namespace

TEST_CASE("tune.sizes: what is written is read, and the file is JSON without infinities") {
    temporary_folder const folder;
    auto const file = folder / "a" / "b" / "tiles.json";
    CHECK_FALSE(read_sizes(file, some_machine()));
    make_folder_of(file);
    CHECK_FALSE(std::filesystem::exists(file));
    write_sizes(file, some_sizes());
    auto const back = read_sizes(file, some_machine());
    REQUIRE(back);
    CHECK(back->found == some_sizes().found);
    CHECK(back->of == some_machine());
    auto const raw = test::json::parse(read_bytes(file));
    CHECK(raw["tiles"]["dense_f32"]["keys"] == 240);
    CHECK(raw["measured"]["dense_f32"]["time_over_default"]["highest"] == 0.96);
    CHECK_FALSE(raw["measured"]["dense_int8"]["time_over_default"].contains("highest"));
    CHECK(std::distance(std::filesystem::directory_iterator(file.parent_path()), {}) == 1);
}

TEST_CASE(
    "tune.sizes: another processor's, another library's or broken files are refused by name") {
    temporary_folder const folder;
    auto const file = folder / "tiles.json";
    std::string const again = ", as here; --again measures anew and replaces the file";
    auto const of = [](char const* name, tune::json value) {
        return [name, value = std::move(value)](tune::json& j) { j[name] = value; };
    };
    auto const tile = [](char const* kernel, char const* name, tune::json value) {
        return [kernel, name, value = std::move(value)](tune::json& j) {
            j["tiles"][kernel][name] = value;
        };
    };
    std::initializer_list<spoilt> const all{
        {of("format", "sofattn-budgets-1"),
         "format is \"sofattn-budgets-1\", must be sofattn-tiles-1"},
        {of("processor", "Other"),
         "processor is \"Other\", must be \"Some processor, model 1\"" + again},
        {of("instructions", "128-bit registers"),
         "instructions is \"128-bit registers\", must be \"512-bit registers\"" + again},
        {of("library", "1.2.2"), "library is \"1.2.2\", must be \"1.2.3\"" + again},
        {of("dim", 64), "dim is 64, must be 128" + again},
        {of("threads", 16), "threads is 16, must be 2" + again},
        {[](tune::json& j) { j.erase("processor"); }, "processor is missing"},
        {[](tune::json& j) { j.erase("tiles"); }, "tiles is missing"},
        {of("tiles", 3), "tiles.dense_f32 is missing"},
        {[](tune::json& j) { j["tiles"].erase("dense_decode"); }, "tiles.dense_decode is missing"},
        {tile("dense_f32", "keys", 200),
         "tiles.dense_f32 is 200 keys, 576 rows, must be keys from 48"},
        {tile("dense_f32", "rows", 0), "tiles.dense_f32 is 240 keys, 0 rows"},
        {tile("dense_f32", "rows", 96.5), "tiles.dense_f32.rows is 96.5, must be a whole number"},
        {tile("dense_f32", "rows", "many"), "tiles.dense_f32.rows is \"many\""},
        {tile("dense_decode", "keys_least", 100), "tiles.dense_decode.keys_least is 100"},
    };
    for (spoilt const& one : all) {
        tune::json object = to_json(some_sizes());
        one.change(object);
        std::string const text = object.dump();
        write_bytes(file, text);
        CAPTURE(one.message);
        CHECK_THROWS_WITH_AS(static_cast<void>(read_sizes(file, some_machine())),
                             doctest::Contains((file.string() + ": " + one.message).c_str()),
                             error);
        CHECK(read_bytes(file) == text);
    }
    for (char const* const text :
         {"", "{", "[1, 2", "\xff\xfe", "nonsense", "{\"format\": 1e999}"}) {
        write_bytes(file, text);
        CHECK_THROWS_WITH_AS(static_cast<void>(read_sizes(file, some_machine())),
                             doctest::Contains("valid JSON"), error);
    }
    write_bytes(file, "[]");
    CHECK_THROWS_WITH_AS(static_cast<void>(read_sizes(file, some_machine())),
                         doctest::Contains("format is missing"), error);
}

TEST_CASE("tune.sizes: a file that cannot be written is known at once, and the old one stays") {
    temporary_folder const folder;
    auto const file = folder / "tiles.json";
    write_sizes(file, some_sizes());
    auto const before = read_bytes(file);
    // Nothing is there under the name until all of it is.
    make_folder_of(file);
    CHECK(read_bytes(file) == before);
    write_bytes(folder / "plain", "x");
    CHECK_THROWS_AS(make_folder_of(folder / "plain" / "tiles.json"), error);
    std::filesystem::create_directory(folder / "folder");
    CHECK_THROWS_WITH_AS(make_folder_of(folder / "folder"), doctest::Contains("is a folder"),
                         error);
    CHECK_THROWS_AS(write_sizes(folder / "none" / "tiles.json", some_sizes()), error);
}

TEST_CASE("tune.sizes: the usual file is in the user's cache") {
    auto const kept = [](char const* name) {
        char const* const value = std::getenv(name);
        return value == nullptr ? std::optional<std::string>() : std::string(value);
    };
    auto const cache = kept("XDG_CACHE_HOME");
    auto const home = kept("HOME");
    setenv("XDG_CACHE_HOME", "/x/cache", 1);
    setenv("HOME", "/x/home", 1);
    CHECK(default_file() == "/x/cache/sofattn/tiles.json");
    setenv("XDG_CACHE_HOME", "not/absolute", 1);
    CHECK(default_file() == "/x/home/.cache/sofattn/tiles.json");
    unsetenv("XDG_CACHE_HOME");
    CHECK(default_file() == "/x/home/.cache/sofattn/tiles.json");
    unsetenv("HOME");
    CHECK_THROWS_WITH_AS(static_cast<void>(default_file()), doctest::Contains("--out"), error);
    auto const restore = [](char const* name, std::optional<std::string> const& value) {
        if (value) {
            setenv(name, value->c_str(), 1);
        } else {
            unsetenv(name);
        }
    };
    restore("XDG_CACHE_HOME", cache);
    restore("HOME", home);
}

TEST_CASE("tune.sizes: this machine is told from another") {
    machine const here = this_machine(64, 3);
    CHECK(here.dim == 64);
    CHECK(here.threads == 3);
    CHECK_FALSE(here.processor.empty());
    CHECK(here.instructions.find("-bit registers") != std::string::npos);
    CHECK(here.library.find('.') != std::string::npos);
    CHECK(here == this_machine(64, 3));
    CHECK_FALSE(here == this_machine(128, 3));
}
