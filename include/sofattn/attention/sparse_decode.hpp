// SPDX-License-Identifier: MIT
// Attention of one query or a few to the keys that a packed index says are best.
#pragma once

#include <sofattn/attention/attend_listed.hpp>
#include <sofattn/attention/decode_selection.hpp>
#include <sofattn/attention/dropped_mass.hpp>
#include <sofattn/attention/options.hpp>
#include <sofattn/attention/paged_problem.hpp>
#include <sofattn/attention/problem.hpp>
#include <sofattn/attention/softmax_sums.hpp>
#include <sofattn/core/assert.hpp>
#include <sofattn/core/output_array.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/core/view.hpp>
#include <sofattn/dlzs/code_panels.hpp>
#include <sofattn/exec/parallel.hpp>

#include <algorithm>
#include <cstddef>
#include <limits>
#include <memory>
#include <span>

namespace sofattn {

namespace detail {

/// Nobody asks what was kept.
struct ignore_kept {
    void operator()(index_t, index_t, std::span<key_id const>) const noexcept {}
};

/// Nothing to begin with.
struct no_reuse {
    static constexpr double most_dropped = -1; ///< no share is as small
    [[nodiscard]] std::span<key_id const> operator()(index_t, index_t) const noexcept { return {}; }
    void reused(index_t, index_t, bool) const noexcept {}
};

/// Writes a former selection and the keys that are always kept, ascending, each once; how many. None where
/// the former is not ascending, names a key that is not seen, or where there is no room for so many.
[[nodiscard]] inline index_t with_always_kept(std::span<key_id const> former, index_t visible,
                                              index_t sinks, index_t window, key_id* into,
                                              index_t room) noexcept {
    index_t const first_of_window = std::max(visible - window, std::min(sinks, visible));
    index_t count = 0;
    index_t next = 0; // the smallest key that may still come
    auto const put = [&](index_t key) {
        bool const fits = count < room;
        if (fits) {
            into[count++] = static_cast<key_id>(key);
            next = key + 1;
        }
        return fits;
    };
    bool fits = true;
    for (index_t key = 0; fits && key < std::min(sinks, visible); ++key) {
        fits = put(key);
    }
    key_id before = -1;
    for (key_id const key : former) {
        fits = fits && key > before && key < visible;
        before = key;
        if (fits && key >= next && key < first_of_window) {
            fits = put(key);
        }
    }
    for (index_t key = first_of_window; fits && key < visible; ++key) {
        fits = put(key);
    }
    return fits ? count : 0;
}

} // namespace detail

/// Codes of the keys of a KV head: dlzs::packed_index, dlzs::paged_index.
template <class Index>
concept decode_index = requires(Index const& index) {
    detail::key_codes(index);
};

/// Bytes of workspace that `sparse_decode` needs of its caller: 4 bytes per key for the scores of a
/// selection (16 where heads select for themselves) and 4.5 more, and under 2 MiB beside it, per thread.
template <key_value_problem Given>
[[nodiscard]] std::size_t sparse_decode_workspace_bytes(Given const& given,
                                                        sparse_decode_options const& options,
                                                        index_t threads) {
    auto const layout = detail::sparse_decode_layout::of(given.extents(), options);
    return static_cast<std::size_t>(threads * layout.bytes) + 64;
}

/// Attention of a few queries to the best keys of their row: scan an index, keep, attend.
///
/// in     given      as dense_decode's, in a row or in pages; K and V of a key may lie side by side (views of rows k|v),
///                   which makes one place in memory of two
///        indices    [kv_head], of all given keys: packed_index, whose codes are all scanned, or
///                   paged_index, for the codes of the pages that look best
///        options    how many keys; sinks and window are part of them, and kept even if there are more
///        workspace  at least sparse_decode_workspace_bytes(given, options, run.threads()) bytes
///        run        who does the work; a task is a KV head (or four of its query heads) at a query
///        reuse      of heads that select together: reuse(KV head, query) is a former selection. Where it is not
///                   empty, its keys and those that are always kept are attended to, if the largest estimated
///                   dropped share of the rows is at most reuse.most_dropped; else, or if they are more than
///                   count + sinks + window, the index is scanned as ever. reuse.reused(KV head, query, whether)
///        on_kept    on_kept(query head, query, keys) per selection, of the group's first head where
///                   it selects together; keys ascend. Called by the thread that does the work
/// out    output     [head, query, value_dim] in f32, f16 or bf16; rows that see no key are zero
///        sums       of each row, over the kept keys, where wanted
///        dropped    of each row, where wanted
/// pre    shapes and sizes fit, the problem has no window and no ALiBi slopes, workspace is large enough (SOFATTN_ASSERT); |logit| < 1e30
/// error  none: allocates and throws nothing
/// exact  the kept set is that of a full sort of predict_scores (with pages: of the keys of the best
///        pages, see detail::decode_selector), in the total order; outputs are within 2e-5 of a
///        double-precision oracle on that set, and the same for any number of threads
/// paper  not in the paper, which has no decode; stages as in Fig. 6
template <decode_index Index, key_value_problem Given, exec::parallel_for Run,
          class OnKept = detail::ignore_kept, class Reuse = detail::no_reuse>
void sparse_decode(Given const& given, std::span<Index const> indices,
                   sparse_decode_options const& options, output_array const& output,
                   std::span<std::byte> workspace, Run const& run, OnKept on_kept = {},
                   softmax_sums const& sums = {}, dropped_mass const& dropped = {},
                   Reuse const& reuse = {}) noexcept {
    SOFATTN_ASSERT(given.is_valid());
    problem_shape const shape = given.extents();
    SOFATTN_ASSERT(std::ssize(indices) == shape.kv_heads);
    SOFATTN_ASSERT(output.extent<axis::head>() == shape.heads);
    SOFATTN_ASSERT(output.extent<axis::query>() == shape.queries);
    SOFATTN_ASSERT(output.extent<axis::value_dim>() == shape.value_dim);
    SOFATTN_ASSERT(shape.window == 0);
    SOFATTN_ASSERT(shape.terms.alibi_slopes == nullptr);
    SOFATTN_ASSERT(reuse.most_dropped < 0 ||
                   (dropped.data() != nullptr && options.scope == selection_scope::per_group));
    SOFATTN_ASSERT(options.count >= 0 && options.sinks >= 0 && options.window >= 0);
    SOFATTN_ASSERT(options.scanned_per_kept >= 1 && options.scanned_one_in >= 1);
    SOFATTN_ASSERT(workspace.size() >=
                   sparse_decode_workspace_bytes(given, options, run.threads()));
    void* start = workspace.data();
    std::size_t space = workspace.size();
    std::align(64, 1, start, space);
    auto* const memory = static_cast<std::byte*>(start);

    auto const layout = detail::sparse_decode_layout::of(shape, options);
    index_t const group = shape.group();
    bool const together = options.scope == selection_scope::per_group;
    constexpr index_t rows_most = dlzs::scan_queries::rows_most;
    index_t const batches = together ? 1 : ceil_div(group, rows_most);

    run(shape.kv_heads * shape.queries * batches, [&](index_t task, index_t thread) {
        index_t const kv = task % shape.kv_heads;
        index_t const query = task / shape.kv_heads % shape.queries;
        index_t const batch = task / shape.kv_heads / shape.queries;
        std::byte* const scratch = memory + thread * layout.bytes;
        index_t const visible = shape.visible(query);
        auto const& index = indices[static_cast<std::size_t>(kv)];
        SOFATTN_ASSERT(index.size() == shape.keys && index.dim() == shape.dim);
        auto const row = [&](index_t i) {
            return given.queries.template slice<axis::head>(kv * group + i)
                .template slice<axis::query>(query);
        };
        index_t const first = batch * rows_most;
        index_t const rows = together ? group : std::min(rows_most, group - first);
        detail::listed_rows const attend(scratch + layout.attend_at, layout.rows, layout.kept_most,
                                         shape.dim, shape.value_dim);
        auto const attend_to = [&](index_t member, std::span<key_id const> kept) {
            index_t const head = kv * group + member;
            on_kept(head, query, kept);
            bool const estimates = dropped.data() != nullptr;
            detail::dropped_sample sample(estimates ? key_range{0, visible} : key_range{0, 0});
            if (estimates) {
                std::ranges::for_each(kept, [&](key_id key) { sample.leave_out(key); });
            }
            if constexpr (requires { given.table; }) {
                // The selector's own list, in this thread's scratch.
                auto* const rows_of = reinterpret_cast<key_id*>(scratch + layout.keys_at);
                SOFATTN_DASSERT(rows_of == kept.data());
                std::ranges::transform(kept, rows_of,
                                       [&](key_id key) { return given.table.row(key); });
            }
            if (estimates) {
                attend(given, kept, sample, kv, head, query, shape.scale, shape.terms, output, sums,
                       dropped);
            } else {
                attend(given, kept, kv, head, query, shape.scale, shape.terms, output, sums);
            }
        };
        if (reuse.most_dropped >= 0) {
            std::span<key_id const> const former = reuse(kv, query);
            auto* const keys = reinterpret_cast<key_id*>(scratch + layout.keys_at);
            index_t const kept =
                former.empty() ? 0
                               : detail::with_always_kept(former, visible, options.sinks,
                                                          options.window, keys, layout.kept_most);
            float worst = kept > 0 ? 0.0f : std::numeric_limits<float>::infinity();
            if (kept > 0) {
                attend_to(0, {keys, static_cast<std::size_t>(kept)});
                for (index_t i = 0; i < group; ++i) {
                    worst = std::max(worst, dropped(kv * group + i, query));
                }
            }
            bool const is_enough = static_cast<double>(worst) <= reuse.most_dropped;
            reuse.reused(kv, query, is_enough);
            if (is_enough) {
                return;
            }
        }
        detail::decode_selector const select(options, layout, scratch, visible);
        select(index, group, first, rows, row, attend_to);
    });
}

} // namespace sofattn
