// SPDX-License-Identifier: MIT
// Ways to spoil a descriptor, and what must be said of each.
#pragma once

#include "support/generators.hpp"
#include <sofattn/attention/dense.hpp>
#include <sofattn/engine/descriptor.hpp>
#include <sofattn/engine/page_codes.hpp>
#include <sofattn/engine/verdict.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <string>
#include <vector>

namespace sofattn::test {

using engine::attention_desc;
using engine::mask_kind;
using engine::method;
using engine::status;

inline constexpr std::int64_t huge = std::numeric_limits<std::int64_t>::max();

/// A number that is not in [low, high].
inline std::int64_t outside(generator& random, std::int64_t low, std::int64_t high) {
    std::vector<std::int64_t> choices{low - 1, -huge, -random.integer<std::int64_t>(1, huge)};
    if (low > 0) {
        choices.push_back(0);
    }
    if (high < huge) {
        choices.insert(choices.end(),
                       {high + 1, huge, random.integer<std::int64_t>(high + 1, huge)});
    }
    return choices[random.integer<std::size_t>(0, choices.size() - 1)];
}

/// One way to spoil a descriptor: what is done, and what must be said. Applies where it would not be right.
struct fault {
    char const* field;
    status code;
    std::function<bool(attention_desc const&)> applies;
    std::function<void(generator&, attention_desc&)> spoil;
};

inline std::string kind_of(fault const& f) { return std::string(f.field) + " " + name_of(f.code); }

/// a + b and a * b of numbers that another fault may have made huge.
inline std::int64_t plus(std::int64_t a, std::int64_t b) {
    return static_cast<std::int64_t>(static_cast<std::uint64_t>(a) + static_cast<std::uint64_t>(b));
}
inline std::int64_t times(std::int64_t a, std::int64_t b) {
    return static_cast<std::int64_t>(static_cast<std::uint64_t>(a) * static_cast<std::uint64_t>(b));
}

/// A byte after it, of whatever it is.
inline void* odd(void const* p) {
    // NOLINTNEXTLINE(performance-no-int-to-ptr): arithmetic on a null pointer is undefined
    return reinterpret_cast<void*>(reinterpret_cast<std::uintptr_t>(p) + 1);
}

/// Memory of 4 bytes each, that nothing is read from.
inline float* numbers_of(attention_desc const& d) { return static_cast<float*>(d.output.data); }

inline std::vector<fault> all_faults() {
    std::vector<fault> faults;
    auto const always = [](attention_desc const&) { return true; };
    auto const numbered = [&](char const* field, std::int64_t attention_desc::*member,
                              std::int64_t low, std::int64_t high, auto applies) {
        faults.push_back(
            {field, status::out_of_range, applies, [=](generator& random, attention_desc& d) {
                 d.*member = outside(random, low, high);
             }});
    };
    std::int64_t const tokens = std::numeric_limits<std::int32_t>::max();
    auto const best = [](attention_desc const& d) { return d.how == method::best_keys; };
    auto const budgeted = [](attention_desc const& d) {
        return d.how == method::budget || d.how == method::pages;
    };
    auto const of_keys = [](attention_desc const& d) { return d.how == method::budget; };
    auto const of_pages = [](attention_desc const& d) { return d.how == method::pages; };
    auto const listed = [](attention_desc const& d) { return d.how == method::listed; };
    auto const paged = [](attention_desc const& d) { return d.pages.numbers != nullptr; };
    auto const coded = [](attention_desc const& d) { return d.key.type == engine::dtype::int8; };
    auto const not_coded = [](attention_desc const& d) {
        return d.key.type != engine::dtype::int8;
    };
    auto const many = [](attention_desc const& d) { return d.heads > 1 && d.queries > 1; };
    numbered("heads", &attention_desc::heads, 1, 65536, always);
    numbered("kv_heads", &attention_desc::kv_heads, 1, 65536, always);
    numbered("queries", &attention_desc::queries, 1, tokens, always);
    numbered("keys", &attention_desc::keys, 1, tokens, always);
    numbered("qk_dim", &attention_desc::qk_dim, 1, 256, always);
    numbered("v_dim", &attention_desc::v_dim, 1, 256, always);
    numbered("dense_below", &attention_desc::dense_below, 0, tokens, always);
    numbered("count", &attention_desc::count, 1, tokens, best);
    numbered("sinks", &attention_desc::sinks, 0, tokens, best);
    numbered("recent", &attention_desc::recent, 0, tokens, best);
    numbered("window", &attention_desc::window, 0, 0,
             [](attention_desc const& d) { return d.mask != mask_kind::window; });
    numbered("window", &attention_desc::window, 1, tokens,
             [](attention_desc const& d) { return d.mask == mask_kind::window; });
    numbered("prefix", &attention_desc::prefix, 0, 0,
             [](attention_desc const& d) { return d.mask != mask_kind::prefix; });
    auto const add = [&](char const* field, status code, auto applies, auto spoil) {
        faults.push_back({field, code, applies, spoil});
    };
    auto const sized = [&](char const* field, std::int64_t engine::tile_sizes::*member,
                           std::int64_t step, std::int64_t most) {
        add(field, status::out_of_range, always, [=](generator& random, attention_desc& d) {
            d.tiles.*member =
                step > 1 && random.chance(0.5)
                    ? step * random.integer<std::int64_t>(0, most / step - 1) + // between two steps
                          random.integer<std::int64_t>(1, step - 1)
                    : outside(random, 0, most);
        });
    };
    sized("tiles.keys", &engine::tile_sizes::keys, 48, 576);
    sized("tiles.rows", &engine::tile_sizes::rows, 1, 1536);
    sized("tiles.part_keys", &engine::tile_sizes::part_keys, 64, 1 << 20);
    add(
        "heads", status::mismatch, [](attention_desc const& d) { return d.kv_heads > 1; },
        [](generator&, attention_desc& d) { d.heads = plus(d.kv_heads, 1); });
    auto const enumerated = [&](char const* field, auto set, std::int32_t most) {
        add(field, status::out_of_range, always, [=](generator& random, attention_desc& d) {
            set(d,
                random.chance(0.5)
                    ? random.integer<std::int32_t>(most + 1,
                                                   std::numeric_limits<std::int32_t>::max())
                    : -random.integer<std::int32_t>(1, std::numeric_limits<std::int32_t>::max()));
        });
    };
    using number = std::int32_t;
    enumerated(
        "how", [](auto& d, number x) { d.how = static_cast<method>(x); }, 4);
    enumerated(
        "mask", [](auto& d, number x) { d.mask = static_cast<mask_kind>(x); }, 3);
    enumerated(
        "finite", [](auto& d, number x) { d.finite = static_cast<engine::finite_check>(x); }, 1);
    enumerated(
        "query.type", [](auto& d, number x) { d.query.type = static_cast<engine::dtype>(x); }, 2);
    enumerated(
        "output.type", [](auto& d, number x) { d.output.type = static_cast<engine::dtype>(x); }, 2);
    enumerated(
        "key.type", [](auto& d, number x) { d.key.type = static_cast<engine::dtype>(x); }, 3);
    add("query.data", status::null_pointer, always,
        [](generator&, attention_desc& d) { d.query.data = nullptr; });
    auto const reads = [](attention_desc const& d) {
        return d.how != method::pages || d.keys < d.dense_below ||
               d.finite == engine::finite_check::reject;
    };
    add("key.data", status::null_pointer, reads,
        [](generator&, attention_desc& d) { d.key.data = nullptr; });
    add("value.data", status::null_pointer, reads,
        [](generator&, attention_desc& d) { d.value.data = nullptr; });
    add("output.data", status::null_pointer, always,
        [](generator&, attention_desc& d) { d.output.data = nullptr; });
    add("output.data", status::misaligned, always,
        [](generator&, attention_desc& d) { d.output.data = odd(d.output.data); });
    add("query.data", status::misaligned, always,
        [](generator&, attention_desc& d) { d.query.data = odd(d.query.data); });
    add("value.data", status::misaligned, not_coded,
        [](generator&, attention_desc& d) { d.value.data = odd(d.value.data); });
    add("row_sum", status::misaligned, always,
        [](generator&, attention_desc& d) { d.row_sum = static_cast<float*>(odd(d.output.data)); });
    add(
        "query.token_stride", status::misaligned,
        [](attention_desc const& d) { return d.queries > 1; },
        [](generator&, attention_desc& d) {
            d.query.token_stride = plus(d.query.token_stride, 1);
        });
    add(
        "key.token_stride", status::out_of_range,
        [](attention_desc const& d) { return d.keys > 1; },
        [](generator& random, attention_desc& d) {
            d.key.token_stride = outside(random, -(std::int64_t{1} << 47), std::int64_t{1} << 47);
        });
    add(
        "value.head_stride", status::out_of_range,
        [](attention_desc const& d) { return d.kv_heads > 1; },
        [](generator& random, attention_desc& d) {
            d.value.head_stride = outside(random, -(std::int64_t{1} << 47), std::int64_t{1} << 47);
        });
    // Of the element, whose bytes are those of a fault's descriptor.
    auto const bytes = [](attention_desc const& d) -> std::int64_t {
        return d.output.type == engine::dtype::f32 ? 4 : 2;
    };
    add("output.token_stride", status::misaligned, many, [=](generator&, attention_desc& d) {
        d.output.token_stride = plus(d.output.token_stride, bytes(d) / 2);
    });
    add("output.head_stride", status::misaligned, many, [=](generator&, attention_desc& d) {
        d.output.head_stride = plus(d.output.head_stride, -bytes(d) / 2);
    });
    add("output.token_stride", status::overlapping, many, [=](generator&, attention_desc& d) {
        d.output.token_stride = times(bytes(d), plus(d.v_dim, -1));
    });
    add("output.head_stride", status::overlapping, many, [=](generator&, attention_desc& d) {
        d.output.head_stride = times(-bytes(d), plus(d.v_dim, -1));
    });
    add("output.head_stride", status::overlapping, many, [](generator&, attention_desc& d) {
        d.output.head_stride =
            d.output.token_stride; // every head's second row is the next one's first
    });
    auto const reads_codes = [=](attention_desc const& d) { return coded(d) && reads(d); };
    add("key_scales.data", status::null_pointer, reads_codes,
        [](generator&, attention_desc& d) { d.key_scales.data = nullptr; });
    add("value_scales.data", status::null_pointer, reads_codes,
        [](generator&, attention_desc& d) { d.value_scales = {}; });
    add("key_scales.data", status::misaligned, coded, [](generator&, attention_desc& d) {
        d.key_scales.data = static_cast<float*>(odd(d.output.data));
    });
    add("value_scales.token_stride", status::misaligned, coded, [](generator&, attention_desc& d) {
        d.value_scales.token_stride = plus(d.value_scales.token_stride, 2);
    });
    add("key_scales.token_stride", status::out_of_range, coded,
        [](generator& random, attention_desc& d) {
            d.key_scales.token_stride =
                outside(random, -(std::int64_t{1} << 47), std::int64_t{1} << 47);
        });
    add(
        "value_scales.head_stride", status::out_of_range,
        [=](attention_desc const& d) { return coded(d) && d.kv_heads > 1; },
        [](generator& random, attention_desc& d) {
            d.value_scales.head_stride =
                outside(random, -(std::int64_t{1} << 47), std::int64_t{1} << 47);
        });
    add("key_scales.data", status::unsupported, not_coded,
        [](generator&, attention_desc& d) { d.key_scales.data = numbers_of(d); });
    add("value_scales.data", status::unsupported, not_coded,
        [](generator&, attention_desc& d) { d.value_scales.data = numbers_of(d); });
    add("query.type", status::out_of_range, coded,
        [](generator&, attention_desc& d) { d.query.type = engine::dtype::int8; });
    add(
        "products", status::unsupported,
        [=](attention_desc const& d) {
            return coded(d) && d.how == method::dense && d.queries > 4 &&
                   d.pages.numbers == nullptr;
        },
        [](generator&, attention_desc& d) { d.products = dense_products::int8; });
    add(
        "key.type", status::unsupported,
        [=](attention_desc const& d) { return coded(d) && d.how == method::budget; },
        [](generator&, attention_desc& d) { d.dense_below = 0; });
    add("value.type", status::unsupported, always, [](generator&, attention_desc& d) {
        d.value.type = d.key.type == engine::dtype::f32   ? engine::dtype::f16
                       : d.key.type == engine::dtype::f16 ? engine::dtype::bf16
                                                          : engine::dtype::f32;
        if (d.key.type == engine::dtype::int8) {
            d.value = {d.output.data, d.value.type, 4, 4};
            return;
        }
        d.value.head_stride = times(d.value.head_stride, 2);
        d.value.token_stride = times(d.value.token_stride, 2);
    });
    add(
        "query.type", status::unsupported,
        [](attention_desc const& d) { return d.key.type == engine::dtype::f32; },
        [](generator&, attention_desc& d) { d.query.type = engine::dtype::bf16; });
    add("scale", status::out_of_range, always, [](generator& random, attention_desc& d) {
        std::array<double, 4> const bad{-1.0, std::numeric_limits<double>::infinity(),
                                        std::numeric_limits<double>::quiet_NaN(), -1e-300};
        d.scale = bad[random.integer<std::size_t>(0, 3)];
    });
    add("softcap", status::out_of_range, always, [](generator& random, attention_desc& d) {
        d.softcap = random.chance(0.5) ? -30.0f : std::numeric_limits<float>::quiet_NaN();
    });
    static constexpr float no_number = std::numeric_limits<float>::quiet_NaN();
    add("alibi_slopes[]", status::out_of_range, always,
        [](generator&, attention_desc& d) { d.alibi_slopes = &no_number; });
    add("sink_logits[]", status::out_of_range, always,
        [](generator&, attention_desc& d) { d.sink_logits = &no_number; });
    auto const selects = [](attention_desc const& d) {
        return d.how == method::listed || (d.how != method::dense && d.keys >= d.dense_below);
    };
    add("alibi_slopes", status::unsupported, selects,
        [](generator&, attention_desc& d) { d.alibi_slopes = numbers_of(d); });
    auto const int8 = [](attention_desc const& d) {
        return d.how == method::dense && d.queries > 4 && d.pages.numbers == nullptr;
    };
    for (char const* const field : {"softcap", "alibi_slopes", "sink_logits"}) {
        add(field, status::unsupported, int8, [field](generator&, attention_desc& d) {
            d.products = dense_products::int8;
            d.softcap = field == std::string("softcap") ? 30.0f : 0.0f;
            d.alibi_slopes = field == std::string("alibi_slopes") ? numbers_of(d) : nullptr;
            d.sink_logits = field == std::string("sink_logits") ? numbers_of(d) : nullptr;
        });
    }
    auto const sparse_best = [](attention_desc const& d) {
        return d.how == method::best_keys && d.keys >= d.dense_below;
    };
    add("codes", status::null_pointer, sparse_best,
        [](generator&, attention_desc& d) { d.codes = nullptr; });
    add("mask", status::unsupported, sparse_best, [](generator&, attention_desc& d) {
        d.mask = mask_kind::window;
        d.window = 5;
    });
    add("selected.slots", status::mismatch, sparse_best, [](generator&, attention_desc& d) {
        d.selected.entries = static_cast<std::int32_t*>(d.output.data);
        d.selected.slots = 1;
        d.count = 2;
    });
    add(
        "selected.entries", status::unsupported,
        [](attention_desc const& d) { return d.how != method::best_keys; },
        [](generator&, attention_desc& d) {
            d.selected.entries = static_cast<std::int32_t*>(d.output.data);
        });
    add("selected.entries", status::null_pointer, always, [](generator&, attention_desc& d) {
        d.selected.entries = nullptr;
        d.selected.counts = static_cast<std::int32_t*>(d.output.data);
    });
    add("mass", status::out_of_range, budgeted, [](generator& random, attention_desc& d) {
        d.mass = random.chance(0.5) ? 1.1 : std::numeric_limits<double>::quiet_NaN();
    });
    add("output_error", status::mismatch, budgeted, [](generator& random, attention_desc& d) {
        d.mass = random.chance(0.5) ? 0.5 : 0.0;
        d.output_error = d.mass;
    });
    add("output_error", status::mismatch, budgeted, [](generator& random, attention_desc& d) {
        (random.chance(0.5) ? d.head_masses : d.head_output_errors) = numbers_of(d);
    });
    add("head_masses[]", status::out_of_range, budgeted, [](generator& random, attention_desc& d) {
        static constexpr std::array<float, 3> bad{0.0f, 1.1f, no_number};
        d.mass = d.output_error = 0;
        d.head_masses = &bad[random.integer<std::size_t>(0, 2)];
    });
    add("head_output_errors[]", status::out_of_range, budgeted,
        [](generator& random, attention_desc& d) {
            static constexpr std::array<float, 3> bad{0.0f, -1.0f, no_number};
            d.mass = d.output_error = 0;
            d.head_output_errors = &bad[random.integer<std::size_t>(0, 2)];
        });
    add("page_loss", status::out_of_range, of_keys,
        [](generator& random, attention_desc& d) { d.page_loss = random.chance(0.5) ? 1 : -0.1; });
    auto const sparse_budget = [=](attention_desc const& d) {
        return budgeted(d) && d.keys >= d.dense_below;
    };
    auto const sparse_keys = [=](attention_desc const& d) {
        return of_keys(d) && d.keys >= d.dense_below;
    };
    auto const sparse_pages = [=](attention_desc const& d) {
        return of_pages(d) && d.keys >= d.dense_below;
    };
    add("softcap", status::unsupported, sparse_budget,
        [](generator&, attention_desc& d) { d.softcap = 30.0f; });
    add("mask", status::unsupported, sparse_keys, [](generator&, attention_desc& d) {
        d.mask = mask_kind::window;
        d.window = 5;
        d.prefix = 0;
    });
    add("products", status::unsupported, of_pages,
        [](generator&, attention_desc& d) { d.products = dense_products::int8; });
    add("prefill_pages", status::null_pointer, sparse_pages,
        [](generator&, attention_desc& d) { d.prefill_pages = nullptr; });
    static engine::page_codes const of_nothing;
    add("prefill_pages.kv_heads", status::mismatch, sparse_pages,
        [](generator&, attention_desc& d) {
            d.prefill_pages = &of_nothing;
            d.products = dense_products::f32;
        });
    add("prefill_pages.products", status::mismatch, sparse_pages,
        [](generator&, attention_desc& d) {
            d.products =
                d.products == dense_products::f32 ? dense_products::bf16 : dense_products::f32;
        });
    add("prefill_pages.keys", status::mismatch, sparse_pages,
        [](generator&, attention_desc& d) { d.keys = plus(d.keys, -1); });
    add("prefill_pages.dim", status::mismatch, sparse_pages,
        [](generator&, attention_desc& d) { d.qk_dim = plus(d.qk_dim, -1); });
    add("prefill_pages.value_dim", status::mismatch, sparse_pages,
        [](generator&, attention_desc& d) { d.v_dim = plus(d.v_dim, -1); });
    add("pages.numbers", status::unsupported, sparse_keys, [](generator&, attention_desc& d) {
        static constexpr std::array<std::int32_t, 3> numbers{0, 2, 1};
        d.pages = {numbers.data(), 3, 30, 3};
        d.key.token_stride = d.value.token_stride = 0;
    });
    add("prefill", status::null_pointer, sparse_keys,
        [](generator&, attention_desc& d) { d.prefill = nullptr; });
    add("row_max", status::unsupported, sparse_budget,
        [](generator&, attention_desc& d) { d.row_sum = numbers_of(d); });
    add("lists.entries", status::null_pointer, listed,
        [](generator&, attention_desc& d) { d.lists.entries = nullptr; });
    add("lists.heads", status::mismatch, listed,
        [](generator&, attention_desc& d) { d.lists.heads = plus(d.heads, 1); });
    add("lists.slots", status::out_of_range, listed, [](generator& random, attention_desc& d) {
        d.lists.slots = outside(random, 1, std::numeric_limits<std::int32_t>::max());
    });
    add("lists.keys_each", status::out_of_range, listed, [](generator& random, attention_desc& d) {
        d.lists.keys_each = outside(random, 1, std::numeric_limits<std::int32_t>::max());
    });
    add("pages.page_tokens", status::out_of_range, paged, [](generator& random, attention_desc& d) {
        d.pages.page_tokens = outside(random, 1, std::numeric_limits<std::int32_t>::max());
    });
    add("pages.count", status::mismatch, paged,
        [](generator&, attention_desc& d) { d.pages.page_tokens = 1; });
    add("pages.numbers[]", status::out_of_range, paged,
        [](generator&, attention_desc& d) { d.pages.pool_pages = 1; });
    add("pages.numbers", status::null_pointer, paged,
        [](generator&, attention_desc& d) { d.pages.numbers = nullptr; });
    return faults;
}

} // namespace sofattn::test
