/* SPDX-License-Identifier: MIT
 *
 * Sparse and dense attention on CPUs: the C interface of libsofattn.
 *
 * The library holds the same kernels for several instruction sets and takes the best that the machine
 * has. It keeps no state but what it hands out (pools, sequences, prefill codes), allocates only where
 * that is made or grows, and never prints, throws or ends the program for what a caller passes.
 *
 * Every function may be called from any thread; one object must not be changed by two at a time.
 * Strides are bytes, counts are tokens, heads or channels. Structs begin with their size: initialise
 * them by their function, then set what differs.
 */
#ifndef SOFATTN_SOFATTN_H
#define SOFATTN_SOFATTN_H

/* NOLINTBEGIN: C has no <cstddef> and no `using`, and its constants have no scope of their own */

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define SOFATTN_API __attribute__((visibility("default")))
#else
#define SOFATTN_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* Changes of the first number break callers, of the second add to the interface. */
#define SOFATTN_VERSION_MAJOR 0
#define SOFATTN_VERSION_MINOR 5
#define SOFATTN_VERSION_PATCH 0

/* Of the library that is loaded: major * 10000 + minor * 100 + patch. */
SOFATTN_API uint32_t sofattn_version(void);
/* What it computes with: "base", "avx2", "avx512" or "avx512_dot" (VNNI and BF16). The environment
 * variable SOFATTN_ISA, read once, asks for a lower one; other values of it have no effect. */
SOFATTN_API char const* sofattn_instruction_set(void);

/* --- statuses -------------------------------------------------------------------------------- */

enum {
    SOFATTN_OK = 0,
    SOFATTN_NULL_POINTER = 1,        /* memory that is needed is not given */
    SOFATTN_OUT_OF_RANGE = 2,        /* a number is none that the field may have */
    SOFATTN_MISMATCH = 3,            /* two fields do not fit each other */
    SOFATTN_MISALIGNED = 4,          /* a pointer or stride is no multiple of its elements */
    SOFATTN_OVERLAPPING = 5,         /* two rows of the output lie on each other */
    SOFATTN_UNSUPPORTED = 6,         /* well formed, but this version does not do it */
    SOFATTN_WORKSPACE_TOO_SMALL = 7, /* less than sofattn_workspace_bytes */
    SOFATTN_NOT_FINITE = 8,          /* NaN or infinity where they are refused */
    SOFATTN_NO_FREE_PAGE = 9,        /* the pool is full; nothing was changed */
    SOFATTN_OUT_OF_MEMORY = 10,      /* the heap is exhausted; nothing was changed */
    SOFATTN_FOREIGN_DATA = 11        /* bytes that are no export of this library's version */
};

/* What a call found. Texts are constants of the library. */
typedef struct sofattn_verdict {
    int32_t status;
    char const* field; /* e.g. "key.token_stride"; "" if all is well */
    double value;      /* found there */
    char const* limit; /* "must be ..." */
} sofattn_verdict;

SOFATTN_API char const* sofattn_status_name(int32_t status);
/* Writes "sofattn: FIELD is VALUE, must be LIMIT (STATUS)", cut to `bytes` with the zero at its end;
 * returns the length of the whole, as snprintf does. */
SOFATTN_API size_t sofattn_sentence(sofattn_verdict const* verdict, char* into, size_t bytes);

/* --- a call of attention --------------------------------------------------------------------- */

enum {
    SOFATTN_F32 = 0,
    SOFATTN_F16 = 1,
    SOFATTN_BF16 = 2,
    /* Since 0.4: of keys and values, codes with a scale for each token's row (sofattn_scales) */
    SOFATTN_INT8 = 3
};
enum {
    SOFATTN_MASK_NONE = 0,
    SOFATTN_MASK_CAUSAL = 1, /* the last query stands at the last key */
    SOFATTN_MASK_WINDOW = 2, /* causal, and only the last `window` keys */
    SOFATTN_MASK_PREFIX = 3  /* causal, but all see the first `prefix` keys */
};
enum {
    SOFATTN_DENSE = 0,     /* all keys */
    SOFATTN_BEST_KEYS = 1, /* `count` keys of each query; for decode, over a sequence's codes */
    SOFATTN_BUDGET = 2,    /* as many as an error or a mass asks for; for prefill */
    SOFATTN_LISTED = 3,    /* keys that the caller has selected */
    /* Since 0.3 */
    SOFATTN_PAGES = 4 /* as SOFATTN_BUDGET, but all keys of pages of 16 that matter; for prefill */
};
enum { SOFATTN_PRODUCTS_F32 = 0, SOFATTN_PRODUCTS_BF16 = 1, SOFATTN_PRODUCTS_INT8 = 2 };
enum { SOFATTN_UNCHECKED = 0, SOFATTN_REJECT = 1 }; /* NaN and infinity */

typedef struct sofattn_pool sofattn_pool;
typedef struct sofattn_sequence sofattn_sequence;
typedef struct sofattn_prefill sofattn_prefill;
typedef struct sofattn_codes sofattn_codes; /* of a sequence; see sofattn_sequence_describe */
typedef struct sofattn_page_codes sofattn_page_codes; /* so, too */

/* [head, token, channel]; channels of a token are neighbours. */
typedef struct sofattn_operand {
    void const* data;
    int32_t type;
    int64_t head_stride;  /* bytes */
    int64_t token_stride; /* bytes */
} sofattn_operand;

/* Since 0.4. Of keys or values in int8, whose elements are scale * code: [kv_head, token or row of the pool].
 * Codes are meant to lie in [-127, 127]; -128 is a number like any other. */
typedef struct sofattn_scales {
    float const* data;    /* NULL where elements are floats */
    int64_t head_stride;  /* bytes */
    int64_t token_stride; /* bytes */
} sofattn_scales;

typedef struct sofattn_attention {
    size_t struct_bytes; /* by sofattn_attention_init */

    int64_t heads;    /* of queries */
    int64_t kv_heads; /* divides heads */
    int64_t queries;  /* tokens */
    int64_t keys;     /* tokens of the sequence, those of the queries included */
    int64_t qk_dim;   /* 1 to 256 */
    int64_t v_dim;    /* 1 to 256 */

    sofattn_operand query;
    /* Keys and values, and their scales, may lack data where nobody reads them: SOFATTN_PAGES that is not dense has
     * copies, unless `finite` is SOFATTN_REJECT. */
    sofattn_operand key;         /* [kv_head, token or row of the pool, qk_dim] */
    sofattn_operand value;       /* of the type of key */
    void* output;                /* [head, query, v_dim] of output_type, below; else of floats */
    int64_t output_head_stride;  /* bytes */
    int64_t output_token_stride; /* bytes */
    /* Keys in pages: key t is row pages[t / page_tokens] * page_tokens + t % page_tokens. NULL: in a row. */
    int32_t const* pages;
    int64_t page_count;
    int64_t page_tokens;
    int64_t pool_pages;
    float* row_max; /* [head, query] largest logit, or NULL */
    float* row_sum; /* [head, query] sum of exp(logit - max), or NULL */

    int32_t mask;
    int64_t window;
    int64_t prefix;
    double scale;  /* 0: 1 / sqrt(qk_dim) */
    float softcap; /* c: c tanh(logit / c); 0: none. Not with budgets, nor int8 products */
    float const*
        alibi_slopes; /* [head], times distance, taken off; NULL: none. Dense only, not with int8 products */
    float const* sink_logits; /* [head], learned sinks; NULL: none. Not with int8 products */

    int32_t method;
    int32_t products;    /* of dense prefill; of SOFATTN_PAGES, but for int8 */
    int64_t dense_below; /* 2048: shorter sequences are dense, but for SOFATTN_LISTED */
    int32_t finite;

    /* SOFATTN_BEST_KEYS */
    sofattn_codes const* codes; /* by sofattn_sequence_describe */
    int64_t count;              /* 2048 keys kept, sinks and recent ones included */
    int64_t sinks;              /* 4 first keys, always kept */
    int64_t recent;             /* 64 last keys, always kept */
    int32_t heads_together;     /* 1: the heads of a KV head share a selection */
    int32_t* selected;          /* [kv_head or head, query, slot] ascending, then -1; or NULL */
    int32_t* selected_counts;   /* [kv_head or head, query]; or NULL */
    int64_t selected_slots;

    /* SOFATTN_BUDGET and SOFATTN_PAGES: one of mass, output_error, head_masses and head_output_errors
     * (below); prefill made for the method, and for SOFATTN_PAGES for the products, or page_codes (below).
     * SOFATTN_BUDGET reads keys in a row only */
    sofattn_prefill const* prefill;
    double mass;         /* share of the softmax to keep, in (0, 1] */
    double output_error; /* in spreads of the values */
    double page_loss;    /* 0.003, of SOFATTN_BUDGET: share of pages that are not looked at */

    /* SOFATTN_LISTED: [list head, row, slot]; -1 and what a query does not see are skipped */
    int32_t const* lists;
    int32_t const* list_counts; /* [list head, row], or NULL: all slots */
    int64_t list_heads;         /* 1, kv_heads or heads */
    int64_t list_slots;
    int64_t list_queries_each; /* 1: queries that share a row */
    int64_t list_keys_each;    /* 1: keys per entry */

    /* Since 0.2. */
    /* [head, query] estimated share of each row's softmax on keys that it does not attend to, or NULL. Of
     * best and listed keys by a sample of exact logits, of budgets by predicted ones; no bound
     * (sofattn/attention/dropped_mass.hpp). 0 where attention is dense. */
    float* dropped_mass;
    /* SOFATTN_BEST_KEYS, with heads_together and dropped_mass: a former selection, [kv_head, query, slot],
     * ascending, then -1; may be `selected` itself. It is attended to, with the first and last keys of now,
     * where no head's dropped mass is above reuse_most_dropped; else keys are selected anew. Then, and with
     * NULL here, nothing is different. selected_slots must be at least count + sinks + recent. */
    int32_t const* reuse;
    int64_t reuse_slots;
    double reuse_most_dropped; /* from 0 to 1 */
    int32_t* reused;           /* [kv_head, query] 1 where it was, else 0; or NULL */
    /* SOFATTN_BUDGET and SOFATTN_PAGES, a number of each head: [head], or NULL */
    float const* head_masses;
    float const* head_output_errors;

    /* Since 0.4. Of key and value where they are in int8: not with int8 products, nor with SOFATTN_BUDGET
     * but where it is dense. query is f32, f16 or bf16 then. */
    sofattn_scales key_scales;
    sofattn_scales value_scales;
    /* SOFATTN_PAGES, in the place of prefill: by sofattn_sequence_describe, of a pool that keeps them, for the
     * same products */
    sofattn_page_codes const* page_codes;

    /* Since 0.5. SOFATTN_F32, SOFATTN_F16 or SOFATTN_BF16, whatever the others are: what output would be in
     * f32, rounded to nearest, ties to even. In f16 numbers from 65520 on become infinity. NaN stays NaN. */
    int32_t output_type;
    /* How dense attention is cut for the caches of a machine, of any method that is dense for a description; 0: as
     * the library does. sofattn-tune measures what suits a machine. Results differ by rounding. */
    int64_t
        tile_keys; /* of many queries, with `products`: keys of a tile, a multiple of 48 up to 576 */
    int64_t tile_rows; /* ... rows of a block, up to 1536 */
    int64_t part_keys; /* of a few: keys of a part at least, a multiple of 64 up to 2^20 */
} sofattn_attention;

/* Zeros, but for the numbers named above and a causal mask. */
SOFATTN_API void sofattn_attention_init(sofattn_attention* attention);
SOFATTN_API sofattn_verdict sofattn_check(sofattn_attention const* attention);
/* 0 where sofattn_check finds a fault, or threads is not positive. */
SOFATTN_API size_t sofattn_workspace_bytes(sofattn_attention const* attention, int64_t threads);
/* The share of participant `ith` of `nth`: each calls it once with the same attention and workspace for
 * nth, in any order or at once; nobody waits. The output is complete when all have returned. */
SOFATTN_API sofattn_verdict sofattn_run(sofattn_attention const* attention, void* workspace,
                                        size_t bytes, int64_t ith, int64_t nth);
/* Runs task(data, i, thread) once for each i in [0, count), in order as far as it hands them out, with
 * thread in [0, threads) and no two at a time with the same one; returns when all are done. */
typedef void (*sofattn_parallel_for)(void* context, int64_t count,
                                     void (*task)(void* data, int64_t i, int64_t thread),
                                     void* data);
SOFATTN_API sofattn_verdict sofattn_run_parallel(sofattn_attention const* attention,
                                                 void* workspace, size_t bytes, int64_t threads,
                                                 sofattn_parallel_for parallel, void* context);

/* --- many sequences at once ------------------------------------------------------------------ */

/* Descriptions of sequences of any lengths, sizes and methods, each with memory of its own for output;
 * every one gets the bits that sofattn_run gives it alone. `which`, unless NULL, is set to the number of the
 * sequence that a verdict is about; -1: the batch itself, or none. */
SOFATTN_API sofattn_verdict sofattn_batch_check(sofattn_attention const* const* attentions,
                                                int64_t count, int64_t* which);
/* 0 where sofattn_batch_check finds a fault, or threads is not positive. */
SOFATTN_API size_t sofattn_batch_workspace_bytes(sofattn_attention const* const* attentions,
                                                 int64_t count, int64_t threads);
/* Called by one thread: checks, and cuts the work into units of a sequence, a KV head and a part of its
 * keys or queries. The workspace has copies of the descriptions; what they point to must stay. */
SOFATTN_API sofattn_verdict sofattn_batch_plan(sofattn_attention const* const* attentions,
                                               int64_t count, void* workspace, size_t bytes,
                                               int64_t threads, int64_t* which);
/* Then by any of those threads, at once, each with an `ith` of its own from 0 to threads - 1: takes units
 * until none is left. Nobody waits. Outputs are complete when all who called have returned, at least one.
 * A plan is carried out once. */
SOFATTN_API sofattn_verdict sofattn_batch_run(void* workspace, size_t bytes, int64_t ith);
/* Both, by a caller's parallel loop. */
SOFATTN_API sofattn_verdict sofattn_batch_run_parallel(sofattn_attention const* const* attentions,
                                                       int64_t count, void* workspace, size_t bytes,
                                                       int64_t threads,
                                                       sofattn_parallel_for parallel, void* context,
                                                       int64_t* which);

/* --- codes for sparse prefill ---------------------------------------------------------------- */

/* Of the keys and values that `attention` describes. With SOFATTN_PAGES as its method: of their pages, for its
 * products, as copies; with any other: key by key, for SOFATTN_BUDGET, where they must lie in a row, and keys
 * and values must stay as long as the codes. */
SOFATTN_API sofattn_verdict sofattn_prefill_create(sofattn_attention const* attention,
                                                   sofattn_prefill** into);
SOFATTN_API void sofattn_prefill_destroy(sofattn_prefill* prefill); /* NULL is fine */

/* --- KV caches ------------------------------------------------------------------------------- */

enum { SOFATTN_NO_PAGE_CODES = 0, SOFATTN_PAGE_CODES_F32 = 1, SOFATTN_PAGE_CODES_BF16 = 2 };

typedef struct sofattn_layout {
    size_t struct_bytes; /* by sofattn_layout_init */
    int32_t type;        /* of storage; in int8 every row of a token has a scale of its own */
    int64_t layers;      /* 1 */
    int64_t kv_heads;    /* 1 */
    int64_t qk_dim;
    int64_t v_dim;
    int64_t page_tokens; /* 64 */
    int64_t pages;       /* allocated at once */
    int64_t coded_from;  /* 1024: tokens from which sequences have codes; 0: never */
    /* Since 0.4. */
    /* Sequences keep codes for SOFATTN_PAGES that grow with them: copies of keys and values, of a KV head and
     * token qk_dim + v_dim floats (or bf16 numbers, where the machine multiplies those) and a few bytes more */
    int32_t page_codes;
} sofattn_layout;

SOFATTN_API void sofattn_layout_init(sofattn_layout* layout);
SOFATTN_API sofattn_verdict sofattn_pool_create(sofattn_layout const* layout, sofattn_pool** into);
/* After all its sequences. NULL is fine. */
SOFATTN_API void sofattn_pool_destroy(sofattn_pool* pool);
SOFATTN_API int64_t sofattn_pool_free_pages(sofattn_pool const* pool);
/* Keys and values of a token in all layers. */
SOFATTN_API int64_t sofattn_pool_bytes_per_token(sofattn_pool const* pool);

SOFATTN_API sofattn_verdict sofattn_sequence_create(sofattn_pool* pool, sofattn_sequence** into);
SOFATTN_API void sofattn_sequence_destroy(sofattn_sequence* sequence); /* NULL is fine */
SOFATTN_API int64_t sofattn_sequence_length(sofattn_sequence const* sequence);
SOFATTN_API int64_t sofattn_sequence_code_bytes(sofattn_sequence const* sequence);
/* Room for so many tokens more, in all layers. */
SOFATTN_API sofattn_verdict sofattn_sequence_extend(sofattn_sequence* sequence, int64_t tokens);
/* Keys and values of the next `tokens` of a layer, [kv_head, token, channel] in f32, f16 or bf16; rounded to
 * the pool's type. */
SOFATTN_API sofattn_verdict sofattn_sequence_write(sofattn_sequence* sequence, int64_t layer,
                                                   int64_t tokens, sofattn_operand const* key,
                                                   sofattn_operand const* value);
/* Forgets all tokens but the first `tokens`. */
SOFATTN_API sofattn_verdict sofattn_sequence_truncate(sofattn_sequence* sequence, int64_t tokens);
/* Another sequence of the same tokens; memory is shared until one of both writes. */
SOFATTN_API sofattn_verdict sofattn_sequence_fork(sofattn_sequence const* sequence,
                                                  sofattn_sequence** into);
/* A sequence as bytes: a head of 128 that says what it is, keys and values of all layers, codes, and
 * checksums; documented in sofattn/engine/kv_export.hpp. 0: tokens are not written in every layer. */
SOFATTN_API size_t sofattn_sequence_export_bytes(sofattn_sequence const* sequence);
/* Writes them; `bytes` is as above. */
SOFATTN_API sofattn_verdict sofattn_sequence_export(sofattn_sequence const* sequence, void* to,
                                                    size_t bytes);
/* Makes `sequence` the exported one, from a pool of the same type, layers, heads and channels; it attends
 * and goes on as that does, to the bit. Of bytes that are cut off, damaged, of another format, byte order
 * (SOFATTN_FOREIGN_DATA) or shape (SOFATTN_MISMATCH) nothing is taken, and nothing changes. */
SOFATTN_API sofattn_verdict sofattn_sequence_import(sofattn_sequence* sequence, void const* from,
                                                    size_t bytes);
/* Fills in what `attention` says of keys: counts, sizes, memory, scales, pages and codes; where there are no codes for
 * SOFATTN_BEST_KEYS, dense_below, too, unless its method is SOFATTN_PAGES already. Valid until the sequence
 * changes. */
SOFATTN_API sofattn_verdict sofattn_sequence_describe(sofattn_sequence const* sequence,
                                                      int64_t layer, sofattn_attention* attention);

#ifdef __cplusplus
}
#endif

/* NOLINTEND */

#endif /* SOFATTN_SOFATTN_H */
