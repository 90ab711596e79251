// SPDX-License-Identifier: MIT
// Whether a descriptor describes something that this library does; if not, what is wrong with it.
#pragma once

#include <sofattn/attention/decode.hpp>
#include <sofattn/attention/logit_terms.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/engine/descriptor.hpp>
#include <sofattn/engine/page_codes.hpp>
#include <sofattn/engine/verdict.hpp>
#include <sofattn/sufa/block_tiles.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

namespace sofattn::engine {

namespace detail {

inline constexpr std::int64_t most_tokens = 2147483647; ///< key_id
inline constexpr std::int64_t most_heads = 65536;
inline constexpr std::int64_t most_bytes = std::int64_t{1} << 47; ///< an address space

/// Remembers the first thing that is wrong.
class checker {
public:
    [[nodiscard]] bool ok() const noexcept { return found_.ok(); }
    [[nodiscard]] verdict found() const noexcept { return found_; }

    void require(bool holds, status code, char const* field, double value,
                 char const* limit) noexcept {
        if (found_.ok() && !holds) {
            found_ = {code, field, value, limit};
        }
    }
    void in_range(char const* field, std::int64_t value, std::int64_t low, std::int64_t high,
                  char const* limit) noexcept {
        require(value >= low && value <= high, status::out_of_range, field,
                static_cast<double>(value), limit);
    }
    void given(char const* field, void const* pointer, char const* limit) noexcept {
        require(pointer != nullptr, status::null_pointer, field, 0, limit);
    }
    void aligned(char const* field, void const* pointer, std::int64_t bytes) noexcept {
        auto const rest = static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(pointer) %
                                                    static_cast<std::uintptr_t>(bytes));
        require(rest == 0, status::misaligned, field, static_cast<double>(rest),
                "0 bytes after a multiple of its elements");
    }
    /// A stride between `count` rows.
    void stride(char const* field, std::int64_t value, std::int64_t count,
                std::int64_t bytes) noexcept {
        if (count <= 1 || !ok()) {
            return; // never stepped
        }
        std::int64_t const most = most_bytes / (count - 1);
        require(value >= -most && value <= most, status::out_of_range, field,
                static_cast<double>(value), "small enough for all rows to lie within 2^47 bytes");
        require(value % bytes == 0, status::misaligned, field, static_cast<double>(value),
                "a multiple of the element's bytes");
    }

private:
    verdict found_{};
};

[[nodiscard]] constexpr std::int64_t bytes_of(dtype type) noexcept {
    return type == dtype::f32 ? 4 : type == dtype::int8 ? 1 : 2;
}
[[nodiscard]] constexpr std::int64_t magnitude(std::int64_t x) noexcept { return x < 0 ? -x : x; }

/// Few queries: memory decides, and keys are split. A window's lower end is no end of a chunk for more
/// than one.
[[nodiscard]] inline bool decodes(attention_desc const& d) noexcept {
    constexpr std::int64_t few = 4;
    return d.queries == 1 || (d.queries <= few && d.mask != mask_kind::window);
}
/// Of `budget`, `pages` and `best_keys` there is none in short sequences.
[[nodiscard]] inline bool is_dense(attention_desc const& d) noexcept {
    return d.how == method::dense || (d.how != method::listed && d.keys < d.dense_below);
}

/// Prefill over what is known of the keys beforehand.
[[nodiscard]] inline bool is_sparse_prefill(attention_desc const& d) noexcept {
    return !is_dense(d) && (d.how == method::budget || d.how == method::pages);
}

/// Whether keys and values are read where they lie. method::pages has copies of them, and may be told sizes and
/// type alone.
[[nodiscard]] inline bool reads_keys(attention_desc const& d) noexcept {
    return is_dense(d) || d.how != method::pages || d.finite == finite_check::reject;
}

[[nodiscard]] inline bool multiplies_int8(attention_desc const& d) noexcept {
    return is_dense(d) && !decodes(d) && d.products == dense_products::int8;
}

inline void check_shapes(checker& c, attention_desc const& d) noexcept {
    c.in_range("heads", d.heads, 1, most_heads, "from 1 to 65536");
    c.in_range("kv_heads", d.kv_heads, 1, most_heads, "from 1 to 65536");
    c.require(!c.ok() || d.heads % d.kv_heads == 0, status::mismatch, "heads",
              static_cast<double>(d.heads), "a multiple of kv_heads");
    c.in_range("queries", d.queries, 1, most_tokens, "from 1 to 2^31 - 1");
    c.in_range("keys", d.keys, 1, most_tokens, "from 1 to 2^31 - 1");
    c.in_range("qk_dim", d.qk_dim, 1, max_head_dim, "from 1 to 256");
    c.in_range("v_dim", d.v_dim, 1, max_head_dim, "from 1 to 256");
}

inline void check_tiles(checker& c, tile_sizes const& t) noexcept {
    using tiles = sufa::block_tiles;
    c.require(t.keys == 0 || tiles{t.keys, tiles::rows_least}.is_valid(), status::out_of_range,
              "tiles.keys", static_cast<double>(t.keys), "0, or a multiple of 48 up to 576");
    c.require(t.rows == 0 || tiles{tiles::keys_least, t.rows}.is_valid(), status::out_of_range,
              "tiles.rows", static_cast<double>(t.rows), "from 0 to 1536");
    c.require(t.part_keys == 0 || decode_parts{t.part_keys}.is_valid(), status::out_of_range,
              "tiles.part_keys", static_cast<double>(t.part_keys),
              "0, or a multiple of 64 up to 2^20");
}

inline void check_pages(checker& c, attention_desc const& d) noexcept {
    block_table const& p = d.pages;
    if (p.numbers == nullptr) {
        c.require(p.count == 0, status::null_pointer, "pages.numbers", 0,
                  "given where pages.count is not 0");
        return;
    }
    c.aligned("pages.numbers", p.numbers, 4);
    c.in_range("pages.page_tokens", p.page_tokens, 1, most_tokens, "from 1 to 2^31 - 1");
    c.in_range("pages.count", p.count, 1, most_tokens, "from 1 to 2^31 - 1");
    c.in_range("pages.pool_pages", p.pool_pages, 1, most_tokens, "from 1 to 2^31 - 1");
    if (!c.ok()) {
        return;
    }
    c.require(p.pool_pages <= most_tokens / p.page_tokens, status::out_of_range, "pages.pool_pages",
              static_cast<double>(p.pool_pages), "so few that the pool has at most 2^31 - 1 rows");
    std::int64_t const needed = (d.keys + p.page_tokens - 1) / p.page_tokens;
    c.require(p.count >= needed, status::mismatch, "pages.count", static_cast<double>(p.count),
              "at least keys / page_tokens, rounded up");
    for (std::int64_t i = 0; c.ok() && i < needed; ++i) {
        c.in_range("pages.numbers[]", p.numbers[i], 0, p.pool_pages - 1,
                   "from 0 to pages.pool_pages - 1");
    }
    c.require(!multiplies_int8(d), status::unsupported, "products", static_cast<double>(d.products),
              "f32 or bf16 where keys lie in pages");
    c.require(is_dense(d) || d.how != method::budget, status::unsupported, "pages.numbers", 1,
              "left out with method::budget, which reads keys in a row");
}

/// Of keys, or of values. pre: their type is one
inline void check_scales(checker& c, attention_desc const& d, row_scales const& of,
                         std::int64_t rows, bool are_keys) noexcept {
    char const* const data = are_keys ? "key_scales.data" : "value_scales.data";
    if (d.key.type != dtype::int8) {
        c.require(of.data == nullptr, status::unsupported, data, 1,
                  "null but where keys and values are in int8");
        return;
    }
    if (reads_keys(d)) {
        c.given(data, of.data, "the first scale of keys and of values that are in int8");
    }
    c.aligned(data, of.data, 4);
    c.stride(are_keys ? "key_scales.head_stride" : "value_scales.head_stride", of.head_stride,
             d.kv_heads, 4);
    c.stride(are_keys ? "key_scales.token_stride" : "value_scales.token_stride", of.token_stride,
             rows, 4);
}

inline void check_memory(checker& c, attention_desc const& d) noexcept {
    struct named {
        operand const& of;
        char const* data;
        char const* type;
        char const* head_stride;
        char const* token_stride;
        std::int64_t heads;
        std::int64_t tokens;
    };
    std::int64_t const rows =
        d.pages.numbers == nullptr ? d.keys : d.pages.pool_pages * d.pages.page_tokens;
    for (named const& n : {named{d.query, "query.data", "query.type", "query.head_stride",
                                 "query.token_stride", d.heads, d.queries},
                           named{d.key, "key.data", "key.type", "key.head_stride",
                                 "key.token_stride", d.kv_heads, rows},
                           named{d.value, "value.data", "value.type", "value.head_stride",
                                 "value.token_stride", d.kv_heads, rows}}) {
        bool const is_query = &n.of == &d.query;
        if (is_query || reads_keys(d)) {
            c.given(n.data, n.of.data, "the first element of an array");
        }
        c.in_range(n.type, static_cast<std::int64_t>(n.of.type), 0, is_query ? 2 : 3,
                   is_query ? "f32, f16 or bf16" : "f32, f16, bf16 or int8");
        if (!c.ok()) {
            return;
        }
        std::int64_t const bytes = bytes_of(n.of.type);
        c.aligned(n.data, n.of.data, bytes);
        c.stride(n.head_stride, n.of.head_stride, n.heads, bytes);
        c.stride(n.token_stride, n.of.token_stride, n.tokens, bytes);
    }
    c.require(d.value.type == d.key.type, status::unsupported, "value.type",
              static_cast<double>(d.value.type), "that of key");
    c.require(d.query.type == dtype::f32 || d.query.type == d.key.type || d.key.type == dtype::int8,
              status::unsupported, "query.type", static_cast<double>(d.query.type),
              "f32, or that of key; any but int8 where that is int8");
    check_scales(c, d, d.key_scales, rows, true);
    check_scales(c, d, d.value_scales, rows, false);
    c.require(d.key.type != dtype::int8 || !multiplies_int8(d), status::unsupported, "products",
              static_cast<double>(d.products), "f32 or bf16 where keys and values are in int8");
    c.require(d.key.type != dtype::int8 || d.how != method::budget || is_dense(d),
              status::unsupported, "key.type", static_cast<double>(d.key.type),
              "f32, f16 or bf16 with method::budget where it is not dense");

    c.given("output.data", d.output.data, "the first element of an array");
    c.in_range("output.type", static_cast<std::int64_t>(d.output.type), 0, 2, "f32, f16 or bf16");
    std::int64_t const bytes = bytes_of(d.output.type);
    c.aligned("output.data", d.output.data, bytes);
    c.stride("output.head_stride", d.output.head_stride, d.heads, bytes);
    c.stride("output.token_stride", d.output.token_stride, d.queries, bytes);
    if (c.ok()) {
        std::int64_t const row = bytes * d.v_dim;
        bool const one_head = d.heads == 1;
        bool const one_query = d.queries == 1; // a stride that is never stepped may be any number
        std::int64_t const head = one_head ? row : magnitude(d.output.head_stride);
        std::int64_t const token = one_query ? row : magnitude(d.output.token_stride);
        c.require(one_query || token >= row, status::overlapping, "output.token_stride",
                  static_cast<double>(d.output.token_stride), "at least v_dim elements apart");
        c.require(one_head || head >= row, status::overlapping, "output.head_stride",
                  static_cast<double>(d.output.head_stride), "at least v_dim elements apart");
        c.require(one_head || one_query || head >= (d.queries - 1) * token + row ||
                      token >= (d.heads - 1) * head + row,
                  status::overlapping, "output.head_stride",
                  static_cast<double>(d.output.head_stride),
                  "so large that no head's rows lie between another's");
    }
    c.aligned("row_max", d.row_max, 4);
    c.aligned("row_sum", d.row_sum, 4);
    c.aligned("dropped_mass", d.dropped_mass, 4);
}

/// A number of each head.
inline void check_numbers(checker& c, attention_desc const& d, float const* numbers,
                          char const* field, char const* element, float low, float high,
                          char const* limit) noexcept {
    if (numbers == nullptr) {
        return;
    }
    c.aligned(field, numbers, 4);
    for (std::int64_t h = 0; c.ok() && h < d.heads; ++h) {
        c.require(numbers[h] >= low && numbers[h] <= high, status::out_of_range, element,
                  static_cast<double>(numbers[h]), limit);
    }
}

inline void check_logits(checker& c, attention_desc const& d) noexcept {
    c.in_range("mask", static_cast<std::int64_t>(d.mask), 0, 3, "none, causal, window or prefix");
    bool const windowed = d.mask == mask_kind::window;
    bool const prefixed = d.mask == mask_kind::prefix;
    c.in_range("window", d.window, windowed ? 1 : 0, windowed ? most_tokens : 0,
               windowed ? "from 1 to 2^31 - 1" : "0 but with mask_kind::window");
    c.in_range("prefix", d.prefix, 0, prefixed ? most_tokens : 0,
               prefixed ? "from 0 to 2^31 - 1" : "0 but with mask_kind::prefix");
    c.require(std::isfinite(d.scale) && d.scale >= 0, status::out_of_range, "scale", d.scale,
              "positive and finite, or 0 for 1 / sqrt(qk_dim)");
    c.require(d.softcap >= 0 && d.softcap <= logit_terms::most, status::out_of_range, "softcap",
              static_cast<double>(d.softcap), "from 0 to 1e20");
    constexpr float most = logit_terms::most;
    constexpr char const* range = "from -1e20 to 1e20";
    check_numbers(c, d, d.alibi_slopes, "alibi_slopes", "alibi_slopes[]", -most, most, range);
    check_numbers(c, d, d.sink_logits, "sink_logits", "sink_logits[]", -most, most, range);
    bool const dense = is_dense(d);
    bool const int8 = multiplies_int8(d);
    c.require(d.softcap == 0 || !(int8 || is_sparse_prefill(d)), status::unsupported, "softcap",
              static_cast<double>(d.softcap),
              "0 with int8 products, and with method::budget and method::pages where they are not "
              "dense");
    c.require(d.alibi_slopes == nullptr || (dense && !int8), status::unsupported, "alibi_slopes", 1,
              "null but where attention is dense, and with int8 products");
    c.require(d.sink_logits == nullptr || !int8, status::unsupported, "sink_logits", 1,
              "null with int8 products");
}

inline void check_best_keys(checker& c, attention_desc const& d) noexcept {
    c.in_range("count", d.count, 1, most_tokens, "from 1 to 2^31 - 1");
    c.in_range("sinks", d.sinks, 0, most_tokens, "from 0 to 2^31 - 1");
    c.in_range("recent", d.recent, 0, most_tokens, "from 0 to 2^31 - 1");
    if (d.selected.entries != nullptr) {
        c.aligned("selected.entries", d.selected.entries, 4);
        c.aligned("selected.counts", d.selected.counts, 4);
        c.in_range("selected.slots", d.selected.slots, 1, most_tokens, "from 1 to 2^31 - 1");
    }
    bool const reuses = d.reuse.entries != nullptr;
    if (reuses) {
        c.aligned("reuse.entries", d.reuse.entries, 4);
        c.aligned("reuse.reused", d.reuse.reused, 4);
        c.in_range("reuse.slots", d.reuse.slots, 1, most_tokens, "from 1 to 2^31 - 1");
        c.require(d.reuse.most_dropped >= 0 && d.reuse.most_dropped <= 1, status::out_of_range,
                  "reuse.most_dropped", d.reuse.most_dropped, "from 0 to 1");
        c.require(d.reuse.entries != d.selected.entries || d.reuse.slots == d.selected.slots,
                  status::mismatch, "reuse.slots", static_cast<double>(d.reuse.slots),
                  "selected.slots where both are one memory");
        c.given("dropped_mass", d.dropped_mass, "given where reuse.entries is");
        c.require(d.heads_together, status::unsupported, "heads_together", 0,
                  "true where reuse.entries is given");
    }
    if (!c.ok() || is_dense(d)) {
        return;
    }
    std::int64_t const most_kept =
        reuses ? d.count + d.sinks + d.recent : std::max(d.count, d.sinks + d.recent);
    c.require(d.selected.entries == nullptr || d.selected.slots >= std::min(d.keys, most_kept),
              status::mismatch, "selected.slots", static_cast<double>(d.selected.slots),
              "at least the keys that are kept: the larger of count and sinks + recent; with reuse "
              "the sum of all three");
    c.require(d.mask == mask_kind::none || d.mask == mask_kind::causal, status::unsupported, "mask",
              static_cast<double>(d.mask), "none or causal with method::best_keys");
    c.given("codes", d.codes, "an index of the keys for each KV head");
    for (std::int64_t h = 0; c.ok() && h < d.kv_heads; ++h) {
        c.require(d.codes[h].size() == d.keys, status::mismatch, "codes[].size",
                  static_cast<double>(d.codes[h].size()), "keys");
        c.require(d.codes[h].dim() == d.qk_dim, status::mismatch, "codes[].dim",
                  static_cast<double>(d.codes[h].dim()), "qk_dim");
    }
}

/// Of method::budget and method::pages.
inline void check_budgets(checker& c, attention_desc const& d) noexcept {
    c.require(d.mass >= 0 && d.mass <= 1, status::out_of_range, "mass", d.mass, "from 0 to 1");
    c.require(d.output_error >= 0 && std::isfinite(d.output_error), status::out_of_range,
              "output_error", d.output_error, "at least 0 and finite");
    int const budgets = (d.mass > 0 ? 1 : 0) + (d.output_error > 0 ? 1 : 0) +
                        (d.head_masses != nullptr ? 1 : 0) +
                        (d.head_output_errors != nullptr ? 1 : 0);
    c.require(
        budgets == 1, status::mismatch, "output_error", d.output_error,
        "the only budget: of mass, output_error, head_masses and head_output_errors one is given");
    check_numbers(c, d, d.head_masses, "head_masses", "head_masses[]",
                  std::numeric_limits<float>::denorm_min(), 1, "more than 0 and at most 1");
    check_numbers(c, d, d.head_output_errors, "head_output_errors", "head_output_errors[]",
                  std::numeric_limits<float>::denorm_min(), std::numeric_limits<float>::max(),
                  "more than 0 and finite");
}
inline void check_sparse_prefill(checker& c, attention_desc const& d) noexcept {
    c.require(d.mask != mask_kind::window || d.how == method::pages, status::unsupported, "mask",
              static_cast<double>(d.mask), "none, causal or prefix with method::budget");
    c.require(d.row_max == nullptr && d.row_sum == nullptr, status::unsupported, "row_max", 1,
              "null, as row_sum, with method::budget and method::pages");
}

inline void check_budget(checker& c, attention_desc const& d) noexcept {
    check_budgets(c, d);
    c.require(d.page_loss >= 0 && d.page_loss < 1, status::out_of_range, "page_loss", d.page_loss,
              "at least 0 and less than 1");
    if (!c.ok() || is_dense(d)) {
        return;
    }
    check_sparse_prefill(c, d);
    c.given("prefill", d.prefill, "what is known of the keys of each KV head");
    for (std::int64_t h = 0; c.ok() && h < d.kv_heads; ++h) {
        auto const codes = d.prefill[h].codes().codes();
        c.require(codes.template extent<axis::key>() == d.keys, status::mismatch, "prefill[].keys",
                  static_cast<double>(codes.template extent<axis::key>()), "keys");
        c.require(d.prefill[h].dim() == d.qk_dim, status::mismatch, "prefill[].dim",
                  static_cast<double>(d.prefill[h].dim()), "qk_dim");
        c.require(d.prefill[h].value_dim() == d.v_dim, status::mismatch, "prefill[].value_dim",
                  static_cast<double>(d.prefill[h].value_dim()), "v_dim");
    }
}

inline void check_looked_pages(checker& c, attention_desc const& d) noexcept {
    check_budgets(c, d);
    c.require(d.products != dense_products::int8, status::unsupported, "products",
              static_cast<double>(d.products), "f32 or bf16 with method::pages");
    if (!c.ok() || is_dense(d)) {
        return;
    }
    check_sparse_prefill(c, d);
    c.given("prefill_pages", d.prefill_pages, "what is known of the keys' pages");
    if (!c.ok()) {
        return;
    }
    page_codes const& of = *d.prefill_pages;
    c.require(of.products() == d.products, status::mismatch, "prefill_pages.products",
              static_cast<double>(of.products()), "products");
    c.require(of.kv_heads() == d.kv_heads, status::mismatch, "prefill_pages.kv_heads",
              static_cast<double>(of.kv_heads()), "kv_heads");
    c.require(of.keys() == d.keys, status::mismatch, "prefill_pages.keys",
              static_cast<double>(of.keys()), "keys");
    c.require(of.dim() == d.qk_dim, status::mismatch, "prefill_pages.dim",
              static_cast<double>(of.dim()), "qk_dim");
    c.require(of.value_dim() == d.v_dim, status::mismatch, "prefill_pages.value_dim",
              static_cast<double>(of.value_dim()), "v_dim");
}

inline void check_listed(checker& c, attention_desc const& d) noexcept {
    list_input const& l = d.lists;
    c.given("lists.entries", l.entries, "numbers of keys");
    c.aligned("lists.entries", l.entries, 4);
    c.aligned("lists.counts", l.counts, 4);
    c.require(l.heads == 1 || l.heads == d.kv_heads || l.heads == d.heads, status::mismatch,
              "lists.heads", static_cast<double>(l.heads), "1, kv_heads or heads");
    c.in_range("lists.slots", l.slots, 1, most_tokens, "from 1 to 2^31 - 1");
    c.in_range("lists.queries_each", l.queries_each, 1, most_tokens, "from 1 to 2^31 - 1");
    c.in_range("lists.keys_each", l.keys_each, 1, most_tokens, "from 1 to 2^31 - 1");
}

} // namespace detail

/// Everything but the workspace and NaN: ok, or the first field that is wrong.
/// error  none: reads the descriptor, its block table, its numbers of heads and the sizes of its indices,
///        nothing else
[[nodiscard]] inline verdict check(attention_desc const& d) noexcept {
    detail::checker c;
    detail::check_shapes(c, d);
    c.in_range("how", static_cast<std::int64_t>(d.how), 0, 4,
               "dense, best_keys, budget, listed or pages");
    c.in_range("products", static_cast<std::int64_t>(d.products), 0, 2, "f32, bf16 or int8");
    c.in_range("finite", static_cast<std::int64_t>(d.finite), 0, 1, "unchecked or reject");
    c.in_range("dense_below", d.dense_below, 0, detail::most_tokens, "from 0 to 2^31 - 1");
    detail::check_tiles(c, d.tiles);
    if (!c.ok()) {
        return c.found();
    }
    detail::check_logits(c, d);
    detail::check_pages(c, d);
    if (c.ok()) {
        detail::check_memory(c, d);
    }
    switch (d.how) {
    case method::dense: break;
    case method::best_keys: detail::check_best_keys(c, d); break;
    case method::budget: detail::check_budget(c, d); break;
    case method::listed: detail::check_listed(c, d); break;
    case method::pages: detail::check_looked_pages(c, d); break;
    }
    c.require(d.selected.entries == nullptr || d.how == method::best_keys, status::unsupported,
              "selected.entries", 1, "null but with method::best_keys");
    c.require(d.reuse.entries == nullptr || d.how == method::best_keys, status::unsupported,
              "reuse.entries", 1, "null but with method::best_keys");
    c.require(d.reuse.entries != nullptr || d.reuse.reused == nullptr, status::null_pointer,
              "reuse.entries", 0, "given where reuse.reused is");
    c.require(d.selected.entries != nullptr || d.selected.counts == nullptr, status::null_pointer,
              "selected.entries", 0, "given where selected.counts is");
    c.require(!detail::multiplies_int8(d) || (d.row_max == nullptr && d.row_sum == nullptr),
              status::unsupported, "row_max", 1, "null, as row_sum, with int8 products");
    return c.found();
}

} // namespace sofattn::engine
