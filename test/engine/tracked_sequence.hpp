// SPDX-License-Identifier: MIT
// Sequences of KV caches, beside the tokens that they should hold.
#pragma once

#include "engine/carried_out.hpp"
#include "support/generators.hpp"
#include "support/same_bits.hpp"
#include <sofattn/core/tensor.hpp>
#include <sofattn/engine/kv_pool.hpp>
#include <sofattn/engine/kv_sequence.hpp>
#include <sofattn/engine/run.hpp>
#include <sofattn/exec/parallel.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace sofattn::test {

using output_tensor = tensor<float, axis::head, axis::query, axis::value_dim>;

/// A token is a number; its key and value in a layer are made of it.
using token = std::uint64_t;

/// Whether the token's key is large in one head, whose page codes then widen their steps.
[[nodiscard]] inline bool is_large(token t) { return t % 16 == 0; }

/// [layer][kv_head, token, channel], keys or values of a list of tokens.
inline tensor<float, axis::kv_head, axis::key, axis::dim> rows_of(std::vector<token> const& tokens,
                                                                  std::int64_t layer,
                                                                  engine::kv_layout const& l,
                                                                  bool is_value) {
    std::int64_t const dim = is_value ? l.v_dim : l.qk_dim;
    tensor<float, axis::kv_head, axis::key, axis::dim> rows({l.kv_heads, std::ssize(tokens), dim});
    for (std::int64_t h = 0; h < l.kv_heads; ++h) {
        for (std::size_t t = 0; t < tokens.size(); ++t) {
            generator random(tokens[t] * 1000 + static_cast<token>(layer * 20 + h * 2) +
                             (is_value ? 1 : 0));
            token const large_head = tokens[t] / 16 % static_cast<token>(l.kv_heads);
            bool const is_large_here =
                !is_value && is_large(tokens[t]) && large_head == static_cast<token>(h);
            double const deviation =
                is_large_here ? static_cast<double>(2 << tokens[t] / 4096 % 12) : 1.0;
            for (std::int64_t d = 0; d < dim; ++d) {
                rows(h, static_cast<index_t>(t), d) = static_cast<float>(random.normal(deviation));
            }
        }
    }
    return rows;
}
inline engine::operand
cache_operand(tensor<float, axis::kv_head, axis::key, axis::dim> const& rows) {
    auto const v = rows.cview();
    return {v.data(), engine::dtype::f32, v.strides()[0] * 4, v.strides()[1] * 4};
}

/// A sequence, and the tokens that it should hold.
template <class T>
struct tracked {
    engine::kv_sequence<T> cache;
    std::vector<token> tokens{};

    void append(std::vector<token> const& more) {
        engine::kv_layout const& l = cache.pool().layout();
        REQUIRE(cache.extend(std::ssize(more)).ok());
        for (std::int64_t layer = 0; layer < l.layers; ++layer) {
            auto const k = rows_of(more, layer, l, false);
            auto const v = rows_of(more, layer, l, true);
            REQUIRE(cache.write(layer, std::ssize(more), cache_operand(k), cache_operand(v)).ok());
        }
        tokens.insert(tokens.end(), more.begin(), more.end());
    }
};

/// Attention of two queries of two heads per KV head, by the cache; by pages of the last 20.
template <class T>
output_tensor attend(engine::kv_sequence<T> const& cache, std::int64_t layer, engine::method how,
                     token seed_of_queries, std::int64_t count = 40) {
    engine::kv_layout const& l = cache.pool().layout();
    std::int64_t const heads = 2 * l.kv_heads;
    std::int64_t const queries =
        std::min<std::int64_t>(how == engine::method::pages ? 20 : 2, cache.length());
    generator random(seed_of_queries);
    auto const q = random_matrix<float, axis::head, axis::query, axis::dim>(
        random, {heads, queries, l.qk_dim});
    output_tensor output({heads, queries, l.v_dim});
    engine::attention_desc d{};
    d.dense_below = 0;
    d.how = how;
    REQUIRE(cache.describe(layer, d).ok());
    d.heads = heads;
    d.queries = queries;
    d.query = {q.cview().data(), engine::dtype::f32, q.cview().strides()[0] * 4,
               q.cview().strides()[1] * 4};
    d.output = {output.view().data(), output.view().strides()[0] * 4,
                output.view().strides()[1] * 4};
    if (how == engine::method::pages) {
        REQUIRE(d.prefill_pages == &cache.page_codes(layer));
        REQUIRE(d.dense_below == 0);
        d.products = d.prefill_pages->products();
        d.mass = 0.6;
    }
    d.count = count;
    d.recent = 8;
    std::vector<std::byte> workspace(engine::workspace_bytes(d, 1));
    auto const v = engine::run(d, workspace.data(), workspace.size(), exec::serial{});
    CAPTURE(v.field);
    REQUIRE(v.ok());
    return output;
}

/// A cache that was never anything but these tokens, in another pool with other pages.
template <class T>
void check_against_fresh(tracked<T> const& of, token seed_of_queries) {
    engine::kv_layout l = of.cache.pool().layout();
    l.page_tokens = 7;
    l.pages = std::ssize(of.tokens) / 7 + 1;
    engine::kv_pool<T> pool;
    REQUIRE(pool.open(l).ok());
    tracked<T> fresh{engine::kv_sequence<T>(pool)};
    REQUIRE(of.cache.length() == std::ssize(of.tokens));
    if (of.tokens.empty()) {
        return;
    }
    fresh.append(of.tokens);
    for (std::int64_t layer = 0; layer < l.layers; ++layer) {
        for (engine::method const how : {engine::method::dense, engine::method::best_keys}) {
            CHECK(same_bits(attend(of.cache, layer, how, seed_of_queries),
                            attend(fresh.cache, layer, how, seed_of_queries)));
        }
        bool const has_pages = l.page_codes != engine::kept_page_codes::none;
        CHECK((of.cache.page_codes(layer).kv_heads() > 0) == has_pages);
        if (has_pages) {
            CHECK(same_bits(attend(of.cache, layer, engine::method::pages, seed_of_queries),
                            attend(fresh.cache, layer, engine::method::pages, seed_of_queries)));
            CHECK(of.cache.page_codes(layer).keys() == std::ssize(of.tokens));
        }
        auto const& codes = of.cache.codes(layer);
        auto const& expected = fresh.cache.codes(layer);
        REQUIRE(codes.size() == expected.size());
        CHECK(codes.empty() == (l.coded_from == 0 || of.cache.length() < l.coded_from));
        for (std::size_t h = 0; h < codes.size(); ++h) {
            CHECK(std::ranges::equal(codes[h].keys().bytes(), expected[h].keys().bytes()));
            CHECK(std::ranges::equal(codes[h].pages().bytes(), expected[h].pages().bytes()));
        }
    }
}

inline std::vector<token> random_tokens(generator& random, std::size_t count) {
    std::vector<token> tokens(count);
    for (token& t : tokens) {
        t = random.next() >> 12;
    }
    return tokens;
}

} // namespace sofattn::test
