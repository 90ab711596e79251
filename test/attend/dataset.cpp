// SPDX-License-Identifier: MIT
#include "attend/dataset.hpp"

#include "support/generators.hpp"
#include "support/temporary_folder.hpp"
#include <sofattn/core/error.hpp>
#include <sofattn/core/half.hpp>
#include <sofattn/core/tensor.hpp>
#include <sofattn/core/view.hpp>
#include <sofattn/io/npy.hpp>

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace {

namespace attend = sofattn::attend;
namespace axis = sofattn::axis;
namespace fs = std::filesystem;
namespace io = sofattn::io;
using json = nlohmann::json;
using sofattn::half;
using sofattn::index_t;
using sofattn::tensor;
using sofattn::view;
using sofattn::test::temporary_folder;
using sofattn::test::write_bytes;

/// What sofattn::error says; anything else thrown fails the case.
template <class F>
std::string refusal(F f) {
    try {
        f();
    } catch (sofattn::error const& e) {
        return e.what();
    }
    return "accepted";
}

/// Numbers that binary16 holds exactly and that tell elements of one array apart.
float number_at(index_t i) { return static_cast<float>(i % 2000) * 0.25f - 200.0f; }

template <class T, std::size_t Rank>
void write_array(fs::path const& path, std::array<index_t, Rank> extents) {
    index_t size = 1;
    for (index_t extent : extents) {
        size *= extent;
    }
    std::vector<T> values;
    for (index_t i = 0; i < size; ++i) {
        values.push_back(static_cast<T>(number_at(i)));
    }
    if constexpr (Rank == 1) {
        io::write_npy(path, view<T const, axis::dim>(values.data(), extents));
    } else if constexpr (Rank == 2) {
        io::write_npy(path, view<T const, axis::key, axis::dim>(values.data(), extents));
    } else if constexpr (Rank == 3) {
        io::write_npy(path,
                      view<T const, axis::head, axis::key, axis::dim>(values.data(), extents));
    } else {
        io::write_npy(path, view<T const, axis::head, axis::query, axis::key, axis::dim>(
                                values.data(), extents));
    }
}

/// Changes one element of a file.
template <class T>
void poke(fs::path const& path, index_t element, T value) {
    auto const offset = static_cast<std::streamoff>(io::read_npy_header(path).data_offset) +
                        static_cast<std::streamoff>(sizeof(T)) * element;
    std::fstream stream(path, std::ios::binary | std::ios::in | std::ios::out);
    stream.seekp(offset);
    stream.write(reinterpret_cast<char const*>(&value), sizeof(T));
}

/// Three files of 4 query heads on 2 KV heads.
struct three_arrays {
    temporary_folder folder;
    fs::path q = folder / "q.npy";
    fs::path k = folder / "k.npy";
    fs::path v = folder / "v.npy";

    three_arrays() {
        write_array<half, 3>(q, {4, 6, 8});
        write_array<half, 3>(k, {2, 6, 8});
        write_array<float, 3>(v, {2, 6, 3});
    }
    [[nodiscard]] attend::dataset open(bool causal = true, double scale = 0) const {
        return attend::dataset::of_arrays(q, k, v, causal, scale);
    }
    /// What is said when the set is opened and read, without the folder's name.
    [[nodiscard]] std::string refusal_of(bool causal = true, double scale = 0) const {
        std::string message = refusal([&] { static_cast<void>(open(causal, scale).load(0)); });
        std::string const prefix = folder.path().string() + "/";
        return message.starts_with(prefix) ? message.substr(prefix.size()) : message;
    }
};

/// A folder with a decoder of two layers, numbers 3 and 1, the first with projections.
struct recorded_folder {
    temporary_folder folder;
    json manifest = json::parse(R"json({
        "model": "tiny", "causal": true, "softmax_scale": 0.5, "head_dim": 8,
        "rope_theta": 10000.0, "rope_layout": "interleaved pairs (2i, 2i+1)", "skip_tokens": 0,
        "files": [
            {"file": "tiny_L03_q.npy", "shape": [4, 6, 8], "layer": 3, "axes": "q_head,token,dim",
             "q_heads": [0, 8, 16, 24], "kv_head_of_q_head": [0, 0, 1, 1]},
            {"file": "tiny_L03_k.npy", "shape": [2, 6, 8], "layer": 3, "axes": "kv_head,token,dim"},
            {"file": "tiny_L03_v.npy", "shape": [2, 6, 4], "layer": 3, "axes": "kv_head,token,dim"},
            {"file": "tiny_L03_x.npy", "shape": [6, 5], "layer": 3, "axes": "token,channel"},
            {"file": "tiny_L03_wk.npy", "shape": [16, 5], "layer": 3, "axes": "kv_head*dim,channel"},
            {"file": "tiny_L03_wv.npy", "shape": [5, 8], "layer": 3, "axes": "channel,kv_head*dim"},
            {"file": "tiny_L03_bk.npy", "shape": [16], "layer": 3},
            {"file": "tiny_L01_q.npy", "shape": [2, 6, 8], "layer": 1},
            {"file": "tiny_L01_k.npy", "shape": [2, 6, 8], "layer": 1},
            {"file": "tiny_L01_v.npy", "shape": [2, 6, 4], "layer": 1},
            {"file": "tiny_mass.npy", "shape": [22, 32, 3]},
            {"file": "tiny_L01_logits.npy", "shape": [2], "layer": 1}
        ]})json");

    recorded_folder() {
        write_array<half, 3>(folder / "tiny_L03_q.npy", {4, 6, 8});
        write_array<half, 3>(folder / "tiny_L03_k.npy", {2, 6, 8});
        write_array<half, 3>(folder / "tiny_L03_v.npy", {2, 6, 4});
        write_array<half, 2>(folder / "tiny_L03_x.npy", {6, 5});
        write_array<half, 2>(folder / "tiny_L03_wk.npy", {16, 5});
        write_array<float, 2>(folder / "tiny_L03_wv.npy", {5, 8});
        write_array<half, 1>(folder / "tiny_L03_bk.npy", {16});
        write_array<half, 3>(folder / "tiny_L01_q.npy", {2, 6, 8});
        write_array<half, 3>(folder / "tiny_L01_k.npy", {2, 6, 8});
        write_array<half, 3>(folder / "tiny_L01_v.npy", {2, 6, 4});
        save();
    }
    void save() const { write_bytes(folder / "manifest.json", manifest.dump(1)); }
    [[nodiscard]] attend::dataset open() const { return attend::dataset::of_folder(folder.path()); }
    /// Opens and reads everything; the message without the folder's name.
    [[nodiscard]] std::string refusal_as_it_is() const {
        std::string message = refusal([&] {
            attend::dataset const set = open();
            for (std::size_t i = 0; i < set.layers().size(); ++i) {
                static_cast<void>(set.load(i, attend::parts::with_projections));
            }
        });
        std::string const prefix = folder.path().string();
        return message.starts_with(prefix) ? "DIR" + message.substr(prefix.size()) : message;
    }
    /// The same of a manifest that `edit` changed; the old one is put back.
    template <class F>
    std::string refusal_with(F edit) {
        json const before = manifest;
        edit(manifest);
        save();
        manifest = before;
        std::string message = refusal_as_it_is();
        save();
        return message;
    }
};

} // namespace

// --- three arrays --------------------------------------------------------------------------------

TEST_CASE("attend.dataset: three arrays are one layer, f16 converted exactly") {
    three_arrays const files;
    attend::dataset const set = files.open(true, 0.25);
    REQUIRE(set.layers().size() == 1);
    attend::layer_info const& info = set.layers()[0];
    CHECK(info.model == "q.npy");
    CHECK(info.layer == 0);
    CHECK(info.causal);
    CHECK(info.scale == 0.25);
    CHECK(info.heads == 4);
    CHECK(info.kv_heads == 2);
    CHECK(info.queries == 6);
    CHECK(info.keys == 6);
    CHECK(info.dim == 8);
    CHECK(info.value_dim == 3);
    CHECK_FALSE(info.has_projections());
    CHECK(info.kv_head_of_q_head == std::vector<int>{0, 0, 1, 1});
    CHECK(info.q_heads == std::vector<int>{0, 1, 2, 3});
    CHECK_FALSE(info.rope.has_value());

    attend::layer const layer = set.load(0, attend::parts::with_projections);
    CHECK_FALSE(layer.projected.has_value());
    CHECK(layer.info.heads == 4);
    CHECK(layer.q(3, 5, 7) == number_at(3 * 48 + 5 * 8 + 7));
    CHECK(layer.k(1, 2, 3) == number_at(48 + 2 * 8 + 3));
    CHECK(layer.v(1, 4, 2) == number_at(18 + 4 * 3 + 2));
}

TEST_CASE("attend.dataset: more keys than queries are fine, fewer only without a causal mask") {
    three_arrays const files;
    write_array<half, 3>(files.q, {4, 2, 8});
    CHECK(files.refusal_of(true) == "accepted");
    write_array<half, 3>(files.q, {4, 7, 8});
    CHECK(files.refusal_of(false) == "accepted");
    CHECK(files.refusal_of(true) ==
          "q.npy: number of tokens is 7, must be at most 6, as in k.npy, if causal");
}

TEST_CASE("attend.dataset: arrays that do not fit each other are errors that name the file") {
    three_arrays const files;
    auto const says = [&](fs::path const& path, std::array<index_t, 3> extents,
                          std::string const& message) {
        CAPTURE(message);
        std::string const before = sofattn::test::read_bytes(path);
        write_array<half, 3>(path, extents);
        CHECK(files.refusal_of() == message);
        write_bytes(path, before);
    };
    says(files.q, {3, 6, 8},
         "q.npy: number of heads is 3, must be a multiple of the 2 heads of "
         "k.npy");
    says(files.q, {1, 6, 8},
         "q.npy: number of heads is 1, must be a multiple of the 2 heads of "
         "k.npy");
    says(files.k, {2, 6, 7}, "k.npy: head dimension is 7, must be 8, as in q.npy");
    says(files.v, {4, 6, 3}, "v.npy: number of heads is 4, must be 2, as in k.npy");
    says(files.v, {2, 5, 3}, "v.npy: number of tokens is 5, must be 6, as in k.npy");
    says(files.q, {4, 0, 8}, "q.npy: number of tokens is 0, must be from 1 to 2147483647");
    says(files.k, {2, 0, 8}, "k.npy: number of tokens is 0, must be from 1 to 2147483647");
    says(files.q, {0, 6, 8}, "q.npy: number of heads is 0, must be from 1 to 2147483647");
    says(files.k, {0, 6, 8}, "k.npy: number of heads is 0, must be from 1 to 2147483647");
    says(files.v, {2, 6, 0}, "v.npy: head dimension is 0, must be from 1 to 256");
    says(files.q, {4, 6, 257}, "q.npy: head dimension is 257, must be from 1 to 256");
    says(files.v, {2, 6, 300}, "v.npy: head dimension is 300, must be from 1 to 256");
    CHECK(files.refusal_of() == "accepted");
}

TEST_CASE("attend.dataset: rank, dtype and file faults are errors that name the file") {
    three_arrays const files;
    write_array<half, 2>(files.q, {6, 8});
    CHECK(files.refusal_of() == "q.npy: rank is 2, must be 3, [heads, tokens, dim]");
    write_array<half, 4>(files.q, {1, 4, 6, 8});
    CHECK(files.refusal_of() == "q.npy: rank is 4, must be 3, [heads, tokens, dim]");
    write_array<std::int32_t, 3>(files.q, {4, 6, 8});
    CHECK(files.refusal_of() == "q.npy: dtype is '<i4', must be '<f4' or '<f2'");
    write_array<half, 3>(files.q, {4, 6, 8});
    fs::resize_file(files.v, fs::file_size(files.v) - 1);
    CHECK(files.refusal_of() ==
          "v.npy: data is 143 bytes, must be 144 bytes for shape (2, 6, 3) of '<f4'");
    fs::remove(files.v);
    CHECK(files.refusal_of() == "v.npy is missing, must be a readable file");
}

TEST_CASE("attend.dataset: a NaN or infinity is an error that names its position") {
    three_arrays const files;
    poke(files.k, 48 + 3 * 8 + 5, half(std::numeric_limits<float>::infinity()));
    CHECK(files.refusal_of() == "k.npy: element [1, 3, 5] is inf, must be finite");
    poke(files.q, 2 * 8, half(std::numeric_limits<float>::quiet_NaN()));
    CHECK(files.refusal_of() == "q.npy: element [0, 2, 0] is nan, must be finite");
}

TEST_CASE("attend.dataset: a softmax scale that is no scale is an error") {
    three_arrays const files;
    CHECK(files.refusal_of(true, -1) == "softmax scale is -1.000000, must be positive and finite");
    CHECK(files.refusal_of(true, std::numeric_limits<double>::infinity()) ==
          "softmax scale is inf, must be positive and finite");
}

TEST_CASE("attend.dataset: a file that changes after it was opened is an error") {
    three_arrays const files;
    attend::dataset const set = files.open();
    write_array<half, 3>(files.k, {2, 7, 8});
    CHECK(refusal([&] { static_cast<void>(set.load(0)); }) ==
          files.k.string() +
              ": shape is (2, 7, 8), must be (2, 6, 8), as it was when the run began");
    CHECK(refusal([&] { static_cast<void>(set.load(1)); }) ==
          "dataset: layer index is 1, must be less than 1");
}

// --- folders -------------------------------------------------------------------------------------

TEST_CASE("attend.dataset: a folder lists the layers of its manifest by number") {
    recorded_folder const recorded;
    attend::dataset const set = recorded.open();
    REQUIRE(set.layers().size() == 2);
    attend::layer_info const& first = set.layers()[0];
    CHECK(first.model == "tiny");
    CHECK(first.layer == 1);
    CHECK(first.causal);
    CHECK(first.scale == 0.5);
    CHECK(first.heads == 2);
    CHECK(first.kv_head_of_q_head == std::vector<int>{0, 1});
    CHECK_FALSE(first.has_projections());
    attend::layer_info const& second = set.layers()[1];
    CHECK(second.layer == 3);
    CHECK(second.kv_head_of_q_head == std::vector<int>{0, 0, 1, 1});
    CHECK(second.q_heads == std::vector<int>{0, 8, 16, 24});
    CHECK(second.channels == 5);
    REQUIRE(second.rope.has_value());
    CHECK(second.rope->layout == sofattn::dlzs::rope_layout::interleaved);
    CHECK(second.rope->theta == 10000.0);
}

TEST_CASE("attend.dataset: weights have one order whichever way round they are stored") {
    recorded_folder const recorded;
    attend::dataset const set = recorded.open();
    CHECK_FALSE(set.load(1).projected.has_value());
    CHECK_FALSE(set.load(0, attend::parts::with_projections).projected.has_value());

    attend::layer layer = set.load(1, attend::parts::with_projections);
    REQUIRE(layer.projected.has_value());
    attend::projections const p = std::move(*layer.projected); // moving must not lose the weights
    CHECK(p.x(5, 4) == number_at(5 * 5 + 4));
    CHECK_FALSE(p.wk.channel_first());
    CHECK(p.wv.channel_first());
    auto const wk = p.wk.view();
    auto const wv = p.wv.view();
    REQUIRE(wk.extents() == std::array<index_t, 3>{5, 2, 8});
    REQUIRE(wv.extents() == std::array<index_t, 3>{5, 2, 4});
    for (index_t c = 0; c < 5; ++c) {
        for (index_t h = 0; h < 2; ++h) {
            for (index_t d = 0; d < 8; ++d) {
                CHECK(wk(c, h, d) == number_at((h * 8 + d) * 5 + c));
            }
            for (index_t d = 0; d < 4; ++d) {
                CHECK(wv(c, h, d) == number_at(c * 8 + h * 4 + d));
            }
        }
    }
    CHECK(p.bk(1, 3) == number_at(11));
    CHECK(p.bk.view().size() == 16);
    CHECK(p.bv.view().size() == 0);
    REQUIRE(p.rotation.has_value());
    CHECK(p.rotation->dim() == 8);

    attend::projections const copy = p; // neither must copying
    CHECK(copy.wk.view()(4, 1, 7) == p.wk.view()(4, 1, 7));
    CHECK(copy.wk.view().data() != p.wk.view().data());
}

TEST_CASE("attend.dataset: without axes the shape of the weights decides, if it can") {
    recorded_folder recorded;
    CHECK(recorded.refusal_with([](json& m) {
        m["files"][4].erase("axes");
        m["files"][5].erase("axes");
    }) == "accepted");

    // 16 channels: Wk is square, Wv is not.
    write_array<half, 2>(recorded.folder / "tiny_L03_x.npy", {6, 16});
    write_array<half, 2>(recorded.folder / "tiny_L03_wk.npy", {16, 16});
    write_array<half, 2>(recorded.folder / "tiny_L03_wv.npy", {16, 8});
    recorded.manifest["files"][3]["shape"] = {6, 16};
    recorded.manifest["files"][4]["shape"] = {16, 16};
    recorded.manifest["files"][5]["shape"] = {16, 8};
    CHECK(recorded.refusal_with([](json&) {}) == "accepted");
    CHECK(recorded.refusal_with([](json& m) { m["files"][4].erase("axes"); }) ==
          "DIR/manifest.json: files[4].axes is missing, must be \"channel,...\" ([in, out]) or "
          "\"...,channel\" ([out, in]), as a square matrix does not tell");
    for (bool const channel_first : {false, true}) {
        recorded.manifest["files"][4]["axes"] =
            channel_first ? "channel,head*dim" : "head*dim,channel";
        recorded.save();
        auto const layer = recorded.open().load(1, attend::parts::with_projections);
        CHECK(layer.projected->wk.view()(3, 1, 2) ==
              number_at(channel_first ? 3 * 16 + 10 : 10 * 16 + 3));
    }
}

TEST_CASE("attend.dataset: every manifest of a folder is a model, in the order of names") {
    recorded_folder const recorded;
    json other = json::parse(R"json({"model": "other", "causal": false, "files": [
        {"file": "sub/q.npy", "shape": [2, 3, 4], "layer": 0, "axes": "head,token,dim"},
        {"file": "sub/k.npy", "shape": [1, 3, 4], "layer": 0},
        {"file": "sub/v.npy", "shape": [1, 3, 4], "layer": 0}]})json");
    fs::create_directory(recorded.folder / "sub");
    write_array<float, 3>(recorded.folder / "sub/q.npy", {2, 3, 4});
    write_array<float, 3>(recorded.folder / "sub/k.npy", {1, 3, 4});
    write_array<float, 3>(recorded.folder / "sub/v.npy", {1, 3, 4});
    write_bytes(recorded.folder / "manifest_other.json", other.dump());
    write_bytes(recorded.folder / "notes.json", "not a manifest");
    attend::dataset const set = recorded.open();
    REQUIRE(set.layers().size() == 3);
    CHECK(set.layers()[0].model == "tiny");
    CHECK(set.layers()[2].model == "other");
    CHECK_FALSE(set.layers()[2].causal);
    CHECK(set.layers()[2].scale == 0);
    CHECK_FALSE(set.layers()[2].rope.has_value());
    CHECK(set.load(2).q(1, 2, 3) == number_at(12 + 11));
}

TEST_CASE("attend.dataset: opening and loading read no more than they need") {
    recorded_folder const recorded;
    float const nan = std::numeric_limits<float>::quiet_NaN();
    poke(recorded.folder / "tiny_L03_wv.npy", 9, nan);
    poke(recorded.folder / "tiny_L03_bk.npy", 5, half(nan));
    attend::dataset const set = recorded.open();
    CHECK(refusal([&] { static_cast<void>(set.load(1)); }) == "accepted");
    CHECK(refusal([&] { static_cast<void>(set.load(1, attend::parts::with_projections)); }) ==
          (recorded.folder / "tiny_L03_wv.npy").string() +
              ": element [1, 1] is nan, must be finite");
    poke(recorded.folder / "tiny_L03_wv.npy", 9, 0.0f);
    CHECK(refusal([&] { static_cast<void>(set.load(1, attend::parts::with_projections)); }) ==
          (recorded.folder / "tiny_L03_bk.npy").string() + ": element [5] is nan, must be finite");
}

TEST_CASE("attend.dataset: a folder without manifest, or no folder, is an error") {
    temporary_folder const folder;
    CHECK(refusal([&] { static_cast<void>(attend::dataset::of_folder(folder.path())); }) ==
          folder.path().string() + ": manifest*.json is missing, must be at least one file");
    fs::path const absent = folder / "absent";
    CHECK(refusal([&] { static_cast<void>(attend::dataset::of_folder(absent)); }) ==
          absent.string() + " is missing, must be a folder with manifest*.json");
    write_bytes(absent, "");
    CHECK(refusal([&] { static_cast<void>(attend::dataset::of_folder(absent)); }) ==
          absent.string() + " is not a folder, must be a folder with manifest*.json");
    fs::create_directory(folder / "manifest.json");
    CHECK(refusal([&] { static_cast<void>(attend::dataset::of_folder(folder.path())); }) ==
          (folder / "manifest.json").string() + " is a folder, must be a regular file");
}

TEST_CASE("attend.dataset: a manifest that is no JSON is an error with line and column") {
    recorded_folder const recorded;
    auto const refusal_of = [&](std::string const& text) {
        write_bytes(recorded.folder / "manifest.json", text);
        return recorded.refusal_as_it_is();
    };
    CHECK(refusal_of("{\n  \"model\": \"m\",\n  causal: true\n}") ==
          "DIR/manifest.json: line 3, column 3 is \"causal: true\\x0a}\", must be valid JSON "
          "(syntax error while parsing object key - invalid literal; last read: '\"m\",<U+000A>  "
          "c'; expected string literal)");
    CHECK(refusal_of("").starts_with(
        "DIR/manifest.json: line 1, column 1 is the end of the file, must be valid JSON ("));
    CHECK(refusal_of("{\n\"model\": \"m\"\n")
              .starts_with("DIR/manifest.json: line 3, column 1 is the end of the file, must be "
                           "valid JSON ("));
    CHECK(
        refusal_of("{\"model\": \"\xff\xfe\"}")
            .starts_with(
                "DIR/manifest.json: line 1, column 12 is \"\\xff\\xfe\"}\", must be valid JSON ("));
    CHECK(refusal_of("{\"model\": 1e999}") ==
          "DIR/manifest.json: content is not valid (number overflow parsing '1e999'), must be "
          "valid JSON");
    CHECK(refusal_of("[1]") == "DIR/manifest.json: document is an array, must be an object");
    CHECK(refusal_of("null") == "DIR/manifest.json: document is null, must be an object");
    CHECK(refusal_of(std::string(2'000'000, '[')).starts_with("DIR/manifest.json: line 1, column"));
    fs::resize_file(recorded.folder / "manifest.json", (16u << 20) + 1);
    CHECK(recorded.refusal_as_it_is() ==
          "DIR/manifest.json: size is 16777217 bytes, must be at most 16777216 bytes");
}

TEST_CASE("attend.dataset: a manifest with a wrong field is an error that names the field") {
    recorded_folder recorded;
    auto const says = [&](auto edit, std::string const& message) {
        CHECK(recorded.refusal_with(edit) == "DIR/manifest.json: " + message);
    };
    says([](json& m) { m.erase("model"); }, "model is missing, must be a string");
    says([](json& m) { m["model"] = 7; }, "model is 7, must be a string");
    says([](json& m) { m.erase("causal"); }, "causal is missing, must be true or false");
    says([](json& m) { m["causal"] = "yes\n"; }, "causal is \"yes\\n\", must be true or false");
    says([](json& m) { m["causal"] = std::string(100, 'y'); },
         "causal is \"" + std::string(59, 'y') + "..., must be true or false");
    says([](json& m) { m["softmax_scale"] = 0; }, "softmax_scale is 0, must be a positive number");
    says([](json& m) { m["softmax_scale"] = "1"; },
         "softmax_scale is \"1\", must be a positive number");
    says([](json& m) { m.erase("files"); }, "files is missing, must be an array");
    says([](json& m) { m["files"] = json::object(); }, "files is an object, must be an array");
    says([](json& m) { m["files"] = json::array(); },
         "files is without any layer, must be of at least one layer");
    says([](json& m) { m["files"][1] = "k"; }, "files[1] is \"k\", must be an object");
    says([](json& m) { m["files"][1].erase("file"); },
         "files[1].file is missing, must be the name of a file in the folder");
    says([](json& m) { m["files"][1]["file"] = nullptr; }, "files[1].file is null, must be a "
                                                           "string");
    says([](json& m) { m["files"][1]["file"] = "../k.npy"; },
         "files[1].file is \"../k.npy\", must be a relative path inside the folder");
    says([](json& m) { m["files"][1]["file"] = "/k.npy"; },
         "files[1].file is \"/k.npy\", must be a relative path inside the folder");
    says([](json& m) { m["files"][1]["layer"] = 1; },
         "files[8].file is \"tiny_L01_k.npy\", must be the only k of its layer, which "
         "tiny_L03_k.npy is already");
    says([](json& m) { m["files"][1]["layer"] = -3; },
         "files[1].layer is -3, must be an integer from 0 to 2147483647");
    says([](json& m) { m["files"][1]["layer"] = 3.5; },
         "files[1].layer is 3.5, must be an integer from 0 to 2147483647");
    says([](json& m) { m["files"][1].erase("shape"); },
         "files[1].shape is missing, must be an array");
    says([](json& m) { m["files"][1]["shape"][2] = -8; },
         "files[1].shape[2] is -8, must be an integer from 0 to 9223372036854775807");
    says([](json& m) { m["files"].erase(1); }, "layer 3: k is missing, must be listed");
    says([](json& m) { m["files"][1]["axes"] = "kv_head,dim,token"; },
         "files[1].axes is \"kv_head,dim,token\", must be \"...head,token,dim\"");
    says([](json& m) { m["files"][3]["axes"] = "channel,token"; },
         "files[3].axes is \"channel,token\", must be \"token,channel\"");
    says([](json& m) { m["files"][4]["axes"] = "in,out"; },
         "files[4].axes is \"in,out\", must be \"channel,...\" ([in, out]) or \"...,channel\" "
         "([out, in])");
    says([](json& m) { m["head_dim"] = 16; },
         "head_dim is 16, must be 8, as the arrays of layer 1 have");
    says([](json& m) { m.erase("rope_theta"); },
         "rope_theta is missing, must be given, as rope_layout is");
    says([](json& m) { m.erase("rope_layout"); },
         "rope_layout is missing, must be given, as rope_theta is");
    says([](json& m) { m["rope_layout"] = "spiral"; },
         "rope_layout is \"spiral\", must be \"interleaved...\" or \"halves...\"");
    says([](json& m) { m["rope_theta"] = 1; }, "rope_theta is 1, must be greater than 1");
    says([](json& m) { m["skip_tokens"] = 4; },
         "skip_tokens is 4, must be 0, as RoPE positions start at the first token");
    says(
        [](json& m) {
            m["files"][0]["q_heads"] = {1, 2};
        },
        "files[0].q_heads: length is 2, must be 4, the heads as in tiny_L03_q.npy");
    says(
        [](json& m) {
            m["files"][0]["kv_head_of_q_head"] = {0, 1, 0, 1};
        },
        "files[0].kv_head_of_q_head[1] is 1, must be 0: neighbours share a KV head, h / (heads / "
        "KV heads)");
    says([](json& m) { m["files"].erase(3); },
         "layer 3: x is missing, must be listed, as tiny_L03_wk.npy is");
    says([](json& m) { m["files"].erase(5); },
         "layer 3: wv is missing, must be listed, as tiny_L03_x.npy is");
    CHECK(recorded.refusal_with([](json& m) { m["rope_layout"] = "halves (i, i + d/2)"; }) ==
          "accepted");
}

TEST_CASE("attend.dataset: files that deny their manifest are errors that name the file") {
    recorded_folder recorded;
    auto const rewritten = [&](auto write, std::string const& message) {
        recorded_folder other;
        write(other);
        CHECK(other.refusal_as_it_is() == "DIR/" + message);
    };
    CHECK(recorded.refusal_with([](json& m) {
        m["files"][1]["shape"] = {2, 6, 9};
    }) == "DIR/tiny_L03_k.npy: shape is (2, 6, 8), must be (2, 6, 9), as manifest.json lists");
    rewritten([](auto& r) { fs::remove(r.folder / "tiny_L03_x.npy"); },
              "tiny_L03_x.npy is missing, must be a readable file");
    auto const reshaped = [&](std::size_t entry, std::string const& file, auto extents,
                              std::string const& message) {
        rewritten(
            [&](recorded_folder& r) {
                write_array<half>(r.folder / file, extents);
                r.manifest["files"][entry]["shape"] = extents;
                r.save();
            },
            file + ": " + message);
    };
    reshaped(3, "tiny_L03_x.npy", std::array<index_t, 2>{7, 5},
             "number of tokens is 7, must be 6, as in tiny_L03_k.npy");
    reshaped(3, "tiny_L03_x.npy", std::array<index_t, 2>{6, 0},
             "number of channels is 0, must be at least 1");
    reshaped(3, "tiny_L03_x.npy", std::array<index_t, 1>{6},
             "rank is 1, must be 2, [tokens, channels]");
    reshaped(4, "tiny_L03_wk.npy", std::array<index_t, 2>{5, 16},
             "shape is (5, 16), must be (16, 5) for 5 channels and 16 = KV heads * head dimension "
             "outputs");
    reshaped(5, "tiny_L03_wv.npy", std::array<index_t, 2>{5, 16},
             "shape is (5, 16), must be (5, 8) for 5 channels and 8 = KV heads * head dimension "
             "outputs");
    reshaped(4, "tiny_L03_wk.npy", std::array<index_t, 1>{16},
             "rank is 1, must be 2, [in, out] or [out, in]");
    reshaped(6, "tiny_L03_bk.npy", std::array<index_t, 1>{8},
             "shape is (8,), must be (16,) = KV heads * head dimension");
}

TEST_CASE("attend.dataset: thousands of damaged manifests open or are refused in one line") {
    SOFATTN_GENERATOR(random);
    recorded_folder const recorded;
    std::string const valid = recorded.manifest.dump();
    std::vector<std::string> const pieces{
        "{",       "}",  "[",     "]",          "\"",        ",",    ":",
        "-1",      "0",  "1e400", "3.5",        "null",      "true", "99999999999999999999",
        "\\u0000", "\n", "\xff",  "\"layer\":", "\"file\":", "../",  "head",
        "channel", "\\"};
    std::string const name = (recorded.folder / "manifest.json").string();
    int opened = 0;
    int refused = 0;
    for (int round = 0; round < 2000; ++round) {
        std::string bytes = valid;
        int const changes = random.integer(1, 2);
        for (int change = 0; change < changes; ++change) {
            std::string const& piece = pieces[random.integer<std::size_t>(0, pieces.size() - 1)];
            std::size_t const at = random.integer<std::size_t>(0, bytes.size() - 1);
            switch (random.integer(0, 4)) {
            case 0: bytes[at] = static_cast<char>(random.integer(0, 255)); break;
            case 1: bytes.insert(at, piece); break;
            case 2: bytes.erase(at, random.integer<std::size_t>(1, 20)); break;
            case 3: bytes.replace(at, piece.size(), piece); break;
            default: // a digit
                for (std::size_t i = at; i < bytes.size(); ++i) {
                    if (bytes[i] >= '0' && bytes[i] <= '9') {
                        bytes[i] = static_cast<char>('0' + random.integer(0, 9));
                        break;
                    }
                }
            }
        }
        write_bytes(name, bytes);
        try {
            attend::dataset const set = recorded.open();
            for (std::size_t i = 0; i < set.layers().size(); ++i) {
                static_cast<void>(set.load(i, attend::parts::with_projections));
            }
            ++opened;
        } catch (sofattn::error const& e) {
            ++refused;
            std::string_view const message = e.what();
            bool const one_line = std::none_of(message.begin(), message.end(), [](char c) {
                return static_cast<unsigned char>(c) < 0x20;
            });
            if (!one_line || !message.starts_with(recorded.folder.path().string()) ||
                message.size() > 1000) {
                FAIL("message: ", message);
            }
        }
    }
    CHECK(opened > 100);
    CHECK(refused > 500);
}

// --- the recorded set ----------------------------------------------------------------------------

namespace {

/// Largest difference of rows made from X and those recorded, over the recorded rows' size.
template <class Dim>
double distance(attend::projections const& p, attend::projection_weights<Dim> const& weights,
                tensor<float, axis::kv_head, Dim> const& bias,
                view<float const, axis::kv_head, axis::key, Dim> recorded, bool rotated) {
    auto const w = weights.view();
    double difference = 0;
    double size = 0;
    for (index_t head = 0; head < w.template extent<axis::kv_head>(); ++head) {
        for (index_t key = 0; key < recorded.template extent<axis::key>(); key += 97) {
            std::vector<float> row;
            for (index_t d = 0; d < w.template extent<Dim>(); ++d) {
                double sum = bias.view().size() > 0 ? static_cast<double>(bias(head, d)) : 0.0;
                for (index_t c = 0; c < w.template extent<axis::channel>(); ++c) {
                    sum += static_cast<double>(p.x(key, c)) * static_cast<double>(w(c, head, d));
                }
                row.push_back(static_cast<float>(sum));
            }
            if (rotated && p.rotation) {
                (*p.rotation)(row, key);
            }
            for (index_t d = 0; d < w.template extent<Dim>(); ++d) {
                auto const there = static_cast<double>(recorded(head, key, d));
                auto const here = static_cast<double>(row[static_cast<std::size_t>(d)]);
                difference = std::max(difference, std::abs(here - there));
                size = std::max(size, std::abs(there));
            }
        }
    }
    return difference / size;
}

} // namespace

TEST_CASE("attend.dataset: every layer of the recorded set loads, and X, Wk, Wv give its K and V") {
    fs::path const folder = fs::path(SOFATTN_DATA_DIR) / "qkv";
    if (std::string_view(SOFATTN_DATA_DIR).empty() || !fs::exists(folder)) {
        MESSAGE("skipped: no recorded data");
        return;
    }
    attend::dataset const set = attend::dataset::of_folder(folder);
    std::vector<int> numbers;
    int with_projections = 0;
    for (std::size_t i = 0; i < set.layers().size(); ++i) {
        attend::layer_info const& info = set.layers()[i];
        CAPTURE(info.model);
        CAPTURE(info.layer);
        numbers.push_back(info.layer);
        bool const decoder = i < 5;
        CHECK(info.causal == decoder);
        CHECK(info.heads == (decoder ? 8 : 12));
        CHECK(info.kv_heads == (decoder ? 4 : 12));
        CHECK(info.keys == (decoder ? 2048 : 512));
        CHECK(info.dim == (decoder ? 64 : 32));
        CHECK(info.scale == (decoder ? 0.125 : 0.0));
        CHECK(info.q_heads[3] == (decoder ? 12 : 3));
        CHECK(info.rope.has_value() == decoder);
        attend::layer const layer = set.load(i, attend::parts::with_projections);
        CHECK(layer.q.extent<axis::query>() == info.queries);
        CHECK(layer.projected.has_value() == info.has_projections());
        if (layer.projected) {
            ++with_projections;
            attend::projections const& p = *layer.projected;
            CHECK(p.wk.channel_first() == !decoder);
            CHECK(p.bk.view().size() == (decoder ? 0 : 384));
            // All were rounded to binary16, 2^-11 each, and products of hundreds of pairs add up.
            CHECK(distance(p, p.wk, p.bk, layer.k.view(), true) < 2e-3);
            CHECK(distance(p, p.wv, p.bv, layer.v.view(), false) < 2e-3);
        }
    }
    CHECK(numbers == std::vector<int>{0, 5, 11, 16, 21, 1, 5, 9});
    CHECK(with_projections == 5);
}
