// SPDX-License-Identifier: MIT
// Sizes of tiles in a descriptor: those of the kernels that it ends in, whoever runs it.
#include "attention/decode_case.hpp"
#include "engine/carried_out.hpp"
#include "engine/engine_case.hpp"
#include "engine/who_runs.hpp"
#include "support/generators.hpp"
#include "support/guarded_workspace.hpp"
#include "support/own_threads.hpp"
#include "support/same_bits.hpp"
#include <sofattn/attention/dense.hpp>
#include <sofattn/attention/problem.hpp>
#include <sofattn/core/half.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/engine/batch.hpp>
#include <sofattn/engine/descriptor.hpp>
#include <sofattn/engine/run.hpp>
#include <sofattn/exec/parallel.hpp>
#include <sofattn/sufa/block_tiles.hpp>

#include <doctest/doctest.h>

#include <span>

using namespace sofattn;
using namespace sofattn::test;
using sufa::block_tiles;

namespace {

/// Alone in a batch.
template <class T, class Run>
decode_output batched(engine_case<T>& c, Run const& run) {
    c.clear();
    std::span const all(&c.desc, 1);
    guarded_workspace workspace(engine::batch_workspace_bytes(all, run.threads()));
    auto const memory = workspace.span();
    CHECK(engine::run_batch(all, memory.data(), memory.size(), run).ok());
    CHECK(workspace.kept_outside());
    return c.output;
}

block_tiles random_tiles(generator& random) {
    constexpr index_t steps = block_tiles::keys_most / block_tiles::keys_step;
    return {block_tiles::keys_step * random.integer<index_t>(1, steps),
            random.integer<index_t>(block_tiles::rows_least, block_tiles::rows_most)};
}

} // namespace

TEST_CASE_TEMPLATE("engine.tiles: prefill has the bits of dense attention with these tiles", T,
                   float, half) {
    SOFATTN_GENERATOR(random);
    for (int n = 0; n < 8; ++n) {
        engine_case<T> c(random, {random.integer<index_t>(1, 2), random.integer<index_t>(1, 3),
                                  random.integer<index_t>(5, 60), random.integer<index_t>(60, 900),
                                  16, 24, random.chance(0.7)});
        problem<T> const given = c.layer.given();
        block_tiles const tiles = random_tiles(random);
        CAPTURE(tiles.keys);
        CAPTURE(tiles.rows);
        c.desc.tiles = {tiles.keys, tiles.rows, 0};
        check_who_runs(c, dense_of<dense_products::f32>(given, tiles));
        c.desc.products = dense_products::bf16;
        check_who_runs(c, dense_of<dense_products::bf16>(given, tiles));
        c.desc.products = dense_products::int8;
        decode_output const of_codes = dense_of<dense_products::int8>(given, tiles);
        check_who_runs(c, of_codes);
        CHECK(same_bits(batched(c, own_threads{}), of_codes));
        // Another method that is dense here.
        c.desc.how = engine::method::best_keys;
        c.desc.dense_below = c.desc.keys + 1;
        check_who_runs(c, of_codes);
    }
}

TEST_CASE("engine.tiles: one of both sizes leaves the other as it is") {
    SOFATTN_GENERATOR(random);
    engine_case<> c(random, {2, 2, 40, 700, 16, 16, true});
    problem<float> const given = c.layer.given();
    constexpr block_tiles usual = default_tiles<dense_products::f32>;
    c.desc.tiles = {96, 0, 0};
    check_who_runs(c, dense_of<dense_products::f32>(given, {96, usual.rows}));
    c.desc.tiles = {0, 7, 0};
    check_who_runs(c, dense_of<dense_products::f32>(given, {usual.keys, 7}));
    c.desc.tiles = {};
    check_who_runs(c, dense_of<dense_products::f32>(given, usual));
    CHECK(!same_bits(dense_of<dense_products::f32>(given, {96, usual.rows}),
                     dense_of<dense_products::f32>(given, usual))); // else nothing was checked
}

TEST_CASE_TEMPLATE("engine.tiles: decode has the bits of dense decode with these parts", T, float,
                   half) {
    SOFATTN_GENERATOR(random);
    for (index_t const part : {64, 128, 960, 1 << 20}) {
        CAPTURE(part);
        engine_case<T> c(random, {random.integer<index_t>(1, 3), random.integer<index_t>(1, 3),
                                  random.integer<index_t>(1, 3),
                                  random.integer<index_t>(1000, 3000), 16, 24, true});
        c.desc.tiles.part_keys = part;
        decode_output const expected = decoded_of(c.layer.given(), {part});
        check_who_runs(c, expected);
        CHECK(same_bits(batched(c, exec::serial{}), expected));
        CHECK(same_bits(batched(c, own_threads{}), expected));
    }
}
