// SPDX-License-Identifier: MIT
// Layers of trained models: the sample that lies in the repository, and more where they are.
#pragma once

#include "support/sanitized.hpp"
#include <sofattn/attention/problem.hpp>
#include <sofattn/core/tensor.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/io/npy.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

namespace sofattn::test {

/// One layer; its last queries, so that a causal row sees many keys.
struct recorded_layer {
    std::string name;
    bool is_causal = false;
    tensor<float, axis::head, axis::query, axis::dim> q{};
    tensor<float, axis::kv_head, axis::key, axis::dim> k{};
    tensor<float, axis::kv_head, axis::key, axis::value_dim> v{};
    index_t queries = 0;

    [[nodiscard]] problem<float> given() const {
        index_t const all = q.cview().template extent<axis::query>();
        return {q.view().template range<axis::query>(all - queries, queries), k.view(), v.view(),
                is_causal};
    }
};

/// Folder and name of a layer: NAME_q.npy, NAME_k.npy, NAME_v.npy.
struct recorded_name {
    std::filesystem::path folder;
    std::string name;
    bool is_causal = false;

    [[nodiscard]] std::filesystem::path part(std::string const& which) const {
        return folder / (name + "_" + which + ".npy");
    }
    /// At most so many queries.
    [[nodiscard]] recorded_layer read(index_t most_queries) const {
        recorded_layer layer{name, is_causal};
        layer.q = io::read_npy(part("q")).to_tensor<axis::head, axis::query, axis::dim>();
        layer.k = io::read_npy(part("k")).to_tensor<axis::kv_head, axis::key, axis::dim>();
        layer.v = io::read_npy(part("v")).to_tensor<axis::kv_head, axis::key, axis::value_dim>();
        layer.queries = std::min(most_queries, layer.q.cview().template extent<axis::query>());
        return layer;
    }
};

/// gte-small is an encoder, TinyLlama causal with two query heads per KV head.
[[nodiscard]] inline std::vector<recorded_name> sample_layers() {
    std::filesystem::path const folder = SOFATTN_SOURCE_DIR "/examples/data";
    return {{folder, "gtesmall_L05", false}, {folder, "tinyllama_L16", true}};
}

/// The folder of recorded layers beside the checkout, or an empty path after a message.
[[nodiscard]] inline std::filesystem::path recorded_folder() {
    std::filesystem::path const folder = std::filesystem::path(SOFATTN_DATA_DIR) / "qkv";
    if (SOFATTN_DATA_DIR[0] == '\0' || !std::filesystem::exists(folder / "manifest.json")) {
        MESSAGE("skipped: qkv is not in SOFATTN_DATA_DIR");
        return {};
    }
    return folder;
}

/// The sample, and of the recorded layers some that differ: TinyLlama's first attends diffusely. Sanitizers
/// find nothing more in them than in the sample's smaller layer, in ten minutes.
[[nodiscard]] inline std::vector<recorded_name> recorded_layers() {
    std::vector<recorded_name> layers = sample_layers();
    if (is_sanitized) {
        return {layers.front()};
    }
    if (auto const folder = recorded_folder(); !folder.empty()) {
        layers.push_back({folder, "gtesmall_L01", false});
        layers.push_back({folder, "tinyllama_L00", true});
        layers.push_back({folder, "tinyllama_L05", true});
    }
    return layers;
}

} // namespace sofattn::test
