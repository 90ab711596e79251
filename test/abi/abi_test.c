/* SPDX-License-Identifier: MIT
 *
 * A C program that uses libsofattn as an engine would, and checks what it gets: C99, no C++ anywhere.
 * Exit code 0: all is well; else the first thing that is not is on stderr. */
#include <sofattn/sofattn.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HEADS 4
#define KV_HEADS 2
#define DIM 16
#define TOKENS 300

static int failures = 0;

static void expect(int holds, char const* what, int line) {
    if (!holds) {
        fprintf(stderr, "abi_test.c:%d: %s\n", line, what);
        ++failures;
    }
}
#define EXPECT(...) expect((__VA_ARGS__) ? 1 : 0, #__VA_ARGS__, __LINE__)

static int ok(sofattn_verdict v) {
    char text[256];
    if (v.status != SOFATTN_OK) {
        sofattn_sentence(&v, text, sizeof text);
        fprintf(stderr, "%s\n", text);
    }
    return v.status == SOFATTN_OK;
}

/* Numbers in [-1, 1) that are the same everywhere. */
static uint32_t state = 12345;
static float number(void) {
    state = state * 1664525u + 1013904223u;
    return (float)(state >> 8) / 8388608.0f - 1.0f;
}
static void fill(float* to, size_t count) {
    size_t i;
    for (i = 0; i < count; ++i) {
        to[i] = number();
    }
}

static float queries[HEADS * TOKENS * DIM];
static float keys[KV_HEADS * TOKENS * DIM];
static float values[KV_HEADS * TOKENS * DIM];
static float outputs[HEADS * TOKENS * DIM];
static float others[HEADS * TOKENS * DIM];

/* Textbook attention of the last `count` queries to `length` keys, causal. */
static void textbook(float* to, int64_t count, int64_t length) {
    int64_t h, q, k, d;
    for (h = 0; h < HEADS; ++h) {
        for (q = 0; q < count; ++q) {
            double weights[TOKENS];
            double most = -1e300, sum = 0;
            int64_t const sees = length - count + q + 1;
            for (k = 0; k < sees; ++k) {
                double logit = 0;
                for (d = 0; d < DIM; ++d) {
                    logit += (double)queries[(h * TOKENS + q) * DIM + d] *
                             (double)keys[(h / 2 * TOKENS + k) * DIM + d];
                }
                weights[k] = logit / sqrt((double)DIM);
                most = weights[k] > most ? weights[k] : most;
            }
            for (k = 0; k < sees; ++k) {
                weights[k] = exp(weights[k] - most);
                sum += weights[k];
            }
            for (d = 0; d < DIM; ++d) {
                double o = 0;
                for (k = 0; k < sees; ++k) {
                    o += weights[k] * (double)values[(h / 2 * TOKENS + k) * DIM + d];
                }
                to[(h * TOKENS + q) * DIM + d] = (float)(o / sum);
            }
        }
    }
}
static double distance(float const* a, float const* b, int64_t count) {
    double error = 0, size = 0;
    int64_t h, i;
    for (h = 0; h < HEADS; ++h) {
        for (i = 0; i < count * DIM; ++i) {
            double const x = (double)a[h * TOKENS * DIM + i], y = (double)b[h * TOKENS * DIM + i];
            error += (x - y) * (x - y);
            size += y * y;
        }
    }
    return sqrt(error / size);
}

static sofattn_operand operand(float const* data) {
    sofattn_operand o;
    memset(&o, 0, sizeof o);
    o.data = data;
    o.type = SOFATTN_F32;
    o.head_stride = (int64_t)sizeof(float) * TOKENS * DIM;
    o.token_stride = (int64_t)sizeof(float) * DIM;
    return o;
}
static sofattn_attention attention(int64_t count, int64_t length) {
    sofattn_attention a;
    sofattn_attention_init(&a);
    a.heads = HEADS;
    a.kv_heads = KV_HEADS;
    a.queries = count;
    a.keys = length;
    a.qk_dim = DIM;
    a.v_dim = DIM;
    a.query = operand(queries);
    a.key = operand(keys);
    a.value = operand(values);
    a.output = outputs;
    a.output_head_stride = (int64_t)sizeof(float) * TOKENS * DIM;
    a.output_token_stride = (int64_t)sizeof(float) * DIM;
    return a;
}

/* Runs the shares of three participants, one after the other, last first. */
static sofattn_verdict run_once(sofattn_attention const* a) {
    size_t const bytes = sofattn_workspace_bytes(a, 3);
    void* const workspace = malloc(bytes);
    sofattn_verdict v;
    int64_t i;
    memset(&v, 0, sizeof v);
    for (i = 2; i >= 0 && v.status == SOFATTN_OK; --i) {
        v = sofattn_run(a, workspace, bytes, i, 3);
    }
    free(workspace);
    return v;
}

/* Bits of x in a type of `fraction` bits of fraction, whose least normal number is 2^least; nearest, ties to
 * even. */
static uint16_t rounded(float x, int fraction, int least) {
    double const magnitude = fabs((double)x);
    uint32_t const sign = signbit(x) ? 0x8000 : 0;
    uint32_t const infinity = fraction == 10 ? 0x7c00 : 0x7f80;
    int exponent = least;
    uint32_t bits;
    if (magnitude == 0) {
        return (uint16_t)sign;
    }
    if (isinf(magnitude)) {
        return (uint16_t)(sign | infinity);
    }
    exponent = ilogb(magnitude) > least ? ilogb(magnitude) : least;
    bits = ((uint32_t)(exponent - least) << fraction) +
           (uint32_t)nearbyint(ldexp(magnitude, fraction - exponent));
    return (uint16_t)(sign | (bits < infinity ? bits : infinity));
}

/* With outputs in 16 bits: those in floats, rounded. `a` was carried out. */
static void check_rounded(sofattn_attention const* a) {
    static uint16_t narrow[HEADS * TOKENS * DIM];
    int32_t type;
    int64_t h, q, d, wrong = 0;
    for (type = SOFATTN_F16; type <= SOFATTN_BF16; ++type) {
        sofattn_attention b = *a;
        memset(narrow, 0xee, sizeof narrow);
        b.output = narrow;
        b.output_type = type;
        b.output_head_stride /= 2;
        b.output_token_stride /= 2;
        EXPECT(ok(run_once(&b)));
        for (h = 0; h < a->heads; ++h) {
            for (q = 0; q < a->queries; ++q) {
                float const* const row =
                    (float const*)((char const*)a->output + h * a->output_head_stride +
                                   q * a->output_token_stride);
                int64_t const at = h * b.output_head_stride / 2 + q * b.output_token_stride / 2;
                for (d = 0; d < a->v_dim; ++d) {
                    uint16_t const right =
                        type == SOFATTN_F16 ? rounded(row[d], 10, -14) : rounded(row[d], 7, -126);
                    wrong += narrow[at + d] != right;
                }
            }
        }
    }
    EXPECT(wrong == 0);
}
static sofattn_verdict run(sofattn_attention const* a) {
    sofattn_verdict const v = run_once(a);
    /* A selection that is used again is another one the next time. */
    if (v.status == SOFATTN_OK && a->reuse == NULL) {
        check_rounded(a);
    }
    return v;
}

static int64_t tasks_run = 0;
static void in_turn(void* context, int64_t count, void (*task)(void*, int64_t, int64_t),
                    void* data) {
    int64_t i;
    EXPECT(context == &tasks_run);
    for (i = 0; i < count; ++i) {
        task(data, i, i % 2);
        ++tasks_run;
    }
}

/* `a` is dense, of many queries; `others` is what it gave. */
static void test_tiles(sofattn_attention a) {
    a.tile_keys = 96;
    a.tile_rows = 8;
    EXPECT(ok(run(&a)));
    EXPECT(memcmp(others, outputs, sizeof outputs) != 0); /* sums in another order */
    EXPECT(distance(outputs, others, TOKENS) < 2e-6);
    a.tile_keys = 0; /* rows alone change nothing */
    EXPECT(ok(run(&a)));
    EXPECT(memcmp(others, outputs, sizeof outputs) == 0);
    a.tile_keys = 100;
    EXPECT(strcmp(sofattn_check(&a).field, "tiles.keys") == 0);
    a.struct_bytes = offsetof(sofattn_attention, tile_keys);
    EXPECT(ok(sofattn_check(&a))); /* not read */
    a = attention(1, TOKENS);
    EXPECT(ok(run(&a)));
    memcpy(others, outputs, sizeof others);
    a.part_keys = 64;
    EXPECT(ok(run(&a)));
    EXPECT(memcmp(others, outputs, sizeof outputs) != 0); /* five parts, merged */
    EXPECT(distance(outputs, others, 1) < 2e-6);
}

static void test_attention(void) {
    sofattn_attention a = attention(TOKENS, TOKENS);
    size_t bytes;
    void* workspace;
    textbook(others, TOKENS, TOKENS);
    EXPECT(ok(sofattn_check(&a)));
    EXPECT(ok(run(&a)));
    EXPECT(distance(outputs, others, TOKENS) < 2e-5);
    a.products = SOFATTN_PRODUCTS_BF16;
    EXPECT(ok(run(&a)));
    EXPECT(distance(outputs, others, TOKENS) < 0.01);
    a.products = SOFATTN_PRODUCTS_INT8;
    EXPECT(ok(run(&a)));
    EXPECT(distance(outputs, others, TOKENS) < 0.04);
    a.products = SOFATTN_PRODUCTS_F32;
    EXPECT(ok(run(&a)));
    memcpy(others, outputs, sizeof others);
    memset(outputs, 0, sizeof outputs);
    bytes = sofattn_workspace_bytes(&a, 2);
    workspace = malloc(bytes);
    EXPECT(ok(sofattn_run_parallel(&a, workspace, bytes, 2, in_turn, &tasks_run)));
    EXPECT(tasks_run > 0);
    EXPECT(memcmp(others, outputs, sizeof others) == 0);
    EXPECT(sofattn_run_parallel(&a, workspace, bytes, 2, NULL, NULL).status ==
           SOFATTN_NULL_POINTER);
    EXPECT(sofattn_run(&a, workspace, bytes / 2, 0, 2).status == SOFATTN_WORKSPACE_TOO_SMALL);
    free(workspace);
    test_tiles(a);
}

static void test_refusals(void) {
    sofattn_attention a = attention(1, TOKENS);
    sofattn_verdict v;
    char text[200];
    a.heads = 3;
    v = sofattn_check(&a);
    EXPECT(v.status == SOFATTN_MISMATCH);
    EXPECT(strcmp(v.field, "heads") == 0);
    EXPECT(sofattn_sentence(&v, text, sizeof text) == strlen(text));
    EXPECT(strcmp(text, "sofattn: heads is 3, must be a multiple of kv_heads (mismatch)") == 0);
    EXPECT(strcmp(sofattn_status_name(SOFATTN_NO_FREE_PAGE), "no_free_page") == 0);
    EXPECT(sofattn_workspace_bytes(&a, 1) == 0);
    a = attention(1, TOKENS);
    a.softcap = -30.0f;
    EXPECT(sofattn_check(&a).status == SOFATTN_OUT_OF_RANGE);
    a.softcap = 30.0f;
    EXPECT(ok(sofattn_check(&a)));
    a.struct_bytes = sizeof a + 8; /* a caller from the future */
    EXPECT(sofattn_check(&a).status == SOFATTN_OUT_OF_RANGE);
    a = attention(1, TOKENS);
    a.struct_bytes = offsetof(sofattn_attention, mass); /* one from the past */
    a.page_loss = -5;                                   /* not read */
    EXPECT(ok(sofattn_check(&a)));
    a = attention(1, TOKENS);
    a.output_type = SOFATTN_INT8;
    EXPECT(strcmp(sofattn_check(&a).field, "output.type") == 0);
    a.struct_bytes = offsetof(sofattn_attention, output_type); /* a caller of 0.4: floats */
    EXPECT(ok(sofattn_check(&a)));
    textbook(others, 1, TOKENS);
    EXPECT(ok(run_once(&a)));
    EXPECT(distance(outputs, others, 1) < 2e-5);
    EXPECT(sofattn_check(NULL).status == SOFATTN_NULL_POINTER);
    EXPECT(sofattn_workspace_bytes(NULL, 1) == 0);
    EXPECT(sofattn_pool_create(NULL, NULL).status == SOFATTN_NULL_POINTER);
    EXPECT(sofattn_sequence_extend(NULL, 1).status == SOFATTN_NULL_POINTER);
    EXPECT(sofattn_sequence_fork(NULL, NULL).status == SOFATTN_NULL_POINTER);
    sofattn_pool_destroy(NULL);
    sofattn_sequence_destroy(NULL);
    sofattn_prefill_destroy(NULL);
}

static void append(sofattn_sequence* s, int64_t first, int64_t count) {
    sofattn_operand k = operand(keys + first * DIM);
    sofattn_operand v = operand(values + first * DIM);
    EXPECT(ok(sofattn_sequence_extend(s, count)));
    EXPECT(ok(sofattn_sequence_write(s, 0, count, &k, &v)));
}

/* What was selected is used again as far as the guard lets it. */
static void test_reuse(sofattn_attention a) {
    float dropped[HEADS];
    int32_t chosen[KV_HEADS * 160], reused[KV_HEADS] = {7, 7};
    int64_t h;
    a.dropped_mass = dropped;
    a.selected = chosen;
    a.selected_counts = NULL;
    a.selected_slots = 80;
    EXPECT(ok(run(&a)));
    for (h = 0; h < HEADS; ++h) {
        EXPECT(dropped[h] > 0 && dropped[h] < 1);
    }
    a.selected_slots = a.reuse_slots = 160;
    a.reuse = chosen;
    a.reuse_most_dropped = 1;
    a.reused = reused;
    memset(chosen, -1, sizeof chosen); /* empty lists */
    EXPECT(ok(run(&a)));
    EXPECT(reused[0] == 0 && reused[1] == 0);
    EXPECT(ok(run(&a)));
    EXPECT(reused[0] == 1 && reused[1] == 1);
    a.reuse_most_dropped = 0;
    EXPECT(ok(run(&a)));
    EXPECT(reused[0] == 0 && reused[1] == 0);
    a.dropped_mass = NULL;
    EXPECT(sofattn_check(&a).status == SOFATTN_NULL_POINTER);
}

/* `one` in another sequence of its pool, by bytes: it gives `expected`. */
static void test_export(sofattn_pool* pool, sofattn_sequence* one, float const* expected) {
    size_t const bytes = sofattn_sequence_export_bytes(one);
    unsigned char* const to = malloc(bytes);
    sofattn_sequence* back = NULL;
    sofattn_attention a = attention(1, 1);
    a.method = SOFATTN_BEST_KEYS;
    a.dense_below = 0;
    a.count = 80;
    EXPECT(bytes > (size_t)(TOKENS * sofattn_pool_bytes_per_token(pool)));
    EXPECT(sofattn_sequence_export(one, to, bytes - 1).status == SOFATTN_MISMATCH);
    EXPECT(sofattn_sequence_export(one, NULL, bytes).status == SOFATTN_NULL_POINTER);
    EXPECT(ok(sofattn_sequence_export(one, to, bytes)));
    EXPECT(memcmp(to, "sofattKV", 8) == 0);
    EXPECT(ok(sofattn_sequence_create(pool, &back)));
    EXPECT(sofattn_sequence_export_bytes(back) == 128);
    EXPECT(sofattn_sequence_import(back, to, bytes - 1).status == SOFATTN_FOREIGN_DATA);
    to[bytes / 2] ^= 4;
    EXPECT(sofattn_sequence_import(back, to, bytes).status == SOFATTN_FOREIGN_DATA);
    to[bytes / 2] ^= 4;
    EXPECT(sofattn_sequence_import(back, NULL, bytes).status == SOFATTN_NULL_POINTER);
    EXPECT(sofattn_sequence_length(back) == 0);
    EXPECT(ok(sofattn_sequence_import(back, to, bytes)));
    EXPECT(sofattn_sequence_length(back) == TOKENS);
    EXPECT(sofattn_sequence_code_bytes(back) == sofattn_sequence_code_bytes(one));
    EXPECT(ok(sofattn_sequence_describe(back, 0, &a)));
    EXPECT(ok(run(&a)));
    EXPECT(distance(outputs, expected, 1) == 0);
    sofattn_sequence_destroy(back);
    free(to);
}

/* Chunks over a cache that keeps page codes: queries are the last tokens that it has. */
static void test_chunks(int32_t kept, int32_t products) {
    sofattn_layout layout;
    sofattn_pool* pool = NULL;
    sofattn_sequence *one = NULL, *twin = NULL;
    sofattn_attention a = attention(TOKENS, TOKENS), old;
    double const rounding = products == SOFATTN_PRODUCTS_BF16 ? 0.01 : 2e-5;
    int64_t first;
    sofattn_layout_init(&layout);
    EXPECT(layout.page_codes == SOFATTN_NO_PAGE_CODES);
    layout.kv_heads = KV_HEADS;
    layout.qk_dim = DIM;
    layout.v_dim = DIM;
    layout.page_tokens = 16;
    layout.pages = 40;
    layout.page_codes = 3;
    EXPECT(sofattn_pool_create(&layout, &pool).status == SOFATTN_OUT_OF_RANGE);
    layout.page_codes = kept;
    EXPECT(ok(sofattn_pool_create(&layout, &pool)));
    EXPECT(ok(sofattn_sequence_create(pool, &one)));
    textbook(others, TOKENS, TOKENS);
    for (first = 0; first < TOKENS; first += 100) {
        append(one, first, 100);
        a = attention(100, first + 100);
        a.method = SOFATTN_PAGES;
        a.products = products;
        a.mass = 1; /* nothing is skipped */
        a.dense_below = 0;
        EXPECT(ok(sofattn_sequence_describe(one, 0, &a)));
        EXPECT(a.dense_below == 0);
        EXPECT(a.page_codes != NULL);
        a.query = operand(queries + first * DIM);
        a.output = outputs + first * DIM;
        EXPECT(ok(run(&a)));
    }
    EXPECT(distance(outputs, others, TOKENS) < rounding);
    a.mass = 0.7;
    EXPECT(ok(run(&a)));
    EXPECT(distance(outputs, others, TOKENS) > rounding); /* something was skipped */
    EXPECT(sofattn_sequence_code_bytes(one) > TOKENS * KV_HEADS * DIM * 4);

    EXPECT(ok(sofattn_sequence_fork(one, &twin)));
    EXPECT(ok(sofattn_sequence_truncate(twin, 80)));
    EXPECT(ok(sofattn_sequence_describe(twin, 0, &a)));
    EXPECT(a.keys == 80);
    EXPECT(ok(run(&a)));
    EXPECT(ok(sofattn_sequence_describe(one, 0, &a)));
    EXPECT(ok(run(&a)));

    a.method = SOFATTN_BUDGET;
    EXPECT(strcmp(sofattn_check(&a).field, "pages.numbers") == 0);
    a.method = SOFATTN_PAGES;
    a.products = SOFATTN_PRODUCTS_F32 + SOFATTN_PRODUCTS_BF16 - products;
    EXPECT(sofattn_check(&a).status == SOFATTN_MISMATCH);

    /* Callers of 0.3 know nothing of them: their struct is left alone, and attention dense. */
    old = attention(100, TOKENS);
    old.struct_bytes = offsetof(sofattn_attention, page_codes);
    old.page_codes = (sofattn_page_codes const*)&old;
    EXPECT(ok(sofattn_sequence_describe(one, 0, &old)));
    EXPECT(old.page_codes == (sofattn_page_codes const*)&old);
    sofattn_sequence_destroy(twin);
    sofattn_sequence_destroy(one);
    sofattn_pool_destroy(pool);
}

static void test_cache(void) {
    sofattn_layout layout;
    sofattn_pool* pool = NULL;
    sofattn_sequence *one = NULL, *twin = NULL;
    sofattn_attention a = attention(1, 1), b;
    int32_t chosen[KV_HEADS * 80], counts[KV_HEADS];
    sofattn_layout_init(&layout);
    layout.kv_heads = KV_HEADS;
    layout.qk_dim = DIM;
    layout.v_dim = DIM;
    layout.page_tokens = 16;
    layout.pages = 40;
    layout.coded_from = 64;
    layout.type = 7;
    EXPECT(sofattn_pool_create(&layout, &pool).status == SOFATTN_OUT_OF_RANGE);
    layout.type = SOFATTN_F32;
    EXPECT(ok(sofattn_pool_create(&layout, &pool)));
    EXPECT(sofattn_pool_bytes_per_token(pool) == KV_HEADS * 2 * DIM * 4);
    EXPECT(ok(sofattn_sequence_create(pool, &one)));
    append(one, 0, 290);
    append(one, 290, 10);
    EXPECT(sofattn_sequence_length(one) == TOKENS);
    EXPECT(sofattn_sequence_code_bytes(one) > 0);
    EXPECT(sofattn_sequence_extend(one, 1000).status == SOFATTN_NO_FREE_PAGE);

    EXPECT(ok(sofattn_sequence_describe(one, 0, &a)));
    EXPECT(a.keys == TOKENS);
    textbook(others, 1, TOKENS);
    EXPECT(ok(run(&a)));
    EXPECT(distance(outputs, others, 1) < 2e-5);

    /* Sparse: as many keys as there are give what dense gives; fewer are named. */
    a.method = SOFATTN_BEST_KEYS;
    a.dense_below = 0;
    a.count = TOKENS;
    EXPECT(ok(run(&a)));
    EXPECT(distance(outputs, others, 1) < 2e-5);
    a.count = 80;
    a.selected = chosen;
    a.selected_counts = counts;
    a.selected_slots = 80;
    EXPECT(ok(run(&a)));
    EXPECT(counts[0] == 80);
    EXPECT(counts[1] == 80);
    EXPECT(chosen[0] == 0);           /* a sink */
    EXPECT(chosen[79] == TOKENS - 1); /* the newest */
    memcpy(others, outputs, sizeof others);
    b = a; /* the same keys as a list */
    b.method = SOFATTN_LISTED;
    b.selected = NULL;
    b.selected_counts = NULL;
    b.lists = chosen;
    b.list_heads = KV_HEADS;
    b.list_slots = 80;
    EXPECT(ok(run(&b)));
    EXPECT(distance(outputs, others, 1) == 0);

    test_reuse(a);
    test_export(pool, one, others);

    /* A fork goes on alone. */
    EXPECT(ok(sofattn_sequence_truncate(one, 200)));
    EXPECT(ok(sofattn_sequence_fork(one, &twin)));
    append(twin, 200, 100);
    append(one, 200, 1);
    EXPECT(ok(sofattn_sequence_describe(twin, 0, &a)));
    EXPECT(ok(run(&a)));
    EXPECT(distance(outputs, others, 1) == 0);
    EXPECT(sofattn_sequence_length(one) == 201);
    sofattn_sequence_destroy(one);
    sofattn_sequence_destroy(twin);
    EXPECT(sofattn_pool_free_pages(pool) == 40);
    sofattn_pool_destroy(pool);
}

/* Keys and values in int8: rows of the cache, by hand, and what older callers are told. */
static void test_int8(void) {
    static int8_t codes[2][KV_HEADS * TOKENS * DIM];
    static float scales[2][KV_HEADS * TOKENS];
    static float wide[2][KV_HEADS * TOKENS * DIM], kept[2][KV_HEADS * TOKENS * DIM];
    sofattn_layout layout;
    sofattn_pool* pool = NULL;
    sofattn_sequence* one = NULL;
    sofattn_attention a = attention(9, TOKENS);
    int64_t row, d, which;
    memcpy(kept[0], keys, sizeof keys);
    memcpy(kept[1], values, sizeof values);
    for (which = 0; which < 2; ++which) {
        for (row = 0; row < (int64_t)KV_HEADS * TOKENS; ++row) {
            float most = 0;
            for (d = 0; d < DIM; ++d) {
                float const x = (float)fabs((double)kept[which][row * DIM + d]);
                most = x > most ? x : most;
            }
            scales[which][row] = most / 127.0f;
            for (d = 0; d < DIM; ++d) {
                int8_t* const code = &codes[which][row * DIM + d];
                *code = (int8_t)floor(
                    (double)kept[which][row * DIM + d] / (double)scales[which][row] + 0.5);
                wide[which][row * DIM + d] = scales[which][row] * (float)*code;
            }
        }
    }
    a.key.data = codes[0];
    a.value.data = codes[1];
    a.key.type = a.value.type = SOFATTN_INT8;
    a.key.head_stride = a.value.head_stride = TOKENS * DIM;
    a.key.token_stride = a.value.token_stride = DIM;
    EXPECT(sofattn_check(&a).status == SOFATTN_NULL_POINTER);
    EXPECT(strcmp(sofattn_check(&a).field, "key_scales.data") == 0);
    a.key_scales.data = scales[0];
    a.value_scales.data = scales[1];
    a.key_scales.head_stride = a.value_scales.head_stride = 4 * TOKENS;
    a.key_scales.token_stride = a.value_scales.token_stride = 4;
    memcpy(keys, wide[0], sizeof keys);
    memcpy(values, wide[1], sizeof values);
    textbook(others, 9, TOKENS);
    EXPECT(ok(run(&a)));
    EXPECT(distance(outputs, others, 9) < 2e-5);
    a.queries = 1;
    textbook(others, 1, TOKENS);
    EXPECT(ok(run(&a)));
    EXPECT(distance(outputs, others, 1) < 2e-5);
    a.struct_bytes = offsetof(sofattn_attention, key_scales); /* a caller of 0.3 has none */
    EXPECT(sofattn_check(&a).status == SOFATTN_NULL_POINTER);
    a.struct_bytes = sizeof a;
    a.method = SOFATTN_BUDGET;
    a.mass = 0.9;
    a.dense_below = 0;
    EXPECT(sofattn_check(&a).status == SOFATTN_UNSUPPORTED);

    /* The cache makes the same codes of the same numbers. */
    memcpy(keys, kept[0], sizeof keys);
    memcpy(values, kept[1], sizeof values);
    sofattn_layout_init(&layout);
    layout.type = SOFATTN_INT8;
    layout.kv_heads = KV_HEADS;
    layout.qk_dim = layout.v_dim = DIM;
    layout.page_tokens = 16;
    layout.pages = 40;
    layout.coded_from = 64;
    EXPECT(ok(sofattn_pool_create(&layout, &pool)));
    EXPECT(sofattn_pool_bytes_per_token(pool) == KV_HEADS * (2 * DIM + 8));
    EXPECT(ok(sofattn_sequence_create(pool, &one)));
    append(one, 0, TOKENS);
    a = attention(1, 1);
    memset(&a.key_scales, 0x5a, sizeof a.key_scales);
    a.struct_bytes = offsetof(sofattn_attention, key_scales);
    EXPECT(sofattn_sequence_describe(one, 0, &a).status == SOFATTN_UNSUPPORTED);
    EXPECT(a.key_scales.token_stride == 0x5a5a5a5a5a5a5a5a); /* not its own */
    EXPECT(a.keys == 1);
    a = attention(1, 1);
    EXPECT(ok(sofattn_sequence_describe(one, 0, &a)));
    EXPECT(a.key.type == SOFATTN_INT8 && a.key_scales.data != NULL);
    EXPECT(ok(run(&a)));
    EXPECT(distance(outputs, others, 1) < 1e-4); /* ties apart */
    a.method = SOFATTN_BEST_KEYS;
    a.dense_below = 0;
    a.count = 80;
    EXPECT(ok(run(&a)));
    memcpy(others, outputs, sizeof others);
    test_export(pool, one, others);
    sofattn_sequence_destroy(one);
    sofattn_pool_destroy(pool);
}

/* Sequences of different lengths at once: the bits of each alone, by participants or a loop. */
static void test_batch(void) {
    static float alone[3][HEADS * TOKENS * DIM], together[3][HEADS * TOKENS * DIM];
    int64_t const lengths[3] = {TOKENS, 17, 120}, queries_of[3] = {1, 9, 2};
    sofattn_attention all[3];
    sofattn_attention const* refer[3];
    int64_t which = 7, i, way;
    size_t bytes;
    void* workspace;
    for (i = 0; i < 3; ++i) {
        all[i] = attention(queries_of[i], lengths[i]);
        all[i].output = alone[i];
        EXPECT(ok(run(&all[i])));
        all[i].output = together[i];
        refer[i] = &all[i];
    }
    EXPECT(ok(sofattn_batch_check(refer, 3, &which)));
    EXPECT(which == -1);
    bytes = sofattn_batch_workspace_bytes(refer, 3, 2);
    EXPECT(bytes > 0);
    workspace = malloc(bytes);
    for (way = 0; way < 2; ++way) {
        memset(together, 0, sizeof together);
        if (way == 0) {
            tasks_run = 0;
            EXPECT(ok(sofattn_batch_run_parallel(refer, 3, workspace, bytes, 2, in_turn, &tasks_run,
                                                 NULL)));
            EXPECT(tasks_run >= 3 * KV_HEADS);
        } else {
            EXPECT(ok(sofattn_batch_plan(refer, 3, workspace, bytes, 2, &which)));
            EXPECT(ok(sofattn_batch_run(workspace, bytes, 1)));
            EXPECT(ok(sofattn_batch_run(workspace, bytes, 0)));
        }
        EXPECT(memcmp(alone, together, sizeof alone) == 0);
    }
    all[1].heads = 3;
    EXPECT(sofattn_batch_plan(refer, 3, workspace, bytes, 2, &which).status == SOFATTN_MISMATCH);
    EXPECT(which == 1);
    EXPECT(sofattn_batch_workspace_bytes(refer, 3, 2) == 0);
    EXPECT(sofattn_batch_run(workspace, bytes, 0).status == SOFATTN_MISMATCH); /* no plan */
    all[1].heads = HEADS;
    all[2].output = all[0].output;
    EXPECT(sofattn_batch_plan(refer, 3, workspace, bytes, 2, &which).status == SOFATTN_OVERLAPPING);
    EXPECT(which == 2);
    refer[2] = NULL;
    EXPECT(sofattn_batch_check(refer, 3, &which).status == SOFATTN_NULL_POINTER);
    EXPECT(which == 2);
    EXPECT(sofattn_batch_check(NULL, 3, NULL).status == SOFATTN_NULL_POINTER);
    EXPECT(sofattn_batch_check(refer, 0, &which).status == SOFATTN_OUT_OF_RANGE);
    EXPECT(which == -1);
    EXPECT(sofattn_batch_run_parallel(refer, 2, workspace, bytes, 2, NULL, NULL, &which).status ==
           SOFATTN_NULL_POINTER);
    EXPECT(sofattn_batch_run(NULL, 0, 0).status == SOFATTN_NULL_POINTER);
    free(workspace);
}

static void test_prefill(void) {
    sofattn_attention a = attention(TOKENS, TOKENS);
    sofattn_prefill* codes = NULL;
    EXPECT(ok(sofattn_prefill_create(&a, &codes)));
    a.method = SOFATTN_BUDGET;
    a.prefill = codes;
    a.output_error = 0.01;
    a.dense_below = 0;
    EXPECT(ok(run(&a)));
    textbook(others, TOKENS, TOKENS);
    EXPECT(distance(outputs, others, TOKENS) < 0.1);
    EXPECT(distance(outputs, others, TOKENS) > 1e-6); /* something was dropped */
    a.method = SOFATTN_PAGES;
    EXPECT(sofattn_check(&a).status == SOFATTN_MISMATCH); /* these are no pages */
    a.method = SOFATTN_BUDGET;
    a.kv_heads = 1;
    EXPECT(sofattn_check(&a).status == SOFATTN_MISMATCH);
    sofattn_prefill_destroy(codes);
}

static void test_pages(int32_t products) {
    sofattn_attention a = attention(TOKENS, TOKENS);
    sofattn_prefill* pages = NULL;
    float* const dropped = (float*)malloc(sizeof(float) * HEADS * TOKENS);
    double const rounding = products == SOFATTN_PRODUCTS_BF16 ? 0.01 : 2e-5;
    float most = 0;
    int64_t i;
    a.method = SOFATTN_PAGES;
    a.products = products;
    a.dense_below = 0;
    EXPECT(ok(sofattn_prefill_create(&a, &pages)));
    a.prefill = pages;
    a.dropped_mass = dropped;
    textbook(others, TOKENS, TOKENS);
    a.mass = 1; /* nothing is skipped */
    EXPECT(ok(run(&a)));
    EXPECT(distance(outputs, others, TOKENS) < rounding);
    a.mass = 0.9;
    EXPECT(ok(run(&a)));
    EXPECT(distance(outputs, others, TOKENS) < 0.2);
    EXPECT(distance(outputs, others, TOKENS) > rounding);
    for (i = 0; i < (int64_t)HEADS * TOKENS; ++i) {
        most = dropped[i] > most ? dropped[i] : most;
    }
    EXPECT(most > 0.001f && most < 0.5f);

    /* They are copies: keys and values of the call are not read. */
    memcpy(others, outputs, sizeof outputs);
    a.key = operand(values);
    a.value = operand(keys);
    EXPECT(ok(run(&a)));
    EXPECT(memcmp(others, outputs, sizeof outputs) == 0);

    a.products = SOFATTN_PRODUCTS_INT8;
    EXPECT(sofattn_check(&a).status == SOFATTN_UNSUPPORTED);
    EXPECT(sofattn_prefill_create(&a, &pages).status == SOFATTN_UNSUPPORTED);
    a.products = SOFATTN_PRODUCTS_F32 + SOFATTN_PRODUCTS_BF16 - products;
    EXPECT(sofattn_check(&a).status == SOFATTN_MISMATCH);
    a.products = products;
    a.method = SOFATTN_BUDGET;
    EXPECT(sofattn_check(&a).status == SOFATTN_MISMATCH); /* these are no codes of keys */
    EXPECT(strcmp(sofattn_check(&a).field, "prefill") == 0);
    a.method = SOFATTN_PAGES;
    a.kv_heads = 1;
    EXPECT(sofattn_check(&a).status == SOFATTN_MISMATCH);
    a.kv_heads = KV_HEADS;
    a.prefill = NULL;
    EXPECT(sofattn_check(&a).status == SOFATTN_NULL_POINTER);
    a.row_sum = dropped;
    EXPECT(sofattn_check(&a).status == SOFATTN_UNSUPPORTED);
    sofattn_prefill_destroy(pages);
    free(dropped);
}

int main(int count, char** arguments) {
    fill(queries, sizeof queries / sizeof *queries);
    fill(keys, sizeof keys / sizeof *keys);
    fill(values, sizeof values / sizeof *values);
    EXPECT(sofattn_version() ==
           SOFATTN_VERSION_MAJOR * 10000 + SOFATTN_VERSION_MINOR * 100 + SOFATTN_VERSION_PATCH);
    if (count > 1 && strcmp(arguments[1], sofattn_instruction_set()) != 0) {
        printf("skipped: %s asked for, %s is there\n", arguments[1], sofattn_instruction_set());
        return 77;
    }
    printf("%s\n", sofattn_instruction_set());
    test_attention();
    test_refusals();
    test_cache();
    test_int8();
    test_batch();
    test_prefill();
    test_chunks(SOFATTN_PAGE_CODES_F32, SOFATTN_PRODUCTS_F32);
    test_chunks(SOFATTN_PAGE_CODES_BF16, SOFATTN_PRODUCTS_BF16);
    test_pages(SOFATTN_PRODUCTS_F32);
    test_pages(SOFATTN_PRODUCTS_BF16);
    return failures == 0 ? 0 : 1;
}
