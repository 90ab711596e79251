// SPDX-License-Identifier: MIT
// Attention of one query or a few to the keys that a packed index says are best.
#pragma once

#include <sofattn/attention/decode.hpp>
#include <sofattn/attention/options.hpp>
#include <sofattn/attention/problem.hpp>
#include <sofattn/core/assert.hpp>
#include <sofattn/core/element.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/core/view.hpp>
#include <sofattn/dlzs/packed_index.hpp>
#include <sofattn/exec/parallel.hpp>
#include <sofattn/exec/prefetch.hpp>
#include <sofattn/sads/best_keys.hpp>
#include <sofattn/sufa/decode_block.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <numeric>
#include <span>
#include <type_traits>

namespace sofattn {

/// Which keys a decoding row keeps.
struct sparse_decode_options {
    index_t count = 2048; ///< keys, forced ones included
    index_t sinks = 4;    ///< the first keys, always kept
    index_t window = 64;  ///< the last keys that a row sees, always kept
    selection_scope scope = selection_scope::per_group;
};

namespace detail {

/// Where a thread's scratch begins, in bytes.
struct sparse_decode_layout {
    static constexpr index_t gathered = 512; ///< keys: K and V of 128 channels in f16 are 256 KB

    index_t rows;        ///< that attend together
    index_t score_rows;  ///< of scores
    index_t score_count; ///< of a row
    index_t chunks;      ///< of gathered keys
    index_t keys_at;
    index_t gathered_keys_at;
    index_t gathered_values_at;
    index_t states_at;
    index_t block_at;
    index_t bytes;

    [[nodiscard]] static constexpr sparse_decode_layout
    of(problem_shape const& s, sparse_decode_options const& options, index_t element) noexcept {
        constexpr index_t line = 64;
        auto const lines = [](index_t count) { return ceil_div(count, line) * line; };
        bool const together = options.scope == selection_scope::per_group;
        index_t const group = s.heads / s.kv_heads;
        sparse_decode_layout l{};
        l.rows = together ? group : 1;
        l.score_rows = together ? 1 : std::min(group, dlzs::scan_queries::rows_most);
        l.score_count = ceil_div(s.keys, exec::vector_width) * exec::vector_width;
        index_t const kept = std::min(s.keys, options.count + options.sinks + options.window);
        l.chunks = ceil_div(std::max<index_t>(kept, 1), gathered);
        l.keys_at = lines(l.score_rows * l.score_count * 4);
        l.gathered_keys_at = l.keys_at + lines((s.keys + sads::best_keys::slack) * 4);
        l.gathered_values_at = l.gathered_keys_at + lines(gathered * s.dim * element);
        l.states_at = l.gathered_values_at + lines(gathered * s.value_dim * element);
        l.block_at = l.states_at +
                     lines(l.rows * l.chunks * sufa::decode_block::state_floats(s.value_dim) * 4);
        l.bytes = l.block_at + lines(sufa::decode_block::floats(l.rows, s.dim, s.value_dim) * 4);
        return l;
    }
};

/// Rows `keys` of both arrays, one after the other: from memory in any order, asked for ahead.
template <class Keys, class Values, class T>
void gather_rows(Keys keys, Values values, std::span<key_id const> wanted, T* key_rows,
                 T* value_rows) noexcept {
    constexpr std::size_t ahead = 16;
    index_t const dim = keys.template extent<axis::dim>();
    index_t const value_dim = values.template extent<axis::value_dim>();
    index_t const key_step = keys.template stride<axis::dim>();
    index_t const value_step = values.template stride<axis::value_dim>();
    constexpr auto size = static_cast<index_t>(sizeof(T));
    auto const key_row = [&](std::size_t i) {
        return keys.data() + wanted[i] * keys.template stride<axis::key>();
    };
    auto const value_row = [&](std::size_t i) {
        return values.data() + wanted[i] * values.template stride<axis::key>();
    };
    auto const copy = [](T const* from, index_t step, index_t count, T* to) {
        if (step == 1) {
            std::memcpy(static_cast<void*>(to), from, static_cast<std::size_t>(count) * sizeof(T));
        } else {
            for (index_t d = 0; d < count; ++d) {
                to[d] = from[d * step];
            }
        }
    };
    for (std::size_t i = 0; i < wanted.size(); ++i) {
        if (i + ahead < wanted.size()) {
            if (key_step == 1) {
                exec::prefetch(key_row(i + ahead), dim * size);
            }
            if (value_step == 1) {
                exec::prefetch(value_row(i + ahead), value_dim * size);
            }
        }
        copy(key_row(i), key_step, dim, key_rows);
        copy(value_row(i), value_step, value_dim, value_rows);
        key_rows += dim;
        value_rows += value_dim;
    }
}

/// Heads [head, head + layout.rows) attend to the keys that they keep.
template <class Given, class Output>
void attend_kept(Given const& given, sparse_decode_layout const& layout, std::byte* scratch,
                 std::span<key_id const> kept, index_t kv, index_t head, index_t query,
                 double scale, Output output) noexcept {
    using sufa::decode_block;
    using stored = std::remove_const_t<typename decltype(given.keys)::element_type>;
    auto const keys = given.keys.template slice<axis::kv_head>(kv);
    auto const values = given.values.template slice<axis::kv_head>(kv);
    index_t const dim = keys.template extent<axis::dim>();
    index_t const value_dim = values.template extent<axis::value_dim>();
    auto* const key_rows = reinterpret_cast<stored*>(scratch + layout.gathered_keys_at);
    auto* const value_rows = reinterpret_cast<stored*>(scratch + layout.gathered_values_at);
    auto* const states = reinterpret_cast<float*>(scratch + layout.states_at);
    decode_block block(
        layout.rows, dim, value_dim,
        std::span(reinterpret_cast<float*>(scratch + layout.block_at),
                  static_cast<std::size_t>(decode_block::floats(layout.rows, dim, value_dim))));
    index_t const chunks = ceil_div(std::ssize(kept), sparse_decode_layout::gathered);
    auto const state = [&](index_t row, index_t chunk) {
        return states + (row * layout.chunks + chunk) * decode_block::state_floats(value_dim);
    };
    for (index_t chunk = 0; chunk < chunks; ++chunk) {
        index_t const first = chunk * sparse_decode_layout::gathered;
        index_t const count = std::min(sparse_decode_layout::gathered, std::ssize(kept) - first);
        gather_rows(keys, values,
                    kept.subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(count)),
                    key_rows, value_rows);
        block(
            layout.rows, scale,
            [&](index_t i) {
                return given.queries.template slice<axis::head>(head + i)
                    .template slice<axis::query>(query);
            },
            [&](index_t) { return count; }, key_view<stored const>(key_rows, {count, dim}),
            value_view<stored const>(value_rows, {count, value_dim}),
            [&](index_t i) { return state(i, chunk); });
    }
    for (index_t i = 0; i < layout.rows; ++i) {
        float const* const row = decode_block::merged(state(i, 0), chunks, value_dim);
        auto const out =
            output.template slice<axis::head>(head + i).template slice<axis::query>(query);
        for (index_t d = 0; d < value_dim; ++d) {
            out(d) = chunks > 0 ? row[d] : 0.0f;
        }
    }
}

/// Nobody asks what was kept.
struct ignore_kept {
    void operator()(index_t, index_t, std::span<key_id const>) const noexcept {}
};

} // namespace detail

/// Bytes of workspace that `sparse_decode` needs of its caller: 4 bytes per key for the scores of a
/// selection (16 where heads select for themselves) and 4 more, and under 2 MiB beside it, per thread.
template <storage_float Query, storage_float KeyValue>
[[nodiscard]] std::size_t sparse_decode_workspace_bytes(problem<Query, KeyValue> const& given,
                                                        sparse_decode_options const& options,
                                                        index_t threads) {
    auto const layout = detail::sparse_decode_layout::of(given.shape(), options, sizeof(KeyValue));
    return static_cast<std::size_t>(threads * layout.bytes) + 64;
}

/// Attention of a few queries to the best keys of their row: scan an index, keep, gather, attend.
///
/// in     given      as dense_decode's; K and V of a key may lie side by side (views of rows k|v),
///                   which makes one place in memory of two
///        indices    [kv_head], of all given keys
///        options    how many keys; sinks and window are part of them, and kept even if there are more
///        workspace  at least sparse_decode_workspace_bytes(given, options, run.threads()) bytes
///        run        who does the work; a task is a KV head (or four of its query heads) at a query
///        on_kept    on_kept(query head, query, keys) per selection, of the group's first head where
///                   it selects together; keys ascend. Called by the thread that does the work
/// out    output     [head, query, value_dim]; rows that see no key are zero
/// pre    shapes and sizes fit, the problem has no window, workspace is large enough (SOFATTN_ASSERT); |logit| < 1e30
/// error  none: allocates and throws nothing
/// exact  the kept set is that of a full sort of predict_scores, in the total order; outputs are within
///        2e-5 of a double-precision oracle on that set, and the same for any number of threads
/// paper  not in the paper, which has no decode; stages as in Fig. 6
template <dlzs::packed_policy Policy, storage_float Query, storage_float KeyValue,
          exec::parallel_for Run, class OnKept = detail::ignore_kept>
void sparse_decode(problem<Query, KeyValue> const& given,
                   std::span<dlzs::packed_index<Policy> const> indices,
                   sparse_decode_options const& options,
                   view<float, axis::head, axis::query, axis::value_dim> output,
                   std::span<std::byte> workspace, Run const& run, OnKept on_kept = {}) noexcept {
    problem_shape const shape = given.shape();
    SOFATTN_ASSERT(std::ssize(indices) == shape.kv_heads);
    SOFATTN_ASSERT(output.extent<axis::head>() == shape.heads);
    SOFATTN_ASSERT(output.extent<axis::query>() == shape.queries);
    SOFATTN_ASSERT(output.extent<axis::value_dim>() == shape.value_dim);
    SOFATTN_ASSERT(shape.window == 0);
    SOFATTN_ASSERT(options.count >= 0 && options.sinks >= 0 && options.window >= 0);
    SOFATTN_ASSERT(workspace.size() >=
                   sparse_decode_workspace_bytes(given, options, run.threads()));
    void* start = workspace.data();
    std::size_t space = workspace.size();
    std::align(64, 1, start, space);
    auto* const memory = static_cast<std::byte*>(start);

    auto const layout = detail::sparse_decode_layout::of(shape, options, sizeof(KeyValue));
    index_t const group = shape.group();
    bool const together = options.scope == selection_scope::per_group;
    constexpr index_t rows_most = dlzs::scan_queries::rows_most;
    index_t const batches = together ? 1 : ceil_div(group, rows_most);

    run(shape.kv_heads * shape.queries * batches, [&](index_t task, index_t thread) {
        index_t const kv = task % shape.kv_heads;
        index_t const query = task / shape.kv_heads % shape.queries;
        index_t const batch = task / shape.kv_heads / shape.queries;
        std::byte* const scratch = memory + thread * layout.bytes;
        auto* const scores = reinterpret_cast<std::int32_t*>(scratch);
        auto* const keys = reinterpret_cast<key_id*>(scratch + layout.keys_at);

        index_t const visible = shape.visible(query);
        index_t const sinks = std::min(options.sinks, visible);
        index_t const window = std::min(options.window, visible - sinks);
        index_t const competing = visible - sinks - window;
        auto const& index = indices[static_cast<std::size_t>(kv)];
        SOFATTN_ASSERT(index.size() == shape.keys && index.dim() == shape.dim);

        // Heads that select together must have comparable scores: one step for all of the group.
        auto const row = [&](index_t i) {
            return given.queries.template slice<axis::head>(kv * group + i)
                .template slice<axis::query>(query);
        };
        index_t const first = batch * rows_most;
        index_t const rows = together ? group : std::min(rows_most, group - first);
        auto const step = index.magnitude_step(group, row);
        for (index_t r = 0; r < rows && visible > 0; r += rows_most) {
            dlzs::scan_queries queries;
            index.encode_with(step, first + r, std::min(rows_most, rows - r), row, queries);
            if (together) {
                index.largest_scores(queries, visible, scores, r > 0);
            } else {
                index.scores(queries, visible, scores, layout.score_count);
            }
        }

        for (index_t selection = 0; selection < (together ? 1 : rows); ++selection) {
            index_t const head = kv * group + first + selection;
            std::iota(keys, keys + sinks, key_id{0});
            index_t kept =
                sinks + sads::best_keys{}(scores + selection * layout.score_count + sinks,
                                          competing, options.count - sinks - window,
                                          static_cast<key_id>(sinks), keys + sinks);
            std::iota(keys + kept, keys + kept + window, static_cast<key_id>(visible - window));
            kept += window;
            std::span<key_id const> const all(keys, static_cast<std::size_t>(kept));
            on_kept(head, query, all);
            detail::attend_kept(given, layout, scratch, all, kv, head, query, shape.scale, output);
        }
    });
}

} // namespace sofattn
