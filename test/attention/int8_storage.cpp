// SPDX-License-Identifier: MIT
// Keys and values in 8-bit codes, against the floats scale * code that they stand for.
#include "attention/dense_outcome.hpp"
#include "attention/scaled_case.hpp"
#include "support/allocation_counts.hpp"
#include "support/generators.hpp"
#include "support/own_threads.hpp"
#include <sofattn/attention/decode.hpp>
#include <sofattn/attention/dense.hpp>
#include <sofattn/attention/listed.hpp>
#include <sofattn/attention/sparse_decode.hpp>
#include <sofattn/core/bfloat16.hpp>
#include <sofattn/core/error.hpp>
#include <sofattn/core/half.hpp>
#include <sofattn/dlzs/page_ranges.hpp>
#include <sofattn/dlzs/policy.hpp>
#include <sofattn/exec/parallel.hpp>

#include <doctest/doctest.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

using namespace sofattn;
using namespace sofattn::test;

namespace {

constexpr double tolerance = 2e-5; // the contract

decode_shape some_shape(generator& random, index_t keys, index_t queries_most) {
    std::array<index_t, 9> const dims{1, 7, 8, 15, 16, 32, 48, 80, 128};
    auto const dim = [&] { return dims[random.integer<std::size_t>(0, dims.size() - 1)]; };
    return {random.integer<index_t>(1, 3),
            random.integer<index_t>(1, 9),
            random.integer<index_t>(1, queries_most),
            keys,
            dim(),
            dim(),
            random.chance(0.6)};
}

bool same(dense_outcome const& a, dense_outcome const& b) {
    return same_bits(a.output, b.output) && same_bits(a.max, b.max) && same_bits(a.sum, b.sum);
}

using key_codes = dlzs::paged_index<dlzs::centred_int4>;

template <class Query>
std::vector<key_codes> codes_of(scaled_case<Query> const& layer) {
    std::vector<key_codes> codes;
    for (index_t h = 0; h < layer.k.wide.template extent<axis::kv_head>(); ++h) {
        auto const keys = layer.k.wide.cview().template slice<axis::kv_head>(h);
        codes.emplace_back(dlzs::key_calibration<dlzs::centred_int4>::of(keys));
        codes.back().append(keys);
    }
    return codes;
}

using selections = std::map<std::pair<index_t, index_t>, std::vector<key_id>>;

struct sparse_outcome {
    decode_output output;
    tensor<float, axis::head, axis::query> dropped;
    selections kept{};

    explicit sparse_outcome(problem_shape const& s)
        : output({s.heads, s.queries, s.value_dim}), dropped({s.heads, s.queries}) {}
};

template <class Given>
sparse_outcome best_keys(Given const& given, std::vector<key_codes> const& codes,
                         sparse_decode_options const& options) {
    sparse_outcome result(given.shape());
    guarded_workspace workspace(sparse_decode_workspace_bytes(given, options, 1));
    sparse_decode(
        given, std::span(codes), options, result.output.view(), workspace.span(), exec::serial{},
        [&](index_t head, index_t query, std::span<key_id const> keys) {
            result.kept[{head, query}].assign(keys.begin(), keys.end());
        },
        {}, result.dropped.view());
    CHECK(workspace.kept_outside());
    return result;
}

template <class Given>
sparse_outcome of_lists(Given const& given, key_lists const& lists) {
    problem_shape const s = given.shape();
    sparse_outcome result(s);
    guarded_workspace workspace(listed_workspace_bytes(s, lists, 1));
    listed_attention(given, lists, result.output.view(), workspace.span(), exec::serial{}, {},
                     result.dropped.view());
    CHECK(workspace.kept_outside());
    return result;
}

} // namespace

TEST_CASE_TEMPLATE("attention.int8_storage: decode within 2e-5 of double precision on scale * code",
                   Query, float, half, bfloat16) {
    SOFATTN_GENERATOR(random);
    for (index_t const keys : {1, 2, 15, 17, 63, 64, 65, 129, 1024, 1100, 2300}) {
        for (int round = 0; round < 6; ++round) {
            decode_shape const shape = some_shape(random, keys, 4);
            INFO(described(shape));
            scaled_case<Query> layer(random, shape);
            bool const windowed = shape.causal && shape.queries == 1 && random.chance(0.5);
            layer.window = windowed ? random.integer<index_t>(1, keys) : 0;
            index_t const first = windowed ? keys - layer.window : 0;
            dense_outcome const got = decoded(layer.given());
            CHECK(deviation(layer.widened(), got.output,
                            [&](index_t, index_t, index_t k) { return k >= first; }) <= tolerance);
            CHECK(same(decoded(layer.given(), own_threads{}), got));
        }
    }
}

TEST_CASE_TEMPLATE(
    "attention.int8_storage: decode of scales that round nothing has the bits of floats", Query,
    float, bfloat16) {
    SOFATTN_GENERATOR(random);
    std::vector<float> const slopes(27, 0.125f);
    std::vector<float> const sinks(27, 0.5f);
    for (index_t const keys : {1, 63, 65, 200, 1025}) {
        for (layout const kind : all_layouts) {
            CAPTURE(static_cast<int>(kind));
            decode_shape const shape = some_shape(random, keys, 3);
            INFO(described(shape));
            scaled_case<Query> layer(random, shape, scale_kind::power_of_two);
            if (random.chance(0.3)) {
                layer.terms = {20.0f, slopes.data(), sinks.data()};
            }
            dense_outcome const expected = decoded(layer.widened());
            CHECK(same(decoded(layer.given()), expected));
            auto const k = strided(random, layer.k.codes.cview(), kind);
            auto const v = strided(random, layer.v.codes.cview(), kind);
            auto const k_scales = strided(random, layer.k.scales.cview(), kind);
            auto const v_scales = strided(random, layer.v.scales.cview(), kind);
            problem<Query, std::int8_t> given = layer.given();
            given.keys = {k.cview(), k_scales.cview()};
            CHECK(same(decoded(given), expected));
            given.values = {v.cview(), v_scales.cview()};
            CHECK(same(decoded(given), expected));
        }
    }
}

TEST_CASE_TEMPLATE("attention.int8_storage: dense attention has the bits of scale * code in floats",
                   Query, float, half, bfloat16) {
    SOFATTN_GENERATOR(random);
    for (index_t const keys : {1, 40, 193, 400}) {
        for (int mask = 0; mask < 4; ++mask) {
            for (int round = 0; round < 3; ++round) {
                decode_shape shape = some_shape(random, keys, 70);
                shape.causal = mask > 0;
                INFO(described(shape));
                CAPTURE(mask);
                scaled_case<Query> layer(random, shape);
                layer.window = mask == 2 ? random.integer<index_t>(1, keys) : 0;
                layer.prefix = mask == 3 ? random.integer<index_t>(1, keys) : 0;
                scaled_pages<Query> const paged(random, layer, random.integer<index_t>(1, 100));
                CHECK(same(dense(layer.given()), dense(layer.widened())));
                CHECK(same(dense(paged.given()), dense(layer.widened())));
                constexpr auto bf16 = dense_products::bf16;
                CHECK(same(dense<bf16>(layer.given()), dense<bf16>(layer.widened())));
                CHECK(same(dense<bf16>(paged.given()), dense<bf16>(layer.widened())));
            }
        }
    }
}

TEST_CASE("attention.int8_storage: 8-bit products and others' codes are refused") {
    using codes = problem<float, std::int8_t>;
    constexpr auto multiplies =
        []<class Given, dense_products Products>(std::type_identity<Given>,
                                                 std::integral_constant<dense_products, Products>) {
            return requires(Given const& given,
                            view<float, axis::head, axis::query, axis::value_dim> to,
                            std::span<std::byte> workspace) {
                dense_attention<Products>(given, to, workspace, exec::serial{});
            };
        };
    using int8 = std::integral_constant<dense_products, dense_products::int8>;
    using bf16 = std::integral_constant<dense_products, dense_products::bf16>;
    static_assert(multiplies(std::type_identity<problem<float>>{}, int8{}));
    static_assert(!multiplies(std::type_identity<codes>{}, int8{}));
    static_assert(multiplies(std::type_identity<codes>{}, bf16{}));
    static_assert(stored_rows<scaled_view<axis::key, axis::dim>, axis::dim>);
    static_assert(!stored_rows<scaled_view<axis::key, axis::dim>, axis::value_dim>);
    static_assert(!stored_rows<view<std::int8_t const, axis::key, axis::dim>, axis::dim>);

    SOFATTN_GENERATOR(random);
    scaled_case<> const layer(random, {2, 1, 1, 9, 4, 4, true});
    codes given = layer.given();
    given.keys = {layer.k.codes.cview(), layer.k.scales.cview().range<axis::key>(0, 8)};
    CHECK(!given.is_valid());
    CHECK_THROWS_WITH_AS((void)given.shape(),
                         "attention: tokens of key scales is 8, must be those of keys, 9", error);
    given = layer.given();
    given.values = {layer.v.codes.cview(), layer.v.scales.cview().range<axis::kv_head>(0, 1)};
    CHECK_THROWS_WITH_AS((void)given.shape(),
                         "attention: KV heads of value scales is 1, must be those of keys, 2",
                         error);
    scaled_case<> bad = layer;
    bad.v.scales(1, 3) = std::numeric_limits<float>::infinity();
    CHECK_THROWS_WITH_AS(bad.given().require_finite(),
                         "attention: values, scales: element [1, 3] is inf, must be finite", error);
    layer.given().require_finite();
}

TEST_CASE("attention.int8_storage: pages have the bits of rows") {
    SOFATTN_GENERATOR(random);
    for (index_t const keys : {1, 64, 65, 300, 1500}) {
        for (index_t const page : {1, 3, 16, 64, 100}) {
            CAPTURE(page);
            decode_shape const shape = some_shape(random, keys, 3);
            INFO(described(shape));
            scaled_case<half> const layer(random, shape);
            scaled_pages<half> const paged(random, layer, page);
            CHECK(same(decoded(paged.given()), decoded(layer.given())));
        }
    }
}

TEST_CASE("attention.int8_storage: best keys and dropped mass are those of floats") {
    SOFATTN_GENERATOR(random);
    for (auto const scope : {selection_scope::per_group, selection_scope::per_query_head}) {
        for (int round = 0; round < 12; ++round) {
            bool const exact = round % 2 == 0;
            decode_shape const shape = some_shape(random, random.integer<index_t>(1, 1500), 2);
            INFO(described(shape));
            scaled_case<half> const layer(random, shape,
                                          exact ? scale_kind::power_of_two : scale_kind::any);
            scaled_pages<half> const paged(random, layer, random.integer<index_t>(1, 70));
            auto const codes = codes_of(layer);
            sparse_decode_options options;
            options.count = random.integer<index_t>(1, 200);
            options.window = 9;
            options.scope = scope;
            auto const got = best_keys(layer.given(), codes, options);
            auto const in_pages = best_keys(paged.given(), codes, options);
            auto const expected = best_keys(layer.widened(), codes, options);
            CHECK(got.kept == expected.kept);
            CHECK(in_pages.kept == expected.kept);
            CHECK(same_bits(in_pages.output, got.output));
            CHECK(same_bits(in_pages.dropped, got.dropped));
            if (exact) {
                CHECK(same_bits(got.output, expected.output));
                CHECK(same_bits(got.dropped, expected.dropped));
            }
            index_t const group = shape.group;
            CHECK(deviation(layer.widened(), got.output, [&](index_t h, index_t q, index_t key) {
                      index_t const leader =
                          scope == selection_scope::per_group ? h - h % group : h;
                      return std::ranges::binary_search(got.kept.at({leader, q}),
                                                        static_cast<key_id>(key));
                  }) <= tolerance);
            double worst = 0;
            for_each_index(got.dropped.cview().extents(), [&](auto const& i) {
                worst = std::max(worst, std::abs(double{at(got.dropped.cview(), i)} -
                                                 double{at(expected.dropped.cview(), i)}));
            });
            CHECK(worst <= tolerance);
        }
    }
}

TEST_CASE("attention.int8_storage: listed keys are those of floats") {
    SOFATTN_GENERATOR(random);
    for (int round = 0; round < 30; ++round) {
        decode_shape const shape = some_shape(random, random.integer<index_t>(1, 700), 6);
        INFO(described(shape));
        scaled_case<> const layer(random, shape, scale_kind::power_of_two);
        scaled_pages<float> const paged(random, layer, random.integer<index_t>(1, 70));
        problem_shape const s = layer.given().shape();
        auto const slots = random.integer<index_t>(1, 100);
        auto const last = static_cast<std::int32_t>(s.keys);
        tensor<std::int32_t, axis::head, axis::query, axis::key> entries(
            {s.kv_heads, s.queries, slots});
        for_each_index(entries.view().extents(), [&](auto const& i) {
            at(entries.view(), i) = random.integer<std::int32_t>(-1, last);
        });
        key_lists const lists{entries.cview()};
        auto const expected = of_lists(layer.widened(), lists);
        for (auto const& got : {of_lists(layer.given(), lists), of_lists(paged.given(), lists)}) {
            CHECK(same_bits(got.output, expected.output));
            CHECK(same_bits(got.dropped, expected.dropped));
        }
    }
}

TEST_CASE("attention.int8_storage: allocates nothing") {
    SOFATTN_GENERATOR(random);
    scaled_case<half> const layer(random, {2, 3, 2, 3000, 24, 80, true});
    problem_shape const s = layer.given().shape();
    decode_output output({6, 2, 80});
    std::vector<std::byte> workspace(
        std::max(decode_workspace_bytes(s, 1), dense_workspace_bytes(s, 1)));
    long const before = allocations.requests;
    dense_decode(layer.given(), output.view(), workspace, exec::serial{});
    dense_attention(layer.given(), output.view(), workspace, exec::serial{});
    long const after = allocations.requests;
    CHECK(after == before);
    CHECK(before > 0); // they are counted
}
