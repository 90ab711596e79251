// SPDX-License-Identifier: MIT
// One call of attention as an inference engine describes it: plain data, pointers and byte strides.
#pragma once

#include <sofattn/attention/dense.hpp>
#include <sofattn/attention/prefill_index.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/dlzs/page_ranges.hpp>
#include <sofattn/dlzs/policy.hpp>

#include <cstdint>

namespace sofattn::engine {

/// How queries, keys and values are stored.
enum class dtype : std::int32_t {
    f32 = 0,
    f16 = 1,
    bf16 = 2,
    int8 = 3 ///< of keys and values only: codes, each of a token's rows with a scale (row_scales)
};

enum class mask_kind : std::int32_t {
    none = 0,
    causal = 1, ///< the last query stands at the last key (bottom-right aligned)
    window = 2, ///< causal, and only the last `window` keys
    prefix = 3  ///< causal, but the first `prefix` keys are seen by all queries
};

enum class method : std::int32_t {
    dense = 0,     ///< all keys; exact but for rounding
    best_keys = 1, ///< so many keys of each query, by a scan of an index; for decode
    budget = 2,    ///< as many keys as an error or a mass asks for; for prefill
    listed = 3,    ///< keys that the caller has selected
    pages = 4      ///< all keys of as many pages as an error or a mass asks for; for prefill
};

enum class finite_check : std::int32_t {
    /// Rows that see a NaN or infinity of their query, keys or values have unspecified numbers, mostly NaN.
    /// So have rows of the same call that do not see a value that is none, where it shares a tile of 192
    /// keys with some that they see (a weight of 0 times NaN), and with int8 products all rows. Kernels do
    /// not propagate NaN reliably: that would cost a pass of its own, as `reject` does.
    unchecked = 0,
    reject = 1 ///< status::not_finite, output untouched; reads all inputs once more
};

/// The codes that decode scans, one per KV head.
using key_codes = dlzs::paged_index<dlzs::centred_int4>;
/// What sparse prefill knows of the keys, one per KV head.
using prefill_codes = prefill_index<dlzs::rotated_int8>;
/// What method::pages knows of keys and values, of all KV heads (page_codes.hpp).
class page_codes;

/// [head, token, channel]; channels of a token are neighbours. Strides are bytes, of any sign.
struct operand {
    void const* data = nullptr;
    dtype type = dtype::f32;
    std::int64_t head_stride = 0;
    std::int64_t token_stride = 0;
};

/// Of keys or values in int8, whose elements are scale * code: [kv_head, token or row of the pool]. Strides
/// are bytes, of any sign. Codes are meant to lie in [-127, 127], but -128 is a number like any other.
struct row_scales {
    float const* data = nullptr; ///< null where elements are floats
    std::int64_t head_stride = 0;
    std::int64_t token_stride = 0;
};

/// [query head, query, channel]; strides as operand's. In 16 bits they are what they would be in f32, rounded
/// to nearest (sofattn::output_array).
struct output_rows {
    void* data = nullptr;
    std::int64_t head_stride = 0;
    std::int64_t token_stride = 0;
    dtype type = dtype::f32; ///< or f16 or bf16, whatever the others are
};

/// Where a sequence's keys and values lie, if in pages: key t is row
/// numbers[t / page_tokens] * page_tokens + t % page_tokens of key.data and value.data.
struct block_table {
    std::int32_t const* numbers = nullptr; ///< null: keys lie in a row
    std::int64_t count = 0;
    std::int64_t page_tokens = 0;
    std::int64_t pool_pages = 0; ///< that key.data and value.data have
};

/// Keys for method::listed: [head, row, slot], in C order; as sofattn::key_lists.
struct list_input {
    std::int32_t const* entries = nullptr;
    std::int32_t const* counts = nullptr; ///< [head, row], or null: all slots
    std::int64_t heads = 0;               ///< 1, kv_heads or heads
    std::int64_t slots = 0;
    std::int64_t queries_each =
        1;                      ///< queries that share a row: rows = ceil(queries / queries_each)
    std::int64_t keys_each = 1; ///< keys per entry: 1, or those of a block
};

/// What was selected: [selection head, query, slot], in C order. Ascending keys, then -1. Where attention
/// is dense, counts are those of the keys that a query sees, and all entries -1.
struct list_output {
    std::int32_t* entries = nullptr; ///< null: nobody asks
    std::int32_t* counts = nullptr;  ///< [selection head, query], may be null
    std::int64_t slots = 0;
};

/// A former selection for method::best_keys, such as that of the step before: [kv_head, query, slot], in C
/// order; ascending keys, then -1. It may lie where `selected` is written. With the first and last keys of
/// now it is attended to where the largest estimate of the heads' dropped mass is at most `most_dropped`;
/// else keys are selected anew. So they are, too, where the list is empty, not ascending or names keys that
/// are not seen, and where it has grown beyond count + sinks + recent, which bounds its age.
struct list_reuse {
    std::int32_t const* entries = nullptr; ///< null: none
    std::int64_t slots = 0;
    double most_dropped = 0;        ///< in [0, 1]
    std::int32_t* reused = nullptr; ///< [kv_head, query] 1 where it was, or null
};

/// How dense attention is cut for the caches of a machine, of any method that is dense for a descriptor; 0: as
/// the library does. sofattn-tune measures what suits a machine. Results differ by rounding.
struct tile_sizes {
    // Of many queries: sufa::block_tiles, with the descriptor's products
    std::int64_t keys = 0; ///< of a tile: a multiple of 48 up to 576
    std::int64_t rows = 0; ///< of a block: up to 1536
    // Of a few: sofattn::decode_parts
    std::int64_t part_keys = 0; ///< of a part, at least: a multiple of 64 up to 2^20
};

/// Zero-initialised it is a valid start: `attention_desc d{};`, then the fields that differ. What a field
/// asks for is done or refused by `check`, never ignored.
struct attention_desc {
    // --- shapes ---
    std::int64_t heads = 0;    ///< of queries
    std::int64_t kv_heads = 0; ///< divides heads (GQA)
    std::int64_t queries = 0;  ///< tokens
    std::int64_t keys = 0;     ///< tokens of the sequence, those of the queries included
    std::int64_t qk_dim = 0;   ///< 1 to 256
    std::int64_t v_dim = 0;    ///< 1 to 256

    // --- memory ---
    operand query{};
    // Keys and values may lack data where nobody reads them: method::pages that is not dense has copies, if
    // `finite` is unchecked. Scales likewise.
    operand key{};   ///< [kv_head, token or row of the pool, qk_dim]
    operand value{}; ///< of the type of key
    output_rows output{};
    block_table pages{};
    float* row_max = nullptr; ///< [head, query], or null: m of each row, in logits (softmax_sums)
    float* row_sum = nullptr; ///< [head, query], or null: l of each row
    /// [head, query], or null: estimated share of each row's softmax on keys that it does not attend to
    /// (sofattn::dropped_mass says how); 0 where attention is dense.
    float* dropped_mass = nullptr;

    // --- what the logits are ---
    mask_kind mask = mask_kind::causal;
    std::int64_t window = 0; ///< with mask_kind::window: keys, the query's own included
    std::int64_t prefix = 0; ///< with mask_kind::prefix
    double scale = 0;        ///< logits = scale * q.k; 0: 1 / sqrt(qk_dim)
    /// c: logits become c tanh(logit / c) (sofattn::logit_terms); 0: none. Not with method::budget and
    /// method::pages, whose budgets weigh logits as predicted, nor with int8 products.
    float softcap = 0;
    /// [head]; slope times distance is taken off. Where attention is dense, but for int8 products
    float const* alibi_slopes = nullptr;
    /// [head], learned sinks: keys of that logit without a value; counted in row_max and row_sum. Not with
    /// int8 products
    float const* sink_logits = nullptr;

    // --- how ---
    method how = method::dense;
    dense_products products = dense_products::f32; ///< of dense prefill and method::pages
    std::int64_t dense_below = 2048; ///< fewer keys: dense, with its bits; not for method::listed
    finite_check finite = finite_check::unchecked;

    // --- method::best_keys ---
    key_codes const* codes = nullptr; ///< [kv_head], of all keys
    std::int64_t count = 2048;        ///< keys kept, sinks and recent ones included
    std::int64_t sinks = 4;           ///< first keys, always kept
    std::int64_t recent = 64;         ///< last keys, always kept
    bool heads_together = true;       ///< the heads of a KV head share a selection
    list_output selected{};
    list_reuse reuse{}; ///< needs heads_together and dropped_mass

    // --- method::budget ---
    prefill_codes const* prefill = nullptr; ///< [kv_head], of all keys
    // Of method::pages as well:
    double mass = 0;         ///< share of the softmax to keep, in (0, 1]; 0: see output_error
    double output_error = 0; ///< in spreads of the values; 0: see mass
    float const* head_masses = nullptr;        ///< [head], or null: in the place of mass
    float const* head_output_errors = nullptr; ///< [head], or null. One of these four
    // Not of method::pages, whose budget is that of pages:
    double page_loss = 0.003; ///< share that pages may have that are not looked at (sparse_prefill)

    // --- method::listed ---
    list_input lists{};

    // --- method::pages; its budget is above ---
    page_codes const* prefill_pages = nullptr; ///< of all keys, for the same products

    // --- keys and values in int8: not with int8 products, nor with method::budget but where it is dense ---
    row_scales key_scales{};
    row_scales value_scales{};

    // --- for a machine ---
    tile_sizes tiles{};
};

} // namespace sofattn::engine
