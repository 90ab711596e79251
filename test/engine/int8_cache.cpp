// SPDX-License-Identifier: MIT
// What caches in int8 make of keys and values.
#include "engine/tracked_sequence.hpp"
#include "support/generators.hpp"
#include <sofattn/core/crc32c.hpp>
#include <sofattn/core/element.hpp>
#include <sofattn/core/half.hpp>
#include <sofattn/core/tensor.hpp>
#include <sofattn/engine/descriptor.hpp>
#include <sofattn/engine/kv_export.hpp>
#include <sofattn/engine/kv_pool.hpp>
#include <sofattn/engine/kv_sequence.hpp>
#include <sofattn/engine/run.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <span>
#include <string>
#include <vector>

using namespace sofattn;
using namespace sofattn::test;
using engine::kv_layout;
using engine::kv_pool;
using engine::kv_sequence;
using engine::status;

namespace {

constexpr kv_layout small{.layers = 2,
                          .kv_heads = 2,
                          .qk_dim = 20,
                          .v_dim = 8,
                          .page_tokens = 16,
                          .pages = 40,
                          .coded_from = 64};

/// By the descriptor, as an engine would read them.
struct stored_row {
    std::int8_t const* codes;
    float scale;
};
stored_row row_of(engine::attention_desc const& d, bool is_value, index_t head, index_t token) {
    engine::operand const& of = is_value ? d.value : d.key;
    engine::row_scales const& by = is_value ? d.value_scales : d.key_scales;
    index_t const page = d.pages.numbers[token / d.pages.page_tokens];
    index_t const row = page * d.pages.page_tokens + token % d.pages.page_tokens;
    float scale = 0;
    std::memcpy(&scale,
                reinterpret_cast<char const*>(by.data) + head * by.head_stride +
                    row * by.token_stride,
                sizeof scale);
    return {static_cast<std::int8_t const*>(of.data) + head * of.head_stride +
                row * of.token_stride,
            scale};
}

/// Whether that is what `row` should be stored as.
bool is_nearest(stored_row const& stored, float const* row, index_t dim) {
    float most = 0;
    double largest = 0;
    bool near = true;
    for (index_t d = 0; d < dim; ++d) {
        auto const code = static_cast<double>(stored.codes[d]);
        most = std::max(most, std::abs(row[d]));
        largest = std::max(largest, std::abs(code));
        double const off = double{row[d]} - double{stored.scale} * code;
        // Beside a tie: codes up to 127 by an inverse scale that is rounded twice, and once themselves.
        near = near && std::abs(off) <= (0.5 + 127 * 0x1p-22) * double{stored.scale};
    }
    bool const is_zero = most == 0;
    return near && largest == (is_zero ? 0 : 127) && stored.scale == (is_zero ? 0 : most / 127.0f);
}

} // namespace

TEST_CASE_TEMPLATE("engine.int8_cache: rows are the nearest codes of their own scale", From, float,
                   half) {
    SOFATTN_GENERATOR(random);
    for (spread const kind : all_spreads) {
        kv_pool<std::int8_t> pool;
        REQUIRE(pool.open(small).ok());
        kv_sequence<std::int8_t> cache(pool);
        index_t const tokens = 150;
        auto const k =
            random_matrix<From, axis::kv_head, axis::key, axis::dim>(random, {2, tokens, 20}, kind);
        auto const v =
            random_matrix<From, axis::kv_head, axis::key, axis::dim>(random, {2, tokens, 8}, kind);
        auto const operand = [&](auto const& rows, index_t first) -> engine::operand {
            constexpr auto bytes = static_cast<std::int64_t>(sizeof(From));
            return {&rows(0, first, 0), sizeof(From) == 4 ? engine::dtype::f32 : engine::dtype::f16,
                    rows.cview().strides()[0] * bytes, rows.cview().strides()[1] * bytes};
        };
        for (index_t first = 0; first < tokens;) {
            auto const count = random.integer<index_t>(1, tokens - first);
            REQUIRE(cache.extend(count).ok());
            for (std::int64_t layer = 0; layer < 2; ++layer) {
                REQUIRE(cache.write(layer, count, operand(k, first), operand(v, first)).ok());
            }
            first += count;
        }
        engine::attention_desc d{};
        REQUIRE(cache.describe(1, d).ok());
        CHECK(d.key.type == engine::dtype::int8);
        auto const wide_k = converted<float>(k.cview());
        auto const wide_v = converted<float>(v.cview());
        int wrong = 0;
        for (index_t h = 0; h < 2; ++h) {
            for (index_t t = 0; t < tokens; ++t) {
                wrong += is_nearest(row_of(d, false, h, t), &wide_k(h, t, 0), 20) ? 0 : 1;
                wrong += is_nearest(row_of(d, true, h, t), &wide_v(h, t, 0), 8) ? 0 : 1;
            }
        }
        CHECK(wrong == 0);
    }
}

TEST_CASE("engine.int8_cache: attention is that to floats, but for the rounding of rows") {
    SOFATTN_GENERATOR(random);
    kv_pool<std::int8_t> pool;
    kv_pool<float> floats;
    REQUIRE(pool.open(small).ok());
    REQUIRE(floats.open(small).ok());
    tracked<std::int8_t> coded{kv_sequence<std::int8_t>(pool)};
    tracked<float> exact{kv_sequence<float>(floats)};
    auto tokens = random_tokens(random, 500);
    // Logits of large keys are off by more than logits lie apart.
    std::erase_if(tokens, is_large);
    coded.append(tokens);
    exact.append(tokens);
    output_tensor const got = attend(coded.cache, 0, engine::method::dense, 7);
    output_tensor const truth = attend(exact.cache, 0, engine::method::dense, 7);
    double error = 0;
    double size = 0;
    for_each_index(truth.cview().extents(), [&](auto const& i) {
        double const right = at(truth.cview(), i);
        error += std::pow(double{at(got.cview(), i)} - right, 2);
        size += right * right;
    });
    CAPTURE(std::sqrt(error / size));
    CHECK(std::sqrt(error / size) < 2e-2);
    CHECK(std::sqrt(error / size) > 1e-4); // they are no floats
}

TEST_CASE("engine.int8_cache: bytes of a token, and what is refused") {
    SOFATTN_GENERATOR(random);
    kv_pool<std::int8_t> pool;
    REQUIRE(pool.open(small).ok());
    CHECK(pool.bytes_per_token() == 2 * 2 * (20 + 8 + 2 * 4));
    tracked<std::int8_t> one{kv_sequence<std::int8_t>(pool)};
    one.append(random_tokens(random, 30));
    REQUIRE(one.cache.extend(1).ok());
    auto rows = rows_of({1}, 0, small, false);
    auto const values = rows_of({1}, 0, small, true);
    engine::operand codes = cache_operand(rows);
    codes.type = engine::dtype::int8;
    auto const v = one.cache.write(0, 1, codes, cache_operand(values));
    CHECK(v.code == status::out_of_range);
    CHECK(std::string(v.field) == "key.type");
    rows(1, 0, 3) = std::numeric_limits<float>::infinity();
    CHECK(one.cache.write(0, 1, cache_operand(rows), cache_operand(values)).code ==
          status::not_finite);
    CHECK(one.cache.written(0) == 30);
    // A descriptor that was another cache's forgets its scales.
    kv_pool<half> halves;
    REQUIRE(halves.open(small).ok());
    tracked<half> other{kv_sequence<half>(halves)};
    other.append(random_tokens(random, 3));
    REQUIRE(one.cache.truncate(30).ok());
    engine::attention_desc d{};
    REQUIRE(one.cache.describe(0, d).ok());
    CHECK(d.key_scales.data != nullptr);
    REQUIRE(other.cache.describe(0, d).ok());
    CHECK(d.key_scales.data == nullptr);
    CHECK(d.value_scales.data == nullptr);
}

TEST_CASE("engine.int8_cache: imports refuse scales that are no numbers") {
    SOFATTN_GENERATOR(random);
    kv_pool<std::int8_t> pool;
    REQUIRE(pool.open(small).ok());
    tracked<std::int8_t> one{kv_sequence<std::int8_t>(pool)};
    one.append(random_tokens(random, 30));
    for (float const bad : {std::numeric_limits<float>::quiet_NaN(), -3e38f}) {
        std::vector<std::byte> bytes(engine::export_bytes(one.cache));
        REQUIRE(engine::export_to(one.cache, bytes).ok());
        CHECK(bytes.size() == 128 + 30 * 2 * 2 * (20 + 8 + 2 * 4));
        std::memcpy(&bytes[128 + 5 * (20 + 8 + 8) + 20 + 8 + 4], &bad, 4); // of token 5's value
        engine::kv_export_head head{};
        std::memcpy(&head, bytes.data(), sizeof head);
        head.payload_crc = crc32c(std::span<std::byte const>(bytes).subspan(sizeof head));
        head.head_crc = crc32c(std::as_bytes(std::span(&head, 1)).first(sizeof head - 4));
        std::memcpy(bytes.data(), &head, sizeof head);
        auto const v = engine::import_from(bytes, one.cache);
        CHECK(v.code == status::not_finite);
        CHECK(std::string(v.field) == "rows[]");
        CHECK(one.cache.length() == 30);
    }
}
