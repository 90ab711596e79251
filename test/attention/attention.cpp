// SPDX-License-Identifier: MIT
#include "attention/layer_case.hpp"
#include "attention/projected_case.hpp"
#include "support/generators.hpp"
#include "support/watched.hpp"
#include <sofattn/attention/attention.hpp>
#include <sofattn/core/bfloat16.hpp>
#include <sofattn/core/half.hpp>
#include <sofattn/sads/row_selectors.hpp>
#include <sofattn/sufa/rivals.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <limits>
#include <numeric>
#include <set>
#include <string>

using namespace sofattn;
using namespace sofattn::test;

namespace {

constexpr double tolerance = 2e-6; // the contract of every attender

using paper_like = attention<dlzs::dlzs8, sads::segment_topk<>, sufa::sorted_updating<>>;

template <index_t Width>
using counting_lanes = exec::executor<exec::scalar_lanes<Width>, probe::ledger, double>;

} // namespace

TEST_CASE_TEMPLATE("attention: the output is the softmax over exactly the kept keys", A,
                   attention<dlzs::dlzs8, sads::segment_topk<>, sufa::sorted_updating<>>,
                   attention<dlzs::dlzs16, sads::segment_topk<sads::strided>,
                             sufa::sorted_updating<sufa::ascending>>,
                   attention<dlzs::int8, sads::full_topk, sufa::flash_attention_2>,
                   attention<dlzs::centred_int4, sads::full_topk, sufa::two_pass>,
                   attention<dlzs::lz_keys, sads::segment_topk<>, sufa::two_pass>,
                   attention<dlzs::two_sided, sads::threshold, sufa::sorted_updating<>>,
                   attention<dlzs::exact, sads::full_topk, sufa::sorted_updating<>>,
                   attention<dlzs::unpredicted, sads::keep_all, sufa::flash_attention_2>) {
    SOFATTN_GENERATOR(random);
    for (bool const causal : {false, true}) {
        for (index_t const tile : {1, 7, 16, 200}) {
            CAPTURE(causal);
            CAPTURE(tile);
            layer_case const layer(random, {}, causal);
            sads::budget budget = sads::budget::of_ratio(0.3);
            budget.radius = A::selector::name == std::string("threshold")
                                ? 3.0
                                : std::numeric_limits<double>::infinity();
            auto const record = run(A(with(budget, tile)), layer.given());
            CHECK(deviation(layer, record) <= tolerance);
            std::uint64_t kept = 0;
            for (auto const& row : record.kept) {
                kept += row.size();
                CHECK(std::set(row.begin(), row.end()).size() == row.size());
            }
            CHECK(record.result.kept_pairs == kept);
        }
    }
}

TEST_CASE("attention: dense through the pipeline is dense attention") {
    SOFATTN_GENERATOR(random);
    layer_case const layer(random, {}, true);
    auto const record =
        run(attention<dlzs::unpredicted, sads::keep_all, sufa::sorted_updating<>>(with({}, 16)),
            layer.given());
    CHECK(record.result.kept_share() == 1.0);
    CHECK(record.result.visible_pairs == 4 * 70 * 71 / 2);
    for (std::size_t row = 0; row < record.kept.size(); ++row) {
        CHECK(record.kept[row].size() == row % 70 + 1);
    }
    CHECK(deviation(layer, record) <= tolerance);
}

TEST_CASE(
    "attention: every row keeps its budget, and full top-k of exact scores is the true top-k") {
    SOFATTN_GENERATOR(random);
    layer_case const layer(random, {}, true);
    problem_shape const s = layer.given().shape();
    auto const record = run(attention<dlzs::exact, sads::full_topk, sufa::sorted_updating<>>(
                                with(sads::budget::of_ratio(0.25))),
                            layer.given());
    for (index_t h = 0; h < s.heads; ++h) {
        for (index_t r = 0; r < s.queries; ++r) {
            std::vector<double> logits(static_cast<std::size_t>(r + 1));
            ref::row_logits(layer.q.cview().slice<axis::head>(h).slice<axis::query>(r),
                            layer.k.cview().slice<axis::kv_head>(h / 2), s.scale, logits);
            std::vector<key_id> best(logits.size());
            std::iota(best.begin(), best.end(), 0);
            std::ranges::sort(best, [&](key_id a, key_id b) {
                return logits[static_cast<std::size_t>(a)] > logits[static_cast<std::size_t>(b)];
            });
            best.resize(static_cast<std::size_t>(sads::budget::of_ratio(0.25).keys_for(r + 1)));
            CHECK(record.kept[static_cast<std::size_t>(h * s.queries + r)] == best);
        }
    }
}

TEST_CASE("attention: queries that are the end of a sequence see what they see in the whole") {
    SOFATTN_GENERATOR(random);
    layer_case const whole(random, {.queries = 70, .keys = 70}, true);
    problem<float> end = whole.given();
    end.queries = end.queries.range<axis::query>(50, 20);
    // Steps per head would differ with the queries; the exact predictor has none.
    attention<dlzs::exact, sads::segment_topk<>, sufa::sorted_updating<>> const attend(
        with(sads::budget::of_ratio(0.3)));
    auto const all = run(attend, whole.given());
    auto const some = run(attend, end);
    for (index_t h = 0; h < 4; ++h) {
        for (index_t r = 0; r < 20; ++r) {
            CHECK(some.kept[static_cast<std::size_t>(h * 20 + r)] ==
                  all.kept[static_cast<std::size_t>(h * 70 + 50 + r)]);
            CHECK(some.output(h, r, 3) == all.output(h, 50 + r, 3));
        }
    }
}

TEST_CASE("attention: causal rows before the first key are zero") {
    SOFATTN_GENERATOR(random);
    layer_case const layer(random, {.queries = 30, .keys = 10}, true);
    auto const record = run(paper_like(with(sads::budget::of_ratio(0.5))), layer.given());
    for (index_t r = 0; r < 30; ++r) {
        CHECK(record.kept[static_cast<std::size_t>(r)].empty() == (r < 20));
        CHECK((record.output(0, r, 0) == 0.0f) == (r < 20));
    }
}

TEST_CASE("attention: every storage type and stride gives what a dense float copy gives") {
    SOFATTN_GENERATOR(random);
    auto const check = [&]<class T>(T) {
        layer_case layer(random, {}, true);
        auto const q = converted<T>(layer.q.cview());
        auto const k = converted<T>(layer.k.cview());
        auto const v = converted<T>(layer.v.cview());
        layer.q = converted<float>(q.cview());
        layer.k = converted<float>(k.cview());
        layer.v = converted<float>(v.cview());
        auto const expected = run(paper_like(with(sads::budget::of_ratio(0.3))), layer.given());
        for (layout const kind : all_layouts) {
            auto const sq = strided(random, q.cview(), kind);
            auto const sk = strided(random, k.cview(), kind);
            auto const sv = strided(random, v.cview(), kind);
            problem<T> const given{sq.cview(), sk.cview(), sv.cview(), true, 0};
            CHECK(same(run(paper_like(with(sads::budget::of_ratio(0.3))), given), expected));
        }
        problem<float, T> const mixed{layer.q.view(), k.view(), v.view(), true, 0};
        CHECK(same(run(paper_like(with(sads::budget::of_ratio(0.3))), mixed), expected));
    };
    check(float{});
    check(half{});
    check(bfloat16{});
}

TEST_CASE("attention: head sizes up to 256, and one key, run") {
    SOFATTN_GENERATOR(random);
    for (index_t const dim : {1, 3, 80, 255, 256}) {
        for (index_t const value_dim : {1, 256}) {
            for (index_t const keys : {1, 2, 33}) {
                layer_case const layer(random, {2, 1, keys, keys, dim, value_dim}, true);
                auto const record =
                    run(paper_like(with(sads::budget::of_ratio(0.5), 8)), layer.given());
                CHECK(deviation(layer, record) <= tolerance);
            }
        }
    }
}

TEST_CASE("attention: a group that selects together keeps one set, the best by any head's score") {
    SOFATTN_GENERATOR(random);
    layer_case const layer(random, {}, true);
    auto options = with(sads::budget::of_ratio(0.2));
    options.scope = selection_scope::per_group;
    auto const record = run(
        attention<dlzs::exact, sads::full_topk, sufa::sorted_updating<>>(options), layer.given());
    CHECK(deviation(layer, record) <= tolerance);
    for (index_t r = 0; r < 70; ++r) {
        for (index_t h = 0; h < 4; ++h) {
            auto const& kept = record.kept[static_cast<std::size_t>(h * 70 + r)];
            auto const& leader = record.kept[static_cast<std::size_t>((h - h % 2) * 70 + r)];
            CHECK(kept == leader);
        }
        std::vector<double> most(static_cast<std::size_t>(r + 1),
                                 -std::numeric_limits<double>::infinity());
        for (index_t h = 0; h < 2; ++h) {
            std::vector<double> logits(most.size());
            ref::row_logits(layer.q.cview().slice<axis::head>(h).slice<axis::query>(r),
                            layer.k.cview().slice<axis::kv_head>(0), 1.0, logits);
            std::ranges::transform(most, logits, most.begin(),
                                   [](double a, double b) { return std::max(a, b); });
        }
        auto const& kept = record.kept[static_cast<std::size_t>(r)];
        double const last = most[static_cast<std::size_t>(kept.back())];
        CHECK(std::ranges::count_if(most, [&](double s) { return s > last; }) ==
              std::ssize(kept) - 1);
    }
    // Shared sets are loaded once for the group.
    options.scope = selection_scope::per_query_head;
    auto const apart = run(
        attention<dlzs::exact, sads::full_topk, sufa::sorted_updating<>>(options), layer.given());
    CHECK(record.result.key_loads < apart.result.key_loads);
    CHECK(record.result.kept_pairs == apart.result.kept_pairs);
}

TEST_CASE("attention: every head follows its own budget") {
    SOFATTN_GENERATOR(random);
    layer_case const layer(random, {}, false);
    auto options = with({});
    for (index_t count : {1, 5, 20, 70}) {
        options.head_budgets.push_back(sads::budget::of_count(count));
    }
    auto const record = run(paper_like(options), layer.given());
    CHECK(record.kept[0].size() == 1);
    CHECK(record.kept[70].size() == 5);
    CHECK(record.kept[140].size() == 20);
    CHECK(record.kept[210].size() == 70);
}

TEST_CASE("attention: sinks and the window around the query are kept, causal or not") {
    SOFATTN_GENERATOR(random);
    sads::budget budget = sads::budget::of_ratio(0.2);
    budget.sinks = 2;
    budget.window = 4;
    auto const contains = [](std::vector<key_id> const& kept, index_t key) {
        return std::ranges::find(kept, static_cast<key_id>(key)) != kept.end();
    };
    for (bool const causal : {false, true}) {
        layer_case const layer(random, {}, causal);
        auto const record = run(paper_like(with(budget)), layer.given());
        for (index_t r = 0; r < 70; ++r) {
            auto const& kept = record.kept[static_cast<std::size_t>(r)];
            index_t const visible = causal ? r + 1 : 70;
            for (index_t sink = 0; sink < std::min<index_t>(2, visible); ++sink) {
                CHECK(contains(kept, sink));
            }
            index_t const end = causal ? r + 1 : std::clamp<index_t>(r + 3, 4, 70);
            for (index_t key = std::max<index_t>(0, end - 4); key < end; ++key) {
                CHECK(contains(kept, key));
            }
        }
    }
}

TEST_CASE("attention: tiles of a tile-ready selector do not change what a row-ready run selects") {
    // Two-pass needs whole rows, so the same SADS segments are then selected row by row.
    SOFATTN_GENERATOR(random);
    for (bool const causal : {false, true}) {
        layer_case const layer(random, {}, causal);
        auto const options = with(sads::budget::of_ratio(0.3), 16);
        auto const tiles =
            run(attention<dlzs::dlzs8, sads::segment_topk<>, sufa::sorted_updating<>>(options),
                layer.given());
        auto const rows = run(attention<dlzs::dlzs8, sads::segment_topk<>, sufa::two_pass>(options),
                              layer.given());
        CHECK(tiles.kept == rows.kept);
    }
}

TEST_CASE_TEMPLATE("attention: outputs and ledgers do not depend on the lanes", X,
                   counting_lanes<4>, counting_lanes<8>, counting_lanes<16>, watched_executor) {
    SOFATTN_GENERATOR(random);
    layer_case const layer(random, {}, true);
    auto const check = [&]<class Selector, class Attender>(Selector, Attender) {
        auto const options = with(sads::budget::of_ratio(0.3));
        exec::counting narrow;
        auto const expected =
            run(attention<dlzs::dlzs8, Selector, Attender, exec::counting>(options), narrow,
                layer.given());
        X x;
        auto const record =
            run(attention<dlzs::dlzs8, Selector, Attender, X>(options), x, layer.given());
        CHECK(same(record, expected));
        CHECK(x.probe == narrow.probe);
    };
    check(sads::segment_topk<>{}, sufa::sorted_updating<>{});
    check(sads::full_topk{}, sufa::flash_attention_2{});
}

TEST_CASE("attention: counting changes nothing, and a trace adds up to the ledger") {
    SOFATTN_GENERATOR(random);
    layer_case const layer(random, {.queries = 150, .keys = 150}, true);
    auto const options = with(sads::budget::of_ratio(0.3), 32);
    using stages = sufa::sorted_updating<>;
    exec::reference silent;
    exec::counting counting;
    exec::hardware hardware;
    auto const a =
        run(attention<dlzs::dlzs8, sads::segment_topk<>, stages, exec::reference>(options), silent,
            layer.given());
    auto const b =
        run(attention<dlzs::dlzs8, sads::segment_topk<>, stages, exec::counting>(options), counting,
            layer.given());
    auto const c =
        run(attention<dlzs::dlzs8, sads::segment_topk<>, stages, exec::hardware>(options), hardware,
            layer.given());
    CHECK(same(a, b));
    CHECK(same(a, c));
    CHECK(hardware.probe.total() == counting.probe);
    // Two blocks of queries, of which the first sees 4 tiles of keys and the second 5, by 4 heads.
    CHECK(hardware.probe.tiles().size() == 4 * (4 + 5));
}

TEST_CASE("attention: predicted products and traffic are those of the closed forms") {
    SOFATTN_GENERATOR(random);
    layer_case const layer(random, {.queries = 64, .keys = 64}, false);
    exec::counting x;
    auto const record =
        run(attention<dlzs::dlzs8, sads::segment_topk<>, sufa::sorted_updating<>, exec::counting>(
                with(sads::budget::of_ratio(0.25))),
            x, layer.given());
    using enum probe::event;
    auto const& counts = x.probe;
    CHECK(counts.count(probe::stage::score_prediction, shift_add_8) +
              counts.count(probe::stage::score_prediction, skipped_zero) ==
          4u * 64 * 64 * 16);
    CHECK(counts.count(lz_encode) == 4u * 64 * 16);
    CHECK(counts.traffic(index_bytes) == bytes(4u * 64 * 16));
    CHECK(counts.traffic(query_bytes) == bytes(4u * 64 * 16 * 2));
    CHECK(counts.traffic(output_bytes) == bytes(4u * 64 * 24 * 2));
    CHECK(counts.traffic(key_bytes) == bytes(record.result.key_loads * 16 * 2));
    CHECK(counts.traffic(value_bytes) == bytes(record.result.key_loads * 24 * 2));
    CHECK(counts.count(exp) == record.result.kept_pairs);
    CHECK(counts.count(divide) == 4u * 64 * 24);
}

TEST_CASE("attention: left to right never loads less than RASS") {
    SOFATTN_GENERATOR(random);
    layer_case const layer(random, {.queries = 64, .keys = 64}, false);
    auto const options = with(sads::budget::of_ratio(0.25), 32);
    using selector = sads::segment_topk<>;
    using attender = sufa::sorted_updating<>;
    auto const loads = [&]<class Schedule>(Schedule) {
        return run(attention<dlzs::dlzs8, selector, attender, exec::reference, Schedule>(options),
                   layer.given())
            .result.key_loads;
    };
    auto const reuse = loads(rass::reuse_aware{});
    CHECK(reuse <= 4u * 64);
    CHECK(loads(rass::left_to_right<rass::load_rule::wanted>{}) > reuse);
    CHECK(loads(rass::left_to_right<rass::load_rule::range>{}) >=
          loads(rass::left_to_right<rass::load_rule::wanted>{}));
}

// --- on demand -----------------------------------------------------------------------------------

namespace {

/// All keys and values, generated one after the other.
layer_case dense_copy(generator& random, projected_case const& from) {
    layer_case layer(random, {}, true);
    layer.q = from.q;
    auto const given = from.given();
    exec::reference x;
    for (index_t kv = 0; kv < 2; ++kv) {
        for (index_t key = 0; key < 70; ++key) {
            dlzs::generate_row{}(x, given.tokens, given.key_projection(kv), key,
                                 std::span(&layer.k(kv, key, 0), 16));
            dlzs::generate_row{}(x, given.tokens, given.value_projection(kv), key,
                                 std::span(&layer.v(kv, key, 0), 24));
        }
    }
    return layer;
}

} // namespace

TEST_CASE("attention: keys and values on demand equal the dense ones bit for bit") {
    SOFATTN_GENERATOR(random);
    for (bool const biased : {false, true}) {
        projected_case const from(random, biased);
        layer_case const dense = dense_copy(random, from);
        exec::counting x;
        attention<dlzs::dlzs16, sads::segment_topk<>, sufa::sorted_updating<>, exec::counting> const
            attend(with(sads::budget::of_ratio(0.1)));
        auto const on_demand = run(attend, x, from.given());

        // The same selection over the dense copies, attended in the same order.
        for (index_t h = 0; h < 4; ++h) {
            for (index_t r = 0; r < 70; ++r) {
                auto const& kept = on_demand.kept[static_cast<std::size_t>(h * 70 + r)];
                std::vector<double> o(24);
                auto state = sufa::softmax_state<double>::empty(o);
                std::vector<double> logits(kept.size());
                sufa::attend_inputs<float, float, float> const in{
                    dense.q.cview().slice<axis::head>(h).slice<axis::query>(r),
                    dense.k.cview().slice<axis::kv_head>(h / 2),
                    dense.v.cview().slice<axis::kv_head>(h / 2), 0.02};
                exec::reference plain;
                std::vector<ranked<std::int32_t>> list;
                for (key_id key : kept) {
                    list.push_back({0, key});
                }
                sufa::sorted_updating<>{}(plain, in, std::span<ranked<std::int32_t> const>(list),
                                          logits, state);
                std::vector<float> row(24);
                state.finish(row);
                for (index_t d = 0; d < 24; ++d) {
                    CHECK(row[static_cast<std::size_t>(d)] == on_demand.output(h, r, d));
                }
            }
        }

        // Only tokens that some query kept were generated, each once per KV head.
        std::uint64_t expected = 0;
        for (index_t kv = 0; kv < 2; ++kv) {
            std::set<key_id> wanted;
            for (index_t row = 2 * kv * 70; row < (2 * kv + 2) * 70; ++row) {
                auto const& kept = on_demand.kept[static_cast<std::size_t>(row)];
                wanted.insert(kept.begin(), kept.end());
            }
            expected += wanted.size();
        }
        CHECK(on_demand.result.generated == expected);
        CHECK(x.probe.traffic(probe::event::weight_bytes) ==
              bytes(2 * (40 * 16 / 2) + 2 * 40 * (16 + 24) * 2)); // 4-bit codes, then exact weights
        CHECK(x.probe.count(probe::stage::key_prediction, probe::event::shift_add_8) +
                  x.probe.count(probe::stage::key_prediction, probe::event::skipped_zero) ==
              2u * 70 * 40 * 16);
        auto const rows = on_demand.result.generated;
        CHECK(x.probe.count(probe::stage::kv_generation, probe::event::multiply) ==
              rows * (40 * (16 + 24) + 2 * 16));
    }
}

TEST_CASE("attention: selection from predicted keys follows the true scores") {
    SOFATTN_GENERATOR(random);
    projected_case const from(random, true);
    layer_case const dense = dense_copy(random, from);
    auto const options = with(sads::budget::of_ratio(0.2));
    using attender = sufa::sorted_updating<>;
    auto const overlap = [&](run_record const& a, run_record const& b) {
        double common = 0;
        double all = 0;
        for (std::size_t row = 0; row < a.kept.size(); ++row) {
            std::set<key_id> const truth(b.kept[row].begin(), b.kept[row].end());
            for (key_id key : a.kept[row]) {
                common += static_cast<double>(truth.count(key));
            }
            all += static_cast<double>(a.kept[row].size());
        }
        return common / all;
    };
    auto truth = run(attention<dlzs::exact, sads::full_topk, attender>(options), dense.given());
    auto const integer = run(attention<dlzs::int8, sads::full_topk, attender, exec::reference,
                                       rass::reuse_aware, dlzs::integer_weights>(options),
                             from.given());
    auto const coded =
        run(attention<dlzs::dlzs16, sads::full_topk, attender>(options), from.given());
    CHECK(overlap(integer, truth) > 0.95);
    CHECK(overlap(coded, truth) > 0.7);
    CHECK(overlap(coded, truth) < overlap(integer, truth));
}

// --- errors --------------------------------------------------------------------------------------

namespace {

template <class F>
std::string refusal(F f) {
    try {
        f();
    } catch (error const& e) {
        return e.what();
    }
    return "accepted";
}

} // namespace

TEST_CASE("attention: what makes no attention is refused with what, value and limit") {
    SOFATTN_GENERATOR(random);
    layer_case layer(random, {}, true);
    tensor<float, axis::head, axis::query, axis::value_dim> output({4, 70, 24});
    auto const attempt = [&](problem<float> const& given, attention_options options = {}) {
        return refusal([&] {
            exec::reference x;
            paper_like{std::move(options)}(x, given, output.view());
        });
    };
    auto given = layer.given();
    SUBCASE("heads that do not divide") {
        given.queries = given.queries.range<axis::head>(0, 3);
        CHECK(attempt(given) ==
              "attention: query heads is 3, must be a multiple of the KV heads, 2");
    }
    SUBCASE("head sizes that differ") {
        given.keys = given.keys.range<axis::dim>(0, 15);
        CHECK(attempt(given) ==
              "attention: head dimension of keys is 15, must be that of queries, 16");
    }
    SUBCASE("values of other tokens") {
        given.values = given.values.range<axis::key>(0, 69);
        CHECK(attempt(given) == "attention: tokens of values is 69, must be those of keys, 70");
    }
    SUBCASE("values of other heads") {
        given.values = given.values.range<axis::kv_head>(0, 1);
        CHECK(attempt(given) == "attention: KV heads of values is 1, must be those of keys, 2");
    }
    SUBCASE("nothing") {
        given.queries = given.queries.range<axis::query>(0, 0);
        CHECK(attempt(given) == "attention: query tokens is 0, must be at least 1");
    }
    SUBCASE("a scale that is none") {
        given.scale = -1;
        CHECK(attempt(given).find("softmax scale is -1") != std::string::npos);
    }
    SUBCASE("numbers that are none, with their place") {
        layer.k(1, 33, 7) = std::numeric_limits<float>::quiet_NaN();
        CHECK(attempt(given) == "attention: keys: element [1, 33, 7] is nan, must be finite");
        layer.q(3, 0, 15) = -std::numeric_limits<float>::infinity();
        CHECK(attempt(given) == "attention: queries: element [3, 0, 15] is -inf, must be finite");
    }
    SUBCASE("more keys than there are") {
        CHECK(attempt(given, with(sads::budget::of_count(71))) ==
              "budget: count of keys kept is 71, must be from 1 to the number of keys, 70");
    }
    SUBCASE("a ratio outside (0, 1]") {
        CHECK(attempt(given, with(sads::budget::of_ratio(0))).find("must be in (0, 1]") !=
              std::string::npos);
    }
    SUBCASE("no keys per tile") {
        CHECK(attempt(given, with({}, 0)) == "attention: keys per tile is 0, must be at least 1");
    }
    SUBCASE("budgets for other heads") {
        auto options = with({});
        options.head_budgets.resize(3);
        CHECK(attempt(given, options) == "attention: number of head budgets is 3, must be 0 or the "
                                         "number of query heads, 4");
    }
    SUBCASE("different budgets in a group that selects together") {
        auto options = with({});
        options.scope = selection_scope::per_group;
        options.head_budgets.resize(4);
        options.head_budgets[1] = sads::budget::of_ratio(0.5);
        CHECK(attempt(given, options).find("budget of query head 1") != std::string::npos);
    }
    SUBCASE("an output of another shape") {
        tensor<float, axis::head, axis::query, axis::value_dim> small({4, 70, 23});
        CHECK(refusal([&] {
                  exec::reference x;
                  paper_like{}(x, given, small.view());
              }) == "attention: head dimension of the output is 23, must be that of values, 24");
    }
    SUBCASE("a window") {
        given.causal = true;
        given.window = 5;
        CHECK(attempt(given, {}) == "attention: window is 5, must be 0 here: dense_attention has "
                                    "windows, selection has none");
    }
    SUBCASE("head sizes over 256") {
        tensor<float, axis::head, axis::query, axis::dim> q({2, 3, 257});
        tensor<float, axis::kv_head, axis::key, axis::dim> k({1, 3, 257});
        tensor<float, axis::kv_head, axis::key, axis::value_dim> v({1, 3, 4});
        CHECK(attempt({q.view(), k.view(), v.view(), false, 0})
                  .find("head dimension of queries and keys is 257, must be from 1 to 256") !=
              std::string::npos);
    }
}

TEST_CASE("attention: a refused run writes nothing") {
    SOFATTN_GENERATOR(random);
    layer_case layer(random, {}, true);
    layer.v(1, 69, 23) = std::numeric_limits<float>::infinity();
    tensor<float, axis::head, axis::query, axis::value_dim> output({4, 70, 24});
    output(0, 0, 0) = 42.0f;
    exec::reference x;
    CHECK_THROWS_AS(paper_like{}(x, layer.given(), output.view()), error);
    CHECK(output(0, 0, 0) == 42.0f);
}

TEST_CASE("attention: projections that do not fit are refused") {
    SOFATTN_GENERATOR(random);
    projected_case const from(random, true);
    auto const attempt = [&](projected_problem<float> const& given) {
        return refusal([&] { (void)given.shape(); });
    };
    auto given = from.given();
    CHECK(attempt(given) == "accepted");
    SUBCASE("channels") {
        given.tokens = given.tokens.range<axis::channel>(0, 39);
        CHECK(attempt(given) ==
              "attention: channels of key weights is 40, must be those of tokens, 39");
    }
    SUBCASE("bias") {
        given.key_bias = given.key_bias.range<axis::dim>(0, 15);
        CHECK(attempt(given).find("elements of the key bias is 30") != std::string::npos);
    }
    SUBCASE("RoPE of another size") {
        dlzs::rope const other(8, dlzs::rope_layout::halves);
        given.rotation = &other;
        CHECK(attempt(given) == "attention: dimension of the RoPE is 8, must be that of keys, 16");
    }
    SUBCASE("value weights") {
        given.value_weights = given.value_weights.range<axis::kv_head>(0, 1);
        CHECK(attempt(given) ==
              "attention: KV heads of value weights is 1, must be those of key weights, 2");
    }
}
