// SPDX-License-Identifier: MIT
#include "attention/dense_case.hpp"
#include "attention/rounded_outputs.hpp"
#include "core/aborts.hpp"
#include "support/allocations.hpp"
#include "support/generators.hpp"
#include "support/own_threads.hpp"
#include "support/same_bits.hpp"
#include <sofattn/attention/dense.hpp>
#include <sofattn/attention/problem.hpp>
#include <sofattn/core/bfloat16.hpp>
#include <sofattn/core/error.hpp>
#include <sofattn/core/half.hpp>
#include <sofattn/core/output_array.hpp>
#include <sofattn/core/tensor.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/exec/parallel.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <new>
#include <numbers>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

using namespace sofattn;
using namespace sofattn::test;

namespace {

constexpr double tolerance = 2e-5; // the contract

/// A storage type, and what is multiplied.
template <class T, dense_products Products>
struct how {
    using type = T;
    static constexpr dense_products products = Products;
};
using f32_in_f32 = how<float, dense_products::f32>;
using bf16_in_f32 = how<bfloat16, dense_products::f32>;
using f16_in_f32 = how<half, dense_products::f32>;
using f32_in_bf16 = how<float, dense_products::bf16>;
using f16_in_bf16 = how<half, dense_products::bf16>;
using bf16_in_bf16 = how<bfloat16, dense_products::bf16>;

} // namespace

// --- against double precision --------------------------------------------------------------------

TEST_CASE_TEMPLATE("attention.dense: within 2e-5 of double precision, whatever the shape", T, float,
                   half, bfloat16) {
    SOFATTN_GENERATOR(random);
    auto shapes = generated_shapes(random);
    if (!std::is_same_v<T, float>) { // another reading of the same numbers: fewer will do
        random.shuffle(shapes);
        shapes.resize(shapes.size() / 3);
    }
    for (dense_shape const& shape : shapes) {
        INFO(described(shape));
        dense_case<T> const layer(random, shape);
        CHECK(deviation(random, layer.given(), attend(layer.given()), judged_rows) <= tolerance);
    }
}

TEST_CASE_TEMPLATE("attention.dense: bf16 products within 1e-2, whatever the shape", How,
                   f32_in_bf16, f16_in_bf16, bf16_in_bf16) {
    using T = typename How::type;
    SOFATTN_GENERATOR(random);
    auto shapes = generated_shapes(random);
    if (!std::is_same_v<T, bfloat16>) {
        random.shuffle(shapes);
        shapes.resize(shapes.size() / 3);
    }
    for (dense_shape const& shape : shapes) {
        INFO(described(shape));
        dense_case<T> const layer(random, shape);
        output_tensor const output = attend<How::products>(layer.given());
        // Of few dimensions the rounding of q and k does not average out.
        bool const few = shape.dim < 8 && !std::is_same_v<T, bfloat16>;
        CHECK(deviation(random, layer.given(), output, judged_rows) <= (few ? 3e-2 : 1e-2));
    }
}

TEST_CASE("attention.dense: bf16 products of bf16 numbers err as the weights' rounding does") {
    // Logits are as exact as floats: what is left are weights, rounded by up to 2^-9, on average less.
    SOFATTN_GENERATOR(random);
    for (double const scale : {0.0, 1.0}) { // 1: logits of several octaves
        dense_case<bfloat16> const layer(random, {1, 2, 200, 400, 128, 64, true, scale});
        output_tensor const output = attend<dense_products::bf16>(layer.given());
        CHECK(deviation(random, layer.given(), output) <= 0x1p-9);
    }
}

TEST_CASE("attention.dense: every row of a layer is right") {
    SOFATTN_GENERATOR(random);
    for (index_t const group : {1, 3}) {
        for (bool const causal : {false, true}) {
            for (index_t const keys : {40, 193, 300}) {
                for (index_t const window : {0, 50, 193}) {
                    if (window > 0 && !causal) {
                        continue;
                    }
                    dense_shape const shape{1, group, 193, keys, 17, 19, causal, 0, window};
                    INFO(described(shape));
                    dense_case<> const layer(random, shape);
                    CHECK(deviation(random, layer.given(), attend(layer.given())) <= tolerance);
                    CHECK(deviation(random, layer.given(),
                                    attend<dense_products::bf16>(layer.given())) <= 1e-2);
                }
            }
        }
    }
}

TEST_CASE("attention.dense: more query heads to a KV head than a block has rows") {
    SOFATTN_GENERATOR(random);
    for (bool const causal : {false, true}) {
        dense_case<> const layer(random, {1, 200, 3, 50, 8, 5, causal});
        CHECK(deviation(random, layer.given(), attend(layer.given())) <= tolerance);
    }
}

TEST_CASE("attention.dense: causal rows before the first key are zero") {
    SOFATTN_GENERATOR(random);
    for (dense_shape const& shape :
         {dense_shape{2, 3, 30, 10, 16, 3, true}, dense_shape{2, 3, 200, 1, 16, 64, true},
          dense_shape{1, 4, 400, 97, 16, 64, true}, dense_shape{2, 1, 400, 97, 16, 3, true}}) {
        INFO(described(shape));
        dense_case<> const layer(random, shape);
        output_tensor const output = attend(layer.given());
        int wrong = 0;
        for_each_index(output.view().extents(), [&](auto const& i) {
            bool const seeing = i[1] >= shape.queries - shape.keys;
            bool const zero = std::bit_cast<std::uint32_t>(at(output.view(), i)) == 0u; // +0
            wrong += seeing == zero ? 1 : 0;
        });
        CHECK(wrong == 0);
        CHECK(deviation(random, layer.given(), output, 40) <= tolerance);
    }
}

TEST_CASE("attention.dense: one key is its value, to the bit") {
    SOFATTN_GENERATOR(random);
    dense_case<> const layer(random, {2, 2, 7, 1, 5, 9, false});
    output_tensor const output = attend(layer.given());
    bool same = true;
    for_each_index(output.view().extents(), [&](auto const& i) {
        same = same && at(output.view(), i) == layer.v(i[0] / 2, 0, i[2]);
    });
    CHECK(same);
}

TEST_CASE("attention.dense: computed by hand") {
    // Logits 0, ln 2 and ln 4 of a query 1 with keys 0, ln 2 and ln 4: weights 1/7, 2/7 and 4/7.
    query_tensor<float> q({1, 1, 1});
    key_tensor<float> k({1, 3, 1});
    value_tensor<float> v({1, 3, 2});
    q(0, 0, 0) = 1.0f;
    for (index_t key = 0; key < 3; ++key) {
        k(0, key, 0) = static_cast<float>(static_cast<double>(key) * std::numbers::ln2);
    }
    v(0, 0, 0) = 7.0f;
    v(0, 1, 1) = 7.0f;
    v(0, 2, 1) = -7.0f;
    output_tensor const output = attend(problem<float>{q.view(), k.view(), v.view(), false, 1.0});
    CHECK(output(0, 0, 0) == doctest::Approx(1.0).epsilon(1e-6));
    CHECK(output(0, 0, 1) == doctest::Approx(-2.0).epsilon(1e-6));
}

// --- windows -------------------------------------------------------------------------------------

TEST_CASE_TEMPLATE("attention.dense: a window of one key is its value", How, f32_in_f32,
                   bf16_in_bf16) {
    using T = typename How::type;
    SOFATTN_GENERATOR(random);
    dense_case<T> const layer(random, {1, 2, 300, 310, 16, 9, true, 0, 1});
    output_tensor const output = attend<How::products>(layer.given());
    bool same = true;
    for_each_index(output.view().extents(), [&](auto const& i) {
        same = same && at(output.view(), i) == to_float(layer.v(0, i[1] + 10, i[2]));
    });
    CHECK(same);
}

TEST_CASE_TEMPLATE("attention.dense: keys outside a window leave no trace", How, f32_in_f32,
                   bf16_in_bf16) {
    using T = typename How::type;
    SOFATTN_GENERATOR(random);
    dense_case<T> layer(random, {1, 3, 100, 500, 16, 20, true, 0, 150});
    output_tensor const expected = attend<How::products>(layer.given());
    for (index_t key = 0; key < 251; ++key) { // the first query sees keys from 251 on
        for (index_t d = 0; d < 20; ++d) {
            layer.v(0, key, d) = T(3e4f);
        }
        for (index_t d = 0; d < 16; ++d) {
            layer.k(0, key, d) = T(1e4f);
        }
    }
    CHECK(same_bits(attend<How::products>(layer.given()), expected));
}

TEST_CASE("attention.dense: a window that holds all keys is none, to the bit") {
    SOFATTN_GENERATOR(random);
    dense_case<> layer(random, {1, 2, 250, 300, 16, 20, true});
    output_tensor const expected = attend(layer.given());
    for (index_t const window : {300, 301, 100'000}) {
        layer.window = window;
        CHECK(same_bits(attend(layer.given()), expected));
    }
}

TEST_CASE("attention.dense: windows that make no attention are refused") {
    SOFATTN_GENERATOR(random);
    dense_case<> layer(random, {1, 1, 3, 3, 2, 2, true});
    layer.window = -1;
    CHECK_THROWS_WITH_AS(static_cast<void>(layer.given().shape()),
                         "attention: window is -1, must be at least 0", error);
    layer.window = 2;
    static_cast<void>(layer.given().shape());
    layer.causal = false;
    CHECK_THROWS_WITH_AS(static_cast<void>(layer.given().shape()),
                         "attention: window is 2, must be 0 where attention is not causal", error);
}

// --- logits out of the ordinary ------------------------------------------------------------------

TEST_CASE("attention.dense: logits up to 1e4 either way") {
    SOFATTN_GENERATOR(random);
    // Whole numbers of octaves, exact in float: so near ties are judged, too.
    dense_case<> layer(random, {1, 2, 100, 250, 64, 32, false, std::numbers::ln2});
    layer.q = random_codes<float, axis::head, axis::query, axis::dim>(random, {2, 100, 64}, 30);
    layer.k = random_codes<float, axis::kv_head, axis::key, axis::dim>(random, {1, 250, 64}, 30);
    for (bool const causal : {false, true}) {
        layer.causal = causal;
        CHECK(deviation(random, layer.given(), attend(layer.given())) <= tolerance);
    }
}

TEST_CASE("attention.dense: one logit far above or below all others") {
    SOFATTN_GENERATOR(random);
    for (index_t const key : {0, 95, 96, 149}) {
        for (float const huge : {1e4f, -1e4f, 1e20f, -1e20f}) {
            CAPTURE(key);
            CAPTURE(huge);
            dense_case<> layer(random, {1, 1, 20, 150, 8, 16, false, 1.0});
            for (index_t r = 0; r < 20; ++r) {
                layer.q(0, r, 3) = 1.0f;
            }
            for (index_t d = 0; d < 8; ++d) {
                layer.k(0, key, d) = d == 3 ? huge : 0.0f;
            }
            output_tensor const output = attend(layer.given());
            CHECK(deviation(random, layer.given(), output) <= tolerance);
            if (huge > 0) {
                CHECK(output(0, 19, 5) == layer.v(0, key, 5)); // nothing else weighs
            }
        }
    }
}

TEST_CASE("attention.dense: equal keys weigh the same, however large their logits") {
    SOFATTN_GENERATOR(random);
    for (double const scale : {1e-6, 1.0, 1e4, 1e20}) {
        CAPTURE(scale);
        dense_case<> layer(random, {1, 1, 13, 193, 6, 16, true, scale});
        for_each_index(layer.k.view().extents(),
                       [&](auto const& i) { at(layer.k.view(), i) = layer.k(0, 0, i[2]); });
        CHECK(deviation(random, layer.given(), attend(layer.given())) <= tolerance);
    }
}

TEST_CASE("attention.dense: what all logits share costs the digits that float rounds off them") {
    SOFATTN_GENERATOR(random);
    for (index_t const dim : {16, 256}) {
        for (double const shared : {100.0, 1000.0, -1000.0, 10000.0}) {
            CAPTURE(dim);
            CAPTURE(shared);
            double const scale = 1.0 / std::sqrt(static_cast<double>(dim));
            dense_case<> layer(random, {1, 1, 60, 200, dim, 32, false, scale});
            for (index_t r = 0; r < 60; ++r) {
                layer.q(0, r, 0) = 1.0f;
            }
            for (index_t key = 0; key < 200; ++key) {
                layer.k(0, key, 0) = static_cast<float>(shared / scale);
            }
            // The contract's 2e-5 is for logits of a few dozen.
            CHECK(deviation(random, layer.given(), attend(layer.given())) <=
                  tolerance + 1e-6 * std::abs(shared));
        }
    }
}

TEST_CASE("attention.dense: logits just within 1e30 either way") {
    query_tensor<float> q({1, 1, 1});
    key_tensor<float> k({1, 100, 1});
    value_tensor<float> v({1, 100, 1});
    q(0, 0, 0) = 1.0f;
    for (index_t key = 0; key < 100; ++key) {
        v(0, key, 0) = static_cast<float>(key);
    }
    auto const attended = [&] {
        return attend(problem<float>{q.view(), k.view(), v.view(), false, 1.0})(0, 0, 0);
    };
    for (float const all : {-9.9e29f, 0.0f, 9.9e29f}) {
        CAPTURE(all);
        for (index_t key = 0; key < 100; ++key) {
            k(0, key, 0) = all;
        }
        CHECK(attended() == doctest::Approx(49.5).epsilon(1e-6));
    }
    for (index_t key = 0; key < 100; ++key) {
        k(0, key, 0) = key == 97 ? 9.9e29f : -9.9e29f;
    }
    CHECK(attended() == 97.0f);
    k(0, 97, 0) = -9.8e29f;
    CHECK(attended() == 97.0f);
}

// --- the same bits -------------------------------------------------------------------------------

TEST_CASE_TEMPLATE("attention.dense: the same bits for any number of threads, and anybody's", How,
                   f32_in_f32, f16_in_f32, f32_in_bf16, bf16_in_bf16) {
    using T = typename How::type;
    SOFATTN_GENERATOR(random);
    for (dense_shape const& shape :
         {dense_shape{2, 3, 400, 300, 24, 40, true}, dense_shape{1, 8, 193, 97, 80, 64, false},
          dense_shape{5, 1, 64, 200, 33, 16, true}, dense_shape{1, 1, 1, 1, 1, 1, true},
          dense_shape{2, 2, 300, 100, 16, 3, true},
          dense_shape{1, 2, 500, 700, 16, 32, true, 0, 90}}) {
        INFO(described(shape));
        dense_case<T> const layer(random, shape);
        output_tensor const expected = attend<How::products>(layer.given(), exec::serial{});
        for (index_t const threads : {1, 2, 3}) {
            CHECK(same_bits(attend<How::products>(layer.given(), exec::openmp(threads)), expected));
        }
        CHECK(same_bits(attend<How::products>(layer.given(), own_threads{}), expected));
    }
}

TEST_CASE("attention.dense: the same bits wherever the workspace starts") {
    SOFATTN_GENERATOR(random);
    dense_case<> const layer(random, {2, 3, 100, 150, 24, 40, true});
    output_tensor const expected = attend(layer.given());
    for (std::size_t const shift : {1u, 2u, 4u, 8u, 16u, 31u, 32u, 60u, 63u}) {
        CAPTURE(shift);
        CHECK(same_bits(attend(layer.given(), exec::serial{}, shift), expected));
        CHECK(same_bits(attend(layer.given(), own_threads{}, shift), expected));
    }
}

TEST_CASE_TEMPLATE("attention.dense: every storage type and stride gives what a float copy gives",
                   How, f32_in_f32, f16_in_f32, bf16_in_f32, f32_in_bf16, f16_in_bf16,
                   bf16_in_bf16) {
    using T = typename How::type;
    constexpr dense_products products = How::products;
    SOFATTN_GENERATOR(random);
    for (index_t const value_dim : {24, 64, 128, 133}) {
        index_t const dim = value_dim == 64 ? 18 : 17; // even: pairs
        dense_case<T> const layer(random, {2, 2, 35, 110, dim, value_dim, true});
        auto const q = converted<float>(layer.q.cview());
        auto const k = converted<float>(layer.k.cview());
        auto const v = converted<float>(layer.v.cview());
        auto const expected =
            attend<products>(problem<float>{q.view(), k.view(), v.view(), true, 0});
        for (layout const kind : all_layouts) {
            CAPTURE(value_dim);
            CAPTURE(static_cast<int>(kind));
            auto const sq = strided(random, layer.q.cview(), kind);
            auto const sk = strided(random, layer.k.cview(), kind);
            auto const sv = strided(random, layer.v.cview(), kind);
            problem<T> const given{sq.cview(), sk.cview(), sv.cview(), true, 0};
            CHECK(same_bits(attend<products>(given), expected));
            // Where only one of K and V lies unusually, the other is still read as it lies.
            problem<T> const odd_keys{sq.cview(), sk.cview(), layer.v.view(), true, 0};
            CHECK(same_bits(attend<products>(odd_keys), expected));
            problem<T> const odd_values{sq.cview(), layer.k.view(), sv.cview(), true, 0};
            CHECK(same_bits(attend<products>(odd_values), expected));
        }
        problem<float, T> const mixed{q.view(), layer.k.view(), layer.v.view(), true, 0};
        CHECK(same_bits(attend<products>(mixed), expected));
    }
}

TEST_CASE_TEMPLATE("attention.dense: rows do not depend on which rows share their block", How,
                   f32_in_f32, bf16_in_bf16) {
    using T = typename How::type;
    SOFATTN_GENERATOR(random);
    for (dense_shape const& shape :
         {dense_shape{2, 3, 150, 210, 20, 17, true}, dense_shape{1, 1, 193, 97, 16, 64, false},
          dense_shape{1, 2, 120, 40, 5, 128, true},
          dense_shape{1, 2, 500, 700, 16, 17, true, 0, 90},
          dense_shape{1, 1, 500, 500, 16, 17, true, 0, 193}}) {
        INFO(described(shape));
        dense_case<T> const layer(random, shape);
        output_tensor const whole = attend<How::products>(layer.given());
        problem_shape const s = layer.given().shape();
        for (int round = 0; round < 40; ++round) {
            // Some neighbours of one head, or one query alone, that see what the last of them sees.
            index_t const h = random.integer<index_t>(0, s.heads - 1);
            index_t const first = random.integer<index_t>(0, s.queries - 1);
            index_t const count =
                random.chance(0.5) ? 1 : random.integer<index_t>(1, s.queries - first);
            index_t const seen = s.visible(first + count - 1);
            if (seen == 0) {
                continue;
            }
            auto few = layer.given();
            few.queries = few.queries.template range<axis::head>(h, 1).template range<axis::query>(
                first, count);
            few.keys = few.keys.template range<axis::kv_head>(h / s.group(), 1)
                           .template range<axis::key>(0, seen);
            few.values = few.values.template range<axis::kv_head>(h / s.group(), 1)
                             .template range<axis::key>(0, seen);
            output_tensor const part = attend<How::products>(few);
            CAPTURE(first);
            CAPTURE(count);
            bool same = true;
            for_each_index(part.view().extents(), [&](auto const& i) {
                same = same && std::bit_cast<std::uint32_t>(at(part.view(), i)) ==
                                   std::bit_cast<std::uint32_t>(whole(h, first + i[1], i[2]));
            });
            CHECK(same);
        }
    }
}

// --- memory --------------------------------------------------------------------------------------

TEST_CASE("attention.dense: nothing is written between and around the elements of the output") {
    SOFATTN_GENERATOR(random);
    float const poison = -12345.0f;
    index_t const guard = 64;
    for (index_t const value_dim : {3, 64, 70}) {
        dense_case<> const layer(random, {1, 2, 40, 30, 8, value_dim, true});
        output_tensor const expected = attend(layer.given());
        auto const extents = expected.view().extents();
        index_t const n = value_dim;
        for (auto const& strides : {std::array<index_t, 3>{40 * n, n, 1}, // C order
                                    {40 * (n + 3), n + 3, 1},             // padded rows
                                    {n + 1, 2 * (n + 1), 1}, // [query, head, value_dim]
                                    {1, 2, 80},              // transposed
                                    {120 * n, 3 * n, 3},     // every third element
                                    {-40 * n, -n, -1},       // backwards
                                    {40 * n, -n, 1}}) {
            index_t low = 0; // of the element that lies first
            index_t high = 0;
            for (std::size_t a = 0; a < 3; ++a) {
                index_t const last = (extents[a] - 1) * strides[a];
                low += std::min<index_t>(last, 0);
                high += std::max<index_t>(last, 0);
            }
            std::vector<float> memory(static_cast<std::size_t>(high - low + 1 + 2 * guard), poison);
            output_layer const output(memory.data() + guard - low, extents, strides);
            std::vector<std::byte> workspace(dense_workspace_bytes(layer.given().shape(), 1));
            dense_attention(layer.given(), output, workspace, exec::serial{});
            bool same = true;
            for_each_index(extents, [&](auto const& i) {
                same = same && at(output, i) == at(expected.view(), i);
                at(output, i) = poison;
            });
            CHECK(same);
            CHECK(std::ranges::count(memory, poison) == std::ssize(memory));
        }
    }
}

TEST_CASE_TEMPLATE("attention.dense: 16-bit outputs are those in f32, rounded to nearest", How,
                   f32_in_f32, f32_in_bf16) {
    SOFATTN_GENERATOR(random);
    for (index_t const value_dim : {1, 3, 64, 70, 256}) {
        dense_case<> const layer(random, {2, 2, 40, 30, 8, value_dim, true}); // some rows see none
        problem_shape const s = layer.given().shape();
        check_rounded_outputs(random, s, [&](output_array const& to) {
            std::vector<std::byte> workspace(dense_workspace_bytes(s, 1));
            dense_attention<How::products>(layer.given(), to, workspace, exec::serial{});
        });
    }
}

TEST_CASE("attention.dense: outputs in f16 that are too large are infinite, and NaN stays NaN") {
    SOFATTN_GENERATOR(random);
    dense_case<> layer(random, {1, 1, 6, 6, 8, 24, true});
    // The first row's output is its key's value.
    layer.v(0, 0, 0) = 65519.0f;
    layer.v(0, 0, 1) = -65520.0f;
    layer.v(0, 0, 2) = 0x1p-25f;
    layer.v(0, 0, 3) = std::numeric_limits<float>::quiet_NaN();
    tensor<half, axis::head, axis::query, axis::value_dim> output({1, 6, 24});
    std::vector<std::byte> workspace(dense_workspace_bytes(layer.given().shape(), 1));
    dense_attention(layer.given(), output.view(), workspace, exec::serial{});
    CHECK(output(0, 0, 0) == half(65504.0f));
    CHECK(output(0, 0, 1) == half(-std::numeric_limits<float>::infinity()));
    CHECK(output(0, 0, 2).bits() == 0);
    CHECK(std::isnan(static_cast<float>(output(0, 0, 3))));
    CHECK(output(0, 0, 4) == half(layer.v(0, 0, 4)));
}

TEST_CASE_TEMPLATE("attention.dense: allocates nothing", How, f32_in_f32, f16_in_f32, f32_in_bf16,
                   bf16_in_bf16) {
    using T = typename How::type;
    SOFATTN_GENERATOR(random);
    dense_case<T> const layer(random, {2, 3, 400, 300, 64, 80, true});
    problem<T> const given = layer.given();
    output_tensor output({6, 400, 80});
    std::vector<std::byte> workspace(dense_workspace_bytes(given.shape(), 2));
    long const before = allocations.requests;
    dense_attention<How::products>(given, output.view(), workspace, exec::serial{});
    dense_attention<How::products>(given, output.view(), workspace, exec::openmp(2));
    long const after = allocations.requests;
    CHECK(after == before);
    CHECK(before > 0); // they are counted
}

TEST_CASE("attention.dense: a workspace takes less than 1 MiB per thread, whatever the keys") {
    constexpr std::size_t mebibyte = 1 << 20;
    for (index_t dim = 1; dim <= max_head_dim; ++dim) {
        for (index_t value_dim = 1; value_dim <= max_head_dim; ++value_dim) {
            problem_shape shape{1, 1, 1, 1, dim, value_dim, false, 1.0};
            std::size_t const one = dense_workspace_bytes(shape, 1);
            std::size_t const seven = dense_workspace_bytes(shape, 7);
            bool const same_start = (seven - one) % 6 == 0 && (seven - one) / 6 < one;
            shape = {64, 8, 100'000, 10'000'000, dim, value_dim, true, 1.0};
            bool const right = one < mebibyte && seven < 7 * mebibyte && same_start &&
                               dense_workspace_bytes(shape, 1) == one;
            if (!right) {
                CAPTURE(dim);
                CAPTURE(value_dim);
                CHECK(right);
            }
        }
    }
    CHECK(dense_workspace_bytes({1, 1, 1, 1, 256, 256, false, 1.0}, 1) > 0);
}

TEST_CASE("attention.dense: what does not fit ends the program") {
    SOFATTN_GENERATOR(random);
    dense_case<> const layer(random, {1, 2, 7, 9, 4, 5, false});
    output_tensor output({2, 7, 5});
    std::vector<std::byte> workspace(
        dense_workspace_bytes<dense_products::f32>(layer.given().shape(), 2));
    auto const attempt = [&](output_layer to, std::size_t bytes, index_t threads) {
        dense_attention(layer.given(), to, std::span(workspace).first(bytes),
                        exec::openmp(threads));
    };
    attempt(output.view(), workspace.size(), 2);
    SOFATTN_CHECK_ABORTS("workspace", attempt(output.view(), workspace.size() - 1, 2));
    SOFATTN_CHECK_ABORTS("workspace", attempt(output.view(), workspace.size(), 3));
    SOFATTN_CHECK_ABORTS("value_dim",
                         attempt(output.view().range<axis::value_dim>(0, 4), workspace.size(), 2));
    SOFATTN_CHECK_ABORTS("query",
                         attempt(output.view().range<axis::query>(0, 6), workspace.size(), 2));
    SOFATTN_CHECK_ABORTS("head",
                         attempt(output.view().range<axis::head>(0, 1), workspace.size(), 2));
}
