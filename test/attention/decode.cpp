// SPDX-License-Identifier: MIT
#include "attention/decode_case.hpp"
#include "attention/rounded_outputs.hpp"
#include "core/aborts.hpp"
#include "support/allocation_counts.hpp"
#include "support/generators.hpp"
#include "support/own_threads.hpp"
#include <sofattn/attention/decode.hpp>
#include <sofattn/core/bfloat16.hpp>
#include <sofattn/core/half.hpp>
#include <sofattn/core/output_array.hpp>
#include <sofattn/exec/parallel.hpp>

#include <doctest/doctest.h>

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>
#include <vector>

using namespace sofattn;
using namespace sofattn::test;

namespace {

constexpr double tolerance = 2e-5; // the contract

template <class Run = exec::serial, class Q, class KV>
decode_output attend(problem<Q, KV> const& given, Run const& run = {}, std::size_t shift = 0) {
    problem_shape const s = given.shape();
    decode_output output({s.heads, s.queries, s.value_dim});
    guarded_workspace workspace(decode_workspace_bytes(s, run.threads()), shift);
    dense_decode(given, output.view(), workspace.span(), run);
    CHECK(workspace.kept_outside());
    return output;
}

/// Every listed number of each kind at least once, with others drawn at random.
std::vector<decode_shape> generated_shapes(generator& random) {
    std::vector<index_t> const queries{1, 2, 3, 5};
    std::vector<index_t> const keys{1,  2,  3,   15,  16,  17,   31,   33,   63,
                                    64, 65, 127, 129, 300, 1023, 1024, 1025, 2100};
    std::vector<index_t> const dims{1, 2, 3, 4, 8, 15, 16, 17, 48, 64, 80, 127, 128, 256};
    std::vector<index_t> const groups{1, 2, 3, 4, 5, 7, 8};
    auto const any = [&](std::vector<index_t> const& from) {
        return from[random.integer<std::size_t>(0, from.size() - 1)];
    };
    std::vector<decode_shape> shapes;
    auto const add = [&](auto field, std::vector<index_t> const& values) {
        for (index_t const value : values) {
            decode_shape s{.kv_heads = random.integer<index_t>(1, 2),
                           .group = any(groups),
                           .queries = any(queries),
                           .keys = any(keys),
                           .dim = any(dims),
                           .value_dim = any(dims),
                           .causal = random.chance(0.5)};
            s.*field = value;
            shapes.push_back(s);
        }
    };
    add(&decode_shape::queries, queries);
    add(&decode_shape::keys, keys);
    add(&decode_shape::dim, dims);
    add(&decode_shape::value_dim, dims);
    add(&decode_shape::group, groups);
    return shapes;
}

} // namespace

TEST_CASE_TEMPLATE("attention.decode: within 2e-5 of double precision, whatever the shape", T,
                   float, half, bfloat16) {
    SOFATTN_GENERATOR(random);
    for (decode_shape const& shape : generated_shapes(random)) {
        INFO(described(shape));
        decode_case<T> const layer(random, shape);
        CHECK(deviation(layer.given(), attend(layer.given())) <= tolerance);
    }
}

TEST_CASE("attention.decode: long rows, many chunks") {
    SOFATTN_GENERATOR(random);
    for (index_t const kv_heads : {1, 3}) {
        decode_shape const shape{kv_heads, 2, 2, 9000, 16, 16, true};
        decode_case<half> const layer(random, shape);
        CHECK(deviation(layer.given(), attend(layer.given())) <= tolerance);
    }
}

TEST_CASE("attention.decode: the same bits for any number of threads") {
    SOFATTN_GENERATOR(random);
    decode_case<half> const layer(random, {2, 4, 2, 7000, 64, 64, true});
    decode_output const expected = attend(layer.given());
    for (index_t const threads : {1, 2, 3, 7}) {
        CHECK(same_bits(attend(layer.given(), exec::openmp(threads)), expected));
    }
    CHECK(same_bits(attend(layer.given(), own_threads{}), expected));
    CHECK(same_bits(attend(layer.given(), exec::serial{}, 4), expected)); // any start of memory
}

TEST_CASE_TEMPLATE("attention.decode: every storage type and stride gives what a float copy gives",
                   T, float, half, bfloat16) {
    SOFATTN_GENERATOR(random);
    for (index_t const dim : {16, 23}) {
        decode_case<T> const layer(random, {2, 3, 2, 150, dim, 48, true});
        auto const q = converted<float>(layer.q.cview());
        auto const k = converted<float>(layer.k.cview());
        auto const v = converted<float>(layer.v.cview());
        decode_output const expected =
            attend(problem<float>{q.view(), k.view(), v.view(), true, 0});
        CHECK(same_bits(attend(layer.given()), expected));
        for (layout const kind : all_layouts) {
            CAPTURE(static_cast<int>(kind));
            auto const sq = strided(random, layer.q.cview(), kind);
            auto const sk = strided(random, layer.k.cview(), kind);
            auto const sv = strided(random, layer.v.cview(), kind);
            CHECK(same_bits(attend(problem<T>{sq.cview(), sk.cview(), sv.cview(), true, 0}),
                            expected));
            CHECK(same_bits(attend(problem<T>{sq.cview(), sk.cview(), layer.v.view(), true, 0}),
                            expected));
            CHECK(same_bits(attend(problem<T>{sq.cview(), layer.k.view(), sv.cview(), true, 0}),
                            expected));
        }
        CHECK(
            same_bits(attend(problem<float, T>{q.view(), layer.k.view(), layer.v.view(), true, 0}),
                      expected));
    }
}

TEST_CASE("attention.decode: rows before the first key are zero, those after it are not") {
    SOFATTN_GENERATOR(random);
    decode_case<> const layer(random, {2, 3, 9, 5, 16, 16, true});
    decode_output const output = attend(layer.given());
    int wrong = 0;
    for_each_index(output.view().extents(), [&](auto const& i) {
        bool const zero = std::bit_cast<std::uint32_t>(at(output.view(), i)) == 0u; // +0
        wrong += zero == (i[1] < 4) ? 0 : 1;
    });
    CHECK(wrong == 0);
}

TEST_CASE("attention.decode: one logit far above or below all others, in any chunk") {
    SOFATTN_GENERATOR(random);
    for (index_t const key : {0, 63, 64, 1023, 1024, 2999}) {
        for (float const huge : {1e4f, -1e4f, 1e20f, -1e20f}) {
            CAPTURE(key);
            CAPTURE(huge);
            decode_case<> layer(random, {1, 1, 1, 3000, 4, 16, true});
            layer.q(0, 0, 3) = 1.0f;
            for (index_t d = 0; d < 4; ++d) {
                layer.k(0, key, d) = d == 3 ? huge : 0.0f;
            }
            CHECK(deviation(layer.given(), attend(layer.given())) <= tolerance);
        }
    }
}

TEST_CASE_TEMPLATE("attention.decode: 16-bit outputs are those in f32, rounded to nearest", T,
                   float, half) {
    SOFATTN_GENERATOR(random);
    for (index_t const value_dim : {1, 16, 23, 128}) {
        decode_case<T> const layer(random, {2, 3, 3, 2, 16, value_dim, true}); // one row sees none
        problem_shape const s = layer.given().shape();
        check_rounded_outputs(random, s, [&](output_array const& to) {
            std::vector<std::byte> workspace(decode_workspace_bytes(s, 1));
            dense_decode(layer.given(), to, workspace, exec::serial{});
        });
    }
}

TEST_CASE_TEMPLATE("attention.decode: allocates nothing", T, float, half) {
    SOFATTN_GENERATOR(random);
    decode_case<T> const layer(random, {2, 3, 2, 3000, 24, 80, true});
    problem<T> const given = layer.given();
    decode_output output({6, 2, 80});
    std::vector<std::byte> workspace(decode_workspace_bytes(given.shape(), 2));
    long const before = allocations.requests;
    dense_decode(given, output.view(), workspace, exec::serial{});
    dense_decode(given, output.view(), workspace, exec::openmp(2));
    long const after = allocations.requests;
    CHECK(after == before);
    CHECK(before > 0); // they are counted
}

TEST_CASE("attention.decode: a workspace takes at most 4 MiB per thread") {
    constexpr std::size_t limit = 4 << 20;
    for (index_t const keys : {1, 1024, 32768, 131072, 1 << 24}) {
        for (index_t const kv_heads : {1, 2, 8, 32, 128}) {
            for (index_t const group : {1, 4, 8, 16}) {
                for (index_t const queries : {1, 4}) {
                    for (index_t const dim : {64, 128, 256}) {
                        problem_shape const shape{
                            kv_heads * group, kv_heads, queries, keys, dim, dim, true, 1.0};
                        if (kv_heads * group * queries > 1024) {
                            continue; // no few rows
                        }
                        CHECK(decode_workspace_bytes(shape, 1) <= limit);
                        CHECK(decode_workspace_bytes(shape, 16) <= 16 * limit);
                    }
                }
            }
        }
    }
}

TEST_CASE("attention.decode: what does not fit ends the program") {
    SOFATTN_GENERATOR(random);
    decode_case<> const layer(random, {1, 2, 3, 9, 4, 5, false});
    decode_output output({2, 3, 5});
    std::vector<std::byte> workspace(decode_workspace_bytes(layer.given().shape(), 2));
    auto const attempt = [&](auto to, std::size_t bytes, index_t threads) {
        dense_decode(layer.given(), to, std::span(workspace).first(bytes), exec::openmp(threads));
    };
    attempt(output.view(), workspace.size(), 2);
    SOFATTN_CHECK_ABORTS("workspace", attempt(output.view(), workspace.size() - 1, 2));
    SOFATTN_CHECK_ABORTS("workspace", attempt(output.view(), workspace.size(), 3));
    SOFATTN_CHECK_ABORTS("value_dim",
                         attempt(output.view().range<axis::value_dim>(0, 4), workspace.size(), 2));
    SOFATTN_CHECK_ABORTS("query",
                         attempt(output.view().range<axis::query>(0, 2), workspace.size(), 2));
    SOFATTN_CHECK_ABORTS("head",
                         attempt(output.view().range<axis::head>(0, 1), workspace.size(), 2));
}
