// SPDX-License-Identifier: MIT
// Dense attention with 8-bit products. What it shares with the others is tested in dense.cpp.
#include "attention/dense_case.hpp"
#include "attention/rounded_outputs.hpp"
#include "support/allocation_counts.hpp"
#include "support/generators.hpp"
#include "support/own_threads.hpp"
#include "support/same_bits.hpp"
#include <sofattn/attention/dense.hpp>
#include <sofattn/attention/problem.hpp>
#include <sofattn/core/bfloat16.hpp>
#include <sofattn/core/half.hpp>
#include <sofattn/core/output_array.hpp>
#include <sofattn/core/tensor.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/exec/parallel.hpp>
#include <sofattn/io/npy.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

using namespace sofattn;
using namespace sofattn::test;

namespace {

constexpr auto int8 = dense_products::int8;
/// The contract, where logits spread by a few units.
constexpr double tolerance = 4e-2;

/// A recorded layer of the sample that the demo runs on.
template <class... Axes>
tensor<float, Axes...> recorded(std::string const& name) {
    return io::read_npy(std::string(SOFATTN_SOURCE_DIR) + "/examples/data/" + name + ".npy")
        .to_tensor<Axes...>();
}

} // namespace

// --- against double precision --------------------------------------------------------------------

TEST_CASE_TEMPLATE("attention.dense: int8 products within 4e-2, whatever the shape", T, float, half,
                   bfloat16) {
    SOFATTN_GENERATOR(random);
    auto shapes = generated_shapes(random);
    if (!std::is_same_v<T, float>) { // another reading of the same numbers: fewer will do
        random.shuffle(shapes);
        shapes.resize(shapes.size() / 3);
    }
    for (index_t const keys : {287, 288, 289, 291, 292, 293, 575, 577, 900}) { // tiles of 288
        shapes.push_back({.kv_heads = 1,
                          .group = random.integer<index_t>(1, 3),
                          .queries = random.integer<index_t>(1, 900),
                          .keys = keys,
                          .dim = random.integer<index_t>(1, 128),
                          .value_dim = random.integer<index_t>(1, 128),
                          .causal = random.chance(0.5)});
    }
    for (dense_shape const& shape : shapes) {
        INFO(described(shape));
        dense_case<T> const layer(random, shape);
        double const error =
            deviation(random, layer.given(), attend<int8>(layer.given()), judged_rows);
        CHECK(error <= tolerance);
    }
}

TEST_CASE("attention.dense: int8 products, every row of a layer") {
    SOFATTN_GENERATOR(random);
    for (index_t const group : {1, 3}) {
        for (bool const causal : {false, true}) {
            for (index_t const keys : {40, 193, 300, 600}) {
                for (index_t const window : {0, 50, 288}) {
                    if (window > 0 && !causal) {
                        continue;
                    }
                    dense_shape const shape{1, group, 193, keys, 17, 19, causal, 0, window};
                    INFO(described(shape));
                    dense_case<> const layer(random, shape);
                    CHECK(deviation(random, layer.given(), attend<int8>(layer.given())) <=
                          tolerance);
                }
            }
        }
    }
}

TEST_CASE("attention.dense: int8 products of 64 and 128 dimensions within 1.5e-2") {
    SOFATTN_GENERATOR(random);
    for (index_t const dim : {64, 128}) {
        tensor<float, axis::head, axis::query, axis::dim> q =
            random_matrix<float, axis::head, axis::query, axis::dim>(random, {2, 1000, dim});
        auto const k =
            random_matrix<float, axis::kv_head, axis::key, axis::dim>(random, {1, 1000, dim});
        auto const v =
            random_matrix<float, axis::kv_head, axis::key, axis::value_dim>(random, {1, 1000, dim});
        problem<float> const given{q.view(), k.view(), v.view(), true};
        CHECK(deviation(random, given, attend<int8>(given)) <= 1.5e-2);
    }
}

TEST_CASE("attention.dense: int8 products of recorded layers within 4e-2 in every head") {
    SOFATTN_GENERATOR(random);
    for (std::string const name : {"tinyllama_L16", "gtesmall_L05"}) {
        CAPTURE(name);
        auto const q = recorded<axis::head, axis::query, axis::dim>(name + "_q");
        auto const k = recorded<axis::kv_head, axis::key, axis::dim>(name + "_k");
        auto const v = recorded<axis::kv_head, axis::key, axis::value_dim>(name + "_v");
        problem<float> const given{q.cview(), k.cview(), v.cview(), name[0] == 't'};
        CHECK(deviation(random, given, attend<int8>(given), 60) <= tolerance);
    }
}

TEST_CASE("attention.dense: int8 products see through a mean that keys or values share") {
    SOFATTN_GENERATOR(random);
    dense_case<> layer(random, {1, 2, 300, 700, 64, 48, true});
    output_tensor const before = attend<int8>(layer.given());
    CHECK(deviation(random, layer.given(), before) <= tolerance);
    for (index_t key = 0; key < 700; ++key) {
        for (index_t d = 0; d < 64; ++d) {
            layer.k(0, key, d) += d % 5 == 0 ? 30.0f : -3.0f;
        }
    }
    CHECK(deviation(random, layer.given(), attend<int8>(layer.given())) <= tolerance);
    for_each_index(layer.v.view().extents(), [&](auto const& i) { at(layer.v.view(), i) += 5.0f; });
    CHECK(deviation(random, layer.given(), attend<int8>(layer.given())) <= tolerance);
}

TEST_CASE("attention.dense: int8 products keep a tail of tiny weights, and a sink without values") {
    // Key 0 takes nine tenths of the weight and says nothing: the output is the tail's.
    SOFATTN_GENERATOR(random);
    dense_case<> layer(random, {1, 1, 250, 250, 32, 64, false, 1.0});
    for_each_index(layer.q.view().extents(), [&](auto const& i) { at(layer.q.view(), i) *= 0.1f; });
    for (index_t r = 0; r < 250; ++r) {
        layer.q(0, r, 0) = 1.0f;
    }
    for (index_t d = 0; d < 32; ++d) {
        layer.k(0, 0, d) = d == 0 ? 7.5f : 0.0f;
    }
    for (float const sink : {0.0f, 0.01f}) {
        for (index_t d = 0; d < 64; ++d) {
            layer.v(0, 0, d) = sink;
        }
        CHECK(deviation(random, layer.given(), attend<int8>(layer.given())) <= 5e-2);
    }
}

TEST_CASE("attention.dense: int8 products of equal keys are a mean of values") {
    SOFATTN_GENERATOR(random);
    for (double const scale : {1e-6, 1.0, 1e4, 1e20}) {
        CAPTURE(scale);
        dense_case<> layer(random, {1, 1, 13, 400, 6, 16, true, scale});
        for_each_index(layer.k.view().extents(),
                       [&](auto const& i) { at(layer.k.view(), i) = layer.k(0, 0, i[2]); });
        for_each_index(layer.v.view().extents(), [&](auto const& i) {
            at(layer.v.view(), i) = std::abs(at(layer.v.view(), i));
        });
        CHECK(deviation(random, layer.given(), attend<int8>(layer.given())) <= 1e-2);
    }
}

TEST_CASE("attention.dense: int8 products with logits just within 1e30 either way") {
    query_tensor<float> q({1, 1, 1});
    key_tensor<float> k({1, 400, 1});
    value_tensor<float> v({1, 400, 1});
    q(0, 0, 0) = 1.0f;
    for (index_t key = 0; key < 400; ++key) {
        v(0, key, 0) = static_cast<float>(key);
        k(0, key, 0) = key == 397 ? 9.9e29f : -9.9e29f;
    }
    auto const attended = [&] {
        return attend<int8>(problem<float>{q.view(), k.view(), v.view(), false, 1.0})(0, 0, 0);
    };
    CHECK(attended() == doctest::Approx(397.0).epsilon(1e-2));
    k(0, 397, 0) = -9.8e29f;
    CHECK(attended() == doctest::Approx(397.0).epsilon(1e-2));
    for (float const all : {-9.9e29f, 0.0f, 9.9e29f}) {
        for (index_t key = 0; key < 400; ++key) {
            k(0, key, 0) = all;
        }
        CHECK(attended() == doctest::Approx(199.5).epsilon(1e-2));
    }
}

TEST_CASE("attention.dense: int8 products of nothing but zeros are zero") {
    for (bool const causal : {false, true}) {
        query_tensor<float> const q({2, 70, 5});
        key_tensor<float> const k({1, 300, 5});
        value_tensor<float> const v({1, 300, 7});
        output_tensor const output =
            attend<int8>(problem<float>{q.cview(), k.cview(), v.cview(), causal, 1.0});
        bool zero = true;
        for_each_index(output.view().extents(), [&](auto const& i) {
            zero = zero && at(output.view(), i) == 0.0f; // and no NaN
        });
        CHECK(zero);
    }
}

TEST_CASE("attention.dense: int8 products, causal rows before the first key are zero") {
    SOFATTN_GENERATOR(random);
    for (dense_shape const& shape :
         {dense_shape{2, 3, 30, 10, 16, 3, true}, dense_shape{2, 3, 200, 1, 16, 64, true},
          dense_shape{1, 4, 400, 97, 16, 64, true}, dense_shape{2, 1, 400, 97, 16, 3, true}}) {
        INFO(described(shape));
        dense_case<> const layer(random, shape);
        output_tensor const output = attend<int8>(layer.given());
        int wrong = 0;
        for_each_index(output.view().extents(), [&](auto const& i) {
            if (i[1] < shape.queries - shape.keys) {
                wrong += std::bit_cast<std::uint32_t>(at(output.view(), i)) == 0u ? 0 : 1; // +0
            }
        });
        CHECK(wrong == 0);
        CHECK(deviation(random, layer.given(), output, 40) <= tolerance);
    }
}

// --- the same bits -------------------------------------------------------------------------------

TEST_CASE_TEMPLATE("attention.dense: int8 products, the same bits for any number of threads", T,
                   float, bfloat16) {
    SOFATTN_GENERATOR(random);
    for (dense_shape const& shape :
         {dense_shape{2, 3, 400, 300, 24, 40, true}, dense_shape{1, 8, 193, 97, 80, 64, false},
          dense_shape{5, 1, 64, 200, 33, 16, true}, dense_shape{1, 1, 1, 1, 1, 1, true},
          dense_shape{2, 2, 300, 100, 16, 3, true}, dense_shape{1, 2, 900, 900, 16, 32, true},
          dense_shape{1, 2, 500, 700, 16, 32, true, 0, 90}}) {
        INFO(described(shape));
        dense_case<T> const layer(random, shape);
        output_tensor const expected = attend<int8>(layer.given(), exec::serial{});
        for (index_t const threads : {1, 2, 3}) {
            CHECK(same_bits(attend<int8>(layer.given(), exec::openmp(threads)), expected));
        }
        CHECK(same_bits(attend<int8>(layer.given(), own_threads{}), expected));
        for (std::size_t const shift : {4u, 31u, 60u}) {
            CHECK(same_bits(attend<int8>(layer.given(), exec::serial{}, shift), expected));
        }
    }
}

TEST_CASE_TEMPLATE("attention.dense: int8 products, every storage type and stride as a float copy",
                   T, float, half, bfloat16) {
    SOFATTN_GENERATOR(random);
    for (index_t const value_dim : {24, 64, 128, 133}) {
        index_t const dim = value_dim == 64 ? 32 : 17;
        dense_case<T> const layer(random, {2, 2, 35, 310, dim, value_dim, true});
        auto const q = converted<float>(layer.q.cview());
        auto const k = converted<float>(layer.k.cview());
        auto const v = converted<float>(layer.v.cview());
        auto const expected = attend<int8>(problem<float>{q.view(), k.view(), v.view(), true, 0});
        for (layout const kind : all_layouts) {
            CAPTURE(value_dim);
            CAPTURE(static_cast<int>(kind));
            auto const sq = strided(random, layer.q.cview(), kind);
            auto const sk = strided(random, layer.k.cview(), kind);
            auto const sv = strided(random, layer.v.cview(), kind);
            problem<T> const given{sq.cview(), sk.cview(), sv.cview(), true, 0};
            CHECK(same_bits(attend<int8>(given), expected));
        }
        problem<float, T> const mixed{q.view(), layer.k.view(), layer.v.view(), true, 0};
        CHECK(same_bits(attend<int8>(mixed), expected));
    }
}

TEST_CASE("attention.dense: int8 products, rows do not depend on which rows share their block") {
    SOFATTN_GENERATOR(random);
    for (dense_shape const& shape :
         {dense_shape{2, 3, 150, 410, 20, 17, true}, dense_shape{1, 1, 193, 97, 16, 64, false},
          dense_shape{1, 2, 500, 700, 16, 17, true, 0, 90},
          dense_shape{1, 1, 500, 600, 16, 17, true, 0, 193}}) {
        INFO(described(shape));
        dense_case<> const layer(random, shape);
        output_tensor const whole = attend<int8>(layer.given());
        problem_shape const s = layer.given().shape();
        for (int round = 0; round < 20; ++round) {
            // The last queries of one head, over the same keys; without a mask, any of them.
            index_t const h = random.integer<index_t>(0, s.heads - 1);
            index_t const first = random.integer<index_t>(0, s.queries - 1);
            index_t const most = s.queries - first;
            index_t const count = s.causal ? most : random.integer<index_t>(1, most);
            auto few = layer.given();
            few.queries = few.queries.template range<axis::head>(h, 1).template range<axis::query>(
                first, count);
            few.keys = few.keys.template range<axis::kv_head>(h / s.group(), 1);
            few.values = few.values.template range<axis::kv_head>(h / s.group(), 1);
            output_tensor const part = attend<int8>(few);
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

TEST_CASE("attention.dense: int8 products, 16-bit outputs are those in f32, rounded to nearest") {
    SOFATTN_GENERATOR(random);
    for (index_t const value_dim : {1, 64, 70}) {
        dense_case<> const layer(random, {2, 2, 40, 30, 16, value_dim, true}); // some rows see none
        problem_shape const s = layer.given().shape();
        check_rounded_outputs(random, s, [&](output_array const& to) {
            std::vector<std::byte> workspace(dense_workspace_bytes(s, 1));
            dense_attention<int8>(layer.given(), to, workspace, exec::serial{});
        });
    }
}

TEST_CASE("attention.dense: int8 products allocate nothing") {
    SOFATTN_GENERATOR(random);
    dense_case<half> const layer(random, {2, 3, 400, 300, 64, 80, true});
    problem<half> const given = layer.given();
    output_tensor output({6, 400, 80});
    std::vector<std::byte> workspace(dense_workspace_bytes(given.shape(), 2));
    long const before = allocations.requests;
    dense_attention<int8>(given, output.view(), workspace, exec::serial{});
    dense_attention<int8>(given, output.view(), workspace, exec::openmp(2));
    long const after = allocations.requests;
    CHECK(after == before);
    CHECK(before > 0); // they are counted
}
