// SPDX-License-Identifier: MIT
// All that a sequence of a KV cache is, as something that can be compared.
#pragma once

#include "attention/index_content.hpp"
#include <sofattn/attention/dense.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/engine/kv_pool.hpp>
#include <sofattn/engine/kv_sequence.hpp>
#include <sofattn/engine/page_codes.hpp>

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace sofattn::test {

/// Of a sequence, and what its pool has left.
struct cache_state {
    std::int64_t length = 0;
    std::int64_t free_pages = 0;
    std::int64_t code_bytes = 0;
    std::vector<std::int32_t> pages{};
    std::vector<std::int64_t> written{}; ///< [layer]
    std::vector<std::byte> rows{};       ///< of the tokens that are written, with scales
    std::vector<std::byte> codes{};      ///< for method::best_keys, with centre and steps
    std::vector<index_bits> indexes{};   ///< for method::pages

    bool operator==(cache_state const&) const = default;
};

template <class X>
void put_bytes(std::vector<std::byte>& to, X const* from, index_t count) {
    auto const bytes = std::as_bytes(std::span(from, static_cast<std::size_t>(count)));
    to.insert(to.end(), bytes.begin(), bytes.end());
}

template <dense_products Products>
void put_indexes(cache_state& state, engine::page_codes const& codes) {
    for (auto const& index : codes.indexes<Products>()) {
        state.indexes.push_back(index_content(index));
    }
}

template <class T>
[[nodiscard]] cache_state state_of(engine::kv_sequence<T> const& cache) {
    engine::kv_pool<T>& pool = cache.pool();
    engine::kv_layout const& l = pool.layout();
    auto const table = cache.table();
    cache_state s{cache.length(), pool.free_pages(), cache.code_bytes()};
    s.pages.assign(table.pages.begin(), table.pages.end());
    for (std::int64_t layer = 0; cache.length() > 0 && layer < l.layers; ++layer) {
        s.written.push_back(cache.written(layer));
        for (std::int64_t h = 0; h < l.kv_heads; ++h) {
            for (std::int64_t t = 0; t < cache.written(layer); ++t) {
                std::int64_t const row = table.row(t);
                put_bytes(s.rows, &pool.keys(layer)(h, row, 0), l.qk_dim);
                put_bytes(s.rows, &pool.values(layer)(h, row, 0), l.v_dim);
                if constexpr (engine::kv_pool<T>::is_scaled) {
                    put_bytes(s.rows, &pool.key_scales(layer)(h, row), 1);
                    put_bytes(s.rows, &pool.value_scales(layer)(h, row), 1);
                }
            }
        }
        for (auto const& codes : cache.codes(layer)) {
            auto const& by = codes.keys().calibration();
            put_bytes(s.codes, by.centre.data(), std::ssize(by.centre));
            put_bytes(s.codes, by.steps.data(), std::ssize(by.steps));
            put_bytes(s.codes, codes.keys().bytes().data(), std::ssize(codes.keys().bytes()));
            put_bytes(s.codes, codes.pages().bytes().data(), std::ssize(codes.pages().bytes()));
        }
        engine::page_codes const& pages = cache.page_codes(layer);
        if (pages.products() == dense_products::bf16) {
            put_indexes<dense_products::bf16>(s, pages);
        } else {
            put_indexes<dense_products::f32>(s, pages);
        }
    }
    return s;
}

} // namespace sofattn::test
