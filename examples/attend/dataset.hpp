// SPDX-License-Identifier: MIT
// What sofattn-attend runs on: three arrays, or a folder of recorded layers with manifest*.json.
#pragma once

#include <sofattn/core/tensor.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/core/view.hpp>
#include <sofattn/dlzs/rope.hpp>

#include <array>
#include <cstddef>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace sofattn::attend {

/// How the recorded K was rotated.
struct rope_parameters {
    dlzs::rope_layout layout = dlzs::rope_layout::interleaved;
    double theta = 10000.0;
};

/// What is known of a layer before its numbers are read. All counts are at least 1, but `channels`.
struct layer_info {
    std::string model;   ///< the manifest's "model", or the file name of Q
    int layer = 0;       ///< number in the model
    bool causal = false; ///< the last query stands at the last key
    double scale = 0;    ///< logits = scale * q.k; 0: 1 / sqrt(dim)
    index_t heads = 0;   ///< query heads
    index_t kv_heads = 0;
    index_t queries = 0;   ///< query tokens; at most `keys` if causal
    index_t keys = 0;      ///< key tokens
    index_t dim = 0;       ///< of queries and keys, up to 256
    index_t value_dim = 0; ///< of values, up to 256
    index_t channels = 0;  ///< of X; 0: the layer has no X, Wk and Wv
    /// [heads]: h / (heads / kv_heads), the only grouping that is accepted.
    std::vector<int> kv_head_of_q_head;
    /// [heads]: which heads of the model were recorded, the manifest's "q_heads"; else 0, 1, ...
    std::vector<int> q_heads;
    std::optional<rope_parameters> rope; ///< nothing: K is not rotated, or it is not known how

    [[nodiscard]] bool has_projections() const noexcept { return channels > 0; }
};

namespace detail {

/// A file of a layer, as its header describes it.
struct array_file {
    std::filesystem::path path; ///< empty: the layer has no such file
    std::vector<index_t> shape;
    std::string entry;         ///< where it is listed, for messages; empty: given directly
    std::string axes;          ///< the manifest's word on the order of the extents; may be empty
    bool channel_first = true; ///< of weights
};
/// By part: q, k, v, x, wk, wv, bk, bv.
using layer_files = std::array<array_file, 8>;

struct stored_row {};
struct stored_column {};
/// Weights as the file holds them.
using stored_weights = tensor<float, stored_row, stored_column>;

} // namespace detail

/// A projection's weights, whichever way round the file holds them. `Dim` is axis::dim for K and
/// axis::value_dim for V.
template <class Dim>
class projection_weights {
public:
    projection_weights() noexcept = default;
    /// stored  [channel, kv_head * Dim] if channel_first, else [kv_head * Dim, channel]
    projection_weights(detail::stored_weights stored, bool channel_first, index_t kv_heads)
        : stored_(std::move(stored)), channel_first_(channel_first), kv_heads_(kv_heads) {}

    /// True for y = x W ([in, out]), false for y = x W^T ([out, in]).
    [[nodiscard]] bool channel_first() const noexcept { return channel_first_; }

    /// [channel, kv_head, Dim] in either case; valid as long as this object.
    [[nodiscard]] sofattn::view<float const, axis::channel, axis::kv_head, Dim>
    view() const noexcept {
        auto const stored = stored_.view();
        auto const [rows, columns] = stored.extents();
        auto const [row_step, column_step] = stored.strides();
        index_t const channels = channel_first_ ? rows : columns;
        index_t const channel_step = channel_first_ ? row_step : column_step;
        index_t const dims = (channel_first_ ? columns : rows) / kv_heads_;
        index_t const step = channel_first_ ? column_step : row_step;
        return {stored.data(), {channels, kv_heads_, dims}, {channel_step, dims * step, step}};
    }

private:
    detail::stored_weights stored_;
    bool channel_first_ = true;
    index_t kv_heads_ = 1;
};

/// Where a layer's K and V come from: K = rotation(X Wk + bk), V = X Wv + bv.
struct projections {
    tensor<float, axis::key, axis::channel> x;
    projection_weights<axis::dim> wk;
    projection_weights<axis::value_dim> wv;
    tensor<float, axis::kv_head, axis::dim> bk;       ///< extents 0: none
    tensor<float, axis::kv_head, axis::value_dim> bv; ///< extents 0: none
    std::optional<dlzs::rope> rotation;               ///< token i has position i
};

/// A layer in memory; every number is finite, f16 files are converted exactly.
struct layer {
    layer_info info;
    tensor<float, axis::head, axis::query, axis::dim> q;
    tensor<float, axis::kv_head, axis::key, axis::dim> k;
    tensor<float, axis::kv_head, axis::key, axis::value_dim> v;
    std::optional<projections> projected;
};

/// How much of a layer to read.
enum class parts {
    qkv,             ///< Q, K and V
    with_projections ///< also X, Wk, Wv, bk and bv, where the layer has them
};

/// The layers of one run. Opening reads manifests and file headers only, so that every fault but
/// NaN and infinity is told before anything is computed; numbers are read layer by layer.
class dataset {
public:
    /// Three .npy files, '<f4' or '<f2' in C order; query head h reads KV head
    /// h / (heads / kv_heads).
    ///
    /// in     q      [heads, queries, dim]
    ///        k      [kv_heads, keys, dim]
    ///        v      [kv_heads, keys, value_dim]
    ///        scale  logits = scale * q.k; 0: 1 / sqrt(dim)
    /// error  whatever io::read_npy_header refuses, another dtype, rank not 3, an empty axis, dim
    ///        over 256, heads no multiple of kv_heads, arrays that do not fit each other, causal
    ///        with fewer keys than queries, scale negative or not finite
    [[nodiscard]] static dataset of_arrays(std::filesystem::path const& q,
                                           std::filesystem::path const& k,
                                           std::filesystem::path const& v, bool causal,
                                           double scale = 0);

    /// Every manifest*.json of the folder is one model; they come in the order of their names, a
    /// model's layers in the order of their numbers. A file's part is told by the end of its name
    /// (NAME_q.npy or q.npy; q, k, v, x, wk, wv, bk, bv); entries without a "layer" or with another
    /// ending are not ours. Weights are [in, out] if their "axes" start with "channel," and
    /// [out, in] if they end with ",channel"; without "axes" the shape decides, unless it is square.
    ///
    /// error  no folder, no manifest, a manifest that is no JSON (line and column) or lacks a field
    ///        (where), a listed file that is missing or has another shape, and all of of_arrays
    [[nodiscard]] static dataset of_folder(std::filesystem::path const& folder);

    [[nodiscard]] std::span<layer_info const> layers() const noexcept { return infos_; }

    /// Reads layer `index` of layers().
    /// error  no such layer; a file that changed since it was opened; NaN or infinity (where)
    [[nodiscard]] layer load(std::size_t index, parts wanted = parts::qkv) const;

private:
    std::vector<layer_info> infos_;
    std::vector<detail::layer_files> files_; ///< of each layer
};

} // namespace sofattn::attend
