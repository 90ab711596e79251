// SPDX-License-Identifier: MIT
// Attention to keys that somebody else has selected: the attending half of an engine's sparse plan.
#pragma once

#include <sofattn/attention/attend_listed.hpp>
#include <sofattn/attention/dropped_mass.hpp>
#include <sofattn/attention/paged_problem.hpp>
#include <sofattn/attention/problem.hpp>
#include <sofattn/attention/softmax_sums.hpp>
#include <sofattn/core/assert.hpp>
#include <sofattn/core/output_array.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/core/view.hpp>
#include <sofattn/exec/parallel.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

namespace sofattn {

/// Lists of keys, or of blocks of them, as ONNX Runtime's and OpenVINO's selectors give them.
struct key_lists {
    /// [list head, row of lists, slot]; entries in any order, none twice; what names no key that the
    /// query sees (-1 by custom) is skipped.
    view<std::int32_t const, axis::head, axis::query, axis::key> entries{};
    /// [list head, row of lists] slots that are used; no data: all.
    view<std::int32_t const, axis::head, axis::query> counts{};
    index_t queries_each = 1; ///< queries that share a row of lists
    index_t keys_each = 1;    ///< keys [e * keys_each, (e + 1) * keys_each) are entry e

    /// 1: for all heads; as many as KV heads: one for each and its query heads; or one per query head.
    [[nodiscard]] index_t heads() const noexcept { return entries.extent<axis::head>(); }
    [[nodiscard]] index_t capacity() const noexcept {
        return entries.extent<axis::key>() * keys_each;
    }
    [[nodiscard]] bool fits(problem_shape const& s) const noexcept {
        bool const heads_fit = heads() == 1 || heads() == s.kv_heads || heads() == s.heads;
        return heads_fit && queries_each > 0 && keys_each > 0 &&
               entries.extent<axis::query>() >= ceil_div(s.queries, queries_each) &&
               (counts.data() == nullptr ||
                (counts.extent<axis::head>() == heads() &&
                 counts.extent<axis::query>() >= ceil_div(s.queries, queries_each)));
    }
};

namespace detail {

/// Per thread: the list that a row attends to, and what attends.
struct listed_layout {
    index_t rows; ///< that attend together
    index_t keys_most;
    index_t attend_at;
    index_t bytes;

    [[nodiscard]] static listed_layout of(problem_shape const& s, key_lists const& lists) noexcept {
        constexpr index_t line = 64;
        listed_layout l{};
        l.rows = lists.heads() == s.heads && s.heads != s.kv_heads ? 1 : s.group();
        l.keys_most = std::min(s.keys, lists.capacity());
        l.attend_at = ceil_div(std::max<index_t>(l.keys_most, 1) * 4, line) * line;
        l.bytes = l.attend_at + listed_rows::bytes(l.rows, l.keys_most, s.dim, s.value_dim);
        return l;
    }
};

} // namespace detail

/// Bytes of workspace that `listed_attention` needs of its caller: 4 per key of a list, and under 2 MiB
/// beside it, per thread.
[[nodiscard]] inline std::size_t listed_workspace_bytes(problem_shape const& shape,
                                                        key_lists const& lists,
                                                        index_t threads) noexcept {
    return static_cast<std::size_t>(threads * detail::listed_layout::of(shape, lists).bytes) + 64;
}

/// Attention of every query to the listed keys that it sees.
///
/// in     given      as dense_decode's, in a row or in pages
///        lists      which keys; those that a query does not see (causal, window) are left out
///        workspace  at least listed_workspace_bytes(given.shape(), lists, run.threads()) bytes
///        run        who does the work; a task is a KV head (or a query head) at a query
/// out    output     [head, query, value_dim] in f32, f16 or bf16; rows without a key are zero
///        sums       of each row, over its listed keys, where wanted
///        dropped    of each row, where wanted
/// pre    lists.fits(given.shape()), no ALiBi slopes, sizes fit, workspace is large enough (SOFATTN_ASSERT);
///        |logit| < 1e30
/// error  none: allocates and throws nothing
/// exact  within 2e-5 of a double-precision oracle on the listed keys; the same bits for any number of
///        threads; another order of a list may round otherwise. An entry that is there twice counts twice
/// paper  Fig. 11, its formal stage alone; the lists are those of ONNX Runtime's SparseAttentionIndexer
template <key_value_problem Given, exec::parallel_for Run>
void listed_attention(Given const& given, key_lists const& lists, output_array const& output,
                      std::span<std::byte> workspace, Run const& run, softmax_sums const& sums = {},
                      dropped_mass const& dropped = {}) noexcept {
    SOFATTN_ASSERT(given.is_valid());
    problem_shape const shape = given.extents();
    SOFATTN_ASSERT(lists.fits(shape));
    SOFATTN_ASSERT(shape.terms.alibi_slopes == nullptr);
    SOFATTN_ASSERT(output.extent<axis::head>() == shape.heads);
    SOFATTN_ASSERT(output.extent<axis::query>() == shape.queries);
    SOFATTN_ASSERT(output.extent<axis::value_dim>() == shape.value_dim);
    SOFATTN_ASSERT(workspace.size() >= listed_workspace_bytes(shape, lists, run.threads()));
    void* start = workspace.data();
    std::size_t space = workspace.size();
    std::align(64, 1, start, space);
    auto* const memory = static_cast<std::byte*>(start);
    auto const layout = detail::listed_layout::of(shape, lists);
    index_t const batches = shape.heads / layout.rows;

    run(batches * shape.queries, [&](index_t task, index_t thread) {
        index_t const query = task / batches;
        index_t const head = task % batches * layout.rows;
        index_t const kv = head / shape.group();
        index_t const list = lists.heads() == 1 ? 0 : lists.heads() == shape.kv_heads ? kv : head;
        index_t const row = query / lists.queries_each;
        std::byte* const scratch = memory + thread * layout.bytes;
        auto* const keys = reinterpret_cast<key_id*>(scratch);
        key_range const sees = shape.sees(query);
        index_t const slots = lists.counts.data() == nullptr
                                  ? lists.entries.extent<axis::key>()
                                  : std::clamp<index_t>(lists.counts(list, row), 0,
                                                        lists.entries.extent<axis::key>());
        bool const estimates = dropped.data() != nullptr;
        detail::dropped_sample sample(estimates ? sees : key_range{0, 0});
        index_t kept = 0;
        for (index_t slot = 0; slot < slots; ++slot) {
            index_t const entry = lists.entries(list, row, slot);
            // Entries may be any number: none may overflow, nor more be kept than there is room for.
            if (entry < 0 || entry >= ceil_div(shape.keys, lists.keys_each)) {
                continue;
            }
            index_t const from = std::max(entry * lists.keys_each, sees.from);
            index_t const to = std::min((entry + 1) * lists.keys_each, sees.to);
            for (index_t key = from; key < to && kept < layout.keys_most; ++key) {
                if (estimates) {
                    sample.leave_out(key);
                }
                if constexpr (requires { given.table; }) {
                    keys[kept++] = given.table.row(key);
                } else {
                    keys[kept++] = static_cast<key_id>(key);
                }
            }
        }
        detail::listed_rows const attend(scratch + layout.attend_at, layout.rows, layout.keys_most,
                                         shape.dim, shape.value_dim);
        std::span<key_id const> const chosen(keys, static_cast<std::size_t>(kept));
        if (estimates) {
            attend(given, chosen, sample, kv, head, query, shape.scale, shape.terms, output, sums,
                   dropped);
        } else {
            attend(given, chosen, kv, head, query, shape.scale, shape.terms, output, sums);
        }
    });
}

} // namespace sofattn
