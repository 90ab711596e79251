// SPDX-License-Identifier: MIT
// Dense attention and decode with sizes of tiles that are not the default.
#include "attention/decode_case.hpp"
#include "attention/dense_case.hpp"
#include "core/aborts.hpp"
#include "support/generators.hpp"
#include "support/guarded_workspace.hpp"
#include "support/own_threads.hpp"
#include "support/same_bits.hpp"
#include <sofattn/attention/decode.hpp>
#include <sofattn/attention/dense.hpp>
#include <sofattn/attention/problem.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/exec/parallel.hpp>
#include <sofattn/sufa/block_tiles.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <vector>

using namespace sofattn;
using namespace sofattn::test;
using sufa::block_tiles;

namespace {

block_tiles any_tiles(generator& random) {
    constexpr index_t step = block_tiles::keys_step;
    return {random.integer<index_t>(1, block_tiles::keys_most / step) * step,
            random.integer(block_tiles::rows_least, block_tiles::rows_most)};
}

template <dense_products Products, class Run = exec::serial>
output_tensor attend_with(problem<float> const& given, block_tiles tiles, Run const& run = {}) {
    problem_shape const s = given.shape();
    output_tensor output({s.heads, s.queries, s.value_dim});
    guarded_workspace workspace(dense_workspace_bytes<Products>(s, run.threads(), tiles), 4);
    dense_attention<Products>(given, output.view(), workspace.span(), run, {}, tiles);
    CHECK(workspace.kept_outside());
    return output;
}

dense_shape any_shape(generator& random) {
    return {.kv_heads = random.integer<index_t>(1, 2),
            .group = random.integer<index_t>(1, 4),
            .queries = random.integer<index_t>(1, 500),
            .keys = random.integer<index_t>(1, 700),
            .dim = random.integer<index_t>(8, 256), // fewer would cost bf16 its 1e-2
            .value_dim = random.integer<index_t>(1, 256),
            .causal = random.integer<int>(0, 1) == 0};
}

template <dense_products Products>
void check_tiles(double tolerance) {
    SOFATTN_GENERATOR(random);
    for (int n = 0; n < 40; ++n) {
        dense_case<> const layer(random, any_shape(random));
        problem<float> const given = layer.given();
        block_tiles const tiles = any_tiles(random);
        CAPTURE(tiles.keys);
        CAPTURE(tiles.rows);
        auto const output = attend_with<Products>(given, tiles);
        CHECK(deviation(random, given, output, judged_rows) <= tolerance);
        // Rows do not depend on which others share their block, nor on who does the work.
        auto const others =
            attend_with<Products>(given, {tiles.keys, any_tiles(random).rows}, own_threads());
        CHECK(same_bits(output, others));
    }
}

} // namespace

TEST_CASE("attention.dense: f32 products within 2e-5 with any tiles, the same bits with any rows") {
    check_tiles<dense_products::f32>(2e-5);
}
TEST_CASE(
    "attention.dense: bf16 products within 1e-2 with any tiles, the same bits with any rows") {
    check_tiles<dense_products::bf16>(1e-2);
}
TEST_CASE(
    "attention.dense: int8 products within 4e-2 with any tiles, the same bits with any rows") {
    check_tiles<dense_products::int8>(4e-2);
}

TEST_CASE("attention.dense: blocks are as large as their tiles say, and never less than a panel") {
    using block = sufa::dense_block<>;
    constexpr index_t panel = block::panel_rows;
    static_assert(block::rows_most(128, 128) == 384 / panel * panel);
    static_assert(block::rows_most(256, 256) == 192 / panel * panel);
    static_assert(block::rows_most(64, 64) == block::rows_most(128, 128));
    static_assert(block::rows_most(256, 256, {192, 1}) == panel);
    static_assert(block::rows_most(128, 128, {192, 768}) == 768 / panel * panel);
    static_assert(block::floats(128, 128, {192, 768}) > block::floats(128, 128));
    static_assert(block::floats(128, 128, {240, 384}) > block::floats(128, 128));
    static_assert(sufa::int8_block::rows_most(128, 128, {288, 1536}) >
                  sufa::int8_block::rows_most(128, 128));
    problem_shape const s{8, 2, 100, 100, 64, 80, true};
    CHECK(dense_workspace_bytes(s, 3) ==
          std::max(dense_workspace_bytes<dense_products::f32>(s, 3),
                   dense_workspace_bytes<dense_products::int8>(s, 3)));
}

TEST_CASE("attention.dense: tiles that are not valid, or too large for the workspace, abort") {
    static_assert(default_tiles<dense_products::f32>.is_valid());
    static_assert(default_tiles<dense_products::int8>.is_valid());
    static_assert(!block_tiles{0, 384}.is_valid());
    static_assert(!block_tiles{200, 384}.is_valid()); // no whole groups of keys
    static_assert(!block_tiles{block_tiles::keys_most + block_tiles::keys_step, 384}.is_valid());
    static_assert(!block_tiles{192, 0}.is_valid());
    static_assert(!block_tiles{192, block_tiles::rows_most + 1}.is_valid());
    SOFATTN_GENERATOR(random);
    dense_case<> const layer(random, {});
    problem<float> const given = layer.given();
    problem_shape const s = given.shape();
    output_tensor output({s.heads, s.queries, s.value_dim});
    std::vector<std::byte> workspace(dense_workspace_bytes<dense_products::f32>(s, 1));
    auto const attend = [&](block_tiles tiles) {
        dense_attention(given, output.view(), workspace, exec::serial(), {}, tiles);
    };
    attend(default_tiles<dense_products::f32>);
    SOFATTN_CHECK_ABORTS("is_valid", attend({200, 96}));
    SOFATTN_CHECK_ABORTS("workspace", attend({192, 768}));
}

TEST_CASE("attention.decode: parts of any length give what dense attention gives") {
    SOFATTN_GENERATOR(random);
    for (int n = 0; n < 60; ++n) {
        decode_shape shape;
        shape.kv_heads = random.integer<index_t>(1, 3);
        shape.group = random.integer<index_t>(1, 5);
        shape.queries = random.integer<index_t>(1, 3);
        shape.keys = random.integer<index_t>(1, 2500);
        shape.causal = random.integer<int>(0, 1) == 0;
        CAPTURE(described(shape));
        decode_case<> const layer(random, shape);
        problem<float> const given = layer.given();
        problem_shape const s = given.shape();
        decode_parts const parts{random.integer<index_t>(1, 40) * decode_parts::step};
        CAPTURE(parts.keys_least);
        auto const run_with = [&](auto const& run) {
            decode_output output({s.heads, s.queries, s.value_dim});
            guarded_workspace workspace(decode_workspace_bytes(s, run.threads(), parts), 4);
            dense_decode(given, output.view(), workspace.span(), run, {}, parts);
            CHECK(workspace.kept_outside());
            return output;
        };
        auto const output = run_with(exec::serial());
        CHECK(deviation(given, output) <= 2e-5);
        CHECK(same_bits(output, run_with(own_threads())));
    }
    CHECK(decode_parts{}.is_valid());
    CHECK_FALSE(decode_parts{0}.is_valid());
    CHECK_FALSE(decode_parts{decode_parts::step + 1}.is_valid());
}
