// SPDX-License-Identifier: MIT
// Structs of the C interface as the engine has them, and back.
#pragma once

#include <sofattn/abi/handles.hpp>
#include <sofattn/engine/descriptor.hpp>
#include <sofattn/engine/kv_pool.hpp>
#include <sofattn/engine/verdict.hpp>
#include <sofattn/sofattn.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace sofattn::abi::detail {

[[nodiscard]] inline sofattn_verdict as_c(engine::verdict const& v) noexcept {
    return {static_cast<std::int32_t>(v.code), v.field, v.value, v.limit};
}
[[nodiscard]] inline engine::verdict null(char const* field, char const* limit) noexcept {
    return {engine::status::null_pointer, field, 0, limit};
}
[[nodiscard]] inline engine::verdict no_memory() noexcept {
    return {engine::status::out_of_memory, "memory", 0, "enough for what was asked"};
}
[[nodiscard]] inline engine::operand from_c(sofattn_operand const& o) noexcept {
    return {o.data, static_cast<engine::dtype>(o.type), o.head_stride, o.token_stride};
}
[[nodiscard]] inline sofattn_operand as_c(engine::operand const& o) noexcept {
    return {o.data, static_cast<std::int32_t>(o.type), o.head_stride, o.token_stride};
}

[[nodiscard]] inline engine::row_scales from_c(sofattn_scales const& s) noexcept {
    return {s.data, s.head_stride, s.token_stride};
}
[[nodiscard]] inline sofattn_scales as_c(engine::row_scales const& s) noexcept {
    return {s.data, s.head_stride, s.token_stride};
}

/// Structs of older callers are shorter: what they lack has its initial value.
template <class Struct>
[[nodiscard]] engine::verdict read(Struct const* from, Struct const& initial,
                                   Struct& into) noexcept {
    if (from == nullptr) {
        return null("struct", "a description");
    }
    std::size_t const bytes = from->struct_bytes;
    if (bytes < sizeof(std::size_t) || bytes > sizeof(Struct)) {
        return {engine::status::out_of_range, "struct_bytes", static_cast<double>(bytes),
                "as its init function sets it, of a library that is no older than its caller"};
    }
    into = initial;
    std::memcpy(&into, from, bytes);
    return {};
}

[[nodiscard]] inline sofattn_attention initial_attention() noexcept {
    engine::attention_desc const d{};
    sofattn_attention c{};
    c.struct_bytes = sizeof c;
    c.mask = static_cast<std::int32_t>(d.mask);
    c.dense_below = d.dense_below;
    c.count = d.count;
    c.sinks = d.sinks;
    c.recent = d.recent;
    c.heads_together = d.heads_together ? 1 : 0;
    c.page_loss = d.page_loss;
    c.list_queries_each = d.lists.queries_each;
    c.list_keys_each = d.lists.keys_each;
    return c;
}
[[nodiscard]] inline sofattn_layout initial_layout() noexcept {
    engine::kv_layout const l{};
    sofattn_layout c{};
    c.struct_bytes = sizeof c;
    c.layers = l.layers;
    c.kv_heads = l.kv_heads;
    c.page_tokens = l.page_tokens;
    c.coded_from = l.coded_from;
    c.page_codes = static_cast<std::int32_t>(l.page_codes);
    return c;
}

[[nodiscard]] inline engine::attention_desc from_c(sofattn_attention const& c) noexcept {
    engine::attention_desc d{};
    d.heads = c.heads;
    d.kv_heads = c.kv_heads;
    d.queries = c.queries;
    d.keys = c.keys;
    d.qk_dim = c.qk_dim;
    d.v_dim = c.v_dim;
    d.query = from_c(c.query);
    d.key = from_c(c.key);
    d.value = from_c(c.value);
    d.output = {c.output, c.output_head_stride, c.output_token_stride,
                static_cast<engine::dtype>(c.output_type)};
    d.pages = {c.pages, c.page_count, c.page_tokens, c.pool_pages};
    d.row_max = c.row_max;
    d.row_sum = c.row_sum;
    d.mask = static_cast<engine::mask_kind>(c.mask);
    d.window = c.window;
    d.prefix = c.prefix;
    d.scale = c.scale;
    d.softcap = c.softcap;
    d.alibi_slopes = c.alibi_slopes;
    d.sink_logits = c.sink_logits;
    d.how = static_cast<engine::method>(c.method);
    d.products = static_cast<dense_products>(c.products);
    d.dense_below = c.dense_below;
    d.finite = static_cast<engine::finite_check>(c.finite);
    d.codes = reinterpret_cast<engine::key_codes const*>(c.codes);
    d.count = c.count;
    d.sinks = c.sinks;
    d.recent = c.recent;
    d.heads_together = c.heads_together != 0;
    d.selected = {c.selected, c.selected_counts, c.selected_slots};
    if (c.prefill != nullptr && c.prefill->is_of_pages()) {
        d.prefill_pages = &c.prefill->pages;
    } else if (c.prefill != nullptr) {
        d.prefill = c.prefill->codes.data();
    }
    if (c.page_codes != nullptr) {
        d.prefill_pages = reinterpret_cast<engine::page_codes const*>(c.page_codes);
    }
    d.mass = c.mass;
    d.output_error = c.output_error;
    d.page_loss = c.page_loss;
    d.lists = {c.lists,      c.list_counts,       c.list_heads,
               c.list_slots, c.list_queries_each, c.list_keys_each};
    d.head_masses = c.head_masses;
    d.head_output_errors = c.head_output_errors;
    d.dropped_mass = c.dropped_mass;
    d.reuse = {c.reuse, c.reuse_slots, c.reuse_most_dropped, c.reused};
    d.key_scales = from_c(c.key_scales);
    d.value_scales = from_c(c.value_scales);
    d.tiles = {c.tile_keys, c.tile_rows, c.part_keys};
    return d;
}

} // namespace sofattn::abi::detail
