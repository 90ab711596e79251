// SPDX-License-Identifier: MIT
// One causal head of a trained model to measure on: TinyLlama, 2048 tokens, d = 64, from the folder
// of recorded data that CMake knows (SOFATTN_DATA_DIR); longer and wider ones are put together.
#pragma once

#include "support/head.hpp"
#include <sofattn/core/error.hpp>
#include <sofattn/core/tensor.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/dlzs/rope.hpp>
#include <sofattn/io/npy.hpp>

#include <array>
#include <cmath>
#include <cstddef>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace sofattn::bench {

/// Layers of which Q, K and V lie there and whose heads are sparse.
inline constexpr std::array recorded_layers{5, 11, 16, 21};

/// Why there are no recorded heads; empty if there are.
[[nodiscard]] inline std::string recorded_is_missing() {
    if (std::string_view(SOFATTN_DATA_DIR).empty()) {
        return "skipped: no recorded data (CMake variable SOFATTN_DATA_DIR is empty)";
    }
    auto const folder = std::filesystem::path(SOFATTN_DATA_DIR) / "qkv";
    return exists(folder / "manifest.json")
               ? std::string()
               : "skipped: no recorded data in " + folder.string() + " (SOFATTN_DATA_DIR)";
}

namespace detail {

/// How rows of a recording turn to where their copies stand, in a model whose RoPE was stretched to
/// so many copies without training: theta grows by copies^(d / (d - 2)), so that the slowest pair
/// turns as far over the long sequence as it did over the recording, and the fastest as before
/// ("NTK-aware"). Copies that kept their positions would let queries meet keys from behind, and
/// positions that merely went on would show the model angles it never saw: either way rows attend
/// to far more keys (bench/RESULTS.md).
class stretched_rope {
public:
    stretched_rope(index_t dim, index_t copies)
        : recorded_(dim, dlzs::rope_layout::interleaved, theta),
          stretched_(dim, dlzs::rope_layout::interleaved,
                     theta * std::pow(static_cast<double>(copies),
                                      static_cast<double>(dim) / static_cast<double>(dim - 2))) {}

    void operator()(std::vector<float>& row, index_t recorded, index_t position) const {
        recorded_(row, -recorded);
        stretched_(row, position);
    }

private:
    static constexpr double theta = 10000.0; // TinyLlama's
    dlzs::rope recorded_;
    dlzs::rope stretched_;
};

/// Columns first, first + 1, ... of `to` from head `h` of `from`, whose rows are repeated.
template <class Tensor>
void repeat(Tensor const& from, index_t h, bool rotated, index_t first, Tensor& to) {
    index_t const rows = from.cview().extents()[1];
    index_t const dim = from.cview().extents()[2];
    index_t const tokens = to.cview().extents()[1];
    stretched_rope const turn(dim, ceil_div(tokens, rows));
    std::vector<float> row(static_cast<std::size_t>(dim));
    for (index_t t = 0; t < tokens; ++t) {
        for (index_t d = 0; d < dim; ++d) {
            row[static_cast<std::size_t>(d)] = from(h, t % rows, d);
        }
        if (rotated && tokens > rows) {
            turn(row, t % rows, t);
        }
        for (index_t d = 0; d < dim; ++d) {
            to(0, t, first + d) = row[static_cast<std::size_t>(d)];
        }
    }
}

} // namespace detail

/// The first tokens of a recorded head, or the recording over and over, with queries and keys
/// rotated to their places (stretched_rope). `dim` is 64 or, with two heads side by side (q =
/// [qa, qb] and so on), 128: logits are then both heads' sum at the scale 1 / sqrt(128), which is as
/// widely spread as one head's if the two have nothing to do with each other.
///
/// Throws `error` for files that are not as expected.
[[nodiscard]] inline head recorded_head(int layer, index_t tokens, index_t dim) {
    constexpr index_t recorded_dim = 64;
    constexpr std::array<index_t, 2> heads{0, 4}; // chosen blindly, but for their KV heads 0 and 2
    constexpr index_t group = 2;
    auto const folder = std::filesystem::path(SOFATTN_DATA_DIR) / "qkv";
    auto const read = [&](char const* part) {
        std::string const number = std::to_string(layer);
        return io::read_npy(folder / ("tinyllama_L" + std::string(number.size() < 2 ? "0" : "") +
                                      number + "_" + part + ".npy"));
    };
    auto const q = read("q").to_tensor<axis::head, axis::query, axis::dim>();
    auto const k = read("k").to_tensor<axis::kv_head, axis::key, axis::dim>();
    auto const v = read("v").to_tensor<axis::kv_head, axis::key, axis::value_dim>();
    std::array<index_t, 3> const of_q{8, k.cview().extents()[1], recorded_dim};
    std::array<index_t, 3> const of_k{4, of_q[1], recorded_dim};
    if (q.cview().extents() != of_q || k.cview().extents() != of_k || v.cview().extents() != of_k) {
        throw error("recorded layer " + std::to_string(layer) + ": shape of Q",
                    io::shape_text(q.cview().extents()),
                    io::shape_text(of_q) + ", and of K and V " + io::shape_text(of_k));
    }
    if (dim != recorded_dim && dim != 2 * recorded_dim) {
        throw error("recorded head: dimension", std::to_string(dim), "64 or 128");
    }
    head made{tensor<float, axis::head, axis::query, axis::dim>({1, tokens, dim}),
              tensor<float, axis::kv_head, axis::key, axis::dim>({1, tokens, dim}),
              tensor<float, axis::kv_head, axis::key, axis::value_dim>({1, tokens, dim})};
    for (index_t part = 0; part < dim / recorded_dim; ++part) {
        index_t const h = heads[static_cast<std::size_t>(part)];
        index_t const first = part * recorded_dim;
        detail::repeat(q, h, /*rotated=*/true, first, made.q);
        detail::repeat(k, h / group, /*rotated=*/true, first, made.k);
        detail::repeat(v, h / group, /*rotated=*/false, first, made.v);
    }
    return made;
}

} // namespace sofattn::bench
