// SPDX-License-Identifier: MIT
// Sequences as bytes and back: the same cache, or a named reason and no change.
#include "engine/tracked_sequence.hpp"
#include "support/generators.hpp"
#include "support/same_bits.hpp"
#include <sofattn/core/bfloat16.hpp>
#include <sofattn/core/crc32c.hpp>
#include <sofattn/core/half.hpp>
#include <sofattn/engine/kv_export.hpp>
#include <sofattn/engine/kv_pool.hpp>
#include <sofattn/engine/kv_sequence.hpp>

#include <doctest/doctest.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

using namespace sofattn;
using namespace sofattn::test;
using engine::kv_export_head;
using engine::kv_layout;
using engine::kv_pool;
using engine::kv_sequence;
using engine::status;

namespace {

template <class T>
std::vector<std::byte> exported(kv_sequence<T> const& s) {
    std::vector<std::byte> bytes(engine::export_bytes(s));
    REQUIRE(engine::export_to(s, bytes).ok());
    return bytes;
}
kv_export_head head_of(std::vector<std::byte> const& bytes) {
    kv_export_head head{};
    std::memcpy(&head, bytes.data(), sizeof head);
    return head;
}
/// With checksums that are right.
std::vector<std::byte> with_head(std::vector<std::byte> bytes, kv_export_head head) {
    head.payload_crc = crc32c(std::span(bytes).subspan(sizeof head));
    head.head_crc = crc32c(std::as_bytes(std::span(&head, 1)).first(sizeof head - 4));
    std::memcpy(bytes.data(), &head, sizeof head);
    return bytes;
}

constexpr kv_layout small{.layers = 2,
                          .kv_heads = 2,
                          .qk_dim = 7,
                          .v_dim = 5,
                          .page_tokens = 8,
                          .pages = 60,
                          .coded_from = 32};

} // namespace

TEST_CASE_TEMPLATE("engine.kv_export: what comes back is the same, and goes on alike", T, float,
                   half, bfloat16, std::int8_t) {
    SOFATTN_GENERATOR(random);
    for (int round = 0; round < 12; ++round) {
        kv_layout l = small;
        l.layers = random.integer<std::int64_t>(1, 3);
        l.kv_heads = random.integer<std::int64_t>(1, 3);
        l.qk_dim = random.integer<std::int64_t>(1, 40);
        l.v_dim = random.integer<std::int64_t>(1, 20);
        l.coded_from = random.integer<std::int64_t>(0, 60);
        l.page_codes = static_cast<engine::kept_page_codes>(round % 2);
        kv_pool<T> pool;
        REQUIRE(pool.open(l).ok());
        tracked<T> one{kv_sequence<T>(pool)};
        one.append(random_tokens(random, round == 0 ? 0 : random.integer<std::size_t>(1, 200)));
        std::vector<std::byte> const bytes = exported(one.cache);
        CHECK(bytes.size() >= 128);

        l.page_tokens = random.integer<std::int64_t>(1, 30); // these may differ
        l.pages = 500;
        l.page_codes = random.chance(0.5)
                           ? engine::kept_page_codes::bf16
                           : engine::kept_page_codes::none; // made where they are asked for
        if (round % 3 == 2) {
            l.coded_from = random.integer<std::int64_t>(0, 60); // codes are made anew
        }
        kv_pool<T> other;
        REQUIRE(other.open(l).ok());
        tracked<T> back{kv_sequence<T>(other)};
        back.append(random_tokens(random, random.integer<std::size_t>(0, 40))); // is given back
        // Bytes may lie anywhere.
        std::vector<std::byte> shifted(bytes.size() + 1);
        std::ranges::copy(bytes, shifted.begin() + 1);
        auto const v =
            engine::import_from(std::span<std::byte const>(shifted).subspan(1), back.cache);
        CAPTURE(v.field);
        REQUIRE(v.ok());
        back.tokens = one.tokens;
        check_against_fresh(back, 5);
        if (round % 3 != 2) {
            CHECK(exported(back.cache) == bytes);
        }
        back.append(random_tokens(random, 90));
        check_against_fresh(back, 6);
        auto const stay = random.integer<std::int64_t>(0, std::ssize(back.tokens));
        REQUIRE(back.cache.truncate(stay).ok());
        back.tokens.resize(static_cast<std::size_t>(stay));
        check_against_fresh(back, 7);
    }
}

TEST_CASE("engine.kv_export: damaged bytes are refused, and change nothing") {
    SOFATTN_GENERATOR(random);
    kv_pool<half> pool;
    REQUIRE(pool.open(small).ok());
    tracked<half> from{kv_sequence<half>(pool)};
    from.append(random_tokens(random, 70));
    std::vector<std::byte> const bytes = exported(from.cache);
    tracked<half> into{kv_sequence<half>(pool)};
    into.append(random_tokens(random, 40));
    auto const free = pool.free_pages();
    auto const refused = [&](std::span<std::byte const> bad) {
        auto const v = engine::import_from(bad, into.cache);
        bool const named = v.code == status::foreign_data && !std::string_view(v.field).empty();
        return named && pool.free_pages() == free && into.cache.length() == 40;
    };
    int accepted = 0;
    for (std::size_t bytes_left = 0; bytes_left < bytes.size(); ++bytes_left) {
        accepted += refused(std::span(bytes).first(bytes_left)) ? 0 : 1;
    }
    std::vector<std::byte> more = bytes;
    more.push_back(std::byte{0});
    accepted += refused(more) ? 0 : 1;
    // A bit of the head each, and 2000 of the rest.
    for (std::size_t i = 0; i < 128 * 8 + 2000; ++i) {
        auto bad = bytes;
        std::size_t const bit = i < std::size_t{128} * 8
                                    ? i
                                    : random.integer<std::size_t>(128 * 8, bytes.size() * 8 - 1);
        bad[bit / 8] ^= static_cast<std::byte>(1u << bit % 8);
        accepted += refused(bad) ? 0 : 1;
    }
    // Whole stretches of other bytes.
    for (int i = 0; i < 500; ++i) {
        auto bad = bytes;
        auto const first = random.integer<std::size_t>(0, bytes.size() - 9);
        for (std::size_t at = first; at < first + 9; ++at) {
            bad[at] = static_cast<std::byte>(random.integer(0, 255));
        }
        accepted += bad == bytes || refused(bad) ? 0 : 1;
    }
    CHECK(accepted == 0);
    check_against_fresh(into, 3);
    REQUIRE(engine::import_from(bytes, into.cache).ok()); // those that are whole
}

TEST_CASE("engine.kv_export: heads that lie, and others' caches, are named") {
    SOFATTN_GENERATOR(random);
    kv_pool<half> pool;
    REQUIRE(pool.open(small).ok());
    tracked<half> from{kv_sequence<half>(pool)};
    from.append(random_tokens(random, 70));
    std::vector<std::byte> const bytes = exported(from.cache);
    tracked<half> into{kv_sequence<half>(pool)};
    into.append(random_tokens(random, 40));
    auto const refused = [&](std::vector<std::byte> const& bad, status code,
                             std::string const& field) {
        auto const v = engine::import_from(bad, into.cache);
        CAPTURE(field);
        CAPTURE(v.field);
        CHECK(v.code == code);
        CHECK(v.field == field);
        CHECK(into.cache.length() == 40);
    };
    auto const lies = [&](auto change) {
        kv_export_head head = head_of(bytes);
        change(head);
        return with_head(bytes, head);
    };
    refused(lies([](auto& h) { h.magic[0] = 'S'; }), status::foreign_data, "magic");
    refused(lies([](auto& h) { h.order_mark = 0x04030201; }), status::foreign_data, "order_mark");
    refused(lies([](auto& h) { h.format = 2; }), status::foreign_data, "format");
    refused(lies([](auto& h) { h.type = 0; }), status::mismatch, "type");
    refused(lies([](auto& h) { h.layers = 1; }), status::mismatch, "layers");
    refused(lies([](auto& h) { h.kv_heads = 3; }), status::mismatch, "kv_heads");
    refused(lies([](auto& h) { h.qk_dim = 8; }), status::mismatch, "qk_dim");
    refused(lies([](auto& h) { h.v_dim = -5; }), status::mismatch, "v_dim");
    refused(lies([](auto& h) { h.calibrated = 32; }), status::foreign_data, "calibrated");
    refused(lies([](auto& h) { h.payload_bytes += 1; }), status::foreign_data, "bytes");
    for (std::int64_t const tokens :
         {std::int64_t{-1}, std::int64_t{71}, std::numeric_limits<std::int64_t>::max()}) {
        auto const bad = lies([&](auto& h) {
            h.tokens = tokens;
            h.coded_from = 0;
            h.calibrated = 0;
        });
        refused(bad, status::foreign_data, tokens == 71 ? "bytes" : "tokens");
    }
    // Codes and steps that no exporter writes; rows that no cache has.
    std::size_t const rows = 70 * (7 + 5) * 2;
    auto bad = bytes;
    bad[128 + rows + 3 * 7 * 4 + 11] = std::byte{0x80};
    refused(with_head(bad, head_of(bad)), status::foreign_data, "codes[]");
    for (float const no_step : {-1.0f, std::numeric_limits<float>::quiet_NaN()}) {
        bad = bytes;
        std::memcpy(&bad[128 + rows + 7 * 4 + 8], &no_step, 4);
        refused(with_head(bad, head_of(bad)), status::foreign_data, "steps[]");
    }
    bad = bytes;
    half const infinite(std::numeric_limits<float>::infinity());
    std::memcpy(&bad[128 + 24 * 5], &infinite, 2);
    refused(with_head(bad, head_of(bad)), status::not_finite, "rows[]");

    kv_pool<bfloat16> of_other_type;
    REQUIRE(of_other_type.open(small).ok());
    kv_sequence<bfloat16> other(of_other_type);
    CHECK(engine::import_from(bytes, other).code == status::mismatch);
    CHECK(other.length() == 0);
    kv_layout tight = small;
    tight.pages = 8; // 64 tokens
    kv_pool<half> full;
    REQUIRE(full.open(tight).ok());
    kv_sequence<half> much(full);
    CHECK(engine::import_from(bytes, much).code == status::no_free_page);
    CHECK(full.free_pages() == 8);

    std::vector<std::byte> room(bytes.size() + 1);
    CHECK(engine::export_to(from.cache, room).code == status::mismatch);
    REQUIRE(from.cache.extend(1).ok());
    CHECK(engine::export_bytes(from.cache) == 0); // a token is not written
    room.resize(bytes.size());
    CHECK(engine::export_to(from.cache, room).code == status::mismatch);
    check_against_fresh(into, 3);
}
