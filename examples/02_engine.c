/* SPDX-License-Identifier: MIT
 *
 * An inference engine's decode loop over libsofattn, in C: requests that share a prompt are forks of one
 * sequence, and every token attends to all keys or to the best of them.
 *
 *   sofattn_example_02_engine [TOKENS [STEPS [KEPT [THREADS]]]]
 *
 * for prompts of TOKENS, STEPS tokens per request, KEPT keys.
 *
 * Keys are synthetic: most are noise, some belong to one of 32 topics, and a query asks for a topic. */
#include <sofattn/sofattn.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define LAYERS 2
#define HEADS 16
#define KV_HEADS 4
#define DIM 128
#define TOPICS 32
#define REQUESTS 4

/* Ends the program with the library's sentence, unless all is well. */
static void must(sofattn_verdict v) {
    char text[256];
    if (v.status != SOFATTN_OK) {
        sofattn_sentence(&v, text, sizeof text);
        fprintf(stderr, "%s\n", text);
        exit(1);
    }
}

static double seconds(void) {
    struct timespec t;
    timespec_get(&t, TIME_UTC);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* --- what a model would compute ---------------------------------------------------------------- */

static float uniform(void) { /* in [-1, 1); SplitMix64 */
    static uint64_t state = 0;
    uint64_t z = state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (float)((z ^ (z >> 31)) >> 40) / 8388608.0f - 1.0f;
}
static int any_topic(void) { return (int)(fabsf(uniform()) * TOPICS) % TOPICS; }
static float topics[TOPICS][DIM];

/* Noise, and `strength` times a topic. */
static void fill_row(float* row, int topic, float strength) {
    int d;
    for (d = 0; d < DIM; ++d) {
        row[d] = uniform() + strength * topics[topic][d];
    }
}
/* Keys and values of a token in a layer, [kv_head, 1, DIM]: one key in sixteen is on a topic. */
static void make_token(float* key, float* value) {
    int h;
    for (h = 0; h < KV_HEADS; ++h) {
        float const strength = uniform() > 0.875f ? 1.0f : 0.0f;
        fill_row(key + h * DIM, any_topic(), strength);
        fill_row(value + h * DIM, 0, 0.0f);
    }
}

/* --- the engine -------------------------------------------------------------------------------- */

static void* workspace = NULL;
static size_t workspace_bytes = 0;
static int threads = 1; /* in decode, more than KV_HEADS find no work */

/* Attention of the newest token in a layer, [HEADS, 1, DIM], to all keys or to the best `kept`. */
static void attend(sofattn_sequence const* sequence, int64_t layer, float const* query,
                   float* output, int64_t kept) {
    int64_t const row = DIM * (int64_t)sizeof(float);
    sofattn_attention a;
    int64_t ith;
    sofattn_attention_init(&a);
    a.heads = HEADS;
    a.queries = 1;
    a.query = (sofattn_operand){query, SOFATTN_F32, row, row};
    a.output = output;
    a.output_head_stride = row;
    a.output_token_stride = row;
    if (kept > 0) {
        a.method = SOFATTN_BEST_KEYS;
        a.count = kept;
    }
    must(sofattn_sequence_describe(sequence, layer, &a)); /* keys, values, pages, codes */
    must(sofattn_check(&a));
    if (sofattn_workspace_bytes(&a, threads) > workspace_bytes) {
        workspace_bytes = 2 * sofattn_workspace_bytes(&a, threads);
        free(workspace);
        workspace = malloc(workspace_bytes);
    }
#ifdef _OPENMP
#pragma omp parallel for num_threads(threads)
#endif
    for (ith = 0; ith < threads; ++ith) { /* an engine's own threads, each once, in any order */
        must(sofattn_run(&a, workspace, workspace_bytes, ith, threads));
    }
}

/* Another token of a sequence in all layers; its keys and values are made up here. */
static void append_token(sofattn_sequence* sequence) {
    static float key[KV_HEADS * DIM], value[KV_HEADS * DIM];
    int64_t const row = DIM * (int64_t)sizeof(float);
    sofattn_operand const k = {key, SOFATTN_F32, row, row};
    sofattn_operand const v = {value, SOFATTN_F32, row, row};
    int64_t layer;
    must(sofattn_sequence_extend(sequence, 1));
    for (layer = 0; layer < LAYERS; ++layer) {
        make_token(key, value);
        must(sofattn_sequence_write(sequence, layer, 1, &k, &v));
    }
}

static int64_t number(int count, char** arguments, int at, int64_t otherwise) {
    int64_t const n = count > at ? strtoll(arguments[at], NULL, 10) : otherwise;
    if (n < 1 || n > 1 << 24) {
        fprintf(stderr, "argument %d is %s, must be from 1 to 2^24\n", at, arguments[at]);
        exit(2);
    }
    return n;
}

int main(int count, char** arguments) {
    int64_t const tokens = number(count, arguments, 1, 16384);
    int64_t const steps = number(count, arguments, 2, 32);
    int64_t const kept = number(count, arguments, 3, 1024);
    static float query[HEADS * DIM], dense[HEADS * DIM], sparse[HEADS * DIM];
    sofattn_layout layout;
    sofattn_pool* pool = NULL;
    sofattn_sequence *prompt = NULL, *requests[REQUESTS] = {NULL};
    double dense_time = 0, sparse_time = 0, difference = 0, size = 0, start;
    int64_t step, r, layer, h, i;
    int topic = 0;

    threads = (int)number(count, arguments, 4, 1);
    for (h = 0; h < TOPICS; ++h) {
        fill_row(topics[h], 0, 0.0f);
    }
    sofattn_layout_init(&layout);
    layout.type = SOFATTN_F16; /* of storage; keys and values may come in another */
    layout.layers = LAYERS;
    layout.kv_heads = KV_HEADS;
    layout.qk_dim = DIM;
    layout.v_dim = DIM;
    layout.pages =
        (tokens + REQUESTS * (steps + layout.page_tokens)) / layout.page_tokens + REQUESTS;
    must(sofattn_pool_create(&layout, &pool));
    must(sofattn_sequence_create(pool, &prompt));
    start = seconds();
    for (i = 0; i < tokens; ++i) {
        append_token(prompt);
    }
    printf("%s: prompt of %lld tokens in %.2f s; per token %lld bytes of cache and %.0f of codes\n",
           sofattn_instruction_set(), (long long)tokens, seconds() - start,
           (long long)sofattn_pool_bytes_per_token(pool),
           (double)sofattn_sequence_code_bytes(prompt) / (double)tokens);
    for (r = 0; r < REQUESTS; ++r) { /* no key or value is copied */
        must(sofattn_sequence_fork(prompt, &requests[r]));
    }

    for (step = 0; step < steps; ++step) {
        for (r = 0; r < REQUESTS; ++r) {
            append_token(requests[r]);
            for (layer = 0; layer < LAYERS; ++layer) {
                for (h = 0; h < HEADS; ++h) { /* those of a KV head ask for the same topic */
                    topic = h % (HEADS / KV_HEADS) == 0 ? any_topic() : topic;
                    fill_row(query + h * DIM, topic, 3.0f);
                }
                start = seconds();
                attend(requests[r], layer, query, dense, 0);
                dense_time += seconds() - start;
                start = seconds();
                attend(requests[r], layer, query, sparse, kept);
                sparse_time += seconds() - start;
                for (i = 0; i < HEADS * DIM; ++i) {
                    difference += pow((double)(sparse[i] - dense[i]), 2);
                    size += pow((double)dense[i], 2);
                }
            }
        }
    }
    difference = sqrt(difference / size);
    printf("%d requests, %lld tokens each, attention of %d layers on %d thread(s):\n", REQUESTS,
           (long long)steps, LAYERS, threads);
    printf("  all keys        %8.0f tokens/s\n", (double)(REQUESTS * steps) / dense_time);
    printf("  best %-10lld %8.0f tokens/s, outputs differ by %.4f of their size\n", (long long)kept,
           (double)(REQUESTS * steps) / sparse_time, difference);

    for (r = 0; r < REQUESTS; ++r) {
        sofattn_sequence_destroy(requests[r]);
    }
    sofattn_sequence_destroy(prompt);
    if (sofattn_pool_free_pages(pool) != layout.pages) {
        fprintf(stderr, "pages are lost\n");
        return 1;
    }
    sofattn_pool_destroy(pool);
    free(workspace);
    return difference < 0.1 ? 0 : 1; /* NaN is a failure, too */
}
