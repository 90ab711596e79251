// SPDX-License-Identifier: MIT
// The symbols of libsofattn: each calls the table of the best instruction set that the machine has.
// Compiled for the least machine.
#include <sofattn/abi/functions.hpp>
#include <sofattn/sofattn.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>

extern "C" {
extern sofattn_functions const sofattn_functions_base;
#ifdef SOFATTN_HAS_LEVELS
extern sofattn_functions const sofattn_functions_avx2;
extern sofattn_functions const sofattn_functions_avx512;
extern sofattn_functions const sofattn_functions_avx512_dot;
#endif
}

namespace {

struct level {
    sofattn_functions const* table;
    bool runs;
};

/// The best that runs, or a lower one that SOFATTN_ISA names.
sofattn_functions const& best() noexcept {
#ifdef SOFATTN_HAS_LEVELS
    __builtin_cpu_init();
    // x86-64-v3 and v4; what Clang 14 cannot ask for (F16C, LZCNT, MOVBE) every such processor has.
    bool const avx2 = __builtin_cpu_supports("avx2") != 0 && __builtin_cpu_supports("fma") != 0 &&
                      __builtin_cpu_supports("bmi") != 0 && __builtin_cpu_supports("bmi2") != 0;
    bool const avx512 =
        avx2 && __builtin_cpu_supports("avx512f") != 0 && __builtin_cpu_supports("avx512bw") != 0 &&
        __builtin_cpu_supports("avx512dq") != 0 && __builtin_cpu_supports("avx512vl") != 0 &&
        __builtin_cpu_supports("avx512cd") != 0;
    bool const dot = avx512 && __builtin_cpu_supports("avx512vnni") != 0 &&
                     __builtin_cpu_supports("avx512bf16") != 0;
    std::array const levels{
        level{&sofattn_functions_base, true}, level{&sofattn_functions_avx2, avx2},
        level{&sofattn_functions_avx512, avx512}, level{&sofattn_functions_avx512_dot, dot}};
#else
    std::array const levels{level{&sofattn_functions_base, true}};
#endif
    char const* const asked = std::getenv("SOFATTN_ISA");
    sofattn_functions const* found = nullptr;
    for (level const& l : levels) {
        if (l.runs) {
            found = l.table;
            if (asked != nullptr && std::strcmp(asked, l.table->name) == 0) {
                break;
            }
        }
    }
    return *found;
}

sofattn_functions const& chosen() noexcept {
    static sofattn_functions const& once = best();
    return once;
}

} // namespace

extern "C" {

uint32_t sofattn_version(void) {
    return SOFATTN_VERSION_MAJOR * 10000 + SOFATTN_VERSION_MINOR * 100 + SOFATTN_VERSION_PATCH;
}
char const* sofattn_instruction_set(void) { return chosen().name; }
char const* sofattn_status_name(int32_t status) { return chosen().status_name(status); }
size_t sofattn_sentence(sofattn_verdict const* verdict, char* into, size_t bytes) {
    return chosen().sentence(verdict, into, bytes);
}
void sofattn_attention_init(sofattn_attention* attention) { chosen().attention_init(attention); }
sofattn_verdict sofattn_check(sofattn_attention const* attention) {
    return chosen().check(attention);
}
size_t sofattn_workspace_bytes(sofattn_attention const* attention, int64_t threads) {
    return chosen().workspace_bytes(attention, threads);
}
sofattn_verdict sofattn_run(sofattn_attention const* attention, void* workspace, size_t bytes,
                            int64_t ith, int64_t nth) {
    return chosen().run(attention, workspace, bytes, ith, nth);
}
sofattn_verdict sofattn_run_parallel(sofattn_attention const* attention, void* workspace,
                                     size_t bytes, int64_t threads, sofattn_parallel_for parallel,
                                     void* context) {
    return chosen().run_parallel(attention, workspace, bytes, threads, parallel, context);
}
sofattn_verdict sofattn_batch_check(sofattn_attention const* const* attentions, int64_t count,
                                    int64_t* which) {
    return chosen().batch_check(attentions, count, which);
}
size_t sofattn_batch_workspace_bytes(sofattn_attention const* const* attentions, int64_t count,
                                     int64_t threads) {
    return chosen().batch_workspace_bytes(attentions, count, threads);
}
sofattn_verdict sofattn_batch_plan(sofattn_attention const* const* attentions, int64_t count,
                                   void* workspace, size_t bytes, int64_t threads, int64_t* which) {
    return chosen().batch_plan(attentions, count, workspace, bytes, threads, which);
}
sofattn_verdict sofattn_batch_run(void* workspace, size_t bytes, int64_t ith) {
    return chosen().batch_run(workspace, bytes, ith);
}
sofattn_verdict sofattn_batch_run_parallel(sofattn_attention const* const* attentions,
                                           int64_t count, void* workspace, size_t bytes,
                                           int64_t threads, sofattn_parallel_for parallel,
                                           void* context, int64_t* which) {
    return chosen().batch_run_parallel(attentions, count, workspace, bytes, threads, parallel,
                                       context, which);
}
sofattn_verdict sofattn_prefill_create(sofattn_attention const* attention, sofattn_prefill** into) {
    return chosen().prefill_create(attention, into);
}
void sofattn_prefill_destroy(sofattn_prefill* prefill) { chosen().prefill_destroy(prefill); }
void sofattn_layout_init(sofattn_layout* layout) { chosen().layout_init(layout); }
sofattn_verdict sofattn_pool_create(sofattn_layout const* layout, sofattn_pool** into) {
    return chosen().pool_create(layout, into);
}
void sofattn_pool_destroy(sofattn_pool* pool) { chosen().pool_destroy(pool); }
int64_t sofattn_pool_free_pages(sofattn_pool const* pool) { return chosen().pool_free_pages(pool); }
int64_t sofattn_pool_bytes_per_token(sofattn_pool const* pool) {
    return chosen().pool_bytes_per_token(pool);
}
sofattn_verdict sofattn_sequence_create(sofattn_pool* pool, sofattn_sequence** into) {
    return chosen().sequence_create(pool, into);
}
void sofattn_sequence_destroy(sofattn_sequence* sequence) { chosen().sequence_destroy(sequence); }
int64_t sofattn_sequence_length(sofattn_sequence const* sequence) {
    return chosen().sequence_length(sequence);
}
int64_t sofattn_sequence_code_bytes(sofattn_sequence const* sequence) {
    return chosen().sequence_code_bytes(sequence);
}
sofattn_verdict sofattn_sequence_extend(sofattn_sequence* sequence, int64_t tokens) {
    return chosen().sequence_extend(sequence, tokens);
}
sofattn_verdict sofattn_sequence_write(sofattn_sequence* sequence, int64_t layer, int64_t tokens,
                                       sofattn_operand const* key, sofattn_operand const* value) {
    return chosen().sequence_write(sequence, layer, tokens, key, value);
}
sofattn_verdict sofattn_sequence_truncate(sofattn_sequence* sequence, int64_t tokens) {
    return chosen().sequence_truncate(sequence, tokens);
}
sofattn_verdict sofattn_sequence_fork(sofattn_sequence const* sequence, sofattn_sequence** into) {
    return chosen().sequence_fork(sequence, into);
}
size_t sofattn_sequence_export_bytes(sofattn_sequence const* sequence) {
    return chosen().sequence_export_bytes(sequence);
}
sofattn_verdict sofattn_sequence_export(sofattn_sequence const* sequence, void* to, size_t bytes) {
    return chosen().sequence_export(sequence, to, bytes);
}
sofattn_verdict sofattn_sequence_import(sofattn_sequence* sequence, void const* from,
                                        size_t bytes) {
    return chosen().sequence_import(sequence, from, bytes);
}
sofattn_verdict sofattn_sequence_describe(sofattn_sequence const* sequence, int64_t layer,
                                          sofattn_attention* attention) {
    return chosen().sequence_describe(sequence, layer, attention);
}

} // extern "C"
