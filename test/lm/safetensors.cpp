// SPDX-License-Identifier: MIT
#include "lm/safetensors.hpp"

#include "lm/folders.hpp"
#include "support/generators.hpp"
#include "support/temporary_folder.hpp"
#include <sofattn/core/element.hpp>
#include <sofattn/core/error.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

using namespace sofattn;
using namespace sofattn::test;

namespace {

/// The bytes where a file would be mapped: on a boundary of its own.
struct mapped_text {
    std::vector<double> words;
    std::size_t size;

    explicit mapped_text(std::string const& text)
        : words(text.size() / sizeof(double) + 1), size(text.size()) {
        std::copy(text.begin(), text.end(), reinterpret_cast<char*>(words.data()));
    }
    [[nodiscard]] std::span<std::byte const> bytes() const {
        return std::as_bytes(std::span(words)).first(size);
    }
};

lm::tensor_map parsed(mapped_text const& file) { return lm::parse_safetensors(file.bytes(), "f"); }

/// Is refused, with all these parts in the message.
void refuses(std::string const& text, std::vector<std::string> const& parts) {
    mapped_text const file(text);
    CAPTURE(text);
    try {
        static_cast<void>(parsed(file));
        FAIL("was read");
    } catch (error const& e) {
        std::string const message = e.what();
        CAPTURE(message);
        CHECK(message.starts_with("f: "));
        CHECK(message.find('\n') == std::string::npos);
        for (auto const& part : parts) {
            CAPTURE(part);
            CHECK(message.find(part) != std::string::npos);
        }
    }
}
void refuses_header(std::string const& header, std::size_t data_bytes,
                    std::vector<std::string> const& parts) {
    refuses(safetensors_bytes(header, std::string(data_bytes, '\0')), parts);
}

std::vector<written_tensor> random_tensors(generator& random) {
    struct dtype {
        char const* name;
        index_t bytes;
    };
    static constexpr dtype dtypes[] = {{"F32", 4}, {"F16", 2}, {"BF16", 2}, {"I64", 8}, {"U8", 1}};
    std::vector<written_tensor> tensors;
    for (index_t t = random.integer(0, 6); t > 0; --t) {
        auto const& type = dtypes[random.integer(0, 4)];
        written_tensor tensor{"t" + std::to_string(t), type.name, {}, {}};
        index_t count = type.bytes;
        for (index_t r = random.integer(0, 3); r > 0; --r) {
            tensor.shape.push_back(random.integer<index_t>(0, 5));
            count *= tensor.shape.back();
        }
        for (index_t b = 0; b < count; ++b) {
            tensor.bytes += static_cast<char>(random.integer(0, 255));
        }
        tensors.push_back(tensor);
    }
    return tensors;
}

} // namespace

TEST_CASE("lm.safetensors: what was written is read, in place") {
    SOFATTN_GENERATOR(random);
    for (int round = 0; round < 300; ++round) {
        auto const written = random_tensors(random);
        mapped_text const file(safetensors_bytes(written));
        auto const read = parsed(file);
        REQUIRE(read.size() == written.size());
        for (auto const& w : written) {
            auto const& r = read.at(w.name);
            CHECK(r.dtype == w.dtype);
            CHECK(r.shape == w.shape);
            REQUIRE(r.bytes.size() == w.bytes.size());
            CHECK(std::equal(w.bytes.begin(), w.bytes.end(),
                             reinterpret_cast<char const*>(r.bytes.data())));
            CHECK((r.bytes.empty() || (r.bytes.data() >= file.bytes().data() &&
                                       r.bytes.data() < file.bytes().data() + file.size)));
        }
    }
}

TEST_CASE("lm.safetensors: numbers of the three float types; others and other shapes are refused") {
    mapped_text const file(safetensors_bytes(
        {{"a", "F32", {2, 1}, bytes_of<float>({1.5f, -2.0f})},
         {"b", "F16", {2}, bytes_of<half>({half(0.25f), half(-8.0f)})},
         {"c", "BF16", {1, 2}, bytes_of<bfloat16>({bfloat16(3.0f), bfloat16(0.5f)})},
         {"d", "I64", {}, std::string(8, '\1')}}));
    auto const tensors = parsed(file);
    auto const floats = [](lm::stored_numbers const& n) {
        return std::visit(
            [](auto const& numbers) {
                std::vector<float> all;
                for (auto const x : numbers) {
                    all.push_back(to_float(x));
                }
                return all;
            },
            n);
    };
    CHECK(floats(tensors.at("a").numbers({2, 1})) == std::vector{1.5f, -2.0f});
    CHECK(floats(tensors.at("b").numbers({2})) == std::vector{0.25f, -8.0f});
    CHECK(floats(tensors.at("c").numbers()) == std::vector{3.0f, 0.5f});
    CHECK_THROWS_WITH_AS(static_cast<void>(tensors.at("d").numbers()),
                         "f: tensor \"d\": dtype is I64, must be F32, F16 or BF16", error);
    CHECK_THROWS_WITH_AS(static_cast<void>(tensors.at("a").numbers({1, 2})),
                         "f: tensor \"a\": shape is (2, 1), must be (1, 2)", error);
}

TEST_CASE("lm.safetensors: numbers in places where the type may not lie are refused") {
    std::string const header = R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                               R"("b":{"dtype":"F32","shape":[1],"data_offsets":[1,5]}})";
    mapped_text const file(safetensors_bytes(header, std::string(5, '\0')));
    auto const tensors = parsed(file);
    CHECK_THROWS_AS(static_cast<void>(tensors.at("b").numbers()), error);
}

TEST_CASE("lm.safetensors: every fault of a header has its error") {
    refuses("", {"size is 0 bytes", "at least 8"});
    refuses("1234567", {"size is 7 bytes"});
    refuses(std::string(8, '\xff'), {"header is 18446744073709551615 bytes", "at most 100000000"});
    refuses(std::string("\x10\0\0\0\0\0\0\0{}", 10), {"header is 16 bytes", "at most the 2"});
    refuses_header("", 0, {"not JSON"});
    refuses_header("{", 0, {"not JSON"});
    refuses_header("[]", 0, {"JSON array", "JSON object"});
    refuses_header("{\"\xff\": 1}", 0, {"not JSON"});
    refuses_header(std::string(100000, '['), 0, {"not JSON"});
    refuses_header(R"({"a": -1e999})", 0, {"a number that no double holds"});
    refuses_header(R"({"a": 1, "a": 2})", 0, {"key \"a\"", "there twice"});
    refuses_header(R"({"a": 1})", 0, {"tensor \"a\" is 1", "an object"});
    refuses_header(R"({"__metadata__": 1})", 0, {"__metadata__ is 1"});
    refuses_header(R"({"__metadata__": {"a": 1}})", 0, {"__metadata__", "object of strings"});

    auto const tensor = [](std::string const& fields, std::size_t data,
                           std::vector<std::string> const& parts) {
        refuses_header("{\"a\": {" + fields + "}}", data, parts);
    };
    tensor(R"("shape": [1], "data_offsets": [0, 4])", 4, {"dtype is missing"});
    tensor(R"("dtype": 3, "shape": [1], "data_offsets": [0, 4])", 4, {"dtype is 3", "a string"});
    tensor(R"("dtype": "F33", "shape": [1], "data_offsets": [0, 4])", 4,
           {"dtype is \"F33\"", "one of the format's"});
    tensor(R"("dtype": "F32", "data_offsets": [0, 4])", 4, {"shape is missing"});
    tensor(R"("dtype": "F32", "shape": 1, "data_offsets": [0, 4])", 4, {"shape is 1", "an array"});
    tensor(R"("dtype": "F32", "shape": [-1], "data_offsets": [0, 4])", 4, {"shape is -1"});
    tensor(R"("dtype": "F32", "shape": [1.5], "data_offsets": [0, 4])", 4, {"shape is 1.5"});
    tensor(R"("dtype": "F32", "shape": [1])", 4, {"data_offsets is missing"});
    tensor(R"("dtype": "F32", "shape": [1], "data_offsets": [0])", 4, {"data_offsets is array"});
    tensor(R"("dtype": "F32", "shape": [1], "data_offsets": [0, 8])", 4,
           {"data_offsets[1] is 8", "from 0 to 4"});
    tensor(R"("dtype": "F32", "shape": [1], "data_offsets": [4, 0])", 4,
           {"data_offsets[1] is 0", "from 4 to 4"});
    tensor(R"("dtype": "F32", "shape": [1], "data_offsets": [-1, 3])", 4,
           {"data_offsets[0] is -1"});
    tensor(R"("dtype": "F32", "shape": [1], "data_offsets": [0, 18446744073709551615])", 4,
           {"data_offsets[1]"});
    tensor(R"("dtype": "F32", "shape": [2], "data_offsets": [0, 4])", 4,
           {"for 4 bytes", "for 8 of F32 (2,)"});
    tensor(R"("dtype": "F32", "shape": [4294967296, 4294967296], "data_offsets": [0, 4])", 4,
           {"for 4 bytes", "overflow"});
    tensor(R"("dtype": "F32", "shape": [1], "data_offsets": [0, 4], "more": 1)", 4,
           {"fields is 4", "3"});

    auto const two = [](std::string const& first, std::string const& second, std::size_t data,
                        std::vector<std::string> const& parts) {
        std::string const head = R"("dtype": "U8", "shape": [4], "data_offsets": )";
        refuses_header("{\"a\": {" + head + first + "}, \"b\": {" + head + second + "}}", data,
                       parts);
    };
    two("[0, 4]", "[2, 6]", 6, {"tensor \"b\": first byte is 2", "4 (they overlap)"});
    two("[0, 4]", "[0, 4]", 4, {"first byte is 0", "4 (they overlap)"});
    two("[0, 4]", "[5, 9]", 9, {"tensor \"b\": first byte is 5", "4 (there is a gap)"});
    two("[1, 5]", "[5, 9]", 9, {"tensor \"a\": first byte is 1", "0 (there is a gap)"});
    two("[0, 4]", "[4, 8]", 9, {"end of the last tensor is 8", "9"});
}

TEST_CASE("lm.safetensors: broken files are refused or read, and nothing else happens") {
    SOFATTN_GENERATOR(random);
    for (int round = 0; round < 3000; ++round) {
        std::string text = safetensors_bytes(random_tensors(random));
        for (index_t n = random.integer(1, 4); n > 0; --n) {
            auto const at = random.integer<std::size_t>(0, text.size() - 1);
            switch (random.integer(0, 3)) {
            case 0: text[at] = static_cast<char>(random.integer(0, 255)); break;
            case 1: text[at] = "0123456789{}[],:\""[random.integer(0, 16)]; break;
            case 2: text.resize(std::max<std::size_t>(at, 1)); break;
            default: text.insert(at, 1, text[at]); break;
            }
        }
        mapped_text const file(text);
        try {
            for (auto const& [name, tensor] : parsed(file)) {
                // What is accepted lies in the file.
                CHECK((tensor.bytes.empty() || (tensor.bytes.data() >= file.bytes().data() &&
                                                tensor.bytes.data() + tensor.bytes.size() <=
                                                    file.bytes().data() + file.size)));
            }
        } catch (error const& e) {
            CHECK(std::string_view(e.what()).starts_with("f: "));
        }
    }
}

TEST_CASE("lm.weight_files: one file, or the shards of an index") {
    temporary_folder const folder;
    written_tensor const a{"a", "F32", {1}, bytes_of<float>({1.0f})};
    written_tensor const b{"b", "F32", {1}, bytes_of<float>({2.0f})};
    auto const says = [&](std::vector<std::string> const& parts) {
        try {
            lm::weight_files const files(folder.path());
            FAIL("was read");
        } catch (error const& e) {
            std::string const message = e.what();
            CAPTURE(message);
            for (auto const& part : parts) {
                CAPTURE(part);
                CHECK(message.find(part) != std::string::npos);
            }
        }
    };
    auto const first = [](lm::stored_tensor const& t) {
        return std::get<std::span<float const>>(t.numbers())[0];
    };
    says({"model.safetensors", "missing"});

    auto const index = folder / "model.safetensors.index.json";
    write_bytes(folder / "1.safetensors", safetensors_bytes({a}));
    write_bytes(folder / "2.safetensors", safetensors_bytes({b}));
    write_bytes(index, R"({"weight_map": {"a": "1.safetensors", "b": "2.safetensors"}})");
    {
        lm::weight_files const files(folder.path());
        CHECK(files.all().size() == 2);
        CHECK(first(files.at("a")) == 1.0f);
        CHECK(first(files.at("b")) == 2.0f);
        CHECK(files.has("a"));
        CHECK_FALSE(files.has("c"));
        CHECK_THROWS_AS(static_cast<void>(files.at("c")), error);
    }
    write_bytes(index, "{}");
    says({"weight_map", "missing"});
    write_bytes(index, R"({"weight_map": []})");
    says({"weight_map", "an object"});
    write_bytes(index, R"({"weight_map": {"a": "../1.safetensors"}})");
    says({"weight_map[\"a\"]", "../1.safetensors", "file in this folder"});
    write_bytes(index, R"({"weight_map": {"a": 1}})");
    says({"weight_map[\"a\"]", "1", "file in this folder"});
    write_bytes(index, R"({"weight_map": {"a": "3.safetensors"}})");
    says({"3.safetensors", "missing"});
    write_bytes(index, R"({"weight_map": {"a": ".."}})");
    says({"a folder"});
    write_bytes(index, R"({"weight_map": {"a": "2.safetensors"}})");
    says({"2.safetensors: tensor \"a\" is missing", "index.json says"});
    write_bytes(index, R"({"weight_map": {"b": "2.safetensors", "a": "2.safetensors"}})");
    says({"2.safetensors: tensor \"a\" is missing"});
    write_bytes(folder / "2.safetensors", safetensors_bytes({a, b}));
    write_bytes(index, R"({"weight_map": {"a": "1.safetensors", "b": "2.safetensors"}})");
    says({"2.safetensors: tensor \"a\" is there", "listed"});

    write_bytes(folder / "model.safetensors", safetensors_bytes({b}));
    CHECK(first(lm::weight_files(folder.path()).at("b")) == 2.0f); // one file goes first
    write_bytes(folder / "model.safetensors", "");
    says({"size is 0 bytes"});
}
