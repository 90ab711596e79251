// SPDX-License-Identifier: MIT
// Dense attention on the machine at hand: the baseline of everything sparse, and its fallback.
#pragma once

#include <sofattn/attention/paged_problem.hpp>
#include <sofattn/attention/problem.hpp>
#include <sofattn/attention/softmax_sums.hpp>
#include <sofattn/core/assert.hpp>
#include <sofattn/core/element.hpp>
#include <sofattn/core/output_array.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/core/view.hpp>
#include <sofattn/exec/bf16_dot.hpp>
#include <sofattn/exec/parallel.hpp>
#include <sofattn/sufa/block_tiles.hpp>
#include <sofattn/sufa/dense_block.hpp>
#include <sofattn/sufa/int8_block.hpp>

#include <algorithm>
#include <cstddef>
#include <memory>
#include <span>
#include <type_traits>

namespace sofattn {

/// What dense attention may multiply.
enum class dense_products {
    f32, ///< floats
    bf16, ///< queries, keys, values and weights rounded to bf16, where the target multiplies pairs of
          ///< them (exec::has_bf16_dot): half the time for an error of 1e-2. Elsewhere floats.
    int8 ///< codes of 8 bits, exact sums on every target; with VNNI up to 1.8 times as fast as bf16,
         ///< for an error of 1e-2 to 4e-2 (sufa/int8_block.hpp)
};

namespace detail {

template <dense_products Products>
using dense_block_of = std::conditional_t<
    Products == dense_products::int8, sufa::int8_block,
    sufa::dense_block<std::conditional_t<Products == dense_products::bf16 && exec::has_bf16_dot,
                                         sufa::bf16_products, sufa::f32_products>>>;

} // namespace detail

/// How products are cut for the caches where nobody says otherwise: best on the machines that we have.
template <dense_products Products>
inline constexpr sufa::block_tiles default_tiles = detail::dense_block_of<Products>::default_tiles;

/// Bytes of workspace that `dense_attention` needs of its caller with these tiles, whatever the number
/// of keys. pre: tiles.is_valid()
template <dense_products Products>
[[nodiscard]] constexpr std::size_t
dense_workspace_bytes(problem_shape const& shape, index_t threads,
                      sufa::block_tiles tiles = default_tiles<Products>) noexcept {
    constexpr std::size_t line = 64;
    auto const floats = static_cast<std::size_t>(
        detail::dense_block_of<Products>::floats(shape.dim, shape.value_dim, tiles));
    std::size_t const each = (floats * sizeof(float) + line - 1) / line * line;
    return static_cast<std::size_t>(threads) * each + line; // the start may lie anywhere
}

/// For any products with their default tiles: under 1 MiB per thread.
[[nodiscard]] constexpr std::size_t dense_workspace_bytes(problem_shape const& shape,
                                                          index_t threads) noexcept {
    return std::max(dense_workspace_bytes<dense_products::f32>(shape, threads),
                    dense_workspace_bytes<dense_products::int8>(shape, threads));
}

/// Dense attention, exact but for rounding; with caps, slopes and sinks of the problem's logit_terms.
///
/// in     given      queries [head, query, dim], keys [kv_head, key, dim], values [kv_head, key,
///                   value_dim], any strides, f32, f16 or bf16; K and V also in int8 with scales, which
///                   counts as their scale * code in f32 (not for int8 products, whose codes have other
///                   steps); query heads of one KV head share the reading of K and V; in a row, or in
///                   pages (not for int8 products): the same bits
///        workspace  at least dense_workspace_bytes<Products>(given.shape(), run.threads(), tiles) bytes
///        run        who does the work (exec::parallel_for)
///        tiles      how it is cut for the caches; sofattn-tune measures which are best
/// out    output     [head, query, value_dim] in f32, f16 or bf16; rows that see no key are zero
///        sums       of each row, where wanted; int8 products have none
/// pre    given.shape() and tiles are valid and output fits, workspace is large enough (SOFATTN_ASSERT);
///        no logit_terms with int8 products; |logit| < 1e30
/// error  none: allocates and throws nothing
/// exact  the same bits for any number of threads; within 2e-5 of a double-precision oracle
///        (relative, Frobenius), and 1e-6 more per unit of logit that a row's keys share; with bf16
///        products within 1e-2, but for dimensions under 8 (sufa/dense_block.hpp); with int8
///        products within 4e-2 where logits spread by a few units (sufa/int8_block.hpp)
/// paper  not in the paper; FlashAttention-2, the rival of section III-C, and SageAttention
template <dense_products Products = dense_products::f32, key_value_problem Given,
          exec::parallel_for Run>
    requires(Products != dense_products::int8 ||
             !(requires(Given const& g) { g.table; } || scaled_problem<Given>))
void dense_attention(Given const& given, output_array const& output, std::span<std::byte> workspace,
                     Run const& run, softmax_sums const& sums = {},
                     sufa::block_tiles tiles = default_tiles<Products>) noexcept {
    using block_type = detail::dense_block_of<Products>;
    SOFATTN_ASSERT(given.is_valid());
    problem_shape const shape = given.extents();
    SOFATTN_ASSERT(output.extent<axis::head>() == shape.heads);
    SOFATTN_ASSERT(output.extent<axis::query>() == shape.queries);
    SOFATTN_ASSERT(output.extent<axis::value_dim>() == shape.value_dim);
    SOFATTN_ASSERT(workspace.size() >=
                   dense_workspace_bytes<Products>(shape, run.threads(), tiles));
    SOFATTN_ASSERT(Products != dense_products::int8 || !(sums.wanted() || shape.terms.any()));
    void* start = workspace.data();
    std::size_t space = workspace.size();
    std::align(64, 1, start, space);
    auto* const memory = static_cast<float*>(start);
    index_t const floats =
        ceil_div<index_t>(block_type::floats(shape.dim, shape.value_dim, tiles), 16) * 16;

    // Rows of a block: all heads of a group at one query, then at the next, so that rows are sorted
    // by what they see. The last blocks see most and go first; four or more for each thread.
    index_t const group = shape.group();
    index_t const rows = group * shape.queries;
    index_t const share = ceil_div(rows * shape.kv_heads, 4 * index_t{run.threads()});
    index_t const block_rows = std::clamp(
        ceil_div(share, block_type::panel_rows) * block_type::panel_rows, block_type::panel_rows,
        block_type::rows_most(shape.dim, shape.value_dim, tiles));
    index_t const blocks = ceil_div(rows, block_rows);
    run(shape.kv_heads * blocks, [&](index_t task, index_t thread) {
        index_t const kv = task % shape.kv_heads;
        index_t const first = (blocks - 1 - task / shape.kv_heads) * block_rows;
        auto const head_of = [&](index_t i) { return kv * group + (first + i) % group; };
        auto const query_of = [&](index_t i) { return (first + i) / group; };
        block_type block(shape.dim, shape.value_dim,
                         std::span(memory + thread * floats, static_cast<std::size_t>(floats)),
                         tiles);
        auto const count = std::min(block_rows, rows - first);
        auto const row = [&](index_t i) {
            return given.queries.template slice<axis::head>(head_of(i))
                .template slice<axis::query>(query_of(i));
        };
        auto const sees = [&](index_t i) { return shape.sees(query_of(i)); };
        auto const to = [&](index_t i) { return output.row(head_of(i), query_of(i)); };
        auto const keys = keys_of(given, kv);
        auto const values = values_of(given, kv);
        if constexpr (Products == dense_products::int8) {
            block(count, shape.scale, row, sees, keys, values, to);
        } else {
            block(
                count, shape.scale, row, sees, keys, values, to,
                [&](index_t i, float max, float sum) {
                    sums.write(head_of(i), query_of(i), max, sum);
                },
                shape.terms.map(),
                [&](index_t i) { return shape.terms.of(head_of(i), shape.place(query_of(i))); });
        }
    });
}

} // namespace sofattn
