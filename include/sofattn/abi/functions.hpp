// SPDX-License-Identifier: MIT
// The C interface as a table of functions, of which a library has one per instruction set.
#pragma once

#include <sofattn/sofattn.h>

#include <cstddef>
#include <cstdint>

/// Plain C types only: the table crosses between translation units that are compiled for different
/// machines.
struct sofattn_functions {
    char const* name;
    void (*attention_init)(sofattn_attention*);
    sofattn_verdict (*check)(sofattn_attention const*);
    std::size_t (*workspace_bytes)(sofattn_attention const*, std::int64_t);
    sofattn_verdict (*run)(sofattn_attention const*, void*, std::size_t, std::int64_t,
                           std::int64_t);
    sofattn_verdict (*run_parallel)(sofattn_attention const*, void*, std::size_t, std::int64_t,
                                    sofattn_parallel_for, void*);
    sofattn_verdict (*batch_check)(sofattn_attention const* const*, std::int64_t, std::int64_t*);
    std::size_t (*batch_workspace_bytes)(sofattn_attention const* const*, std::int64_t,
                                         std::int64_t);
    sofattn_verdict (*batch_plan)(sofattn_attention const* const*, std::int64_t, void*, std::size_t,
                                  std::int64_t, std::int64_t*);
    sofattn_verdict (*batch_run)(void*, std::size_t, std::int64_t);
    sofattn_verdict (*batch_run_parallel)(sofattn_attention const* const*, std::int64_t, void*,
                                          std::size_t, std::int64_t, sofattn_parallel_for, void*,
                                          std::int64_t*);
    char const* (*status_name)(std::int32_t);
    std::size_t (*sentence)(sofattn_verdict const*, char*, std::size_t);
    sofattn_verdict (*prefill_create)(sofattn_attention const*, sofattn_prefill**);
    void (*prefill_destroy)(sofattn_prefill*);
    void (*layout_init)(sofattn_layout*);
    sofattn_verdict (*pool_create)(sofattn_layout const*, sofattn_pool**);
    void (*pool_destroy)(sofattn_pool*);
    std::int64_t (*pool_free_pages)(sofattn_pool const*);
    std::int64_t (*pool_bytes_per_token)(sofattn_pool const*);
    sofattn_verdict (*sequence_create)(sofattn_pool*, sofattn_sequence**);
    void (*sequence_destroy)(sofattn_sequence*);
    std::int64_t (*sequence_length)(sofattn_sequence const*);
    std::int64_t (*sequence_code_bytes)(sofattn_sequence const*);
    sofattn_verdict (*sequence_extend)(sofattn_sequence*, std::int64_t);
    sofattn_verdict (*sequence_write)(sofattn_sequence*, std::int64_t, std::int64_t,
                                      sofattn_operand const*, sofattn_operand const*);
    sofattn_verdict (*sequence_truncate)(sofattn_sequence*, std::int64_t);
    sofattn_verdict (*sequence_fork)(sofattn_sequence const*, sofattn_sequence**);
    std::size_t (*sequence_export_bytes)(sofattn_sequence const*);
    sofattn_verdict (*sequence_export)(sofattn_sequence const*, void*, std::size_t);
    sofattn_verdict (*sequence_import)(sofattn_sequence*, void const*, std::size_t);
    sofattn_verdict (*sequence_describe)(sofattn_sequence const*, std::int64_t, sofattn_attention*);
};
