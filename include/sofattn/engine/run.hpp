// SPDX-License-Identifier: MIT
// Carries out what a descriptor describes.
#pragma once

#include <sofattn/attention/decode.hpp>
#include <sofattn/attention/dense.hpp>
#include <sofattn/attention/dropped_mass.hpp>
#include <sofattn/attention/listed.hpp>
#include <sofattn/attention/options.hpp>
#include <sofattn/attention/page_prefill.hpp>
#include <sofattn/attention/paged_problem.hpp>
#include <sofattn/attention/prefill.hpp>
#include <sofattn/attention/problem.hpp>
#include <sofattn/attention/softmax_sums.hpp>
#include <sofattn/attention/sparse_decode.hpp>
#include <sofattn/core/bfloat16.hpp>
#include <sofattn/core/element.hpp>
#include <sofattn/core/half.hpp>
#include <sofattn/core/output_array.hpp>
#include <sofattn/core/scaled_view.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/core/view.hpp>
#include <sofattn/engine/check.hpp>
#include <sofattn/engine/descriptor.hpp>
#include <sofattn/engine/elements.hpp>
#include <sofattn/engine/page_codes.hpp>
#include <sofattn/engine/share.hpp>
#include <sofattn/engine/verdict.hpp>
#include <sofattn/exec/loop_ref.hpp>
#include <sofattn/exec/parallel.hpp>
#include <sofattn/sufa/block_tiles.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>

namespace sofattn::engine {

namespace detail {

[[nodiscard]] inline sparse_decode_options decode_options(attention_desc const& d) noexcept {
    sparse_decode_options o;
    o.count = d.count;
    o.sinks = d.sinks;
    o.window = d.recent;
    o.scope = d.heads_together ? selection_scope::per_group : selection_scope::per_query_head;
    return o;
}
[[nodiscard]] inline sads::budget budget_of(attention_desc const& d, index_t head) noexcept {
    sads::budget b;
    if (d.head_masses != nullptr) {
        b.mass = static_cast<double>(d.head_masses[head]);
    } else if (d.head_output_errors != nullptr) {
        b.output_error = static_cast<double>(d.head_output_errors[head]);
    } else if (d.mass > 0) {
        b.mass = d.mass;
    } else {
        b.output_error = d.output_error;
    }
    return b;
}
[[nodiscard]] inline key_lists lists_of(attention_desc const& d) noexcept {
    list_input const& l = d.lists;
    key_lists lists;
    lists.queries_each = l.queries_each;
    lists.keys_each = l.keys_each;
    auto const rows = ceil_div<index_t>(d.queries, l.queries_each);
    lists.entries = {l.entries, {l.heads, rows, l.slots}};
    if (l.counts != nullptr) {
        lists.counts = {l.counts, {l.heads, rows}};
    }
    return lists;
}
[[nodiscard]] inline softmax_sums sums_of(attention_desc const& d) noexcept {
    softmax_sums sums;
    if (d.row_max != nullptr) {
        sums.max = {d.row_max, {d.heads, d.queries}};
    }
    if (d.row_sum != nullptr) {
        sums.sum = {d.row_sum, {d.heads, d.queries}};
    }
    return sums;
}

[[nodiscard]] inline dropped_mass dropped_of(attention_desc const& d) noexcept {
    return d.dropped_mass == nullptr ? dropped_mass{}
                                     : dropped_mass{d.dropped_mass, {d.heads, d.queries}};
}

/// The first NaN or infinity of rows [row, channel].
template <class Rows>
[[nodiscard]] verdict first_not_finite(Rows const& rows, index_t count, index_t dim,
                                       char const* field) noexcept {
    for (index_t r = 0; r < count; ++r) {
        for (index_t c = 0; c < dim; ++c) {
            float const x = to_float(rows(r, c));
            if (!std::isfinite(x)) {
                return {status::not_finite, field, static_cast<double>(x), "finite"};
            }
        }
    }
    return {};
}

template <class Given>
[[nodiscard]] verdict check_finite(Given const& given, attention_desc const& d) noexcept {
    // What is selected by comparing scores must be numbers; keys were looked at when they were coded.
    bool const compares = !is_dense(d) && d.how != method::listed;
    verdict found;
    if (compares || d.finite == finite_check::reject) {
        for (index_t h = 0; h < d.heads && found.ok(); ++h) {
            found = first_not_finite(given.queries.template slice<axis::head>(h), d.queries,
                                     d.qk_dim, "query.data[]");
        }
    }
    if (d.finite == finite_check::reject) {
        for (index_t h = 0; h < d.kv_heads && found.ok(); ++h) {
            // Of codes only scale * code may be none: their scale is to blame.
            constexpr bool scaled = scaled_problem<Given>;
            found = first_not_finite(keys_of(given, h), d.keys, d.qk_dim,
                                     scaled ? "key_scales.data[]" : "key.data[]");
            if (found.ok()) {
                found = first_not_finite(values_of(given, h), d.keys, d.v_dim,
                                         scaled ? "value_scales.data[]" : "value.data[]");
            }
        }
    }
    return found;
}

/// Of dense attention with these products.
template <dense_products Products>
[[nodiscard]] sufa::block_tiles tiles_of(attention_desc const& d) noexcept {
    sufa::block_tiles tiles = default_tiles<Products>;
    tiles.keys = d.tiles.keys > 0 ? d.tiles.keys : tiles.keys;
    tiles.rows = d.tiles.rows > 0 ? d.tiles.rows : tiles.rows;
    return tiles;
}
[[nodiscard]] inline decode_parts parts_of(attention_desc const& d) noexcept {
    return d.tiles.part_keys > 0 ? decode_parts{d.tiles.part_keys} : decode_parts{};
}

[[nodiscard]] inline std::size_t dense_bytes(problem_shape const& shape, attention_desc const& d,
                                             index_t threads) noexcept {
    auto const with = [&]<dense_products Products>() {
        return dense_workspace_bytes<Products>(shape, threads, tiles_of<Products>(d));
    };
    switch (d.products) {
    case dense_products::f32: break;
    case dense_products::bf16: return with.template operator()<dense_products::bf16>();
    case dense_products::int8: return with.template operator()<dense_products::int8>();
    }
    return with.template operator()<dense_products::f32>();
}

template <class Given>
[[nodiscard]] std::size_t bytes_for(Given const& given, attention_desc const& d,
                                    index_t threads) noexcept {
    problem_shape const shape = given.extents();
    if (d.how == method::listed) {
        return listed_workspace_bytes(shape, lists_of(d), threads);
    }
    if (is_dense(d)) {
        return decodes(d) ? decode_workspace_bytes(shape, threads, parts_of(d))
                          : dense_bytes(shape, d, threads);
    }
    if (d.how == method::best_keys) {
        return sparse_decode_workspace_bytes(given, decode_options(d), threads);
    }
    if (d.how == method::budget) {
        return sparse_prefill<>::workspace_bytes(shape, threads);
    }
    return d.products == dense_products::bf16
               ? page_prefill<dense_products::bf16>::workspace_bytes(shape, threads)
               : page_prefill<>::workspace_bytes(shape, threads);
}

/// Writes what a selection kept into its row of the caller's lists.
struct list_writer {
    attention_desc const& d;

    void operator()(index_t head, index_t query, std::span<key_id const> keys) const noexcept {
        list_output const& to = d.selected;
        if (to.entries == nullptr) {
            return;
        }
        index_t const list = d.heads_together ? head / (d.heads / d.kv_heads) : head;
        index_t const row = list * d.queries + query;
        auto* const end = std::ranges::copy(keys, to.entries + row * to.slots).out;
        std::fill(end, to.entries + (row + 1) * to.slots, -1);
        if (to.counts != nullptr) {
            to.counts[row] = static_cast<std::int32_t>(keys.size());
        }
    }
    /// All keys that are seen, none of them listed. pre: there are lists
    void nothing_selected(problem_shape const& shape, index_t query) const noexcept {
        list_output const& to = d.selected;
        index_t const lists = d.heads_together ? d.kv_heads : d.heads;
        for (index_t list = 0; list < lists; ++list) {
            index_t const row = list * d.queries + query;
            std::fill_n(to.entries + row * to.slots, to.slots, -1);
            if (to.counts != nullptr) {
                key_range const sees = shape.sees(query);
                to.counts[row] = static_cast<std::int32_t>(sees.to - sees.from);
            }
        }
    }
};

template <output_float T>
[[nodiscard]] output_array output_as(attention_desc const& d) noexcept {
    constexpr auto bytes = static_cast<std::int64_t>(sizeof(T));
    return view<T, axis::head, axis::query, axis::value_dim>(
        static_cast<T*>(d.output.data), {d.heads, d.queries, d.v_dim},
        {d.output.head_stride / bytes, d.output.token_stride / bytes, 1});
}
/// pre: `d` has passed `check`
[[nodiscard]] inline output_array output_of(attention_desc const& d) noexcept {
    return d.output.type == dtype::f16    ? output_as<half>(d)
           : d.output.type == dtype::bf16 ? output_as<bfloat16>(d)
                                          : output_as<float>(d);
}

/// The caller's former lists, as sparse_decode asks for them.
struct list_reader {
    attention_desc const& d;
    double most_dropped;

    [[nodiscard]] static list_reader of(attention_desc const& d) noexcept {
        return {d, d.reuse.entries == nullptr ? -1.0 : d.reuse.most_dropped};
    }
    [[nodiscard]] std::span<key_id const> operator()(index_t kv, index_t query) const noexcept {
        auto const* const row = d.reuse.entries + (kv * d.queries + query) * d.reuse.slots;
        return {row, std::find_if(row, row + d.reuse.slots, [](key_id key) { return key < 0; })};
    }
    void reused(index_t kv, index_t query, bool whether) const noexcept {
        if (d.reuse.reused != nullptr) {
            d.reuse.reused[kv * d.queries + query] = whether ? 1 : 0;
        }
    }
};

template <class Given>
void run_dense(Given const& given, attention_desc const& d, output_array const& output,
               std::span<std::byte> workspace, share const& run) noexcept {
    softmax_sums const sums = sums_of(d);
    if (decodes(d)) {
        if (run.is_all()) {
            dense_decode(given, output, workspace, run, sums, parts_of(d));
        } else {
            dense_decode_share(given, output, workspace, run.thread(), run.threads(), sums,
                               parts_of(d));
        }
    } else if (d.products == dense_products::f32) {
        dense_attention(given, output, workspace, run, sums, tiles_of<dense_products::f32>(d));
    } else if (d.products == dense_products::bf16) {
        dense_attention<dense_products::bf16>(given, output, workspace, run, sums,
                                              tiles_of<dense_products::bf16>(d));
    } else if constexpr (!requires { given.table; } && !scaled_problem<Given>) {
        dense_attention<dense_products::int8>(given, output, workspace, run, {},
                                              tiles_of<dense_products::int8>(d));
    }
}

template <dense_products Products, class Given>
void run_pages(Given const& given, attention_desc const& d, output_array const& output,
               std::span<std::byte> workspace, share const& run) noexcept {
    page_prefill<Products> const sparse(attention_options{}, d.dense_below);
    sparse(given, d.prefill_pages->indexes<Products>(), output, workspace, run,
           ignore_looked_pages{}, dropped_of(d), [&](index_t head) { return budget_of(d, head); });
}

/// What `d` asks for, which has passed all checks. One loop of independent tasks, but for dense decode.
template <class Given>
void perform(Given const& given, attention_desc const& d, std::span<std::byte> memory,
             share const& run) noexcept {
    output_array const output = output_of(d);
    if (d.how == method::listed) {
        listed_attention(given, lists_of(d), output, memory, run, sums_of(d), dropped_of(d));
    } else if (is_dense(d)) {
        run_dense(given, d, output, memory, run);
    } else if (d.how == method::best_keys) {
        sparse_decode(given, std::span(d.codes, static_cast<std::size_t>(d.kv_heads)),
                      decode_options(d), output, memory, run, list_writer{d}, sums_of(d),
                      dropped_of(d), list_reader::of(d));
    } else if (d.how == method::pages) {
        d.products == dense_products::bf16
            ? run_pages<dense_products::bf16>(given, d, output, memory, run)
            : run_pages<dense_products::f32>(given, d, output, memory, run);
    } else if constexpr (!requires { given.table; } && !scaled_problem<Given>) {
        // `check` refuses budgets over a pool and over codes.
        sparse_prefill<> const sparse(attention_options{}, d.dense_below, d.page_loss);
        sparse(given, std::span(d.prefill, static_cast<std::size_t>(d.kv_heads)), output, memory,
               run, ignore_kept_keys{}, dropped_of(d),
               [&](index_t head) { return budget_of(d, head); });
    }
}

/// Where attention is dense: all is seen, nothing is dropped.
template <class Given>
void list_all_seen(Given const& given, attention_desc const& d, share const& run) noexcept {
    bool const reuses = d.reuse.entries != nullptr;
    if (!is_dense(d) || (d.selected.entries == nullptr && d.dropped_mass == nullptr && !reuses)) {
        return;
    }
    problem_shape const shape = given.extents();
    run(shape.queries, [&](index_t query, index_t) {
        if (d.selected.entries != nullptr) {
            list_writer{d}.nothing_selected(shape, query);
        }
        for (index_t h = 0; d.dropped_mass != nullptr && h < d.heads; ++h) {
            dropped_of(d)(h, query) = 0.0f;
        }
        for (index_t kv = 0; reuses && kv < d.kv_heads; ++kv) {
            list_reader::of(d).reused(kv, query, false);
        }
    });
}

template <class Compiled>
[[nodiscard]] verdict carry_out(attention_desc const& d, void* workspace, std::size_t bytes,
                                share const& run) noexcept {
    verdict const good = check(d);
    if (!good.ok()) {
        return good;
    }
    return with_types<Compiled>(d, [&](auto const& given) -> verdict {
        std::size_t const needed = bytes_for(given, d, run.threads());
        if (workspace == nullptr) {
            return {status::null_pointer, "workspace", 0, "memory of workspace_bytes bytes"};
        }
        if (bytes < needed) {
            return {status::workspace_too_small, "workspace bytes", static_cast<double>(bytes),
                    "at least workspace_bytes(descriptor, threads)"};
        }
        verdict const numbers = check_finite(given, d);
        if (!numbers.ok()) {
            return numbers;
        }
        list_all_seen(given, d, run);
        perform(given, d, {static_cast<std::byte*>(workspace), bytes}, run);
        return {};
    });
}

} // namespace detail

/// Bytes of workspace for so many threads or participants; 0 where `check` finds a fault or threads
/// is not positive.
[[nodiscard]] inline std::size_t workspace_bytes(attention_desc const& d,
                                                 std::int64_t threads) noexcept {
    std::size_t bytes = 0;
    if (threads > 0 && check(d).ok()) {
        (void)detail::with_types(d, [&](auto const& given) -> verdict {
            bytes = detail::bytes_for(given, d, threads);
            return {};
        });
    }
    return bytes;
}

/// Carries the descriptor out.
///
/// in     Compiled   elements<...>, types of d that it is compiled for; all unless told
///        d          what to do
///        workspace  workspace_bytes(d, run.threads()) bytes or more, at any address; no two runs at
///                   once may share it
///        run        who does the work (exec::parallel_for)
/// out    d.output and what else d asks for, if the verdict is ok; else nothing is written
/// error  as the verdict says; neither throws nor allocates
/// exact  what the functions of attention/ promise that it calls: dense_decode, dense_attention,
///        sparse_decode, sparse_prefill, page_prefill, listed_attention; no result depends on who runs it
/// paper  not in the paper
template <class Compiled = every_element, exec::parallel_for Run>
[[nodiscard]] verdict run(attention_desc const& d, void* workspace, std::size_t bytes,
                          Run const& run) noexcept {
    exec::loop_ref const loop(run);
    return detail::carry_out<Compiled>(d, workspace, bytes, detail::share::of_all(loop));
}

/// The share of participant `ith` of `nth`, for engines whose threads all call the same function: each
/// calls this once with the same descriptor and the same workspace for nth, in any order or at once, and
/// nobody waits for anybody. The output is complete when all have returned, and has the bits of `run` above.
template <class Compiled = every_element>
[[nodiscard]] verdict run(attention_desc const& d, void* workspace, std::size_t bytes,
                          std::int64_t ith, std::int64_t nth) noexcept {
    if (nth < 1) {
        return {status::out_of_range, "nth", static_cast<double>(nth), "at least 1"};
    }
    if (ith < 0 || ith >= nth) {
        return {status::out_of_range, "ith", static_cast<double>(ith), "from 0 to nth - 1"};
    }
    return detail::carry_out<Compiled>(d, workspace, bytes, detail::share::of(ith, nth));
}

} // namespace sofattn::engine
