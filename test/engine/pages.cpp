// SPDX-License-Identifier: MIT
// Prefill of whole pages by descriptors: what page_prefill does.
#include "dlzs/sketch_codes.hpp"
#include "engine/engine_case.hpp"
#include "engine/who_runs.hpp"
#include "support/generators.hpp"
#include "support/guarded_workspace.hpp"
#include "support/same_bits.hpp"
#include <sofattn/attention/dense.hpp>
#include <sofattn/attention/options.hpp>
#include <sofattn/attention/page_prefill.hpp>
#include <sofattn/core/bfloat16.hpp>
#include <sofattn/core/half.hpp>
#include <sofattn/core/page_table.hpp>
#include <sofattn/core/tensor.hpp>
#include <sofattn/engine/page_codes.hpp>
#include <sofattn/engine/prefill_codes.hpp>
#include <sofattn/engine/run.hpp>
#include <sofattn/exec/parallel.hpp>
#include <sofattn/sads/budget.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <new>
#include <numeric>
#include <optional>
#include <string>
#include <utility>
#include <vector>

using namespace sofattn;
using namespace sofattn::test;
using engine::attention_desc;
using engine::status;

namespace {

/// Output and dropped shares of the kernel, over indexes of its own.
template <dense_products Products, class T>
std::pair<decode_output, std::vector<float>>
kernel(problem<T> const& given, attention_options const& options, index_t dense_below) {
    page_prefill<Products> const attend(options, dense_below);
    problem_shape const s = given.shape();
    attend.check(s);
    auto const indexes = attend.index(given, exec::serial{});
    std::pair<decode_output, std::vector<float>> result{
        decode_output({s.heads, s.queries, s.value_dim}),
        std::vector<float>(static_cast<std::size_t>(s.heads * s.queries))};
    guarded_workspace memory(page_prefill<Products>::workspace_bytes(s, 1));
    attend(given, std::span(indexes), result.first.view(), memory.span(), exec::serial{},
           ignore_looked_pages{}, dropped_mass{result.second.data(), {s.heads, s.queries}});
    return result;
}

std::optional<engine::page_codes> made(attention_desc const& d, status expected = status::ok,
                                       std::string const& field = "") {
    std::optional<engine::page_codes> codes;
    engine::verdict const found =
        engine::make_page_codes(d, [&](engine::page_codes&& c) { codes = std::move(c); });
    CHECK(found.code == expected);
    CHECK(std::string(found.field) == field);
    CHECK(codes.has_value() == (expected == status::ok));
    return codes;
}

template <dense_products Products, class T>
void check_budgets(generator& random) {
    std::vector<float> const masses{0.75f, 0.96875f};
    std::vector<float> const errors{0.5f, 0.0078125f};
    for (int const which : {0, 1, 2, 3}) {
        CAPTURE(which);
        engine_case<T> c(random, {1, 2, 40, 1500, 40, 24, true});
        c.desc.how = engine::method::pages;
        c.desc.products = Products;
        c.desc.dense_below = 1500;
        attention_options options;
        switch (which) {
        case 0:
            c.desc.mass = 0.9;
            options.budget.mass = 0.9;
            break;
        case 1:
            c.desc.output_error = 0.3;
            options.budget.output_error = 0.3;
            break;
        case 2:
            c.desc.head_masses = masses.data();
            options.head_budgets = {sads::budget::of_mass(0.75), sads::budget::of_mass(0.96875)};
            break;
        default:
            c.desc.head_output_errors = errors.data();
            options.head_budgets = {sads::budget::of_output_error(0.5),
                                    sads::budget::of_output_error(0.0078125)};
        }
        auto const codes = made(c.desc);
        c.desc.prefill_pages = &*codes;
        auto const [expected, dropped] = kernel<Products>(c.layer.given(), options, 1500);
        CHECK(std::ranges::any_of(dropped, [](float share) { return share > 0; }));
        check_who_runs(c, expected);
        c.desc.dropped_mass = c.dropped.data();
        CHECK(same_bits(ran(c), expected));
        CHECK(c.dropped == dropped);

        c.desc.dense_below = 1501;
        c.desc.prefill_pages = nullptr;
        check_who_runs(c, dense_of<Products>(c.layer.given()));
        CHECK(c.dropped == std::vector<float>(c.dropped.size(), 0.0f));
    }
}

} // namespace

TEST_CASE_TEMPLATE("engine.pages: the kernel's bits for every budget, whoever runs it", T, float,
                   half, bfloat16) {
    SOFATTN_GENERATOR(random);
    check_budgets<dense_products::f32, T>(random);
    check_budgets<dense_products::bf16, T>(random);
}

TEST_CASE("engine.pages: learned sinks, every mask, one query") {
    SOFATTN_GENERATOR(random);
    using engine::mask_kind;
    std::vector<float> const sinks{-1.0f, 0.5f, 0.0f, 3.0f};
    for (mask_kind const mask :
         {mask_kind::none, mask_kind::causal, mask_kind::window, mask_kind::prefix}) {
        for (index_t const queries : {1, 3, 33}) {
            engine_case<> c(random, {2, 2, queries, 500, 16, 16, mask != mask_kind::none});
            c.desc.mask = mask;
            c.desc.window = mask == mask_kind::window ? 300 : 0;
            c.desc.prefix = mask == mask_kind::prefix ? 480 : 0;
            c.desc.how = engine::method::pages;
            c.desc.dense_below = 0;
            c.desc.mass = 0.8;
            c.desc.sink_logits = sinks.data();
            c.page_index();
            problem<float> given = c.layer.given();
            given.terms.sink_logits = sinks.data();
            given.window = c.desc.window;
            given.prefix = c.desc.prefix;
            attention_options options;
            options.budget.mass = 0.8;
            check_who_runs(c, kernel<dense_products::f32>(given, options, 0).first);
        }
    }
}

TEST_CASE("engine.page_codes: copies of what a descriptor describes, and nothing else") {
    SOFATTN_GENERATOR(random);
    for (dense_products const products : {dense_products::f32, dense_products::bf16}) {
        engine_case<half> c(random, {3, 2, 20, 300, 24, 8, true});
        c.desc.how = engine::method::pages;
        c.desc.products = products;
        c.desc.mass = 0.9;
        c.desc.dense_below = 0;
        auto const codes = made(c.desc);
        REQUIRE(codes);
        CHECK(codes->products() == products);
        CHECK(codes->kv_heads() == 3);
        CHECK(codes->keys() == 300);
        CHECK(codes->dim() == 24);
        CHECK(codes->value_dim() == 8);
        c.desc.prefill_pages = &*codes;
        decode_output const expected = ran(c);
        for_each_index(c.layer.k.cview().extents(),
                       [&](auto const& i) { at(c.layer.k.view(), i) = half{}; });
        for_each_index(c.layer.v.cview().extents(),
                       [&](auto const& i) { at(c.layer.v.view(), i) = half{}; });
        CHECK(same_bits(ran(c), expected));
    }
    CHECK(engine::page_codes().kv_heads() == 0);
}

TEST_CASE("engine.pages: keys in pages of a pool, with the bits of keys in a row") {
    SOFATTN_GENERATOR(random);
    for (dense_products const products : {dense_products::f32, dense_products::bf16}) {
        for (std::int64_t const dense_below : {0, 2000}) {
            engine_case<half> c(random, {2, 2, 50, 420, 24, 40, true});
            c.desc.how = engine::method::pages;
            c.desc.products = products;
            c.desc.mass = 0.8;
            c.desc.dense_below = dense_below;
            auto const in_row = made(c.desc);
            c.desc.prefill_pages = &*in_row;
            decode_output const expected = ran(c);

            std::vector<std::int32_t> numbers(21); // of 25 pages of 20 keys
            std::iota(numbers.begin(), numbers.end(), 3);
            random.shuffle(numbers);
            page_table const table{numbers, 20};
            tensor<half, axis::kv_head, axis::key, axis::dim> keys({2, 500, 24});
            tensor<half, axis::kv_head, axis::key, axis::value_dim> values({2, 500, 40});
            for (index_t h = 0; h < 2; ++h) {
                for (index_t k = 0; k < 420; ++k) {
                    std::copy_n(&c.layer.k(h, k, 0), 24, &keys(h, table.row(k), 0));
                    std::copy_n(&c.layer.v(h, k, 0), 40, &values(h, table.row(k), 0));
                }
            }
            c.desc.key = operand_of(keys.cview());
            c.desc.value = operand_of(values.cview());
            c.desc.pages = {numbers.data(), std::ssize(numbers), 20, 25};
            auto const in_pool = made(c.desc);
            c.desc.prefill_pages = &*in_pool;
            check_who_runs(c, expected);
        }
    }
}

TEST_CASE_TEMPLATE("engine.pages: keys and values that nobody reads need not be there", T, float,
                   half) {
    SOFATTN_GENERATOR(random);
    for (dense_products const products : {dense_products::f32, dense_products::bf16}) {
        engine_case<T> c(random, {2, 2, 30, 420, 24, 40, true});
        c.desc.how = engine::method::pages;
        c.desc.products = products;
        c.desc.mass = 0.8;
        c.desc.dense_below = 0;
        auto const codes = made(c.desc);
        c.desc.prefill_pages = &*codes;
        decode_output const expected = ran(c);
        std::vector<std::int32_t> numbers(7);
        std::iota(numbers.begin(), numbers.end(), 0);
        for (bool const in_pool : {false, true}) {
            attention_desc const before = c.desc;
            if (in_pool) {
                c.desc.pages = {numbers.data(), 7, 60, 7};
            }
            for (engine::dtype const type : {before.key.type, engine::dtype::int8}) {
                c.desc.key = c.desc.value = {nullptr, type};
                check_who_runs(c, expected);
            }
            // But for who reads them.
            c.desc.key = c.desc.value = {nullptr, before.key.type};
            c.clear();
            c.desc.finite = engine::finite_check::reject;
            CHECK(std::string(engine::check(c.desc).field) == "key.data");
            c.desc.finite = engine::finite_check::unchecked;
            c.desc.dense_below = 421;
            CHECK(std::string(engine::check(c.desc).field) == "key.data");
            c.desc.key = before.key;
            CHECK(engine::check(c.desc).code == status::null_pointer);
            CHECK(c.is_untouched());
            c.desc = before;
        }
    }
}

TEST_CASE("engine.page_codes: heads change their steps each by itself") {
    SOFATTN_GENERATOR(random);
    auto k = random_matrix<float, axis::kv_head, axis::key, axis::dim>(random, {3, 500, 8});
    auto const v =
        random_matrix<float, axis::kv_head, axis::key, axis::value_dim>(random, {3, 500, 8});
    for (index_t h = 0; h < 3; ++h) {
        for (index_t t = 0; t < 500; ++t) {
            for (index_t d = 0; d < 8; ++d) { // pages alike, but for those of one head from 400 on
                k(h, t, d) = k(h, t % 16, d) * (h == 1 && t >= 400 ? 10.0f : 1.0f);
            }
        }
    }
    auto const keys_by_head = [&](index_t tokens) {
        return [&, tokens](index_t h) {
            return k.cview().slice<axis::kv_head>(h).range<axis::key>(0, tokens);
        };
    };
    auto const grow = [&](engine::page_codes& codes, index_t tokens) {
        codes.grow(tokens, keys_by_head(tokens), [&](index_t h) {
            return v.cview().slice<axis::kv_head>(h).range<axis::key>(0, tokens);
        });
    };
    auto const none = engine::page_codes::growing<dense_products::f32>(3, 8, 8);
    engine::page_codes codes = none;
    grow(codes, 500);
    auto changes = codes.recalibrated(keys_by_head(300));
    REQUIRE(changes.size() == 3);
    CHECK_FALSE(changes[0].is_anew);
    CHECK(changes[1].is_anew);
    CHECK_FALSE(changes[2].is_anew);
    codes.truncate(300, std::move(changes));
    engine::page_codes fresh = none;
    grow(fresh, 300);
    for (std::size_t h = 0; h < 3; ++h) {
        auto const& one = codes.indexes<dense_products::f32>()[h].sketches();
        auto const& other = fresh.indexes<dense_products::f32>()[h].sketches();
        CHECK(same_steps(one, other));
        CHECK(all_codes(one) == all_codes(other));
    }
}

TEST_CASE("engine.page_codes: what they are not made of has a name") {
    SOFATTN_GENERATOR(random);
    engine_case<> c(random, {1, 2, 5, 90, 8, 8, true});
    attention_desc d = c.desc;
    d.products = dense_products::int8;
    (void)made(d, status::unsupported, "products");
    d = c.desc;
    d.kv_heads = 3;
    (void)made(d, status::mismatch, "heads");
    c.layer.v(0, 50, 3) = std::numeric_limits<float>::infinity();
    (void)made(c.desc, status::not_finite, "value.data[]");
    c.layer.v(0, 50, 3) = 0;
    CHECK(engine::make_page_codes(c.desc, [](engine::page_codes&&) {
              throw std::bad_alloc();
          }).code == status::out_of_memory);
    CHECK(c.is_untouched());
}
