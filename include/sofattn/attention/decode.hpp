// SPDX-License-Identifier: MIT
// Dense attention of one query or a few, as when tokens are generated: keys split among threads.
#pragma once

#include <sofattn/attention/problem.hpp>
#include <sofattn/core/assert.hpp>
#include <sofattn/core/element.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/core/view.hpp>
#include <sofattn/exec/parallel.hpp>
#include <sofattn/sufa/decode_block.hpp>

#include <algorithm>
#include <cstddef>
#include <memory>
#include <span>

namespace sofattn {

namespace detail {

/// How a problem's keys are cut: by its shape alone, so that results depend on nothing else.
struct key_split {
    index_t chunk; ///< keys, but for the last chunk
    index_t chunks;

    [[nodiscard]] static constexpr key_split of(problem_shape const& shape) noexcept {
        constexpr index_t least = 1024;          // keys: a merge must cost nothing beside them
        constexpr index_t tasks = 256;           // enough for the threads of a socket
        constexpr index_t states_most = 2 << 20; // bytes, of all chunks: cuts no smaller
        index_t const rows = shape.heads * shape.queries;
        auto const state =
            static_cast<index_t>(sizeof(float)) * sufa::decode_block::state_floats(shape.value_dim);
        index_t const most = std::max<index_t>(
            1, std::min(ceil_div(tasks, shape.kv_heads), states_most / (rows * state)));
        index_t const tile = sufa::decode_block::tile_keys;
        index_t const chunk = std::max(least, ceil_div(ceil_div(shape.keys, most), tile) * tile);
        return {chunk, ceil_div(shape.keys, chunk)};
    }
};

/// Floats in whole cache lines.
[[nodiscard]] constexpr index_t in_lines(index_t floats) noexcept {
    return ceil_div(floats, index_t{16}) * 16;
}

} // namespace detail

/// Bytes of workspace that `dense_decode` needs of its caller: at most 2 MiB for the partial results
/// (more only where a single chunk's are), and under 1 MiB per thread for up to 128 rows per KV head.
[[nodiscard]] constexpr std::size_t decode_workspace_bytes(problem_shape const& shape,
                                                           index_t threads) noexcept {
    index_t const rows = shape.heads * shape.queries;
    index_t const states = detail::key_split::of(shape).chunks * rows *
                           sufa::decode_block::state_floats(shape.value_dim);
    index_t const scratch = detail::in_lines(
        sufa::decode_block::floats(rows / shape.kv_heads, shape.dim, shape.value_dim));
    return static_cast<std::size_t>(states + threads * scratch) * sizeof(float) + 64;
}

/// Dense attention of a few queries, exact but for float rounding. For many there is
/// `dense_attention`, whose blocks multiply more than they read.
///
/// in     given      queries [head, query, dim], keys [kv_head, key, dim], values [kv_head, key,
///                   value_dim], any strides, f32, f16 or bf16; read as they lie where rows are
///                   contiguous and whole registers, once for all query heads of their KV head
///        workspace  at least decode_workspace_bytes(given.shape(), run.threads()) bytes
///        run        who does the work (exec::parallel_for); a task is a chunk of keys
/// out    output     [head, query, value_dim]; rows that see no key are zero
/// pre    given.shape() is valid and has no window, output fits it, workspace is large enough
///        (SOFATTN_ASSERT); |logit| < 1e30
/// error  none: allocates and throws nothing
/// exact  the same bits for any number of threads: chunks depend on the shape alone and are merged
///        in order; within 2e-5 of a double-precision oracle (relative, Frobenius), and 1e-6 more
///        per unit of logit that a row's keys share
/// paper  not in the paper, which has no decode
template <storage_float Query, storage_float KeyValue, exec::parallel_for Run>
void dense_decode(problem<Query, KeyValue> const& given,
                  view<float, axis::head, axis::query, axis::value_dim> output,
                  std::span<std::byte> workspace, Run const& run) noexcept {
    using sufa::decode_block;
    problem_shape const shape = given.shape();
    SOFATTN_ASSERT(output.extent<axis::head>() == shape.heads);
    SOFATTN_ASSERT(output.extent<axis::query>() == shape.queries);
    SOFATTN_ASSERT(output.extent<axis::value_dim>() == shape.value_dim);
    SOFATTN_ASSERT(shape.window == 0);
    SOFATTN_ASSERT(workspace.size() >= decode_workspace_bytes(shape, run.threads()));
    void* start = workspace.data();
    std::size_t space = workspace.size();
    std::align(64, 1, start, space);
    auto* const states = static_cast<float*>(start);

    index_t const group = shape.group();
    index_t const rows = group * shape.queries; // of a KV head: all its heads at one query, ...
    auto const split = detail::key_split::of(shape);
    index_t const state_floats = decode_block::state_floats(shape.value_dim);
    auto const state = [&](index_t kv, index_t row, index_t chunk) {
        return states + ((kv * rows + row) * split.chunks + chunk) * state_floats;
    };
    float* const scratch = state(shape.kv_heads, 0, 0);
    index_t const scratch_floats =
        detail::in_lines(decode_block::floats(rows, shape.dim, shape.value_dim));

    run(shape.kv_heads * split.chunks, [&](index_t task, index_t thread) {
        index_t const kv = task / split.chunks;
        index_t const chunk = task % split.chunks;
        index_t const first = chunk * split.chunk;
        index_t const count = std::min(split.chunk, shape.keys - first);
        decode_block block(
            rows, shape.dim, shape.value_dim,
            std::span(scratch + thread * scratch_floats, static_cast<std::size_t>(scratch_floats)));
        block(
            rows, shape.scale,
            [&](index_t i) {
                return given.queries.template slice<axis::head>(kv * group + i % group)
                    .template slice<axis::query>(i / group);
            },
            [&](index_t i) {
                return std::clamp<index_t>(shape.visible(i / group) - first, 0, count);
            },
            given.keys.template slice<axis::kv_head>(kv).template range<axis::key>(first, count),
            given.values.template slice<axis::kv_head>(kv).template range<axis::key>(first, count),
            [&](index_t i) { return state(kv, i, chunk); });
    });
    run(shape.kv_heads, [&](index_t kv, index_t) {
        for (index_t i = 0; i < rows; ++i) {
            float const* const row =
                decode_block::merged(state(kv, i, 0), split.chunks, shape.value_dim);
            auto const out = output.template slice<axis::head>(kv * group + i % group)
                                 .template slice<axis::query>(i / group);
            for (index_t d = 0; d < shape.value_dim; ++d) {
                out(d) = row[d];
            }
        }
    });
}

} // namespace sofattn
