// SPDX-License-Identifier: MIT
// Exports of KV caches: what is taken is a whole sequence that attends and grows, what is refused
// changes nothing. The first byte says whether the checksums are made right, or little would pass them.
#pragma once

#include "fuzz/fuzzed.hpp"
#include <sofattn/core/crc32c.hpp>
#include <sofattn/core/half.hpp>
#include <sofattn/engine/kv_export.hpp>
#include <sofattn/engine/kv_pool.hpp>
#include <sofattn/engine/kv_sequence.hpp>
#include <sofattn/engine/run.hpp>
#include <sofattn/exec/parallel.hpp>

#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace sofattn::fuzz {

/// Of imports into pools of T.
template <class T>
struct kv_imports {
    static constexpr engine::kv_layout layout{.layers = 2,
                                              .kv_heads = 2,
                                              .qk_dim = 5,
                                              .v_dim = 3,
                                              .page_tokens = 4,
                                              .pages = 40,
                                              .coded_from = 16};

    /// Tokens of numbers that depend on `seed`.
    static void append(engine::kv_sequence<T>& s, std::int64_t tokens, unsigned seed) {
        require(s.extend(tokens).ok(), "there is room");
        std::vector<float> numbers(static_cast<std::size_t>(2 * tokens * 8));
        for (float& x : numbers) {
            seed = seed * 1664525u + 1013904223u;
            x = static_cast<float>(seed >> 16) / 16384.0f - 2.0f;
        }
        engine::operand const key{numbers.data(), engine::dtype::f32, tokens * 32, 32};
        engine::operand const value{numbers.data() + 5, engine::dtype::f32, tokens * 32, 32};
        for (std::int64_t layer = 0; layer < layout.layers; ++layer) {
            require(s.write(layer, tokens, key, value).ok(), "tokens are written");
        }
    }
    static std::vector<std::byte> exported(engine::kv_sequence<T> const& s) {
        std::vector<std::byte> bytes(engine::export_bytes(s));
        require(engine::export_to(s, bytes).ok(), "a whole sequence is exported");
        return bytes;
    }
    static engine::kv_pool<T>& pool() {
        static engine::kv_pool<T> one;
        static bool const is_open = one.open(layout).ok();
        require(is_open, "the pool opens");
        return one;
    }
    static std::string valid() {
        engine::kv_sequence<T> s(pool());
        append(s, 21, 1);
        std::vector<std::byte> const bytes = exported(s);
        return '\1' + std::string(reinterpret_cast<char const*>(bytes.data()), bytes.size());
    }
    static void make_checksums_right(std::span<std::byte> file) {
        engine::kv_export_head head{};
        if (file.size() < sizeof head) {
            return;
        }
        std::memcpy(&head, file.data(), sizeof head);
        head.payload_crc = crc32c(file.subspan(sizeof head));
        head.head_crc = crc32c(std::as_bytes(std::span(&head, 1)).first(sizeof head - 4));
        std::memcpy(file.data(), &head, sizeof head);
    }
    static void attend(engine::kv_sequence<T> const& s) {
        std::array<float, 4 * 5> query{};
        query.fill(0.5f);
        std::array<float, 4 * 3> output{};
        engine::attention_desc d{};
        d.dense_below = 0;
        require(s.describe(1, d).ok(), "what was taken is whole");
        d.heads = 4;
        d.queries = 1;
        d.query = {query.data(), engine::dtype::f32, 20, 20};
        d.output = {output.data(), 12, 12};
        d.count = 8;
        d.sinks = d.recent = 1;
        for (engine::method const how : {engine::method::dense, engine::method::best_keys}) {
            d.how = how;
            std::vector<std::byte> workspace(engine::workspace_bytes(d, 1));
            require(engine::run(d, workspace.data(), workspace.size(), exec::serial{}).ok(),
                    "it attends");
            // Rows of halves are small enough for any product; scales of codes may be any finite number.
            for (float const x : output) {
                require(!std::isnan(x) || !std::is_same_v<T, half>, "finite rows give numbers");
            }
        }
    }

    static void import(std::span<std::byte const> file) {
        engine::kv_sequence<T> into(pool());
        append(into, 6, 7);
        auto const before = exported(into);
        auto const free = pool().free_pages();
        engine::verdict const v = engine::import_from(file, into);
        if (!v.ok()) {
            require(!std::string_view(v.field).empty() && !std::string_view(v.limit).empty(),
                    "a refusal says why");
            require(pool().free_pages() == free && exported(into) == before,
                    "a refusal changes nothing");
            return;
        }
        if (into.length() > 0) {
            attend(into);
        }
        auto const taken = exported(into);
        require(taken.size() == file.size() ||
                    into.length() >= 16, // codes are made anew where coded_from differs
                "an export of what was taken is as long");
        append(into, 20, 3);
        attend(into);
        require(into.truncate(1).ok(), "it can be cut");
    }
    static int one(std::uint8_t const* data, std::size_t size) {
        if (size == 0) {
            return 0;
        }
        copied const file(data + 1, size - 1);
        if (data[0] % 2 != 0) {
            make_checksums_right(file.bytes());
        }
        import(file.bytes());
        return 0;
    }
};

} // namespace sofattn::fuzz
