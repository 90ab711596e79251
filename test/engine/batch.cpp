// SPDX-License-Identifier: MIT
// A batch does what its descriptors do alone, to the bit, and says which of them is wrong.
#include "attention/rounded_outputs.hpp"
#include "engine/engine_case.hpp"
#include "support/allocation_counts.hpp"
#include "support/generators.hpp"
#include "support/guarded_workspace.hpp"
#include "support/own_threads.hpp"
#include "support/same_bits.hpp"
#include <sofattn/core/bfloat16.hpp>
#include <sofattn/core/half.hpp>
#include <sofattn/engine/batch.hpp>
#include <sofattn/engine/run.hpp>
#include <sofattn/exec/parallel.hpp>

#include <doctest/doctest.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <thread>
#include <type_traits>
#include <vector>

using namespace sofattn;
using namespace sofattn::test;
using engine::attention_desc;
using engine::method;
using engine::status;

namespace {

/// Sequences of different lengths, and what each gives alone.
template <class T>
struct sequences {
    std::vector<std::unique_ptr<engine_case<T>>> all;
    std::vector<std::vector<std::int32_t>> lists;
    std::vector<decode_output> expected;
    std::vector<std::vector<float>> expected_sums;
    std::vector<std::vector<float>> expected_shares;

    static constexpr std::array<float, 12> of_heads{1.0f, 0.5f, 0.25f, 0.125f, 0.1f, 0.2f,
                                                    0.3f, 0.4f, 0.6f,  0.7f,   0.8f, 0.9f};

    void add(generator& random, decode_shape const& shape, method how) {
        all.push_back(std::make_unique<engine_case<T>>(random, shape));
        engine_case<T>& c = *all.back();
        c.desc.how = how;
        c.desc.dense_below = 100;
        if (how == method::best_keys) {
            c.index();
            c.desc.count = 60;
            c.desc.recent = 9;
            c.desc.heads_together = random.chance(0.5);
        } else if (how == method::budget) {
            c.prefill_index();
            c.desc.output_error = 0.02;
        } else if (how == method::pages) {
            c.desc.products = random.chance(0.5) ? dense_products::bf16 : dense_products::f32;
            c.page_index();
            c.desc.mass = 0.5;
        } else if (how == method::listed) {
            auto& l =
                lists.emplace_back(static_cast<std::size_t>(shape.kv_heads * shape.queries * 16));
            for (std::int32_t& entry : l) {
                entry = random.integer<std::int32_t>(-1, static_cast<std::int32_t>(shape.keys));
            }
            c.desc.lists = {l.data(), nullptr, shape.kv_heads, 16, 1, 1};
        }
        if (how != method::budget && how != method::pages) {
            c.desc.row_max = c.max.data();
            c.desc.row_sum = c.sum.data();
        }
        c.desc.dropped_mass = c.dropped.data();
        c.desc.sink_logits = random.chance(0.5) ? of_heads.data() : nullptr;
        if (how == method::dense && random.chance(0.5)) {
            c.desc.alibi_slopes = of_heads.data();
            c.desc.softcap = 5.0f;
        }
        std::vector<std::byte> workspace(engine::workspace_bytes(c.desc, 1));
        REQUIRE(engine::run(c.desc, workspace.data(), workspace.size(), exec::serial{}).ok());
        expected.push_back(c.output);
        expected_sums.push_back(c.sum);
        expected_shares.push_back(c.dropped);
        bool const is_dense = how == method::dense || (how != method::listed && shape.keys < 100);
        CHECK(is_dense == (c.dropped == std::vector<float>(c.dropped.size(), 0.0f)));
    }
    [[nodiscard]] std::vector<attention_desc> descriptors() const {
        std::vector<attention_desc> result;
        for (auto const& c : all) {
            result.push_back(c->desc);
        }
        return result;
    }
    void clear() {
        for (auto& c : all) {
            c->clear();
        }
    }
    [[nodiscard]] bool as_expected() const {
        for (std::size_t i = 0; i < all.size(); ++i) {
            if (!same_bits(all[i]->output, expected[i]) || all[i]->sum != expected_sums[i] ||
                all[i]->dropped != expected_shares[i]) {
                return false;
            }
        }
        return true;
    }
};

/// All kinds of work, some in more than one piece per KV head.
template <class T>
sequences<T> mixed(generator& random) {
    sequences<T> s;
    auto const some = [&](index_t low, index_t high) { return random.integer<index_t>(low, high); };
    for (int round = 0; round < 3; ++round) {
        s.add(random, {2, 3, 1, some(3000, 5000), 16, 24, true}, method::dense);
        s.add(random, {2, 2, some(2, 4), some(1, 3000), 16, 16, random.chance(0.5)}, method::dense);
        s.add(random, {1, 2, some(5, 70), some(70, 400), 8, 8, true}, method::dense);
        s.add(random, {2, 6, some(1, 3), some(20, 1500), 16, 8, true}, method::best_keys);
        s.add(random, {1, 2, some(1, 40), some(40, 900), 16, 16, true}, method::budget);
        s.add(random, {2, 2, some(1, 40), some(400, 900), 16, 24, true}, method::pages);
        s.add(random, {2, 2, some(1, 6), some(30, 500), 8, 8, true}, method::listed);
    }
    return s;
}

} // namespace

TEST_CASE_TEMPLATE("engine.batch: every sequence has the bits that it has alone, whoever runs it",
                   T, float, half) {
    SOFATTN_GENERATOR(random);
    sequences<T> s = mixed<T>(random);
    std::vector<attention_desc> const all = s.descriptors();
    auto const by = [&](auto const& run) {
        s.clear();
        guarded_workspace workspace(engine::batch_workspace_bytes(all, run.threads()), 12);
        auto const memory = workspace.span();
        auto const v = engine::run_batch(all, memory.data(), memory.size(), run);
        CAPTURE(v.found.field);
        CHECK(v.ok());
        CHECK(workspace.kept_outside());
        CHECK(s.as_expected());
    };
    by(exec::serial{});
    by(own_threads{});
    for (std::int64_t const threads : {1, 2, 5}) {
        for (std::int64_t const came : {threads, std::int64_t{1}}) { // one suffices
            s.clear();
            guarded_workspace workspace(engine::batch_workspace_bytes(all, threads));
            auto const memory = workspace.span();
            REQUIRE(engine::plan_batch(all, memory.data(), memory.size(), threads).ok());
            std::vector<std::thread> team;
            std::vector<engine::verdict> verdicts(static_cast<std::size_t>(came));
            for (std::int64_t i = 0; i < came; ++i) {
                team.emplace_back([&, i] {
                    verdicts[static_cast<std::size_t>(i)] =
                        engine::run_batch(memory.data(), memory.size(), threads - 1 - i);
                });
            }
            for (auto& t : team) {
                t.join();
            }
            for (auto const& v : verdicts) {
                CHECK(v.ok());
            }
            CHECK(workspace.kept_outside());
            CHECK(s.as_expected());
        }
    }
}

TEST_CASE("engine.batch: outputs of some sequences in 16 bits") {
    SOFATTN_GENERATOR(random);
    sequences<float> const s = mixed<float>(random);
    std::vector<attention_desc> all = s.descriptors();
    std::vector<watched_outputs<half>> halves;
    std::vector<watched_outputs<bfloat16>> others;
    auto const describe = [&](auto& list, std::size_t i) {
        auto const to = list.emplace_back(random, s.expected[i].cview().extents(), true).outputs();
        all[i].output = {to.data(), to.strides()[0] * 2, to.strides()[1] * 2,
                         dtype_of<std::remove_reference_t<decltype(*to.data())>>};
    };
    for (std::size_t i = 0; i < all.size(); ++i) {
        i % 2 == 0 ? describe(halves, i) : describe(others, i);
    }
    std::vector<std::byte> workspace(engine::batch_workspace_bytes(all, 3));
    REQUIRE(engine::run_batch(all, workspace.data(), workspace.size(), own_threads{}).ok());
    for (std::size_t i = 0; i < all.size(); ++i) {
        CAPTURE(i);
        CHECK((i % 2 == 0 ? halves[i / 2].hold(s.expected[i].cview())
                          : others[i / 2].hold(s.expected[i].cview())));
    }
}

TEST_CASE("engine.batch: lists of what was selected, and of all where attention is dense") {
    SOFATTN_GENERATOR(random);
    sequences<float> s;
    s.add(random, {2, 2, 2, 300, 16, 16, true}, method::best_keys);
    s.add(random, {2, 2, 2, 90, 16, 16, true}, method::best_keys); // dense: fewer than 100
    std::vector<attention_desc> all = s.descriptors();
    std::vector<std::vector<std::int32_t>> entries;
    std::vector<std::vector<std::int32_t>> counts;
    for (attention_desc& d : all) {
        d.heads_together = true;
        entries.emplace_back(2 * 2 * 60, 7);
        counts.emplace_back(4, 7);
        d.selected = {entries.back().data(), counts.back().data(), 60};
        std::vector<std::byte> workspace(engine::workspace_bytes(d, 1));
        REQUIRE(engine::run(d, workspace.data(), workspace.size(), exec::serial{}).ok());
    }
    auto const alone_entries = entries;
    auto const alone_counts = counts;
    for (std::size_t i = 0; i < 2; ++i) {
        entries[i].assign(entries[i].size(), 7);
        counts[i].assign(4, 7);
    }
    std::vector<std::byte> workspace(engine::batch_workspace_bytes(all, 3));
    REQUIRE(engine::run_batch(all, workspace.data(), workspace.size(), own_threads{}).ok());
    CHECK(entries == alone_entries);
    CHECK(counts == alone_counts);
    CHECK(counts[1] == std::vector<std::int32_t>{89, 90, 89, 90});
}

TEST_CASE("engine.batch: what is wrong is named, with its sequence, and nothing is written") {
    SOFATTN_GENERATOR(random);
    sequences<float> s = mixed<float>(random);
    std::vector<attention_desc> const all = s.descriptors();
    std::vector<std::byte> workspace(engine::batch_workspace_bytes(all, 2));
    auto const refused = [&](std::vector<attention_desc> const& bad, status code, std::int64_t at,
                             std::string const& field) {
        s.clear();
        auto const v = engine::run_batch(bad, workspace.data(), workspace.size(), exec::serial{});
        CAPTURE(field);
        CHECK(v.found.code == code);
        CHECK(v.sequence == at);
        CHECK(v.found.field == field);
        for (auto const& c : s.all) {
            CHECK(c->is_untouched());
        }
    };
    for (std::size_t i = 0; i < all.size(); ++i) {
        auto const at = static_cast<std::int64_t>(i);
        auto bad = all;
        bad[i].softcap = -20;
        refused(bad, status::out_of_range, at, "softcap");
        CHECK(engine::batch_workspace_bytes(bad, 1) == 0);
        CHECK(engine::check_batch(bad).sequence == at);
        bad = all;
        bad[i].finite = engine::finite_check::reject;
        float& x = s.all[i]->layer.q(0, 0, 1);
        float const old = x;
        x = std::numeric_limits<float>::quiet_NaN();
        refused(bad, status::not_finite, at, "query.data[]");
        x = old;
        if (i > 0) {
            bad = all;
            std::size_t const other = i / 2;
            bad[i].output.data = bad[other].output.data;
            refused(bad, status::overlapping, at, "output.data");
        }
    }
    refused({}, status::out_of_range, -1, "sequences");
    CHECK(engine::batch_workspace_bytes(all, 0) == 0);
    CHECK(engine::plan_batch(all, workspace.data(), workspace.size(), 0).found.code ==
          status::out_of_range);
    CHECK(engine::plan_batch(all, nullptr, 1 << 30, 1).found.code == status::null_pointer);
    CHECK(engine::plan_batch(all, workspace.data(), 700, 1).found.code ==
          status::workspace_too_small);
    CHECK(engine::plan_batch(all, workspace.data(), workspace.size() - 1, 2).found.code ==
          status::workspace_too_small);
}

TEST_CASE("engine.batch: what is no plan is not run") {
    SOFATTN_GENERATOR(random);
    sequences<float> s;
    s.add(random, {1, 1, 1, 200, 8, 8, true}, method::dense);
    auto const all = s.descriptors();
    std::vector<std::byte> workspace(engine::batch_workspace_bytes(all, 2));
    s.clear();
    CHECK(engine::run_batch(nullptr, 100, 0).code == status::null_pointer);
    CHECK(engine::run_batch(workspace.data(), 40, 0).code == status::workspace_too_small);
    CHECK(engine::run_batch(workspace.data(), workspace.size(), 0).code == status::mismatch);
    REQUIRE(engine::plan_batch(all, workspace.data(), workspace.size(), 2).ok());
    CHECK(engine::run_batch(workspace.data(), workspace.size(), 2).code == status::out_of_range);
    CHECK(engine::run_batch(workspace.data(), workspace.size(), -1).code == status::out_of_range);
    CHECK(engine::run_batch(workspace.data(), 300, 0).code == status::workspace_too_small);
    CHECK(s.all[0]->is_untouched());
    CHECK(engine::run_batch(workspace.data(), workspace.size(), 1).ok());
    CHECK(s.as_expected());
    s.clear();
    CHECK(engine::run_batch(workspace.data(), workspace.size(), 0).ok()); // nothing is left of it
    CHECK(s.all[0]->is_untouched());
    auto bad = all;
    bad[0].softcap = -1;
    REQUIRE(engine::plan_batch(all, workspace.data(), workspace.size(), 2).ok());
    CHECK(!engine::plan_batch(bad, workspace.data(), workspace.size(), 2).ok());
    CHECK(engine::run_batch(workspace.data(), workspace.size(), 0).code == status::mismatch);
    CHECK(s.all[0]->is_untouched());
}

TEST_CASE("engine.batch: allocates nothing") {
    SOFATTN_GENERATOR(random);
    sequences<half> s = mixed<half>(random);
    auto const all = s.descriptors();
    std::vector<std::byte> workspace(engine::batch_workspace_bytes(all, 1));
    auto const before = allocations.requests.load();
    auto const v = engine::run_batch(all, workspace.data(), workspace.size(), exec::serial{});
    CHECK(allocations.requests == before);
    CHECK(v.ok());
    CHECK(before > 0);
}
