// SPDX-License-Identifier: MIT
// Descriptors do what the functions do that they stand for.
#include "engine/engine_case.hpp"
#include "engine/who_runs.hpp"
#include "support/allocations.hpp"
#include "support/generators.hpp"
#include "support/guarded_workspace.hpp"
#include "support/same_bits.hpp"
#include <sofattn/attention/decode.hpp>
#include <sofattn/attention/dense.hpp>
#include <sofattn/attention/listed.hpp>
#include <sofattn/attention/prefill.hpp>
#include <sofattn/attention/sparse_decode.hpp>
#include <sofattn/core/bfloat16.hpp>
#include <sofattn/core/half.hpp>
#include <sofattn/engine/run.hpp>
#include <sofattn/exec/parallel.hpp>

#include <doctest/doctest.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <numeric>
#include <span>
#include <vector>

using namespace sofattn;
using namespace sofattn::test;
using engine::attention_desc;
using engine::status;

TEST_CASE_TEMPLATE("engine.run: dense, every mask and product, whoever runs it", T, float, half,
                   bfloat16) {
    SOFATTN_GENERATOR(random);
    for (index_t const queries : {1, 3, 50}) {
        for (engine::mask_kind const mask :
             {engine::mask_kind::none, engine::mask_kind::causal, engine::mask_kind::window,
              engine::mask_kind::prefix}) {
            CAPTURE(queries);
            CAPTURE(static_cast<int>(mask));
            engine_case<T> c(random, {2, 3, queries, 1100, 16, 24, true});
            c.desc.mask = mask;
            problem<T> given = c.layer.given();
            given.causal = mask != engine::mask_kind::none;
            if (mask == engine::mask_kind::window) {
                given.window = c.desc.window = 70;
            } else if (mask == engine::mask_kind::prefix) {
                given.prefix = c.desc.prefix = 1070;
            }
            bool const few = queries == 1 || (queries == 3 && given.window == 0);
            check_who_runs(c, few ? decoded_of(given) : dense_of(given));
            c.desc.products = dense_products::bf16;
            check_who_runs(c, few ? decoded_of(given) : dense_of<dense_products::bf16>(given));
            c.desc.products = dense_products::int8;
            check_who_runs(c, few ? decoded_of(given) : dense_of<dense_products::int8>(given));
        }
    }
}

TEST_CASE("engine.run: queries in f32 over keys of 16 bits, and any strides") {
    SOFATTN_GENERATOR(random);
    engine_case<half> c(random, {2, 2, 9, 130, 16, 16, true});
    decode_output const expected = ran(c);
    auto const wide = converted<float>(c.layer.q.cview());
    c.desc.query = operand_of(wide.cview());
    CHECK(same_bits(ran(c), expected));
    // Tokens backwards in memory, for an output of [query, head, value_dim].
    auto const k = c.layer.k.cview();
    tensor<half, axis::kv_head, axis::key, axis::dim> turned(k.extents());
    for_each_index(k.extents(), [&](auto const& i) { turned(i[0], 129 - i[1], i[2]) = at(k, i); });
    c.desc.key.data = &turned(0, 129, 0);
    c.desc.key.token_stride = -c.desc.key.token_stride;
    std::vector<float> rows(9 * 4 * 16);
    c.desc.output = {rows.data(), 16 * 4, 4 * 16 * 4};
    std::vector<std::byte> workspace(engine::workspace_bytes(c.desc, 1));
    REQUIRE(engine::run(c.desc, workspace.data(), workspace.size(), exec::serial{}).ok());
    int wrong = 0;
    for_each_index(expected.cview().extents(), [&](auto const& i) {
        wrong +=
            rows[static_cast<std::size_t>((i[1] * 4 + i[0]) * 16 + i[2])] == at(expected.cview(), i)
                ? 0
                : 1;
    });
    CHECK(wrong == 0);
}

TEST_CASE("engine.run: m and l merge halves of the keys") {
    SOFATTN_GENERATOR(random);
    for (index_t const queries : {2, 40}) {
        engine_case<> c(random, {1, 2, queries, 500, 16, 16, false});
        decode_output const whole = ran(c);
        c.desc.row_max = c.max.data();
        c.desc.row_sum = c.sum.data();
        auto const key = c.desc.key;
        auto const value = c.desc.value;
        struct part {
            decode_output output;
            std::vector<float> max;
            std::vector<float> sum;
        };
        std::vector<part> parts;
        for (index_t const first : {0, 200}) {
            c.desc.keys = first == 0 ? 200 : 300;
            c.desc.key.data = static_cast<char const*>(key.data) + first * key.token_stride;
            c.desc.value.data = static_cast<char const*>(value.data) + first * value.token_stride;
            decode_output const output = ran(c);
            parts.push_back({output, c.max, c.sum});
        }
        int wrong = 0;
        for_each_index(whole.cview().extents(), [&](auto const& i) {
            auto const row = static_cast<std::size_t>(i[0] * queries + i[1]);
            double const m = std::max(parts[0].max[row], parts[1].max[row]);
            double merged = 0;
            double all = 0;
            for (part const& p : parts) {
                double const weight = std::exp(double{p.max[row]} - m) * double{p.sum[row]};
                merged += weight * double{at(p.output.cview(), i)};
                all += weight;
            }
            wrong += std::abs(merged / all - double{at(whole.cview(), i)}) <= 2e-5 ? 0 : 1;
        });
        CHECK(wrong == 0);
    }
}

TEST_CASE("engine.run: the best keys, and which they are") {
    SOFATTN_GENERATOR(random);
    for (bool const together : {true, false}) {
        engine_case<half> c(random, {2, 3, 2, 3000, 32, 32, true});
        c.index();
        c.desc.how = engine::method::best_keys;
        c.desc.count = 120;
        c.desc.recent = 10;
        c.desc.heads_together = together;
        sparse_decode_options options;
        options.count = 120;
        options.window = 10;
        options.scope = together ? selection_scope::per_group : selection_scope::per_query_head;
        problem<half> const given = c.layer.given();
        decode_output expected({6, 2, 32});
        std::vector<std::byte> workspace(sparse_decode_workspace_bytes(given, options, 1));
        index_t const lists = together ? 2 : 6;
        index_t const slots = 125;
        std::vector<std::int32_t> kept(static_cast<std::size_t>(lists * 2 * slots), -1);
        sparse_decode(given, std::span<engine::key_codes const>(c.codes), options, expected.view(),
                      std::span(workspace), exec::serial{},
                      [&](index_t head, index_t query, std::span<key_id const> keys) {
                          index_t const list = together ? head / 3 : head;
                          std::ranges::copy(keys, kept.begin() + (list * 2 + query) * slots);
                      });
        std::vector<std::int32_t> entries(kept.size(), 7);
        std::vector<std::int32_t> counts(static_cast<std::size_t>(lists * 2));
        c.desc.selected = {entries.data(), counts.data(), slots};
        check_who_runs(c, expected);
        CHECK(entries == kept);
        CHECK(counts == std::vector<std::int32_t>(counts.size(), 120));

        // What was selected, given back as lists, is attended to alike.
        c.desc.how = engine::method::listed;
        c.desc.selected = {};
        c.desc.lists = {entries.data(), nullptr, lists, slots, 1, 1};
        CHECK(same_bits(ran(c), expected));

        // Short sequences are dense, with the same bits, and say so.
        c.desc.how = engine::method::best_keys;
        c.desc.dense_below = 3001;
        c.desc.codes = nullptr;
        c.desc.selected = {entries.data(), counts.data(), slots};
        check_who_runs(c, decoded_of(given));
        CHECK(entries == std::vector<std::int32_t>(entries.size(), -1));
        CHECK(counts[0] == 2999); // the first of two queries
        CHECK(counts[1] == 3000);
    }
}

TEST_CASE("engine.run: a budget of error or mass") {
    SOFATTN_GENERATOR(random);
    std::vector<float> const masses{0.75f, 0.96875f};
    std::vector<float> const errors{0.125f, 0.0078125f};
    for (int const which : {0, 1, 2, 3}) {
        engine_case<> c(random, {1, 2, 40, 2500, 32, 32, true});
        c.prefill_index();
        c.desc.how = engine::method::budget;
        attention_options options;
        switch (which) {
        case 0:
            c.desc.mass = 0.9;
            options.budget.mass = 0.9;
            break;
        case 1:
            c.desc.output_error = 0.05;
            options.budget.output_error = 0.05;
            break;
        case 2:
            c.desc.head_masses = masses.data();
            options.head_budgets = {sads::budget::of_mass(0.75), sads::budget::of_mass(0.96875)};
            break;
        default:
            c.desc.head_output_errors = errors.data();
            options.head_budgets = {sads::budget::of_output_error(0.125),
                                    sads::budget::of_output_error(0.0078125)};
        }
        sparse_prefill<> const prefill(options);
        problem<float> given = c.layer.given();
        if (which == 1) {
            c.desc.mask = engine::mask_kind::prefix;
            given.prefix = c.desc.prefix = 2470;
        }
        prefill.check(given.shape());
        decode_output expected({2, 40, 32});
        std::vector<std::byte> workspace(sparse_prefill<>::workspace_bytes(given.shape(), 1));
        prefill(given, std::span<engine::prefill_codes const>(c.prefill), expected.view(),
                std::span(workspace), exec::serial{});
        check_who_runs(c, expected);
        CHECK(!same_bits(expected, dense_of(given)));
        c.desc.dense_below = 2501;
        c.desc.prefill = nullptr;
        check_who_runs(c, dense_of(given));
    }
}

TEST_CASE("engine.run: keys in pages of a pool") {
    SOFATTN_GENERATOR(random);
    for (index_t const queries : {1, 30}) {
        engine_case<bfloat16> c(random, {2, 2, queries, 700, 16, 16, true});
        decode_output const expected = ran(c);
        // Pages of 50 tokens, last first, in a pool of 20.
        auto const paged = [](auto const& rows) {
            auto const from = rows.cview();
            using tensor_type = std::remove_cvref_t<decltype(rows)>;
            tensor_type pool({from.extents()[0], 1000, from.extents()[2]});
            for_each_index(from.extents(), [&](auto const& i) {
                pool(i[0], (19 - i[1] / 50) * 50 + i[1] % 50, i[2]) = at(from, i);
            });
            return pool;
        };
        auto const k = paged(c.layer.k);
        auto const v = paged(c.layer.v);
        std::vector<std::int32_t> numbers(14);
        for (std::size_t p = 0; p < numbers.size(); ++p) {
            numbers[p] = 19 - static_cast<std::int32_t>(p);
        }
        c.desc.key = operand_of(k.cview());
        c.desc.value = operand_of(v.cview());
        c.desc.pages = {numbers.data(), 14, 50, 20};
        check_who_runs(c, expected);
        if (queries == 1) {
            c.index();
            c.desc.how = engine::method::best_keys;
            c.desc.count = 99;
            c.desc.dense_below = 0;
            decode_output const sparse = ran(c);
            c.desc.key = operand_of(c.layer.k.cview());
            c.desc.value = operand_of(c.layer.v.cview());
            c.desc.pages = {};
            CHECK(same_bits(ran(c), sparse));
        }
    }
}

TEST_CASE(
    "engine.run: NaN and infinity are refused if asked, else they stay in the rows that see them") {
    SOFATTN_GENERATOR(random);
    for (float const bad :
         {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
          -std::numeric_limits<float>::infinity()}) {
        for (int where = 0; where < 3; ++where) {
            engine_case<> c(random, {1, 2, 6, 90, 8, 8, true});
            decode_output const clean = ran(c);
            c.clear();
            float& place = where == 0   ? c.layer.q(1, 2, 3)
                           : where == 1 ? c.layer.k(0, 87, 3)
                                        : c.layer.v(0, 87, 3);
            place = bad;
            c.desc.finite = engine::finite_check::reject;
            std::vector<std::byte> workspace(engine::workspace_bytes(c.desc, 1));
            auto const v = engine::run(c.desc, workspace.data(), workspace.size(), exec::serial{});
            CHECK(v.code == status::not_finite);
            CHECK(std::string(v.field) == (where == 0   ? "query.data[]"
                                           : where == 1 ? "key.data[]"
                                                        : "value.data[]"));
            CHECK(c.is_untouched());
            c.desc.finite = engine::finite_check::unchecked;
            REQUIRE(engine::run(c.desc, workspace.data(), workspace.size(), exec::serial{}).ok());
            int wrong = 0;
            for_each_index(clean.cview().extents(), [&](auto const& i) {
                bool const sees_it = where == 0 ? i[0] == 1 && i[1] == 2 : 84 + i[1] >= 87;
                bool const same = at(c.output.cview(), i) == at(clean.cview(), i);
                wrong += same || sees_it || where == 2 ? 0 : 1; // values: see finite_check
            });
            CHECK(wrong == 0);
        }
    }
}

TEST_CASE("engine.run: selections refuse queries that are no numbers") {
    SOFATTN_GENERATOR(random);
    engine_case<> c(random, {1, 2, 1, 3000, 8, 8, true});
    c.index();
    c.desc.how = engine::method::best_keys;
    c.layer.q(1, 0, 2) = std::numeric_limits<float>::quiet_NaN();
    std::vector<std::byte> workspace(engine::workspace_bytes(c.desc, 1));
    CHECK(engine::run(c.desc, workspace.data(), workspace.size(), exec::serial{}).code ==
          status::not_finite);
    CHECK(c.is_untouched());
}

TEST_CASE("engine.run: caps, slopes and sinks are those of the kernels") {
    SOFATTN_GENERATOR(random);
    for (index_t const queries : {1, 30}) {
        engine_case<float> c(random, {2, 2, queries, 300, 16, 8, true});
        std::vector<float> const slopes{1.0f, 0.5f, 0.25f, 0.125f};
        std::vector<float> const sinks{-1.0f, 0.0f, 1.0f, 2.0f};
        c.desc.softcap = 5.0f;
        c.desc.alibi_slopes = slopes.data();
        c.desc.sink_logits = sinks.data();
        c.desc.row_max = c.max.data();
        c.desc.row_sum = c.sum.data();
        std::vector<std::byte> workspace(engine::workspace_bytes(c.desc, 1));
        REQUIRE(engine::run(c.desc, workspace.data(), workspace.size(), exec::serial{}).ok());

        problem<float> given = c.layer.given();
        given.terms = {5.0f, slopes.data(), sinks.data()};
        problem_shape const s = given.shape();
        decode_output expected({s.heads, s.queries, s.value_dim});
        if (queries == 1) {
            guarded_workspace memory(decode_workspace_bytes(s, 1));
            dense_decode(given, expected.view(), memory.span(), exec::serial{});
        } else {
            guarded_workspace memory(dense_workspace_bytes(s, 1));
            dense_attention(given, expected.view(), memory.span(), exec::serial{});
        }
        CHECK(same_bits(c.output, expected));
    }
}

TEST_CASE("engine.run: allocates nothing") {
    SOFATTN_GENERATOR(random);
    engine_case<half> c(random, {2, 2, 1, 2600, 16, 16, true});
    c.index();
    c.prefill_index();
    c.page_index();
    for (engine::method const how : {engine::method::dense, engine::method::best_keys,
                                     engine::method::budget, engine::method::pages}) {
        c.desc.how = how;
        c.desc.output_error = 0.01;
        std::vector<std::byte> workspace(engine::workspace_bytes(c.desc, 1));
        auto const before = allocations.requests.load();
        auto const v = engine::run(c.desc, workspace.data(), workspace.size(), exec::serial{});
        CHECK(allocations.requests == before);
        CHECK(v.ok());
        CHECK(before > 0);
    }
}
