// SPDX-License-Identifier: MIT
// Descriptors that describe nothing: a named status, never a crash, nothing written.
#include "engine/coded_case.hpp"
#include "engine/engine_case.hpp"
#include "engine/faults.hpp"
#include "support/generators.hpp"
#include <sofattn/core/bfloat16.hpp>
#include <sofattn/core/half.hpp>
#include <sofattn/engine/check.hpp>
#include <sofattn/engine/run.hpp>
#include <sofattn/engine/verdict.hpp>
#include <sofattn/exec/parallel.hpp>

#include <doctest/doctest.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <set>
#include <string>
#include <vector>

using namespace sofattn;
using namespace sofattn::test;

TEST_CASE_TEMPLATE("engine.check: what is wrong is named, and nothing is written", Case,
                   engine_case<float>, engine_case<half>, engine_case<bfloat16>, coded_case<float>,
                   coded_case<half>) {
    SOFATTN_GENERATOR(random);
    std::vector<fault> const faults = all_faults();
    std::map<std::string, int> met;
    std::map<std::string, int> possible; // rounds
    std::vector<std::byte> workspace(1 << 20);
    for (int round = 0; round < 60; ++round) {
        Case c(random, {random.integer<index_t>(1, 3), random.integer<index_t>(1, 3),
                        random.integer<index_t>(1, 9), random.integer<index_t>(60, 90), 8, 8,
                        random.chance(0.5)});
        attention_desc& d = c.desc;
        d.how = static_cast<method>(random.integer(0, 4));
        d.dense_below = random.integer<std::int64_t>(0, 150);
        if (d.key.type == engine::dtype::int8 && d.how == method::budget) {
            d.dense_below = 150; // where it is dense
        }
        std::vector<std::int32_t> const entries(static_cast<std::size_t>(d.heads * d.queries * 4),
                                                3);
        std::vector<std::int32_t> const numbers{0, 2, 1};
        if (d.how == method::best_keys) {
            c.index();
            d.count = 20;
        } else if (d.how == method::budget) {
            c.prefill_index();
            d.mass = 0.9;
        } else if (d.how == method::pages) {
            d.products = random.chance(0.5) ? dense_products::bf16 : dense_products::f32;
            c.page_index();
            d.mass = 0.9;
        } else if (d.how == method::listed) {
            d.lists = {entries.data(), nullptr, random.chance(0.5) ? 1 : d.heads, 4, 1, 1};
        }
        if (d.how != method::best_keys && random.chance(0.3)) {
            d.mask = mask_kind::prefix;
            d.prefix = random.integer<std::int64_t>(0, 100);
        } else if (d.how != method::best_keys && d.how != method::budget && random.chance(0.3)) {
            d.mask = mask_kind::window;
            d.window = random.integer<std::int64_t>(1, 100);
        }
        if (d.how != method::budget && random.chance(0.4)) {
            // As many rows as the keys have: pages of 20 that repeat.
            d.pages = {numbers.data(), 3, 30, 3};
            d.key.token_stride = d.value.token_stride = 0;
            d.key_scales.token_stride = d.value_scales.token_stride = 0;
        }
        // In memory for f32, at its strides: room enough.
        d.output.type = static_cast<engine::dtype>(random.integer(0, 2));
        CAPTURE(static_cast<int>(d.how));
        CAPTURE(static_cast<int>(d.output.type));
        auto const valid = engine::check(d);
        CAPTURE(valid.field);
        REQUIRE(valid.ok());
        std::set<std::string> of_round;
        for (fault const& f : faults) {
            if (f.applies(d)) {
                of_round.insert(kind_of(f));
            }
        }
        for (std::string const& kind : of_round) {
            ++possible[kind];
        }
        for (int n = 0; n < 600; ++n) {
            fault const& f = faults[random.integer<std::size_t>(0, faults.size() - 1)];
            if (!f.applies(d)) {
                continue;
            }
            attention_desc bad = d;
            f.spoil(random, bad);
            auto const found = engine::run(bad, workspace.data(), workspace.size(), exec::serial{});
            CAPTURE(f.field);
            CAPTURE(found.field);
            CAPTURE(name_of(found.code));
            CHECK((found.code == f.code && std::string(found.field) == f.field));
            CHECK(engine::workspace_bytes(bad, 1) == 0);
            ++met[kind_of(f)];
        }
        CHECK(c.is_untouched());
        // Some at once: whatever is said first, it is no ok.
        for (int n = 0; n < 600; ++n) {
            attention_desc bad = d;
            int spoilt = 0;
            for (int i = 0; i < 3; ++i) {
                fault const& f = faults[random.integer<std::size_t>(0, faults.size() - 1)];
                // A later fault may mend an earlier one only by changing the method.
                if (f.applies(d) && std::string(f.field) != "how") {
                    f.spoil(random, bad);
                    ++spoilt;
                }
            }
            if (spoilt == 1) {
                CHECK(!engine::check(bad).ok());
            } else {
                (void)engine::check(bad); // no crash
            }
        }
    }
    // What may happen has happened, and little may not: some faults are those of other types.
    std::size_t unmet = 0;
    for (auto const& [kind, rounds] : possible) {
        unmet += rounds >= 3 && !met.contains(kind) ? 1 : 0;
    }
    CHECK(unmet == 0);
    std::set<std::string> kinds;
    for (fault const& f : faults) {
        kinds.insert(kind_of(f));
    }
    CHECK(possible.size() + 20 >= kinds.size());
}

TEST_CASE("engine.check: a hundred thousand descriptors of random bits in every field") {
    SOFATTN_GENERATOR(random);
    engine_case<> c(random, {2, 2, 3, 70, 8, 8, true});
    std::vector<std::byte> workspace(1 << 20);
    auto const wild = [&]() -> std::int64_t {
        switch (random.integer(0, 4)) {
        case 0: return random.integer<std::int64_t>(-3, 3);
        case 1: return static_cast<std::int64_t>(random.next());
        case 2: return std::int64_t{1} << random.integer(0, 62);
        case 3: return -(std::int64_t{1} << random.integer(0, 62));
        default: return random.integer<std::int64_t>(0, 300);
        }
    };
    int valid = 0;
    for (int n = 0; n < 100'000; ++n) {
        attention_desc d = c.desc;
        std::array<std::int64_t*, 17> const fields{&d.heads,
                                                   &d.kv_heads,
                                                   &d.queries,
                                                   &d.keys,
                                                   &d.qk_dim,
                                                   &d.v_dim,
                                                   &d.query.head_stride,
                                                   &d.query.token_stride,
                                                   &d.key.head_stride,
                                                   &d.key.token_stride,
                                                   &d.window,
                                                   &d.prefix,
                                                   &d.dense_below,
                                                   &d.output.head_stride,
                                                   &d.output.token_stride,
                                                   &d.count,
                                                   &d.lists.slots};
        for (std::int64_t* field : fields) {
            if (random.chance(0.3)) {
                *field = wild();
            }
        }
        d.mask = static_cast<mask_kind>(random.integer(-1, 4));
        d.output.type = static_cast<engine::dtype>(random.integer(-1, 4));
        d.how = static_cast<method>(random.integer(-1, 5));
        // Not run: a descriptor that lies about its memory cannot be found out.
        auto const found = engine::check(d);
        valid += found.ok() ? 1 : 0;
        CHECK((found.ok() || (found.field[0] != 0 && found.limit[0] != 0)));
    }
    CHECK(valid < 1000);
    CHECK(c.is_untouched());
}

TEST_CASE("engine.check: strides that are never stepped may be any number") {
    SOFATTN_GENERATOR(random);
    engine_case<> c(random, {1, 1, 1, 70, 8, 8, true});
    c.desc.output.head_stride = c.desc.output.token_stride =
        std::numeric_limits<std::int64_t>::min();
    c.desc.query.head_stride = std::numeric_limits<std::int64_t>::min();
    CHECK(engine::check(c.desc).ok());
}

TEST_CASE("engine.check: workspaces and participants") {
    SOFATTN_GENERATOR(random);
    engine_case<> c(random, {1, 2, 3, 70, 8, 8, true});
    std::size_t const needed = engine::workspace_bytes(c.desc, 2);
    std::vector<std::byte> workspace(needed);
    REQUIRE(needed > 0);
    CHECK(engine::workspace_bytes(c.desc, 0) == 0);
    CHECK(engine::run(c.desc, workspace.data(), needed - 1, 0, 2).code ==
          status::workspace_too_small);
    CHECK(engine::run(c.desc, nullptr, needed, 0, 2).code == status::null_pointer);
    CHECK(engine::run(c.desc, workspace.data(), needed, 2, 2).code == status::out_of_range);
    CHECK(engine::run(c.desc, workspace.data(), needed, -1, 2).code == status::out_of_range);
    CHECK(engine::run(c.desc, workspace.data(), needed, 0, 0).code == status::out_of_range);
    CHECK(c.is_untouched());
    CHECK(engine::run(c.desc, workspace.data(), needed, 0, 2).ok());
}

TEST_CASE("engine.verdict: sentences name field, value and limit") {
    auto const text = [](engine::verdict const& v) {
        std::array<char, 200> into{};
        std::size_t const length = engine::sentence(v, into.data(), into.size());
        CHECK(length == std::string(into.data()).size());
        return std::string(into.data());
    };
    CHECK(text({}) == "sofattn: ok");
    CHECK(text({status::out_of_range, "heads", -3, "from 1 to 65536"}) ==
          "sofattn: heads is -3, must be from 1 to 65536 (out_of_range)");
    CHECK(text({status::out_of_range, "scale", -0.5, "positive"}) ==
          "sofattn: scale is -0.5, must be positive (out_of_range)");
    CHECK(text({status::null_pointer, "key.data", 0, "the first element of an array"}) ==
          "sofattn: key.data is null, must be the first element of an array (null_pointer)");
    std::array<char, 8> cut{};
    std::size_t const volatile bytes = cut.size(); // or GCC warns of what is meant
    CHECK(engine::sentence({}, cut.data(), bytes) == 11);
    CHECK(std::string(cut.data()) == "sofattn");
}
