// SPDX-License-Identifier: MIT
// A descriptor carried out by one thread, by a loop, and by participants that know nothing of each other.
#pragma once

#include "attention/decode_case.hpp"
#include "engine/engine_case.hpp"
#include "support/guarded_workspace.hpp"
#include "support/own_threads.hpp"
#include "support/same_bits.hpp"
#include <sofattn/attention/decode.hpp>
#include <sofattn/attention/dense.hpp>
#include <sofattn/attention/problem.hpp>
#include <sofattn/engine/run.hpp>
#include <sofattn/engine/verdict.hpp>
#include <sofattn/exec/parallel.hpp>
#include <sofattn/sufa/block_tiles.hpp>

#include <doctest/doctest.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <thread>
#include <vector>

namespace sofattn::test {

template <class T, class Run = exec::serial>
[[nodiscard]] decode_output ran(engine_case<T>& c, Run const& run = {}) {
    c.clear();
    guarded_workspace workspace(engine::workspace_bytes(c.desc, run.threads()), 4);
    auto const v = engine::run(c.desc, workspace.span().data(), workspace.span().size(), run);
    CAPTURE(v.field);
    CHECK(v.code == engine::status::ok);
    CHECK(workspace.kept_outside());
    return c.output;
}
/// By participants that know nothing of each other.
template <class T>
[[nodiscard]] decode_output ran_by_shares(engine_case<T>& c, std::int64_t nth) {
    c.clear();
    guarded_workspace workspace(engine::workspace_bytes(c.desc, nth));
    auto const memory = workspace.span();
    std::vector<engine::verdict> verdicts(static_cast<std::size_t>(nth));
    std::vector<std::thread> threads;
    for (std::int64_t i = 0; i < nth; ++i) {
        threads.emplace_back([&, i] {
            verdicts[static_cast<std::size_t>(i)] =
                engine::run(c.desc, memory.data(), memory.size(), i, nth);
        });
    }
    for (auto& t : threads) {
        t.join();
    }
    for (auto const& v : verdicts) {
        CHECK(v.code == engine::status::ok);
    }
    CHECK(workspace.kept_outside());
    return c.output;
}
template <class T>
void check_who_runs(engine_case<T>& c, decode_output const& expected) {
    CHECK(same_bits(ran(c), expected));
    CHECK(same_bits(ran(c, own_threads{}), expected));
    for (std::int64_t const nth : {1, 2, 5}) {
        CHECK(same_bits(ran_by_shares(c, nth), expected));
    }
}

// The kernels that descriptors of dense attention end in.

template <dense_products Products = dense_products::f32, class T>
[[nodiscard]] decode_output dense_of(problem<T> const& given,
                                     sufa::block_tiles tiles = default_tiles<Products>) {
    problem_shape const s = given.shape();
    decode_output output({s.heads, s.queries, s.value_dim});
    std::vector<std::byte> workspace(dense_workspace_bytes<Products>(s, 1, tiles));
    dense_attention<Products>(given, output.view(), std::span(workspace), exec::serial{}, {},
                              tiles);
    return output;
}
template <class T>
[[nodiscard]] decode_output decoded_of(problem<T> const& given, decode_parts parts = {}) {
    problem_shape const s = given.shape();
    decode_output output({s.heads, s.queries, s.value_dim});
    std::vector<std::byte> workspace(decode_workspace_bytes(s, 1, parts));
    dense_decode(given, output.view(), std::span(workspace), exec::serial{}, {}, parts);
    return output;
}

} // namespace sofattn::test
