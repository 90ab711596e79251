// SPDX-License-Identifier: MIT
// Attention to lists of keys, as other selectors give them.
#include "attention/decode_case.hpp"
#include "attention/rounded_outputs.hpp"
#include "support/generators.hpp"
#include "support/own_threads.hpp"
#include <sofattn/attention/listed.hpp>
#include <sofattn/core/half.hpp>
#include <sofattn/core/output_array.hpp>
#include <sofattn/exec/parallel.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <numeric>
#include <vector>

using namespace sofattn;
using namespace sofattn::test;

namespace {

struct random_lists {
    tensor<std::int32_t, axis::head, axis::query, axis::key> entries;
    tensor<std::int32_t, axis::head, axis::query> counts;
    index_t queries_each;
    index_t keys_each;
    bool counted;

    [[nodiscard]] key_lists lists() const {
        return {entries.cview(),
                counted ? counts.cview() : view<std::int32_t const, axis::head, axis::query>{},
                queries_each, keys_each};
    }
    /// By the definition.
    [[nodiscard]] bool has(index_t list, index_t query, index_t key) const {
        index_t const row = query / queries_each;
        index_t const slots =
            counted ? counts(list, row) : entries.cview().template extent<axis::key>();
        for (index_t slot = 0; slot < slots; ++slot) {
            index_t const entry = entries(list, row, slot);
            if (entry >= 0 && key / keys_each == entry) {
                return true;
            }
        }
        return false;
    }
};

/// Any order, no entry twice, some of them no keys at all.
random_lists lists_for(generator& random, problem_shape const& s, index_t heads) {
    index_t const queries_each = random.integer<index_t>(1, 3);
    index_t const keys_each = random.chance(0.5) ? 1 : random.integer<index_t>(2, 20);
    index_t const rows = ceil_div(s.queries, queries_each);
    index_t const names = ceil_div(s.keys, keys_each);
    index_t const slots = random.integer<index_t>(1, names + 3);
    random_lists result{
        tensor<std::int32_t, axis::head, axis::query, axis::key>({heads, rows, slots}),
        tensor<std::int32_t, axis::head, axis::query>({heads, rows}), queries_each, keys_each,
        random.chance(0.5)};
    std::vector<std::int32_t> all(static_cast<std::size_t>(names));
    std::iota(all.begin(), all.end(), 0);
    std::vector<std::int32_t> const odd{-1, -7, static_cast<std::int32_t>(names),
                                        std::numeric_limits<std::int32_t>::max(),
                                        std::numeric_limits<std::int32_t>::min()};
    for (index_t h = 0; h < heads; ++h) {
        for (index_t r = 0; r < rows; ++r) {
            random.shuffle(all);
            for (index_t slot = 0; slot < slots; ++slot) {
                bool const real = slot < names && random.chance(0.8);
                result.entries(h, r, slot) =
                    real ? all[static_cast<std::size_t>(slot)]
                         : odd[random.integer<std::size_t>(0, odd.size() - 1)];
            }
            result.counts(h, r) = static_cast<std::int32_t>(random.integer<index_t>(0, slots));
        }
    }
    return result;
}

} // namespace

TEST_CASE_TEMPLATE("attention.listed: exactly the listed keys that a query sees, any order", T,
                   float, half) {
    SOFATTN_GENERATOR(random);
    for (int round = 0; round < 60; ++round) {
        decode_case<T> layer(random,
                             {random.integer<index_t>(1, 3), random.integer<index_t>(1, 5),
                              random.integer<index_t>(1, 6), random.integer<index_t>(1, 700),
                              random.chance(0.5) ? 32 : 9, 16, random.chance(0.7)});
        layer.window = layer.causal && random.chance(0.3) ? random.integer<index_t>(1, 50) : 0;
        problem_shape const s = layer.given().shape();
        for (index_t const heads : {index_t{1}, s.kv_heads, s.heads}) {
            random_lists const of = lists_for(random, s, heads);
            auto const run = [&](auto const& who) {
                decode_output output({s.heads, s.queries, s.value_dim});
                guarded_workspace workspace(listed_workspace_bytes(s, of.lists(), who.threads()));
                listed_attention(layer.given(), of.lists(), output.view(), workspace.span(), who);
                CHECK(workspace.kept_outside());
                return output;
            };
            decode_output const output = run(exec::serial{});
            CHECK(deviation(layer.given(), output, [&](index_t h, index_t q, index_t key) {
                      index_t const list = heads == 1 ? 0 : heads == s.kv_heads ? h / s.group() : h;
                      return key >= s.sees(q).from && of.has(list, q, key);
                  }) <= 2e-5);
            CHECK(same_bits(run(own_threads{}), output));
        }
    }
}

TEST_CASE_TEMPLATE("attention.listed: 16-bit outputs are those in f32, rounded to nearest", T,
                   float, half) {
    SOFATTN_GENERATOR(random);
    for (index_t const value_dim : {1, 16, 37}) {
        decode_case<T> const layer(random, {2, 2, 6, 90, 9, value_dim, true});
        problem_shape const s = layer.given().shape();
        random_lists const of = lists_for(random, s, s.heads); // some of them empty
        tensor<float, axis::head, axis::query> shares({s.heads, s.queries});
        for (bool const estimates : {false, true}) {
            check_rounded_outputs(random, s, [&](output_array const& to) {
                std::vector<std::byte> workspace(listed_workspace_bytes(s, of.lists(), 1));
                listed_attention(layer.given(), of.lists(), to, workspace, exec::serial{}, {},
                                 estimates ? dropped_mass(shares.view()) : dropped_mass{});
            });
        }
    }
}

TEST_CASE("attention.listed: more slots than keys, and an entry twice, stay within the workspace") {
    SOFATTN_GENERATOR(random);
    decode_case<> const layer(random, {1, 2, 1, 20, 8, 8, true});
    problem_shape const s = layer.given().shape();
    tensor<std::int32_t, axis::head, axis::query, axis::key> entries({1, 1, 500});
    for (index_t i = 0; i < 500; ++i) {
        entries(0, 0, i) = static_cast<std::int32_t>(i % 20);
    }
    key_lists const lists{entries.cview()};
    decode_output output({s.heads, s.queries, s.value_dim});
    guarded_workspace workspace(listed_workspace_bytes(s, lists, 1));
    listed_attention(layer.given(), lists, output.view(), workspace.span(), exec::serial{});
    CHECK(workspace.kept_outside());
    CHECK(deviation(layer.given(), output) <= 2e-5); // all keys, once
}
