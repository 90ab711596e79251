// SPDX-License-Identifier: MIT
// Descriptors of keys and values in int8: the kernels' bits, and what they are not done with.
#include "engine/coded_case.hpp"
#include "engine/who_runs.hpp"
#include "support/allocation_counts.hpp"
#include "support/generators.hpp"
#include "support/guarded_workspace.hpp"
#include "support/same_bits.hpp"
#include <sofattn/attention/decode.hpp>
#include <sofattn/attention/dense.hpp>
#include <sofattn/attention/sparse_decode.hpp>
#include <sofattn/core/bfloat16.hpp>
#include <sofattn/core/half.hpp>
#include <sofattn/engine/batch.hpp>
#include <sofattn/engine/check.hpp>
#include <sofattn/engine/prefill_codes.hpp>
#include <sofattn/engine/run.hpp>
#include <sofattn/exec/parallel.hpp>

#include <doctest/doctest.h>

#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

using namespace sofattn;
using namespace sofattn::test;
using engine::attention_desc;
using engine::mask_kind;
using engine::method;
using engine::status;

namespace {

template <dense_products Products = dense_products::f32, class Given>
decode_output by_kernel(Given const& given, bool few) {
    problem_shape const s = given.shape();
    decode_output output({s.heads, s.queries, s.value_dim});
    guarded_workspace memory(std::max(decode_workspace_bytes(s, 1), dense_workspace_bytes(s, 1)));
    if (few) {
        dense_decode(given, output.view(), memory.span(), exec::serial{});
    } else {
        dense_attention<Products>(given, output.view(), memory.span(), exec::serial{});
    }
    return output;
}

engine::verdict found(attention_desc const& d) {
    std::vector<std::byte> workspace(1 << 20);
    auto const v = engine::run(d, workspace.data(), workspace.size(), exec::serial{});
    CHECK(engine::check(d).code == (v.code == status::not_finite ? status::ok : v.code));
    return v;
}

} // namespace

TEST_CASE_TEMPLATE("engine.int8_storage: dense, every mask and product, whoever runs it", T, float,
                   half, bfloat16) {
    SOFATTN_GENERATOR(random);
    for (index_t const queries : {1, 3, 50}) {
        for (mask_kind const mask :
             {mask_kind::none, mask_kind::causal, mask_kind::window, mask_kind::prefix}) {
            CAPTURE(queries);
            CAPTURE(static_cast<int>(mask));
            coded_case<T> c(random, {2, 3, queries, 1100, 16, 24, true});
            c.desc.mask = mask;
            auto given = c.given();
            auto widened = c.widened();
            given.causal = widened.causal = mask != mask_kind::none;
            if (mask == mask_kind::window) {
                given.window = widened.window = c.desc.window = 70;
            } else if (mask == mask_kind::prefix) {
                given.prefix = widened.prefix = c.desc.prefix = 1070;
            }
            bool const few = queries == 1 || (queries == 3 && mask != mask_kind::window);
            check_who_runs(c, by_kernel(given, few));
            c.desc.products = dense_products::bf16;
            check_who_runs(c, by_kernel<dense_products::bf16>(given, few));
            if (!few) {
                check_who_runs(c, by_kernel<dense_products::bf16>(widened, few));
            }
        }
    }
}

TEST_CASE("engine.int8_storage: strides of any sign, and scales of both between each other") {
    SOFATTN_GENERATOR(random);
    for (index_t const queries : {1, 9}) {
        coded_case<half> c(random, {2, 2, queries, 130, 16, 16, true});
        decode_output const expected = ran(c);
        // Tokens backwards in memory.
        tensor<std::int8_t, axis::kv_head, axis::key, axis::dim> turned({2, 130, 16});
        std::vector<float> scales(2 * 130 * 2);
        for (index_t h = 0; h < 2; ++h) {
            for (index_t t = 0; t < 130; ++t) {
                for (index_t d = 0; d < 16; ++d) {
                    turned(h, 129 - t, d) = c.k.codes(h, t, d);
                }
                auto const at = static_cast<std::size_t>((h * 130 + 129 - t) * 2);
                scales[at] = c.k.scales(h, t);
                scales[at + 1] = c.v.scales(h, t);
            }
        }
        c.desc.key.data = &turned(0, 129, 0);
        c.desc.key.token_stride = -c.desc.key.token_stride;
        c.desc.key_scales = {&scales[258], 130 * 8, -8};
        c.desc.value_scales = {&scales[259], 130 * 8, -8};
        CHECK(same_bits(ran(c), expected));
    }
}

TEST_CASE("engine.int8_storage: best keys, in a row and in pages; listed again") {
    SOFATTN_GENERATOR(random);
    coded_case<half> c(random, {2, 3, 2, 3000, 32, 32, true});
    c.index();
    c.desc.how = method::best_keys;
    c.desc.count = 120;
    c.desc.recent = 10;
    c.desc.dropped_mass = c.dropped.data();
    sparse_decode_options options;
    options.count = 120;
    options.window = 10;
    decode_output expected({6, 2, 32});
    std::vector<std::byte> workspace(sparse_decode_workspace_bytes(c.given(), options, 1));
    tensor<float, axis::head, axis::query> dropped({6, 2});
    sparse_decode(c.given(), std::span<engine::key_codes const>(c.codes), options, expected.view(),
                  std::span(workspace), exec::serial{}, detail::ignore_kept{}, {}, dropped.view());
    std::vector<std::int32_t> entries(2 * 2 * 125);
    c.desc.selected = {entries.data(), nullptr, 125};
    check_who_runs(c, expected);
    for (index_t h = 0; h < 6; ++h) {
        CHECK(c.dropped[static_cast<std::size_t>(h * 2 + 1)] == dropped(h, 1));
    }

    // Pages of 50 tokens, last first, of a pool of 70.
    tensor<std::int8_t, axis::kv_head, axis::key, axis::dim> k({2, 3500, 32});
    tensor<std::int8_t, axis::kv_head, axis::key, axis::dim> v({2, 3500, 32});
    std::vector<float> scales(2 * 3500 * 2, std::numeric_limits<float>::quiet_NaN());
    std::vector<std::int32_t> numbers(60);
    for (std::int32_t p = 0; p < 60; ++p) {
        numbers[static_cast<std::size_t>(p)] = 69 - p;
    }
    for (index_t h = 0; h < 2; ++h) {
        for (index_t t = 0; t < 3000; ++t) {
            index_t const row = (69 - t / 50) * 50 + t % 50;
            for (index_t d = 0; d < 32; ++d) {
                k(h, row, d) = c.k.codes(h, t, d);
                v(h, row, d) = c.v.codes(h, t, d);
            }
            scales[static_cast<std::size_t>((h * 3500 + row) * 2)] = c.k.scales(h, t);
            scales[static_cast<std::size_t>((h * 3500 + row) * 2 + 1)] = c.v.scales(h, t);
        }
    }
    c.desc.key = {k.cview().data(), engine::dtype::int8, k.cview().strides()[0],
                  k.cview().strides()[1]};
    c.desc.value = {v.cview().data(), engine::dtype::int8, v.cview().strides()[0],
                    v.cview().strides()[1]};
    c.desc.key_scales = {scales.data(), 3500 * 8, 8};
    c.desc.value_scales = {scales.data() + 1, 3500 * 8, 8};
    c.desc.pages = {numbers.data(), 60, 50, 70};
    check_who_runs(c, expected);
    c.desc.how = method::listed;
    c.desc.selected = {};
    c.desc.lists = {entries.data(), nullptr, 2, 125, 1, 1};
    check_who_runs(c, expected);
    c.desc.how = method::dense;
    check_who_runs(c, by_kernel(c.given(), true));
}

TEST_CASE("engine.int8_storage: scales that are no numbers are refused if asked") {
    SOFATTN_GENERATOR(random);
    float const bad_numbers[] = {std::numeric_limits<float>::quiet_NaN(),
                                 std::numeric_limits<float>::infinity(),
                                 -std::numeric_limits<float>::infinity(), 3e38f};
    for (float const bad : bad_numbers) {
        for (bool const of_keys : {true, false}) {
            coded_case<> c(random, {1, 2, 6, 90, 8, 8, true});
            (of_keys ? c.k.scales(0, 87) : c.v.scales(0, 87)) = bad;
            c.desc.finite = engine::finite_check::reject;
            auto const v = found(c.desc);
            CHECK(v.code == status::not_finite);
            CHECK(std::string(v.field) == (of_keys ? "key_scales.data[]" : "value_scales.data[]"));
            CHECK(c.is_untouched());
        }
    }
}

TEST_CASE_TEMPLATE("engine.int8_storage: pages of them have the bits of the same numbers in f32", T,
                   float, half, bfloat16) {
    SOFATTN_GENERATOR(random);
    for (dense_products const products : {dense_products::f32, dense_products::bf16}) {
        for (mask_kind const mask : {mask_kind::none, mask_kind::causal, mask_kind::window}) {
            coded_case<T> c(random, {2, 2, 20, 700, 24, 20, mask != mask_kind::none});
            c.desc.how = method::pages;
            c.desc.products = products;
            c.desc.mask = mask;
            c.desc.window = mask == mask_kind::window ? 500 : 0;
            c.desc.mass = 0.8;
            c.desc.dense_below = 0;
            auto const codes_of = [](attention_desc const& d) {
                std::optional<engine::page_codes> made;
                CHECK(engine::make_page_codes(d, [&](engine::page_codes&& codes) {
                          made = std::move(codes);
                      }).ok());
                return made;
            };
            auto const of_codes = codes_of(c.desc);
            c.desc.prefill_pages = &*of_codes;
            auto const output = ran(c);
            attention_desc wide = c.desc;
            wide.query.type = engine::dtype::f32;
            tensor<float, axis::head, axis::query, axis::dim> q(c.layer.q.cview().extents());
            for_each_index(q.view().extents(), [&](auto const& i) {
                at(q.view(), i) = to_float(at(c.layer.q.cview(), i));
            });
            wide.query = operand_of(q.cview());
            wide.key = operand_of(c.k.wide.cview());
            wide.value = operand_of(c.v.wide.cview());
            wide.key_scales = wide.value_scales = {};
            auto const of_floats = codes_of(wide);
            c.desc = wide;
            c.desc.prefill_pages = &*of_floats;
            CHECK(same_bits(ran(c), output));
            check_who_runs(c, output);
        }
    }
}

TEST_CASE("engine.int8_storage: what is not done with codes has a name") {
    SOFATTN_GENERATOR(random);
    coded_case<half> c(random, {2, 2, 9, 130, 16, 16, true});
    auto const refused = [&](status code, char const* field, auto change) {
        attention_desc d = c.desc;
        change(d);
        auto const v = found(d);
        CAPTURE(field);
        CAPTURE(v.field);
        CHECK(v.code == code);
        CHECK(std::string(v.field) == field);
        CHECK(c.is_untouched());
    };
    refused(status::unsupported, "products", [](auto& d) { d.products = dense_products::int8; });
    refused(status::unsupported, "key.type", [&](auto& d) {
        d.how = method::budget;
        d.mass = 0.9;
        d.dense_below = 0;
    });
    refused(status::out_of_range, "query.type",
            [](auto& d) { d.query.type = engine::dtype::int8; });
    refused(status::null_pointer, "value_scales.data", [](auto& d) { d.value_scales = {}; });
    auto const take = [](auto&&) { CHECK(false); };
    CHECK(engine::make_prefill_codes(c.desc, take).code == status::unsupported);
    // Short sequences are dense.
    c.desc.how = method::pages;
    c.desc.mass = 0.9;
    CHECK(same_bits(ran(c), by_kernel(c.given(), false)));
}

TEST_CASE("engine.int8_storage: in a batch with other types, the bits of each alone") {
    SOFATTN_GENERATOR(random);
    std::vector<std::unique_ptr<coded_case<half>>> coded;
    std::vector<std::unique_ptr<engine_case<half>>> others;
    std::vector<attention_desc> all;
    std::vector<decode_output> expected;
    for (index_t const keys : {1, 90, 2500}) {
        for (index_t const queries : {1, 7}) {
            decode_shape const shape{2, 2, queries, keys, 16, 16, true};
            coded.push_back(std::make_unique<coded_case<half>>(random, shape));
            coded_case<half>& c = *coded.back();
            if (queries == 1) {
                c.index();
                c.desc.how = method::best_keys;
                c.desc.count = 100;
            }
            others.push_back(std::make_unique<engine_case<half>>(random, shape));
            expected.push_back(ran(c));
            all.push_back(c.desc);
            expected.push_back(ran(*others.back()));
            all.push_back(others.back()->desc);
            c.clear();
            others.back()->clear();
        }
    }
    guarded_workspace workspace(engine::batch_workspace_bytes(all, 7));
    CHECK(engine::run_batch(all, workspace.span().data(), workspace.span().size(), own_threads{})
              .ok());
    CHECK(workspace.kept_outside());
    for (std::size_t i = 0; i < coded.size(); ++i) {
        CHECK(same_bits(coded[i]->output, expected[2 * i]));
        CHECK(same_bits(others[i]->output, expected[2 * i + 1]));
    }
}

TEST_CASE("engine.int8_storage: allocates nothing") {
    SOFATTN_GENERATOR(random);
    coded_case<half> c(random, {2, 2, 1, 2600, 16, 16, true});
    c.index();
    for (method const how : {method::dense, method::best_keys}) {
        c.desc.how = how;
        std::vector<std::byte> workspace(engine::workspace_bytes(c.desc, 1));
        auto const before = allocations.requests.load();
        auto const v = engine::run(c.desc, workspace.data(), workspace.size(), exec::serial{});
        CHECK(allocations.requests == before);
        CHECK(v.ok());
        CHECK(before > 0);
    }
}
