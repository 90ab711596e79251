// SPDX-License-Identifier: MIT
// Selections that are used again: only where little is dropped, and as if they had been listed.
#include "engine/engine_case.hpp"
#include "support/generators.hpp"
#include "support/guarded_workspace.hpp"
#include "support/own_threads.hpp"
#include "support/same_bits.hpp"
#include <sofattn/core/half.hpp>
#include <sofattn/engine/run.hpp>
#include <sofattn/exec/parallel.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <set>
#include <string>
#include <vector>

using namespace sofattn;
using namespace sofattn::test;
using engine::attention_desc;
using engine::method;
using engine::status;

namespace {

constexpr index_t kv_heads = 2;
constexpr index_t group = 3;
constexpr std::int64_t slots = 120; ///< count + sinks + recent

/// One query over 1500 keys, 100 of which are kept.
template <class T>
struct reuse_case : engine_case<T> {
    explicit reuse_case(generator& random, index_t keys = 1500)
        : engine_case<T>(random, {kv_heads, group, 1, keys, 16, 16, true}) {
        this->index();
        auto& d = this->desc;
        d.how = method::best_keys;
        d.dense_below = 0;
        d.count = 100;
        d.sinks = 4;
        d.recent = 16;
        d.dropped_mass = this->dropped.data();
        d.selected = {entries.data(), counts.data(), slots};
    }
    void run(attention_desc const& d) {
        this->clear();
        guarded_workspace workspace(engine::workspace_bytes(d, 3));
        auto const v =
            engine::run(d, workspace.span().data(), workspace.span().size(), own_threads{});
        CAPTURE(v.field);
        REQUIRE(v.ok());
        CHECK(workspace.kept_outside());
    }
    [[nodiscard]] float worst(index_t kv) const {
        auto const from = this->dropped.begin() + kv * group;
        return *std::max_element(from, from + group);
    }

    std::vector<std::int32_t> entries = std::vector<std::int32_t>(kv_heads * slots, 7);
    std::vector<std::int32_t> counts = std::vector<std::int32_t>(kv_heads, 7);
    std::vector<std::int32_t> reused = std::vector<std::int32_t>(kv_heads, 7);
};

} // namespace

TEST_CASE_TEMPLATE("engine.reuse: by the guard, the former keys as if listed, or a selection anew",
                   T, float, half) {
    SOFATTN_GENERATOR(random);
    int kept = 0;
    int anew = 0;
    for (int round = 0; round < 60; ++round) {
        reuse_case<T> c(random);
        c.run(c.desc);
        decode_output const fresh = c.output;
        auto const fresh_entries = c.entries;
        // A former selection: this one less some of its keys, others in their place.
        std::vector<std::int32_t> former(kv_heads * slots, -1);
        for (index_t kv = 0; kv < kv_heads; ++kv) {
            std::set<std::int32_t> keys;
            for (index_t i = 0; i < 100; ++i) {
                keys.insert(random.chance(0.8)
                                ? fresh_entries[static_cast<std::size_t>(kv * slots + i)]
                                : random.integer<std::int32_t>(0, 1499));
            }
            std::ranges::copy(keys, former.begin() + kv * slots);
        }
        // A guard near what the former keys drop, so that it decides either way.
        attention_desc d = c.desc;
        d.reuse = {former.data(), slots, 1.0, c.reused.data()};
        c.run(d);
        CHECK(c.reused == std::vector<std::int32_t>(kv_heads, 1));
        std::vector<double> const would_drop{double{c.worst(0)}, double{c.worst(1)}};
        d.reuse.most_dropped =
            std::min(1.0, would_drop[random.integer<std::size_t>(0, 1)] * random.uniform(0.9, 1.1));
        bool const in_place = random.chance(0.5); // entries may be written where they are read
        if (in_place) {
            c.entries = former;
            d.reuse.entries = c.entries.data();
        }
        c.run(d);
        for (index_t kv = 0; kv < kv_heads; ++kv) {
            auto const row = [&](std::vector<std::int32_t> const& of) {
                auto const from = of.begin() + kv * slots;
                std::set<std::int32_t> keys(from, from + slots);
                keys.erase(-1);
                return keys;
            };
            std::set<std::int32_t> wanted = row(fresh_entries);
            bool const is_reused = c.reused[static_cast<std::size_t>(kv)] == 1;
            if (is_reused) {
                wanted = row(former);
                for (std::int32_t k : {0, 1, 2, 3}) {
                    wanted.insert(k);
                }
                for (std::int32_t k = 1500 - 16; k < 1500; ++k) {
                    wanted.insert(k);
                }
                CHECK(double{c.worst(kv)} <= d.reuse.most_dropped);
            }
            CHECK(is_reused == (would_drop[static_cast<std::size_t>(kv)] <= d.reuse.most_dropped));
            (is_reused ? kept : anew) += 1;
            CHECK(row(c.entries) == wanted);
            CHECK(c.counts[static_cast<std::size_t>(kv)] == std::ssize(wanted));
        }
        // The same, as lists.
        decode_output const output = c.output;
        auto const shares = c.dropped;
        auto const chosen = c.entries;
        attention_desc listed = c.desc;
        listed.how = method::listed;
        listed.selected = {};
        listed.lists = {chosen.data(), nullptr, kv_heads, slots, 1, 1};
        c.run(listed);
        CHECK(same_bits(c.output, output));
        CHECK(c.dropped == shares);
    }
    CHECK(kept > 10);
    CHECK(anew > 10);
}

TEST_CASE("engine.reuse: lists that are none are not used") {
    SOFATTN_GENERATOR(random);
    reuse_case<float> c(random);
    c.run(c.desc);
    decode_output const fresh = c.output;
    auto const refused = [&](std::vector<std::int32_t> const& keys) {
        std::vector<std::int32_t> former(kv_heads * slots, -1);
        for (index_t kv = 0; kv < kv_heads; ++kv) {
            std::ranges::copy(keys, former.begin() + kv * slots);
        }
        attention_desc d = c.desc;
        d.reuse = {former.data(), slots, 1.0, c.reused.data()};
        c.run(d);
        CHECK(c.reused == std::vector<std::int32_t>(kv_heads, 0));
        CHECK(same_bits(c.output, fresh));
    };
    refused({});
    refused({-1, 5});
    refused({5, 4});
    refused({5, 5});
    refused({5, 1500});
    refused({5, std::numeric_limits<std::int32_t>::max()});
    std::vector<std::int32_t> many(slots); // no room for sinks and recent ones
    for (std::size_t i = 0; i < many.size(); ++i) {
        many[i] = static_cast<std::int32_t>(10 + 2 * i);
    }
    refused(many);
    // Dense: nothing is used again, nothing dropped.
    attention_desc d = c.desc;
    d.dense_below = 2000;
    d.reuse = {c.entries.data(), slots, 1.0, c.reused.data()};
    c.reused.assign(kv_heads, 7);
    c.run(d);
    CHECK(c.reused == std::vector<std::int32_t>(kv_heads, 0));
}

TEST_CASE("engine.reuse: what cannot be is refused by name") {
    SOFATTN_GENERATOR(random);
    reuse_case<float> c(random);
    attention_desc d = c.desc;
    d.reuse = {c.entries.data(), slots, 0.1, c.reused.data()};
    REQUIRE(engine::check(d).ok());
    auto const refused = [&](auto spoil, status code, std::string const& field) {
        attention_desc bad = d;
        spoil(bad);
        auto const v = engine::check(bad);
        CAPTURE(field);
        CHECK(v.code == code);
        CHECK(v.field == field);
    };
    refused([](auto& b) { b.dropped_mass = nullptr; }, status::null_pointer, "dropped_mass");
    refused([](auto& b) { b.heads_together = false; }, status::unsupported, "heads_together");
    refused([](auto& b) { b.reuse.most_dropped = 1.5; }, status::out_of_range,
            "reuse.most_dropped");
    refused([](auto& b) { b.reuse.most_dropped = std::numeric_limits<double>::quiet_NaN(); },
            status::out_of_range, "reuse.most_dropped");
    refused([](auto& b) { b.reuse.slots = 0; }, status::out_of_range, "reuse.slots");
    refused([](auto& b) { b.reuse.slots -= 1; }, status::mismatch, "reuse.slots");
    refused([](auto& b) { b.reuse.entries = nullptr; }, status::null_pointer, "reuse.entries");
    refused([](auto& b) { b.how = method::dense, b.selected = {}; }, status::unsupported,
            "reuse.entries");
    refused([](auto& b) { b.selected.slots = b.reuse.slots = slots - 1; }, status::mismatch,
            "selected.slots");
}
