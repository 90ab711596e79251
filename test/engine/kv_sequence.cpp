// SPDX-License-Identifier: MIT
// KV caches against what they stand for: a list of tokens.
#include "engine/tracked_sequence.hpp"
#include "support/generators.hpp"
#include "support/own_threads.hpp"
#include "support/same_bits.hpp"
#include <sofattn/attention/decode.hpp>
#include <sofattn/core/bfloat16.hpp>
#include <sofattn/core/half.hpp>
#include <sofattn/core/tensor.hpp>
#include <sofattn/engine/kv_pool.hpp>
#include <sofattn/engine/kv_sequence.hpp>
#include <sofattn/engine/run.hpp>
#include <sofattn/exec/parallel.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <string>
#include <thread>
#include <vector>

using namespace sofattn;
using namespace sofattn::test;
using engine::kv_layout;
using engine::kv_pool;
using engine::kv_sequence;
using engine::status;

namespace {

/// Heads of a layer whose sketches of pages are made anew where only so many tokens stay.
template <dense_products Products, class T>
std::int64_t heads_made_anew(kv_sequence<T> const& cache, std::int64_t layer, std::int64_t tokens) {
    return std::ranges::count_if(
        cache.page_codes(layer).template indexes<Products>(),
        [=](auto const& index) { return !index.sketches().is_calibrated_for(tokens); });
}

/// Random lives of some sequences of a pool; of how many changes one head alone made sketches anew.
template <dense_products Products, class T>
std::int64_t live(generator& random, kv_layout const& l, std::int64_t steps,
                  std::int64_t between_checks) {
    kv_pool<T> pool;
    REQUIRE(pool.open(l).ok());
    std::vector<tracked<T>> all;
    all.push_back({kv_sequence<T>(pool)});
    std::int64_t refused = 0;
    std::int64_t one_head_alone = 0;
    for (std::int64_t step = 0; step < steps; ++step) {
        auto& one = all[random.integer<std::size_t>(0, all.size() - 1)];
        int const what = random.integer(0, 19);
        if (what < 13) { // a token, or a prompt
            std::int64_t const count = random.chance(0.9) ? 1 : random.integer<std::int64_t>(1, 90);
            std::vector<token> more(static_cast<std::size_t>(count));
            for (token& t : more) {
                t = random.next() >> 12;
            }
            std::int64_t const room = pool.free_pages() * l.page_tokens; // at least, but for copies
            if (room >= count + l.page_tokens) {
                one.append(more);
            } else if (!one.cache.extend(count).ok()) {
                ++refused;
                CHECK(one.cache.length() == std::ssize(one.tokens));
            } else {
                REQUIRE(one.cache.truncate(std::ssize(one.tokens)).ok());
            }
        } else if (what < 16) {
            // Mostly by a few tokens, so that sequences become long.
            std::int64_t const few = std::max<std::int64_t>(0, one.cache.length() - 40);
            auto const to =
                random.integer<std::int64_t>(random.chance(0.8) ? few : 0, one.cache.length());
            for (std::int64_t layer = 0; layer < l.layers && one.cache.length() > 0; ++layer) {
                bool const alone = heads_made_anew<Products>(one.cache, layer, to) == 1;
                one_head_alone += alone ? 1 : 0;
            }
            REQUIRE(one.cache.truncate(to).ok());
            one.tokens.resize(static_cast<std::size_t>(to));
        } else if (what < 18 && all.size() < 6) {
            tracked<T> twin{kv_sequence<T>(pool)};
            REQUIRE(one.cache.fork(twin.cache).ok());
            twin.tokens = one.tokens;
            all.push_back(std::move(twin));
        } else if (all.size() > 1 && what >= 18) {
            all.erase(all.begin() +
                      static_cast<std::ptrdiff_t>(random.integer<std::size_t>(0, all.size() - 1)));
        }
        if (step % between_checks == between_checks - 1) {
            check_against_fresh(all[random.integer<std::size_t>(0, all.size() - 1)],
                                random.next() >> 12);
        }
    }
    for (auto const& one : all) {
        check_against_fresh(one, random.next() >> 12);
    }
    CHECK(refused < steps / 2);
    all.clear();
    CHECK(pool.free_pages() == l.pages); // none is lost
    return one_head_alone;
}

} // namespace

TEST_CASE_TEMPLATE("engine.kv_sequence: random lives, against caches that never had another", T,
                   float, half, bfloat16, std::int8_t) {
    SOFATTN_GENERATOR(random);
    char const* const asked = std::getenv("SOFATTN_CACHE_STEPS");
    std::int64_t const steps = asked != nullptr ? std::strtoll(asked, nullptr, 10) : 1200;
    auto const one_head_alone =
        live<dense_products::f32, T>(random,
                                     {.layers = 2,
                                      .kv_heads = 2,
                                      .qk_dim = 20,
                                      .v_dim = 8,
                                      .page_tokens = 16,
                                      .pages = 90,
                                      .coded_from = 64,
                                      .page_codes = engine::kept_page_codes::f32},
                                     steps, std::max<std::int64_t>(100, steps / 100));
    CHECK(one_head_alone > 0);
    live<dense_products::bf16, T>(random,
                                  {.layers = 1,
                                   .kv_heads = 1,
                                   .qk_dim = 16,
                                   .v_dim = 16,
                                   .page_tokens = 1,
                                   .pages = 300,
                                   .coded_from = 20,
                                   .page_codes = engine::kept_page_codes::bf16},
                                  steps, std::max<std::int64_t>(100, steps / 100));
}

TEST_CASE("engine.kv_sequence: chunks of any size give the same codes and outputs") {
    SOFATTN_GENERATOR(random);
    kv_layout const l{.layers = 1,
                      .kv_heads = 2,
                      .qk_dim = 16,
                      .v_dim = 16,
                      .page_tokens = 32,
                      .pages = 200,
                      .coded_from = 256,
                      .page_codes = engine::kept_page_codes::f32};
    kv_pool<half> pool;
    REQUIRE(pool.open(l).ok());
    tracked<half> whole{kv_sequence<half>(pool)};
    tracked<half> parts{kv_sequence<half>(pool)};
    std::vector<token> tokens(1500);
    for (token& t : tokens) {
        t = random.next() >> 12;
    }
    whole.append(tokens);
    for (std::size_t at = 0; at < tokens.size();) {
        std::size_t const count = std::min(tokens.size() - at, random.integer<std::size_t>(1, 300));
        auto const from = tokens.begin() + static_cast<std::ptrdiff_t>(at);
        parts.append({from, from + static_cast<std::ptrdiff_t>(count)});
        at += count;
    }
    for (engine::method const how :
         {engine::method::dense, engine::method::best_keys, engine::method::pages}) {
        CHECK(same_bits(attend(whole.cache, 0, how, 5), attend(parts.cache, 0, how, 5)));
    }
    CHECK(whole.cache.code_bytes() == parts.cache.code_bytes());
    CHECK(whole.cache.code_bytes() > 0);
    CHECK(pool.bytes_per_token() == 2 * (16 + 16) * 2);
}

TEST_CASE("engine.kv_sequence: sequences that share pages, each in a thread of its own") {
    SOFATTN_GENERATOR(random);
    kv_layout const l{.layers = 2,
                      .kv_heads = 1,
                      .qk_dim = 16,
                      .v_dim = 16,
                      .page_tokens = 16,
                      .pages = 400,
                      .coded_from = 64,
                      .page_codes = engine::kept_page_codes::f32};
    kv_pool<half> pool;
    REQUIRE(pool.open(l).ok());
    tracked<half> first{kv_sequence<half>(pool)};
    std::vector<token> prompt(300); // a block of page codes, and some
    for (token& t : prompt) {
        t = random.next() >> 12;
    }
    first.append(prompt);
    std::vector<tracked<half>> all;
    for (int i = 0; i < 4; ++i) {
        all.push_back({kv_sequence<half>(pool), first.tokens});
        REQUIRE(first.cache.fork(all.back().cache).ok());
    }
    std::vector<std::thread> threads;
    for (std::size_t i = 0; i < all.size(); ++i) {
        threads.emplace_back([&, i] {
            generator own(1000 + i);
            for (int step = 0; step < 60; ++step) {
                all[i].append({own.next() >> 12});
                (void)attend(all[i].cache, 0, engine::method::best_keys, own.next() >> 12);
                (void)attend(all[i].cache, 1, engine::method::pages, own.next() >> 12);
                if (step % 20 == 19) {
                    auto const to = std::ssize(all[i].tokens) - 13;
                    (void)all[i].cache.truncate(to);
                    all[i].tokens.resize(static_cast<std::size_t>(to));
                }
            }
        });
    }
    for (auto& t : threads) {
        t.join();
    }
    check_against_fresh(first, 3);
    for (auto const& one : all) {
        check_against_fresh(one, 4);
    }
}

TEST_CASE("engine.kv_sequence: what cannot be is refused, and changes nothing") {
    SOFATTN_GENERATOR(random);
    kv_pool<half> pool;
    CHECK(pool.open({.qk_dim = 0, .v_dim = 8, .pages = 4}).code == status::out_of_range);
    CHECK(pool.open({.qk_dim = 8,
                     .v_dim = 8,
                     .pages = 4,
                     .page_codes = static_cast<engine::kept_page_codes>(3)})
              .code == status::out_of_range);
    CHECK(pool.open({.qk_dim = 8, .v_dim = 8, .page_tokens = 1 << 20, .pages = 1 << 12}).code ==
          status::out_of_range);
    kv_layout const l{.layers = 1,
                      .kv_heads = 1,
                      .qk_dim = 8,
                      .v_dim = 8,
                      .page_tokens = 4,
                      .pages = 4,
                      .coded_from = 0};
    REQUIRE(pool.open(l).ok());
    tracked<half> one{kv_sequence<half>(pool)};
    engine::attention_desc d{};
    CHECK(one.cache.describe(0, d).code == status::out_of_range); // nothing there
    one.append({1, 2, 3, 4, 5});
    CHECK(one.cache.extend(12).code == status::no_free_page);
    CHECK(one.cache.extend(-1).code == status::out_of_range);
    CHECK(one.cache.truncate(6).code == status::out_of_range);
    CHECK(one.cache.describe(1, d).code == status::out_of_range);
    CHECK(one.cache.length() == 5);
    REQUIRE(one.cache.extend(2).ok());
    kv_sequence<half> twin(pool);
    CHECK(one.cache.fork(twin).code == status::mismatch); // two tokens are not written
    CHECK(one.cache.describe(0, d).code == status::mismatch);
    auto rows = rows_of({6, 7}, 0, l, false);
    auto const good = cache_operand(rows);
    CHECK(one.cache.write(0, 3, good, good).code == status::out_of_range);
    CHECK(one.cache.write(1, 2, good, good).code == status::out_of_range);
    auto bad = good;
    bad.data = nullptr;
    CHECK(one.cache.write(0, 2, bad, good).code == status::null_pointer);
    bad = good;
    bad.type = static_cast<engine::dtype>(9);
    CHECK(one.cache.write(0, 2, good, bad).code == status::out_of_range);
    bad = good;
    bad.token_stride = 3;
    CHECK(one.cache.write(0, 2, good, bad).code == status::misaligned);
    for (float const no_number : {std::numeric_limits<float>::quiet_NaN(), 1e6f}) { // 1e6: no half
        rows(0, 1, 7) = no_number;
        CHECK(one.cache.write(0, 2, cache_operand(rows), cache_operand(rows)).code ==
              status::not_finite);
    }
    REQUIRE(one.cache.truncate(5).ok());
    check_against_fresh(one, 8);
    REQUIRE(one.cache.fork(twin).ok());
    CHECK(twin.length() == 5);
    kv_sequence<half> moved(std::move(twin));
    CHECK(moved.length() == 5);
    one.cache = std::move(moved);
    CHECK(one.cache.length() == 5);
    CHECK(pool.free_pages() == 2);
}
