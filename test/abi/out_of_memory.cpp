// SPDX-License-Identifier: MIT
// libsofattn whose memory ends, at each request in turn: a status for whoever calls from C, no exception, and
// nothing lost. The library's operator new is this program's.
#include "support/allocations.hpp"
#include "support/generators.hpp"
#include <sofattn/sofattn.h>

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

using namespace sofattn::test;

namespace {

constexpr std::int64_t kv_heads = 2;
constexpr std::int64_t dim = 16;
constexpr std::int64_t most_tokens = 400;

struct destroy {
    void operator()(sofattn_pool* p) const { sofattn_pool_destroy(p); }
    void operator()(sofattn_sequence* s) const { sofattn_sequence_destroy(s); }
    void operator()(sofattn_prefill* p) const { sofattn_prefill_destroy(p); }
};
using pool_handle = std::unique_ptr<sofattn_pool, destroy>;
using sequence_handle = std::unique_ptr<sofattn_sequence, destroy>;
using prefill_handle = std::unique_ptr<sofattn_prefill, destroy>;

/// [kv_head, token, channel]
struct rows {
    explicit rows(generator& random)
        : numbers(static_cast<std::size_t>(kv_heads * most_tokens * dim)) {
        std::ranges::generate(numbers, [&] { return static_cast<float>(random.normal()); });
    }
    [[nodiscard]] sofattn_operand from(std::int64_t token) const {
        return {numbers.data() + token * dim, SOFATTN_F32, most_tokens * dim * 4, dim * 4};
    }
    std::vector<float> numbers;
};

sofattn_layout layout_of(std::int32_t type) {
    sofattn_layout l;
    sofattn_layout_init(&l);
    l.type = type;
    l.layers = 2;
    l.kv_heads = kv_heads;
    l.qk_dim = l.v_dim = dim;
    l.page_tokens = 16;
    l.pages = 150;
    l.coded_from = 48;
    l.page_codes = SOFATTN_PAGE_CODES_BF16;
    return l;
}

/// Both sides of what is done with scarce memory and with plenty; `refusals` are counted.
struct scarcity {
    bool then_all;
    long refusals = 0;

    /// act() in the one way; unchanged() after each refusal.
    template <class Act, class Unchanged>
    void operator()(Act act, Unchanged unchanged) {
        sofattn_verdict const found =
            with_scarce_memory(then_all, act, [&](sofattn_verdict const& v) {
                CHECK(v.status == SOFATTN_OUT_OF_MEMORY);
                CHECK(std::string(v.field) == "memory");
                unchanged();
                ++refusals;
            });
        CHECK(found.status == SOFATTN_OK);
    }
};

/// A sequence as bytes, and what else tells of it.
struct seen {
    std::vector<std::byte> bytes;
    std::int64_t length;
    std::int64_t code_bytes;
    std::int64_t free_pages;

    bool operator==(seen const&) const = default;
};
seen look(sofattn_sequence const* s, sofattn_pool const* pool) {
    seen found{std::vector<std::byte>(sofattn_sequence_export_bytes(s)), sofattn_sequence_length(s),
               sofattn_sequence_code_bytes(s), sofattn_pool_free_pages(pool)};
    if (!found.bytes.empty()) { // all is written
        CHECK(sofattn_sequence_export(s, found.bytes.data(), found.bytes.size()).status ==
              SOFATTN_OK);
    }
    return found;
}

/// Of the last tokens to the others, by a method that the sequence has codes for. Nothing is allocated there, so
/// nothing can be refused.
std::vector<float> attended(sofattn_sequence const* s, std::int32_t method) {
    generator random(5);
    sofattn_attention a;
    sofattn_attention_init(&a);
    a.method = method;
    a.dense_below = 0;
    REQUIRE(sofattn_sequence_describe(s, 1, &a).status == SOFATTN_OK);
    a.heads = 2 * kv_heads;
    a.queries = method == SOFATTN_PAGES ? 20 : 1;
    a.products = method == SOFATTN_PAGES ? SOFATTN_PRODUCTS_BF16 : SOFATTN_PRODUCTS_F32;
    a.mass = method == SOFATTN_PAGES ? 0.7 : 0;
    a.count = 40;
    a.recent = 8;
    std::vector<float> q(static_cast<std::size_t>(a.heads * a.queries * dim));
    std::ranges::generate(q, [&] { return static_cast<float>(random.normal()); });
    std::vector<float> output(q.size());
    a.query = {q.data(), SOFATTN_F32, a.queries * dim * 4, dim * 4};
    a.output = output.data();
    a.output_head_stride = a.queries * dim * 4;
    a.output_token_stride = dim * 4;
    std::vector<std::byte> workspace(sofattn_workspace_bytes(&a, 1));
    sofattn_attention const* const batch[] = {&a};
    std::vector<std::byte> of_batch(sofattn_batch_workspace_bytes(batch, 1, 1));
    std::int64_t which = 0;
    auto const without_memory = [](auto act) {
        scarce_memory const none(0, true);
        sofattn_verdict const found = act();
        return found.status == SOFATTN_OK && !scarce_memory::was_met();
    };
    CHECK(
        without_memory([&] { return sofattn_run(&a, workspace.data(), workspace.size(), 0, 1); }));
    std::vector<float> const alone = output;
    CHECK(without_memory(
        [&] { return sofattn_batch_plan(batch, 1, of_batch.data(), of_batch.size(), 1, &which); }));
    CHECK(without_memory([&] { return sofattn_batch_run(of_batch.data(), of_batch.size(), 0); }));
    CHECK(output == alone);
    return output;
}

/// A sequence's life; `act(what, unchanged)` does what it is told in its way.
template <class Act>
struct life {
    Act& act;
    rows const& k;
    rows const& v;
    sofattn_pool* pool;

    [[nodiscard]] sequence_handle made() const {
        sofattn_sequence* s = nullptr;
        act([&] { return sofattn_sequence_create(pool, &s); }, [&] { CHECK(s == nullptr); });
        return sequence_handle(s);
    }
    /// what(sequence) of one that stays as it is, until it is done
    template <class What>
    void change(sequence_handle const& s, What what) const {
        seen const before = look(s.get(), pool);
        act([&] { return what(s.get()); }, [&] { CHECK(look(s.get(), pool) == before); });
    }
    void append(sequence_handle const& s, std::int64_t count) const {
        std::int64_t const first = sofattn_sequence_length(s.get());
        change(s, [=](sofattn_sequence* of) { return sofattn_sequence_extend(of, count); });
        sofattn_operand const keys = k.from(first);
        sofattn_operand const values = v.from(first);
        for (std::int64_t layer = 0; layer < 2; ++layer) {
            change(s, [&](sofattn_sequence* of) {
                return sofattn_sequence_write(of, layer, count, &keys, &values);
            });
        }
    }
    [[nodiscard]] sequence_handle forked(sequence_handle const& s) const {
        sofattn_sequence* twin = nullptr;
        seen const before = look(s.get(), pool);
        act([&] { return sofattn_sequence_fork(s.get(), &twin); },
            [&] {
                CHECK(twin == nullptr);
                CHECK(look(s.get(), pool) == before);
            });
        return sequence_handle(twin);
    }

    [[nodiscard]] std::vector<seen> operator()(std::vector<float>& outputs) const {
        std::vector<seen> all;
        sequence_handle const one = made();
        for (std::int64_t const count : {1, 15, 20, 1, 60, 200, 3}) {
            append(one, count);
            all.push_back(look(one.get(), pool));
        }
        sequence_handle const twin = forked(one);
        append(twin, 10);
        all.push_back(look(twin.get(), pool));
        for (std::int64_t const stay : {299, 250, 100, 40, 10}) {
            change(twin, [=](sofattn_sequence* s) { return sofattn_sequence_truncate(s, stay); });
            append(twin, 30);
            all.push_back(look(twin.get(), pool));
        }
        std::vector<std::byte> const bytes = all[6].bytes; // of `one`
        change(twin, [&](sofattn_sequence* s) {
            return sofattn_sequence_import(s, bytes.data(), bytes.size());
        });
        all.push_back(look(twin.get(), pool));
        append(twin, 50);
        all.push_back(look(twin.get(), pool));
        for (std::int32_t const method : {SOFATTN_DENSE, SOFATTN_BEST_KEYS, SOFATTN_PAGES}) {
            for (auto const* s : {one.get(), twin.get()}) {
                std::vector<float> const more = attended(s, method);
                outputs.insert(outputs.end(), more.begin(), more.end());
            }
        }
        return all;
    }
};

} // namespace

TEST_CASE("abi: a life with scarce memory is one with plenty, and every refusal a status") {
    SOFATTN_GENERATOR(random);
    rows const k(random);
    rows const v(random);
    for (std::int32_t const type : {SOFATTN_F32, SOFATTN_BF16, SOFATTN_INT8}) {
        CAPTURE(type);
        sofattn_layout const l = layout_of(type);
        sofattn_pool* plain = nullptr;
        REQUIRE(sofattn_pool_create(&l, &plain).status == SOFATTN_OK);
        pool_handle const plenty(plain);
        auto const act = [](auto what, auto) { CHECK(what().status == SOFATTN_OK); };
        std::vector<float> outputs;
        std::vector<seen> const expected = life<decltype(act)>{act, k, v, plain}(outputs);
        for (bool const then_all : {false, true}) {
            scarcity tried{then_all};
            sofattn_pool* made = nullptr;
            tried([&] { return sofattn_pool_create(&l, &made); }, [&] { CHECK(made == nullptr); });
            pool_handle const pool(made);
            CHECK(tried.refusals > l.layers);
            std::vector<float> found;
            CHECK(life<scarcity>{tried, k, v, made}(found) == expected);
            CHECK(found == outputs);
            CHECK(tried.refusals > 300);
            CHECK(sofattn_pool_free_pages(made) == l.pages);
        }
    }
}

TEST_CASE("abi: prefill codes that there is no memory for are none") {
    SOFATTN_GENERATOR(random);
    rows const k(random);
    rows const v(random);
    sofattn_attention a;
    sofattn_attention_init(&a);
    float nowhere = 0;
    a.heads = a.kv_heads = kv_heads;
    a.queries = 1;
    a.keys = most_tokens;
    a.qk_dim = a.v_dim = dim;
    a.query = a.key = k.from(0);
    a.value = v.from(0);
    a.output = &nowhere;
    a.output_head_stride = a.output_token_stride = dim * 4;
    a.mass = 0.9;
    for (std::int32_t const method : {SOFATTN_BUDGET, SOFATTN_PAGES}) {
        a.method = method;
        for (bool const then_all : {false, true}) {
            scarcity tried{then_all};
            sofattn_prefill* made = nullptr;
            tried([&] { return sofattn_prefill_create(&a, &made); },
                  [&] { CHECK(made == nullptr); });
            prefill_handle const held(made);
            CHECK(tried.refusals > 4);
        }
    }
}
