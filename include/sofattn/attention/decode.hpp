// SPDX-License-Identifier: MIT
// Dense attention of one query or a few, as when tokens are generated: keys split among threads.
#pragma once

#include <sofattn/attention/paged_problem.hpp>
#include <sofattn/attention/problem.hpp>
#include <sofattn/attention/softmax_sums.hpp>
#include <sofattn/core/assert.hpp>
#include <sofattn/core/output_array.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/core/view.hpp>
#include <sofattn/exec/parallel.hpp>
#include <sofattn/exec/store_row.hpp>
#include <sofattn/sufa/decode_block.hpp>

#include <algorithm>
#include <cstddef>
#include <memory>
#include <span>

namespace sofattn {

/// How keys are cut for `dense_decode`: changes how long it takes, and its results by rounding only.
struct decode_parts {
    /// Keys of a part at least: a merge must cost nothing beside them.
    index_t keys_least = 1024;

    static constexpr index_t step = sufa::decode_block::tile_keys;
    [[nodiscard]] constexpr bool is_valid() const noexcept {
        return keys_least >= step && keys_least <= index_t{1} << 20 && keys_least % step == 0;
    }
    friend constexpr bool operator==(decode_parts, decode_parts) noexcept = default;
};

namespace detail {

/// How a problem's keys are cut: by its shape and the caller's parts, so that results depend on nothing
/// else.
struct key_split {
    index_t chunk; ///< keys, but for the last chunk
    index_t chunks;

    [[nodiscard]] static constexpr key_split of(problem_shape const& shape,
                                                decode_parts parts = {}) noexcept {
        constexpr index_t tasks = 256;           // enough for the threads of a socket
        constexpr index_t states_most = 2 << 20; // bytes, of all chunks: cuts no smaller
        index_t const rows = shape.heads * shape.queries;
        auto const state =
            static_cast<index_t>(sizeof(float)) * sufa::decode_block::state_floats(shape.value_dim);
        index_t const most = std::max<index_t>(
            1, std::min(ceil_div(tasks, shape.kv_heads), states_most / (rows * state)));
        index_t const tile = sufa::decode_block::tile_keys;
        index_t const chunk =
            std::max(parts.keys_least, ceil_div(ceil_div(shape.keys, most), tile) * tile);
        return {chunk, ceil_div(shape.keys, chunk)};
    }
};

/// Floats in whole cache lines.
[[nodiscard]] constexpr index_t in_lines(index_t floats) noexcept {
    return ceil_div(floats, index_t{16}) * 16;
}

} // namespace detail

namespace detail {

/// Memory of a run of dense_decode, in floats.
struct decode_layout {
    index_t states;  ///< partial results, of all chunks
    index_t scratch; ///< of a thread

    [[nodiscard]] static constexpr decode_layout of(problem_shape const& shape,
                                                    decode_parts parts = {}) noexcept {
        index_t const rows = shape.heads * shape.queries;
        return {key_split::of(shape, parts).chunks * rows *
                    sufa::decode_block::state_floats(shape.value_dim),
                in_lines(
                    sufa::decode_block::floats(rows / shape.kv_heads, shape.dim, shape.value_dim))};
    }
};

} // namespace detail

/// Bytes of workspace that `dense_decode` needs of its caller: at most 2 MiB for the partial results
/// (more only where a single chunk's are), and under 1 MiB per thread for up to 128 rows per KV head.
[[nodiscard]] constexpr std::size_t decode_workspace_bytes(problem_shape const& shape,
                                                           index_t threads,
                                                           decode_parts parts = {}) noexcept {
    auto const layout = detail::decode_layout::of(shape, parts);
    return static_cast<std::size_t>(layout.states + threads * layout.scratch) * sizeof(float) + 64;
}

namespace detail {

/// A run of dense_decode: its pieces, for who hands them out.
template <class Given>
class decode_run {
public:
    decode_run(Given const& given, output_array const& output, softmax_sums const& sums,
               std::span<std::byte> workspace, index_t threads, decode_parts parts = {}) noexcept
        : decode_run(given, output, sums, parts) {
        SOFATTN_ASSERT(workspace.size() >= decode_workspace_bytes(shape_, threads, parts));
        void* start = workspace.data();
        std::size_t space = workspace.size();
        std::align(64, 1, start, space);
        states_ = static_cast<float*>(start);
        scratch_ = states_ + decode_layout::of(shape_, parts).states;
    }
    /// With memory in two places: [decode_layout::states], which all threads share, and
    /// [decode_layout::scratch] of one thread, whose number is 0; aligned to cache lines for speed.
    decode_run(Given const& given, output_array const& output, softmax_sums const& sums,
               float* states, float* scratch, decode_parts parts = {}) noexcept
        : decode_run(given, output, sums, parts) {
        states_ = states;
        scratch_ = scratch;
    }

    [[nodiscard]] index_t kv_heads() const noexcept { return shape_.kv_heads; }
    [[nodiscard]] index_t chunks() const noexcept { return split_.chunks; }

    /// The rows of a KV head meet a chunk of its keys.
    void attend(index_t kv, index_t chunk, index_t thread) const noexcept {
        index_t const group = shape_.group();
        index_t const end = std::min((chunk + 1) * split_.chunk, shape_.keys);
        index_t const first = std::clamp(shape_.sees(0).from, chunk * split_.chunk, end);
        index_t const count = end - first; // of those that are in the window, if there is one
        sufa::decode_block block(rows_, shape_.dim, shape_.value_dim,
                                 std::span(scratch_ + thread * scratch_floats_,
                                           static_cast<std::size_t>(scratch_floats_)));
        auto const row = [&](index_t i) {
            return given_.queries.template slice<axis::head>(kv * group + i % group)
                .template slice<axis::query>(i / group);
        };
        auto const visible = [&](index_t i) {
            return std::clamp<index_t>(shape_.visible(i / group) - first, 0, count);
        };
        auto const to = [&](index_t i) { return state(kv, i, chunk); };
        sufa::logit_map const map = shape_.terms.map();
        auto const terms = [&](index_t i) {
            return shape_.terms.of(kv * group + i % group, shape_.place(i / group) - first);
        };
        auto const keys = given_.keys.template slice<axis::kv_head>(kv);
        auto const values = given_.values.template slice<axis::kv_head>(kv);
        if constexpr (requires { given_.table; }) {
            block(rows_, shape_.scale, row, visible, given_.table, first, count, keys, values, to,
                  map, terms);
        } else {
            block(rows_, shape_.scale, row, visible, keys.template range<axis::key>(first, count),
                  values.template range<axis::key>(first, count), to, map, terms);
        }
    }
    /// After all chunks of that KV head.
    void merge(index_t kv) const noexcept {
        using sufa::decode_block;
        index_t const group = shape_.group();
        for (index_t i = 0; i < rows_; ++i) {
            index_t const head = kv * group + i % group;
            float* const of_row = state(kv, i, 0);
            float const* const row = decode_block::merged(of_row, split_.chunks, shape_.value_dim,
                                                          shape_.terms.of(head, 0).sink);
            exec::store_row(output_.row(head, i / group), row);
            sums_.write(head, i / group, decode_block::max_of(of_row, shape_.value_dim),
                        decode_block::sum_of(of_row, shape_.value_dim));
        }
    }

private:
    decode_run(Given const& given, output_array const& output, softmax_sums const& sums,
               decode_parts parts) noexcept
        : given_(given), output_(output), sums_(sums), shape_(given.extents()),
          split_(key_split::of(shape_, parts)), rows_(shape_.group() * shape_.queries),
          scratch_floats_(decode_layout::of(shape_).scratch) {
        SOFATTN_ASSERT(given.is_valid() && parts.is_valid());
        SOFATTN_ASSERT(output.extent<axis::head>() == shape_.heads);
        SOFATTN_ASSERT(output.extent<axis::query>() == shape_.queries);
        SOFATTN_ASSERT(output.extent<axis::value_dim>() == shape_.value_dim);
        SOFATTN_ASSERT(shape_.window == 0 || shape_.queries == 1);
    }

    [[nodiscard]] float* state(index_t kv, index_t row, index_t chunk) const noexcept {
        return states_ + ((kv * rows_ + row) * split_.chunks + chunk) *
                             sufa::decode_block::state_floats(shape_.value_dim);
    }

    Given given_;
    output_array output_;
    softmax_sums sums_;
    problem_shape shape_;
    key_split split_;
    index_t rows_; ///< of a KV head: all its heads at one query, ...
    index_t scratch_floats_;
    float* states_ = nullptr;
    float* scratch_ = nullptr;
};

} // namespace detail

/// Dense attention of a few queries, exact but for float rounding. For many there is
/// `dense_attention`, whose blocks multiply more than they read.
///
/// in     given      queries [head, query, dim], keys [kv_head, key, dim], values [kv_head, key,
///                   value_dim], any strides, f32, f16 or bf16, K and V also in int8 with scales; read
///                   as they lie where rows are contiguous and whole registers, once for all query
///                   heads of their KV head; in a row, or in pages: the same bits
///        workspace  at least decode_workspace_bytes(given.shape(), run.threads(), parts) bytes
///        run        who does the work (exec::parallel_for); a task is a chunk of keys
///        parts      how long chunks are; sofattn-tune measures what is best
/// out    output     [head, query, value_dim] in f32, f16 or bf16; rows that see no key are zero
///        sums       of each row, where wanted
/// pre    given.shape() is valid and has no window if there are more queries than one, output fits it, workspace is large enough
///        (SOFATTN_ASSERT); |logit| < 1e30
/// error  none: allocates and throws nothing
/// exact  the same bits for any number of threads: chunks depend on shape and parts and are merged
///        in order; within 2e-5 of a double-precision oracle (relative, Frobenius), and 1e-6 more
///        per unit of logit that a row's keys share. Of codes: of the numbers scale * code, whose scale
///        is multiplied to logits and weights; where scales are powers of two, the bits of these numbers
/// paper  not in the paper, which has no decode
template <key_value_problem Given, exec::parallel_for Run>
void dense_decode(Given const& given, output_array const& output, std::span<std::byte> workspace,
                  Run const& run, softmax_sums const& sums = {}, decode_parts parts = {}) noexcept {
    detail::decode_run const work(given, output, sums, workspace, run.threads(), parts);
    run(work.kv_heads() * work.chunks(), [&](index_t task, index_t thread) {
        work.attend(task / work.chunks(), task % work.chunks(), thread);
    });
    run(work.kv_heads(), [&](index_t kv, index_t) { work.merge(kv); });
}

/// The share of participant `ith` of `nth`, each of which calls this once, in any order or at once,
/// with the same workspace for nth threads and the same parts: every nth KV head. Together they do what dense_decode
/// does, to the bit, and nobody waits for anybody.
template <key_value_problem Given>
void dense_decode_share(Given const& given, output_array const& output,
                        std::span<std::byte> workspace, index_t ith, index_t nth,
                        softmax_sums const& sums = {}, decode_parts parts = {}) noexcept {
    detail::decode_run const work(given, output, sums, workspace, nth, parts);
    for (index_t kv = ith; kv < work.kv_heads(); kv += nth) {
        for (index_t chunk = 0; chunk < work.chunks(); ++chunk) {
            work.attend(kv, chunk, ith);
        }
        work.merge(kv);
    }
}

} // namespace sofattn
