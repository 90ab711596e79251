// SPDX-License-Identifier: MIT
#include "hw/layers.hpp"
#include "support/generators.hpp"
#include <sofattn/core/error.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/hw/config.hpp>
#include <sofattn/hw/even_spread.hpp>
#include <sofattn/hw/expand.hpp>
#include <sofattn/hw/placement.hpp>
#include <sofattn/hw/tile_work.hpp>
#include <sofattn/hw/workload.hpp>
#include <sofattn/sads/budget.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

using namespace sofattn;
using hw::tile_run;
using hw::tile_work;
using hw::workload;

namespace {

std::uint64_t u(index_t n) { return static_cast<std::uint64_t>(n); }

std::string refusal(workload const& w) {
    try {
        hw::validate(w);
    } catch (error const& e) {
        return e.what();
    }
    return "accepted";
}

} // namespace

TEST_CASE("hw.layer_tiles: pairs, rows, keys and queries are neither lost nor doubled") {
    SOFATTN_GENERATOR(random);
    for (int n = 0; n < 300; ++n) {
        workload const w = test::random_workload(random);
        REQUIRE(refusal(w) == "accepted");
        CAPTURE(n);
        std::uint64_t pairs = 0;
        std::uint64_t finished = 0;
        std::uint64_t encoded = 0;
        std::uint64_t predicted = 0;
        for (tile_run const& run : test::runs_of(w, {})) {
            auto const times = u(run.times);
            pairs += times * run.tile.visible_pairs;
            finished += times * u(run.tile.finished_rows);
            encoded += times * u(run.tile.encoded_values);
            predicted += times * u(run.tile.predicted_keys);
        }
        CHECK(static_cast<double>(pairs) == w.visible_pairs() * static_cast<double>(w.group()));
        CHECK(finished == u(w.queries_count * w.group()));
        CHECK(encoded == u(w.queries_count * w.group() * w.head_dim_count));
        CHECK(predicted == (w.has_kv_cache ? 0 : u(w.visible(w.queries_count - 1))));
    }
}

TEST_CASE("hw.layer_tiles: what a tile says of itself holds together") {
    SOFATTN_GENERATOR(random);
    for (int n = 0; n < 300; ++n) {
        workload const w = test::random_workload(random);
        hw::layer_tiles const tiles(w, {});
        for (index_t s = 0; s < tiles.selections(); ++s) {
            for (index_t b = 0; b < tiles.blocks(); ++b) {
                auto const runs = test::runs_of(tiles, s, b);
                index_t count = 0;
                for (std::size_t i = 0; i < runs.size(); ++i) {
                    tile_work const& t = runs[i].tile;
                    CHECK(runs[i].times >= 1);
                    CHECK(t.last_of_rows == (i + 1 == runs.size()));
                    CHECK((t.encoded_values > 0) == (i == 0));
                    CHECK(t.keys >= 1);
                    CHECK(t.keys <= w.tile_keys_count);
                    CHECK(t.kept_most <= t.keys);
                    CHECK(t.kept_pairs <= t.visible_pairs);
                    CHECK(t.kept_pairs <= u(t.kept_most * t.rows));
                    CHECK((t.loads > 0) == (t.kept_pairs > 0));
                    CHECK(t.loads <= t.keys);
                    CHECK(u(t.loads) <= t.kept_pairs);
                    CHECK(t.loads >= t.kept_most);
                    CHECK(t.fresh_loads >= 0);
                    CHECK(t.fresh_loads <= t.loads);
                    CHECK(t.generated_keys == (w.has_kv_cache ? 0 : t.fresh_loads));
                    CHECK(t.skipped_key_products <= t.key_products());
                    CHECK(t.skipped_score_products <= t.score_products());
                    CHECK(t.max_updates <= t.kept_pairs);
                    count += runs[i].times;
                }
                index_t const last_query = std::min((b + 1) * 128, w.queries_count) - 1;
                CHECK(count == ceil_div(w.visible(last_query), w.tile_keys_count));
            }
        }
    }
}

TEST_CASE("hw.even_spread: every place holds what the rounded shares say") {
    // Up to where pieces are put together, which is told by counting them.
    struct letters {
        index_t times = 1;
        bool is_one = false;
        std::vector<letters> parts{};

        static letters all(std::vector<letters> of) { return {1, false, std::move(of)}; }
        void append(std::vector<bool>& into) const {
            for (index_t n = 0; n < times; ++n) {
                if (parts.empty()) {
                    into.push_back(is_one);
                }
                for (letters const& part : parts) {
                    part.append(into);
                }
            }
        }
        [[nodiscard]] index_t leaves() const {
            index_t sum = parts.empty() ? 1 : 0;
            for (letters const& part : parts) {
                sum += part.leaves();
            }
            return sum;
        }
    };
    int exact = 0;
    index_t furthest = 0;
    for (index_t n = 1; n <= 130; ++n) {
        for (index_t ones = 0; ones <= n; ++ones) {
            letters const spread = hw::even_spread(ones, n, letters{1, true}, letters{1, false});
            std::vector<bool> word;
            spread.append(word);
            CHECK(std::ssize(word) == n);
            CHECK(std::ranges::count(word, true) == ones);
            CHECK(spread.leaves() <= 16);
            std::vector<bool> wanted;
            for (index_t t = 0; t < n; ++t) {
                wanted.push_back(ceil_div((t + 1) * ones, n) > ceil_div(t * ones, n));
            }
            exact += word == wanted ? 1 : 0;
            index_t ahead = 0; // of the ones that are due, most
            for (index_t t = 0, here = 0, due = 0; t < n; ++t) {
                here += word[static_cast<std::size_t>(t)] ? 1 : 0;
                due += wanted[static_cast<std::size_t>(t)] ? 1 : 0;
                ahead = std::max(ahead, std::abs(here - due));
            }
            furthest = std::max(furthest, ahead);
        }
    }
    CHECK(exact > 5000); // of 8645
    CHECK(furthest <= 2);
}

TEST_CASE("hw.layer_tiles: rows of equal length keep what their budgets give, tile by tile") {
    SOFATTN_GENERATOR(random);
    for (int n = 0; n < 200; ++n) {
        workload w = test::random_workload(random);
        w.is_causal = false;
        w.kept_most_share = 0;
        w.first_position_count = 0;
        w.tile_keys_count = random.integer<index_t>(10, 128);
        w.keys_count = random.integer<index_t>(1, w.tile_keys_count * 16);
        sads::budget const budget = sads::budget::of_ratio(w.kept_share);
        auto const rule = sads::row_rule::of(budget, w.keys_count, 1.0);
        index_t seen = 0;
        for (tile_run const& run : test::runs_of(hw::layer_tiles(w, {}), 0, 0)) {
            for (index_t i = 0; i < run.times; ++i) {
                index_t const end = std::min(seen + w.tile_keys_count, w.keys_count);
                CAPTURE(seen);
                CHECK(run.tile.kept_most == rule.share(end) - rule.share(seen));
                CHECK(run.tile.kept_pairs == u(run.tile.rows * run.tile.kept_most));
                seen = end;
            }
        }
        CHECK(seen == w.keys_count);
    }
}

TEST_CASE("hw.layer_tiles: long rows keep their share, too, spread nearly as evenly") {
    SOFATTN_GENERATOR(random);
    for (int n = 0; n < 100; ++n) {
        workload w = test::random_workload(random);
        w.is_causal = false;
        w.kept_most_share = 0;
        w.first_position_count = 0;
        w.tile_keys_count = 128;
        w.keys_count = 128 * random.integer<index_t>(17, 3000);
        double const each = w.kept_share * 128;
        double const ends = static_cast<double>(w.keys_count) / 128;
        double kept = 0;
        double seen = 0;
        for (tile_run const& run : test::runs_of(hw::layer_tiles(w, {}), 0, 0)) {
            for (index_t i = 0; i < run.times; ++i) {
                CHECK(std::abs(static_cast<double>(run.tile.kept_most) - each) < 1.01);
                kept += static_cast<double>(run.tile.kept_most);
                seen += 128;
                // Nowhere does a row run far ahead or lag behind: two keys of 100 tiles.
                CHECK(std::abs(kept - w.kept_share * seen) < 4 + 0.02 * ends);
            }
        }
        CHECK(kept == std::max(1.0, std::round(w.kept_share * seen)));
    }
}

TEST_CASE("hw.layer_tiles: where rows differ they keep the share, and wait for the fullest") {
    SOFATTN_GENERATOR(random);
    for (int n = 0; n < 200; ++n) {
        workload w = test::random_workload(random);
        w.tile_keys_count = 128;
        w.kept_share = random.uniform(0.05, 0.8);
        w.kept_most_share = random.chance(0.5) ? w.kept_share + random.uniform(0.0, 0.2) : 0;
        w.is_causal = w.is_causal || w.kept_most_share == 0;
        w.first_position_count = 0;
        w.keys_count = w.queries_count = 128 * random.integer<index_t>(8, 30);
        double kept = 0;
        double most = 0;
        double pairs = 0;
        double keys = 0;
        for (tile_run const& run : test::runs_of(w, {})) {
            auto const times = static_cast<double>(run.times);
            kept += times * static_cast<double>(run.tile.kept_pairs);
            pairs += times * static_cast<double>(run.tile.visible_pairs);
            most += times * static_cast<double>(run.tile.kept_most);
            keys += times * static_cast<double>(run.tile.keys);
        }
        CHECK(kept / pairs == doctest::Approx(w.kept_share).epsilon(0.01));
        double const wanted =
            w.kept_most_share > 0 ? w.kept_most_share : std::ceil(w.kept_share * 128) / 128;
        CHECK(most / keys == doctest::Approx(wanted).epsilon(0.02));
    }
}

TEST_CASE("hw.layer_tiles: runs hold equal tiles: as if each tile were expanded alone") {
    // A tile's fresh loads depend on how many blocks met it before; that is simulated here, block
    // by block, while the runs come from its closed form.
    SOFATTN_GENERATOR(random);
    for (int n = 0; n < 150; ++n) {
        workload w = test::random_workload(random);
        w.tile_keys_count = 128; // tiles and blocks meet edge to edge
        w.first_position_count = w.first_position_count / 128 * 128;
        if (w.is_causal) {
            w.keys_count = w.first_position_count + w.queries_count;
        }
        hw::layer_tiles const tiles(w, {});
        std::vector<index_t> meetings(
            static_cast<std::size_t>(ceil_div(w.keys_count, index_t{128})));
        for (index_t s = 0; s < tiles.selections(); ++s) {
            for (index_t b = 0; b < tiles.blocks(); ++b) {
                auto const runs = test::runs_of(tiles, s, b);
                std::size_t t = 0;
                for (tile_run const& run : runs) {
                    for (index_t i = 0; i < run.times; ++i, ++t) {
                        auto const share = [&](index_t rows) {
                            return w.union_share > 0
                                       ? std::max(w.union_share, w.kept_share)
                                       : 1 - std::pow(1 - w.kept_share, static_cast<double>(rows));
                        };
                        double missed = static_cast<double>(run.tile.keys);
                        for (index_t m = 0; m < meetings[t]; ++m) {
                            missed *= 1 - share(128 * w.heads_per_selection());
                        }
                        auto const keys = static_cast<double>(run.tile.keys);
                        index_t const found =
                            std::llround(keys - missed * (1 - share(run.tile.rows))) -
                            std::llround(keys - missed);
                        index_t const fresh = run.tile.kept_most == 0
                                                  ? 0
                                                  : std::clamp<index_t>(found, 0, run.tile.loads);
                        CAPTURE(n);
                        CAPTURE(b);
                        CAPTURE(t);
                        CHECK(run.tile.fresh_loads == fresh);
                        ++meetings[t];
                    }
                }
            }
        }
    }
}

TEST_CASE("hw.layer_tiles: a million keys make few runs per block") {
    workload w;
    w.keys_count = w.queries_count = 1 << 20;
    for (bool const causal : {false, true}) {
        w.is_causal = causal;
        hw::layer_tiles const tiles(w, {});
        CHECK(tiles.blocks() == 8192);
        for (index_t const b : {index_t{0}, index_t{1}, index_t{4000}, index_t{8191}}) {
            std::vector<tile_run> runs;
            tiles.append_block(0, b, runs);
            CHECK(runs.size() <= 8);
        }
    }
}

TEST_CASE("hw.placement: small heads stay on chip, large ones are read again; rows spill") {
    hw::machine const m;
    // BERT, 512 tokens, d = 64: 192 KB of K^, K and V, the token memory to the byte.
    auto const bert = hw::placement::of(m, 512, 128, 64, 64, 768);
    CHECK(bert.keys_stay);
    CHECK(bert.codes_stay);
    CHECK(!bert.weights_stay); // 192 KB
    CHECK(!hw::placement::of(m, 513, 128, 64, 64, 768).keys_stay);
    auto const llama = hw::placement::of(m, 4096, 128, 128, 128, 4096);
    CHECK(!llama.keys_stay);
    CHECK(!llama.codes_stay); // 256 KB
    CHECK(llama.scores_stay); // a tile at a time
    hw::machine const by_rows = hw::sofa_row_ready();
    CHECK(!hw::placement::of(by_rows, 4096, 128, 128, 128, 4096).scores_stay); // 1 MB of A^
    CHECK(hw::placement::of(by_rows, 112, 128, 128, 128, 4096).scores_stay);   // 28 KB
}

TEST_CASE("hw.set_traffic: made on chip is not read, what is used again is stored") {
    hw::machine const m;
    tile_work w;
    w.rows = 128;
    w.keys = 100;
    w.dim = 64;
    w.value_dim = 32;
    w.channels = 512;
    w.predicted_keys = 60;
    w.loads = 50;
    w.fresh_loads = w.generated_keys = 20;
    w.visible_pairs = 12800;
    hw::placement nothing_stays;
    nothing_stays.scores_stay = false;
    hw::set_traffic(w, m, nothing_stays,
                    {.first_of_rows = true, .last_of_rows = true, .used_again = true});
    CHECK(w.traffic.query_bytes == 128u * 64u * 2u);
    CHECK(w.traffic.token_bytes == 60u * 512u);
    CHECK(w.traffic.code_bytes == 512u * 64u / 2u);
    CHECK(w.traffic.index_bytes == 40u * 64u * 2u);
    CHECK(w.traffic.kept_token_bytes == 20u * 512u * 2u);
    CHECK(w.traffic.weight_bytes == 512u * 96u * 2u);
    CHECK(w.traffic.key_bytes == 30u * 64u * 2u);
    CHECK(w.traffic.value_bytes == 30u * 32u * 2u);
    CHECK(w.traffic.stored_bytes == 60u * 64u * 2u + 20u * 96u * 2u);
    CHECK(w.traffic.spilled_score_bytes == 12800u * 2u);
    CHECK(w.traffic.output_bytes == 128u * 32u * 2u);
    CHECK(w.traffic.total() == w.traffic.read() + w.traffic.written());

    hw::set_traffic(w, m, {true, true, true, true}, {});
    CHECK(w.traffic.total() == 60u * 512u + 20u * 512u * 2u); // tokens only
}

TEST_CASE("hw.workload: a description that makes no layer is refused by field, value and limit") {
    CHECK(refusal({}) == "accepted");
    workload w;
    w.kept_share = 0;
    CHECK(refusal(w) == "workload: kept_share is 0, must be from 1e-09 to 1");
    w = {};
    w.kv_heads_count = 5;
    CHECK(refusal(w) == "workload: kv_heads_count is 5, must be a divisor of heads_count, 32");
    w = {};
    w.is_causal = true;
    w.first_position_count = 1;
    CHECK(refusal(w) == "workload: first_position_count + queries_count is 4097, must be at most "
                        "keys_count, 4096, where is_causal is true");
    w.is_causal = false;
    CHECK(refusal(w) == "workload: first_position_count is 1, must be 0 where is_causal is false");
    w = {};
    w.rope_name = "yarn";
    CHECK(refusal(w) ==
          "workload: rope_name is \"yarn\", must be none or after_key_prediction or left_out");
    w = {};
    w.keys_count = w.queries_count = 1 << 24;
    CHECK(refusal(w).starts_with("workload: heads_count is 32, must be so few"));
    w = {};
    w.width_count = 1 << 20;
    w.keys_count = 1 << 24;
    w.queries_count = 1;
    CHECK(refusal(w).starts_with("workload: width_count is 1048576, must be so few"));
    w = {};
    w.heads_count = w.kv_heads_count = 1;
    w.keys_count = w.queries_count = 1 << 22;
    CHECK(refusal(w) == "accepted");
    w.tile_keys_count = 1;
    CHECK(refusal(w).starts_with("workload: tile_keys_count is 1, must be larger"));
}
