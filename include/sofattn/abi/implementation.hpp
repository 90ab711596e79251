// SPDX-License-Identifier: MIT
// The functions of the C interface, for the instruction set that this is compiled for.
#pragma once

#include <sofattn/abi/conversions.hpp>
#include <sofattn/abi/functions.hpp>
#include <sofattn/abi/handles.hpp>
#include <sofattn/engine/batch.hpp>
#include <sofattn/engine/check.hpp>
#include <sofattn/engine/descriptor.hpp>
#include <sofattn/engine/prefill_codes.hpp>
#include <sofattn/engine/run.hpp>
#include <sofattn/engine/verdict.hpp>
#include <sofattn/sofattn.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <type_traits>
#include <utility>

namespace sofattn::abi {

namespace detail {

[[nodiscard]] inline engine::verdict check_prefill(sofattn_attention const& c) noexcept {
    if (c.prefill == nullptr) {
        return {};
    }
    bool const is_of_pages = c.prefill->is_of_pages();
    if (is_of_pages && c.page_codes != nullptr) {
        return {engine::status::mismatch, "page_codes", 1, "NULL where prefill has those of pages"};
    }
    if (c.method == (is_of_pages ? SOFATTN_BUDGET : SOFATTN_PAGES)) {
        return {engine::status::mismatch, "prefill", static_cast<double>(c.method),
                "made by sofattn_prefill_create for the method that it is given to"};
    }
    std::int64_t const kv_heads =
        is_of_pages ? c.prefill->pages.kv_heads() : std::ssize(c.prefill->codes);
    if (kv_heads != c.kv_heads) {
        return {engine::status::mismatch, "prefill", static_cast<double>(kv_heads),
                "of as many KV heads as the attention"};
    }
    return {};
}

/// f(descriptor), or why there is none.
template <class F>
[[nodiscard]] sofattn_verdict with_attention(sofattn_attention const* of, F f) noexcept {
    sofattn_attention c;
    engine::verdict const readable = read(of, initial_attention(), c);
    if (!readable.ok()) {
        return as_c(readable);
    }
    engine::attention_desc const d = from_c(c);
    engine::verdict const fits = check_prefill(c);
    return as_c(fits.ok() ? f(d) : fits);
}

/// f(at) where at(i) is descriptor i of a batch; or why there is none, and of which sequence.
template <class F>
[[nodiscard]] sofattn_verdict with_batch(sofattn_attention const* const* of, std::int64_t count,
                                         std::int64_t* which, F f) noexcept {
    std::int64_t nobody = -1;
    std::int64_t& sequence = which == nullptr ? nobody : *which;
    sequence = -1;
    if (of == nullptr && count > 0) {
        return as_c(null("attentions", "descriptions of sequences"));
    }
    sofattn_attention c;
    for (std::int64_t i = 0; i < count; ++i) {
        engine::verdict found = read(of[i], initial_attention(), c);
        found = found.ok() ? check_prefill(c) : found;
        if (!found.ok()) {
            sequence = i;
            return as_c(found);
        }
    }
    engine::batch_verdict const v = f([of](std::int64_t i) {
        sofattn_attention known;
        (void)read(of[i], initial_attention(), known); // as above
        return from_c(known);
    });
    sequence = v.sequence;
    return as_c(v.found);
}

/// Of a parallel loop's arguments.
[[nodiscard]] inline engine::verdict check_loop(sofattn_parallel_for parallel,
                                                std::int64_t threads) noexcept {
    if (parallel == nullptr) {
        return null("parallel", "a function");
    }
    if (threads < 1) {
        return {engine::status::out_of_range, "threads", static_cast<double>(threads),
                "at least 1"};
    }
    return {};
}

/// A caller's parallel loop.
class called_back {
public:
    called_back(sofattn_parallel_for parallel, void* context, std::int64_t threads) noexcept
        : parallel_(parallel), context_(context), threads_(threads) {}

    [[nodiscard]] index_t threads() const noexcept { return threads_; }

    template <class Task>
    void operator()(index_t count, Task&& task) const {
        using plain = std::remove_cvref_t<Task>;
        parallel_(
            context_, count,
            [](void* data, std::int64_t i, std::int64_t thread) {
                (*static_cast<plain*>(data))(static_cast<index_t>(i), static_cast<index_t>(thread));
            },
            const_cast<plain*>(std::addressof(task)));
    }

private:
    sofattn_parallel_for parallel_;
    void* context_;
    std::int64_t threads_;
};

} // namespace detail

/// The table of this translation unit's instruction set.
[[nodiscard]] constexpr sofattn_functions functions(char const* name) noexcept {
    namespace e = engine;
    sofattn_functions f{};
    f.name = name;
    f.attention_init = [](sofattn_attention* a) {
        if (a != nullptr) {
            *a = detail::initial_attention();
        }
    };
    f.check = [](sofattn_attention const* a) {
        return detail::with_attention(a, [](auto const& d) { return e::check(d); });
    };
    f.workspace_bytes = [](sofattn_attention const* a, std::int64_t threads) -> std::size_t {
        std::size_t bytes = 0;
        (void)detail::with_attention(a, [&](auto const& d) {
            bytes = e::workspace_bytes(d, threads);
            return e::verdict{};
        });
        return bytes;
    };
    f.run = [](sofattn_attention const* a, void* workspace, std::size_t bytes, std::int64_t ith,
               std::int64_t nth) {
        return detail::with_attention(
            a, [&](auto const& d) { return e::run(d, workspace, bytes, ith, nth); });
    };
    f.run_parallel = [](sofattn_attention const* a, void* workspace, std::size_t bytes,
                        std::int64_t threads, sofattn_parallel_for parallel, void* context) {
        return detail::with_attention(a, [&](auto const& d) -> e::verdict {
            e::verdict const loops = detail::check_loop(parallel, threads);
            return loops.ok() ? e::run(d, workspace, bytes,
                                       detail::called_back(parallel, context, threads))
                              : loops;
        });
    };
    f.batch_check = [](sofattn_attention const* const* all, std::int64_t count,
                       std::int64_t* which) {
        return detail::with_batch(all, count, which,
                                  [&](auto at) { return e::detail::check_all(count, at); });
    };
    f.batch_workspace_bytes = [](sofattn_attention const* const* all, std::int64_t count,
                                 std::int64_t threads) -> std::size_t {
        std::size_t bytes = 0;
        (void)detail::with_batch(all, count, nullptr, [&](auto at) {
            e::batch_verdict const good = e::detail::check_all(count, at);
            bytes = good.ok() && threads > 0 ? e::detail::batch_bytes(count, at, threads) : 0;
            return good;
        });
        return bytes;
    };
    f.batch_plan = [](sofattn_attention const* const* all, std::int64_t count, void* workspace,
                      std::size_t bytes, std::int64_t threads, std::int64_t* which) {
        return detail::with_batch(all, count, which, [&](auto at) {
            return e::detail::plan(count, at, workspace, bytes, threads);
        });
    };
    f.batch_run = [](void* workspace, std::size_t bytes, std::int64_t ith) {
        return detail::as_c(e::run_batch(workspace, bytes, ith));
    };
    f.batch_run_parallel = [](sofattn_attention const* const* all, std::int64_t count,
                              void* workspace, std::size_t bytes, std::int64_t threads,
                              sofattn_parallel_for parallel, void* context, std::int64_t* which) {
        return detail::with_batch(all, count, which, [&](auto at) -> e::batch_verdict {
            e::verdict const loops = detail::check_loop(parallel, threads);
            return loops.ok() ? e::detail::run_all(count, at, workspace, bytes,
                                                   detail::called_back(parallel, context, threads))
                              : e::batch_verdict{loops, -1};
        });
    };
    f.status_name = [](std::int32_t s) { return e::name_of(static_cast<e::status>(s)); };
    f.sentence = [](sofattn_verdict const* v, char* into, std::size_t bytes) -> std::size_t {
        return v == nullptr ? 0
                            : e::sentence({static_cast<e::status>(v->status),
                                           v->field == nullptr ? "" : v->field, v->value,
                                           v->limit == nullptr ? "" : v->limit},
                                          into, bytes);
    };
    f.prefill_create = [](sofattn_attention const* a, sofattn_prefill** into) {
        return detail::with_attention(a, [&](e::attention_desc d) -> e::verdict {
            if (into == nullptr) {
                return detail::null("into", "a place for the codes");
            }
            if (d.how == e::method::pages) {
                return e::make_page_codes(d, [&](e::page_codes&& pages) {
                    *into = std::make_unique<sofattn_prefill>(
                                sofattn_prefill{.pages = std::move(pages)})
                                .release();
                });
            }
            return e::make_prefill_codes(d, [&](std::vector<e::prefill_codes>&& codes) {
                *into =
                    std::make_unique<sofattn_prefill>(sofattn_prefill{.codes = std::move(codes)})
                        .release();
            });
        });
    };
    f.prefill_destroy = [](sofattn_prefill* p) { delete p; };
    f.layout_init = [](sofattn_layout* l) {
        if (l != nullptr) {
            *l = detail::initial_layout();
        }
    };
    f.pool_create = [](sofattn_layout const* layout, sofattn_pool** into) {
        sofattn_layout c;
        e::verdict found = detail::read(layout, detail::initial_layout(), c);
        if (found.ok() && into == nullptr) {
            found = detail::null("into", "a place for the pool");
        }
        if (found.ok() && (c.type < 0 || c.type > 3)) {
            found = {e::status::out_of_range, "type", static_cast<double>(c.type),
                     "f32, f16, bf16 or int8"};
        }
        if (!found.ok()) {
            return detail::as_c(found);
        }
        std::unique_ptr<any_pool> pool(pool_of(static_cast<e::dtype>(c.type)));
        if (pool == nullptr) {
            return detail::as_c(detail::no_memory());
        }
        found = pool->open({c.layers, c.kv_heads, c.qk_dim, c.v_dim, c.page_tokens, c.pages,
                            c.coded_from, static_cast<e::kept_page_codes>(c.page_codes)});
        if (found.ok()) {
            auto* const handle = new (std::nothrow) sofattn_pool{std::move(pool)};
            if (handle == nullptr) {
                return detail::as_c(detail::no_memory());
            }
            *into = handle;
        }
        return detail::as_c(found);
    };
    f.pool_destroy = [](sofattn_pool* p) { delete p; };
    f.pool_free_pages = [](sofattn_pool const* p) -> std::int64_t {
        return p == nullptr ? 0 : p->is->free_pages();
    };
    f.pool_bytes_per_token = [](sofattn_pool const* p) -> std::int64_t {
        return p == nullptr ? 0 : p->is->bytes_per_token();
    };
    f.sequence_create = [](sofattn_pool* pool, sofattn_sequence** into) {
        if (pool == nullptr || into == nullptr) {
            return detail::as_c(detail::null(pool == nullptr ? "pool" : "into",
                                             "a pool, and a place for the sequence"));
        }
        std::unique_ptr<any_sequence> made(pool->is->sequence());
        auto* const handle =
            made == nullptr ? nullptr : new (std::nothrow) sofattn_sequence{std::move(made)};
        if (handle == nullptr) {
            return detail::as_c(detail::no_memory());
        }
        *into = handle;
        return detail::as_c(e::verdict{});
    };
    f.sequence_destroy = [](sofattn_sequence* s) { delete s; };
    f.sequence_length = [](sofattn_sequence const* s) -> std::int64_t {
        return s == nullptr ? 0 : s->is->length();
    };
    f.sequence_code_bytes = [](sofattn_sequence const* s) -> std::int64_t {
        return s == nullptr ? 0 : s->is->code_bytes();
    };
    f.sequence_extend = [](sofattn_sequence* s, std::int64_t tokens) {
        return detail::as_c(s == nullptr ? detail::null("sequence", "a sequence")
                                         : s->is->extend(tokens));
    };
    f.sequence_write = [](sofattn_sequence* s, std::int64_t layer, std::int64_t tokens,
                          sofattn_operand const* key, sofattn_operand const* value) {
        if (s == nullptr || key == nullptr || value == nullptr) {
            return detail::as_c(detail::null(s == nullptr     ? "sequence"
                                             : key == nullptr ? "key"
                                                              : "value",
                                             "a sequence, and descriptions of keys and values"));
        }
        return detail::as_c(
            s->is->write(layer, tokens, detail::from_c(*key), detail::from_c(*value)));
    };
    f.sequence_truncate = [](sofattn_sequence* s, std::int64_t tokens) {
        return detail::as_c(s == nullptr ? detail::null("sequence", "a sequence")
                                         : s->is->truncate(tokens));
    };
    f.sequence_fork = [](sofattn_sequence const* s, sofattn_sequence** into) {
        if (s == nullptr || into == nullptr) {
            return detail::as_c(detail::null(s == nullptr ? "sequence" : "into",
                                             "a sequence, and a place for the other"));
        }
        std::unique_ptr<any_sequence> twin(s->is->empty());
        if (twin == nullptr) {
            return detail::as_c(detail::no_memory());
        }
        e::verdict const forked = s->is->fork(*twin);
        if (!forked.ok()) {
            return detail::as_c(forked);
        }
        auto* const handle = new (std::nothrow) sofattn_sequence{std::move(twin)};
        if (handle == nullptr) {
            return detail::as_c(detail::no_memory());
        }
        *into = handle;
        return detail::as_c(forked);
    };
    f.sequence_export_bytes = [](sofattn_sequence const* s) -> std::size_t {
        return s == nullptr ? 0 : s->is->export_bytes();
    };
    f.sequence_export = [](sofattn_sequence const* s, void* to, std::size_t bytes) {
        if (s == nullptr || to == nullptr) {
            return detail::as_c(detail::null(s == nullptr ? "sequence" : "to",
                                             "a sequence, and memory for its export"));
        }
        return detail::as_c(s->is->export_to({static_cast<std::byte*>(to), bytes}));
    };
    f.sequence_import = [](sofattn_sequence* s, void const* from, std::size_t bytes) {
        if (s == nullptr || from == nullptr) {
            return detail::as_c(detail::null(s == nullptr ? "sequence" : "from",
                                             "a sequence, and an export of one"));
        }
        return detail::as_c(s->is->import_from({static_cast<std::byte const*>(from), bytes}));
    };
    f.sequence_describe = [](sofattn_sequence const* s, std::int64_t layer, sofattn_attention* a) {
        if (s == nullptr) {
            return detail::as_c(detail::null("sequence", "a sequence"));
        }
        return detail::with_attention(a, [&](e::attention_desc d) -> e::verdict {
            e::verdict const found = s->is->describe(layer, d);
            // A struct of before 0.4 ends before the scales: nothing may be written there.
            constexpr std::size_t scaled_bytes =
                offsetof(sofattn_attention, value_scales) + sizeof(sofattn_scales);
            bool const has_scales = a->struct_bytes >= scaled_bytes;
            if (found.ok() && !has_scales && d.key_scales.data != nullptr) {
                return {e::status::unsupported, "struct_bytes",
                        static_cast<double>(a->struct_bytes),
                        "that of version 0.4 or later where a cache is in int8"};
            }
            if (found.ok() && has_scales) {
                a->key_scales = detail::as_c(d.key_scales);
                a->value_scales = detail::as_c(d.value_scales);
            }
            if (found.ok()) {
                a->kv_heads = d.kv_heads;
                a->keys = d.keys;
                a->qk_dim = d.qk_dim;
                a->v_dim = d.v_dim;
                a->key = detail::as_c(d.key);
                a->value = detail::as_c(d.value);
                a->pages = d.pages.numbers;
                a->page_count = d.pages.count;
                a->page_tokens = d.pages.page_tokens;
                a->pool_pages = d.pages.pool_pages;
                a->codes = reinterpret_cast<sofattn_codes const*>(d.codes);
                a->dense_below = d.dense_below;
                if (a->struct_bytes > offsetof(sofattn_attention, page_codes)) { // 0.4 or later
                    a->page_codes = reinterpret_cast<sofattn_page_codes const*>(d.prefill_pages);
                }
            }
            return found;
        });
    };
    return f;
}

} // namespace sofattn::abi
