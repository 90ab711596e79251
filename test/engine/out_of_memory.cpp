// SPDX-License-Identifier: MIT
// Caches whose memory ends, at each request in turn: a status, and nothing lost or half written.
#include "engine/cache_state.hpp"
#include "engine/engine_case.hpp"
#include "engine/tracked_sequence.hpp"
#include "support/allocation_counts.hpp"
#include "support/generators.hpp"
#include <sofattn/core/half.hpp>
#include <sofattn/engine/kv_export.hpp>
#include <sofattn/engine/kv_pool.hpp>
#include <sofattn/engine/kv_sequence.hpp>
#include <sofattn/engine/prefill_codes.hpp>
#include <sofattn/engine/verdict.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

using namespace sofattn;
using namespace sofattn::test;
using engine::kv_layout;
using engine::kv_pool;
using engine::kv_sequence;
using engine::status;
using engine::verdict;

namespace {

constexpr kv_layout small{.layers = 2,
                          .kv_heads = 2,
                          .qk_dim = 20,
                          .v_dim = 8,
                          .page_tokens = 16,
                          .pages = 100,
                          .coded_from = 48,
                          .page_codes = engine::kept_page_codes::f32};

/// Caches that are tried with scarce memory, and others that have the same done to them with plenty.
template <class T>
class twins {
public:
    twins(kv_layout const& l, bool then_all) : then_all_(then_all) {
        REQUIRE(tried_.open(l).ok());
        REQUIRE(untroubled_.open(l).ok());
        add();
    }
    void add() { all_.push_back({kv_sequence<T>(tried_), {kv_sequence<T>(untroubled_)}}); }
    void drop(std::size_t at) { all_.erase(all_.begin() + static_cast<std::ptrdiff_t>(at)); }

    [[nodiscard]] std::size_t size() const { return all_.size(); }
    [[nodiscard]] tracked<T>& untroubled(std::size_t at) { return all_[at].untroubled; }
    [[nodiscard]] kv_sequence<T> const& tried(std::size_t at) const { return all_[at].tried; }
    [[nodiscard]] long refusals() const { return refusals_; }

    /// change(sequence, its pool's sequence `other`) of both; `at` may become `other`.
    template <class Change>
    verdict change(std::size_t at, std::size_t other, Change apply) {
        kv_sequence<T>& tried = all_[at].tried;
        kv_sequence<T>& with = all_[other].tried;
        cache_state const before = state_of(tried);
        cache_state const of_other = state_of(with);
        verdict const found = with_scarce_memory(
            then_all_, [&] { return apply(tried, with); },
            [&](verdict const& refused) {
                CHECK(refused.code == status::out_of_memory);
                CHECK(state_of(tried) == before);
                CHECK(state_of(with) == of_other);
                ++refusals_;
            });
        verdict const expected = apply(all_[at].untroubled.cache, all_[other].untroubled.cache);
        CHECK(found.code == expected.code);
        CHECK(state_of(tried) == state_of(all_[at].untroubled.cache));
        CHECK(state_of(with) == state_of(all_[other].untroubled.cache));
        return found;
    }
    template <class Change>
    verdict change(std::size_t at, Change apply) {
        return change(at, at, [&](kv_sequence<T>& s, kv_sequence<T>&) { return apply(s); });
    }

private:
    struct both {
        kv_sequence<T> tried;
        tracked<T> untroubled;
    };
    kv_pool<T> tried_;
    kv_pool<T> untroubled_;
    std::vector<both> all_;
    bool then_all_;
    long refusals_ = 0;
};

/// Tokens of a sequence in all layers, each step of it with scarce memory.
template <class T>
void append(twins<T>& caches, std::size_t at, std::vector<token> const& more) {
    kv_layout const& l = caches.tried(at).pool().layout();
    auto const count = std::ssize(more);
    if (!caches.change(at, [&](kv_sequence<T>& s) { return s.extend(count); }).ok()) {
        return; // a full pool, for both
    }
    for (std::int64_t layer = 0; layer < l.layers; ++layer) {
        auto const k = rows_of(more, layer, l, false);
        auto const v = rows_of(more, layer, l, true);
        verdict const written = caches.change(at, [&](kv_sequence<T>& s) {
            return s.write(layer, count, cache_operand(k), cache_operand(v));
        });
        REQUIRE(written.ok());
    }
    auto& tokens = caches.untroubled(at).tokens;
    tokens.insert(tokens.end(), more.begin(), more.end());
}

template <class T>
void live(generator& random, kv_layout const& l, bool then_all, int steps) {
    twins<T> caches(l, then_all);
    for (int step = 0; step < steps; ++step) {
        auto const at = random.integer<std::size_t>(0, caches.size() - 1);
        tracked<T>& own = caches.untroubled(at);
        int const what = random.integer(0, 19);
        if (what < 11) {
            append(
                caches, at,
                random_tokens(random, random.chance(0.6) ? 1 : random.integer<std::size_t>(1, 90)));
        } else if (what < 14) {
            auto const length = own.cache.length();
            auto const stay =
                random.integer<std::int64_t>(random.chance(0.5) ? length / 2 : 0, length);
            REQUIRE(caches.change(at, [&](kv_sequence<T>& s) { return s.truncate(stay); }).ok());
            own.tokens.resize(static_cast<std::size_t>(stay));
        } else if (what < 17) { // into a new one, or one that has tokens
            if (caches.size() < 4) {
                caches.add();
            }
            auto const into = random.integer<std::size_t>(0, caches.size() - 1);
            verdict const forked = caches.change(
                into, at, [](kv_sequence<T>& twin, kv_sequence<T>& of) { return of.fork(twin); });
            REQUIRE(forked.ok());
            caches.untroubled(into).tokens = caches.untroubled(at).tokens;
        } else if (what < 19) {
            auto const into = random.integer<std::size_t>(0, caches.size() - 1);
            std::vector<std::byte> bytes(engine::export_bytes(caches.untroubled(at).cache));
            REQUIRE(engine::export_to(caches.untroubled(at).cache, bytes).ok());
            verdict const imported = caches.change(
                into, [&](kv_sequence<T>& s) { return engine::import_from(bytes, s); });
            if (imported.ok()) { // else the pool is full
                caches.untroubled(into).tokens = caches.untroubled(at).tokens;
            }
        } else if (caches.size() > 1) {
            caches.drop(at);
        }
    }
    CHECK(caches.refusals() > 5 * steps);
    for (std::size_t at = 0; at < caches.size(); ++at) {
        check_against_fresh(tracked<T>{[&] {
                                           kv_sequence<T> twin(caches.tried(at).pool());
                                           REQUIRE(caches.tried(at).fork(twin).ok());
                                           return twin;
                                       }(),
                                       caches.untroubled(at).tokens},
                            random.next() >> 12);
    }
}

} // namespace

TEST_CASE_TEMPLATE(
    "engine.kv_sequence: random lives with scarce memory are those of caches with plenty", T, float,
    std::int8_t) {
    SOFATTN_GENERATOR(random);
    for (bool const then_all : {false, true}) {
        live<T>(random, small, then_all, 60);
        kv_layout other = small;
        other.page_tokens = 1;
        other.pages = 700;
        other.coded_from = 20;
        other.layers = 1;
        other.page_codes = engine::kept_page_codes::bf16;
        live<T>(random, other, then_all, 60);
    }
}

TEST_CASE("engine.kv_sequence: more tokens than a pool has pages for take no memory to refuse") {
    kv_pool<float> pool;
    REQUIRE(pool.open(small).ok());
    kv_sequence<float> sequence(pool);
    for (std::int64_t const tokens : {std::int64_t{16 * 100 + 1}, std::int64_t{2147483647}}) {
        allocations.requests = 0;
        CHECK(sequence.extend(tokens).code == status::no_free_page);
        CHECK(allocations.requests == 0);
    }
    CHECK(sequence.extend(16 * 100).ok());
}

TEST_CASE("engine.kv_sequence: tokens that are not written are taken back without memory") {
    SOFATTN_GENERATOR(random);
    kv_pool<half> pool;
    REQUIRE(pool.open(small).ok());
    tracked<half> one{kv_sequence<half>(pool)};
    one.append(random_tokens(random, 100));
    cache_state const before = state_of(one.cache);
    REQUIRE(one.cache.extend(50).ok());
    verdict taken_back;
    {
        scarce_memory const none(0, true);
        taken_back = one.cache.truncate(100);
    }
    CHECK(taken_back.ok());
    CHECK(state_of(one.cache) == before);
}

TEST_CASE_TEMPLATE("engine.kv_pool: one that cannot be opened is as before", T, float,
                   std::int8_t) {
    kv_pool<T> pool;
    kv_layout larger = small;
    larger.layers = 5;
    larger.qk_dim = 64;
    for (bool const then_all : {false, true}) {
        for (kv_layout const& l : {small, larger}) {
            kv_layout const before = pool.layout();
            auto const free = pool.free_pages();
            long refusals = 0;
            verdict const opened = with_scarce_memory(
                then_all, [&] { return pool.open(l); },
                [&](verdict const& refused) {
                    CHECK(refused.code == status::out_of_memory);
                    CHECK(pool.layout().layers == before.layers);
                    CHECK(pool.layout().qk_dim == before.qk_dim);
                    CHECK(pool.free_pages() == free);
                    ++refusals;
                });
            CHECK(opened.ok());
            CHECK(refusals > l.layers);
            CHECK(pool.layout().layers == l.layers);
            CHECK(pool.free_pages() == l.pages);
        }
    }
}

TEST_CASE("engine.prefill_codes: without memory nobody is handed any") {
    SOFATTN_GENERATOR(random);
    engine_case<half> c(random, {2, 2, 10, 300, 24, 8, true});
    for (bool const then_all : {false, true}) {
        for (bool const of_pages : {false, true}) {
            long refusals = 0;
            long handed = 0;
            std::optional<engine::page_codes> pages;
            std::vector<engine::prefill_codes> codes;
            verdict const made = with_scarce_memory(
                then_all,
                [&] {
                    if (of_pages) {
                        return engine::make_page_codes(c.desc, [&](engine::page_codes&& p) {
                            pages = std::move(p);
                            ++handed;
                        });
                    }
                    return engine::make_prefill_codes(c.desc,
                                                      [&](std::vector<engine::prefill_codes>&& p) {
                                                          codes = std::move(p);
                                                          ++handed;
                                                      });
                },
                [&](verdict const& refused) {
                    CHECK(refused.code == status::out_of_memory);
                    CHECK(handed == 0);
                    ++refusals;
                });
            CHECK(made.ok());
            CHECK(handed == 1);
            CHECK(refusals > 4);
            CHECK((of_pages ? pages->kv_heads() : std::ssize(codes)) == 2);
        }
    }
}
