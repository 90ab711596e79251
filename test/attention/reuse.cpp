// SPDX-License-Identifier: MIT
// Reused scores through the whole pipeline: what they make of outputs, loads and counts.
#include "attention/layer_case.hpp"
#include "support/generators.hpp"
#include "support/watched.hpp"
#include <sofattn/attention/attention.hpp>
#include <sofattn/core/hadamard.hpp>
#include <sofattn/ref/dense_attention.hpp>
#include <sofattn/sads/adaptive.hpp>
#include <sofattn/sads/row_selectors.hpp>
#include <sofattn/sufa/logit_source.hpp>
#include <sofattn/sufa/tail.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <set>
#include <type_traits>
#include <vector>

using namespace sofattn;
using namespace sofattn::test;

namespace {

template <class Source, class P, class S, class X = exec::reference, class Tail = sufa::no_tail,
          class Order = sufa::descending>
using attending = attention<P, S, sufa::sorted_updating<Order, Source>, X, rass::reuse_aware,
                            dlzs::coded_weights, Tail>;

using running = sads::adaptive<sads::tile_by_tile>;

/// Budgets that mean something to the selector; logits are large, so much mass is little of a row.
template <class S>
sads::budget budget_for() {
    return weighs_scores<S> ? sads::budget::of_mass(0.999) : sads::budget::of_ratio(0.5);
}

/// Logits of standard deviation `spread`, beside the planted ones.
layer_case layer_of(generator& random, layer_shape shape, bool causal, float spread) {
    layer_case layer(random, shape, causal);
    for_each_index(layer.q.view().extents(),
                   [&](auto const& i) { at(layer.q.view(), i) *= spread; });
    return layer;
}

/// Both masks, groups of 1 and 4, both scopes, and logits far enough apart that most are reused.
template <class F>
void for_layers(generator& random, F f) {
    for (bool const causal : {false, true}) {
        for (index_t const kv_heads : {1, 4}) {
            for (auto const scope : {selection_scope::per_query_head, selection_scope::per_group}) {
                CAPTURE(causal);
                CAPTURE(kv_heads);
                CAPTURE(static_cast<int>(scope));
                f(layer_of(random, {4, kv_heads, 24, 90, 16, 6}, causal, 4.0f), scope);
            }
        }
    }
}

/// Largest |difference| of two outputs.
double apart(run_record const& a, run_record const& b) {
    double worst = 0;
    for_each_index(a.output.view().extents(), [&](auto const& i) {
        worst = std::max(worst, std::abs(static_cast<double>(at(a.output.view(), i)) -
                                         static_cast<double>(at(b.output.view(), i))));
    });
    return worst;
}

/// Frobenius norm of what the output is off dense attention, over that of dense attention.
double off_dense(layer_case const& layer, run_record const& record) {
    problem_shape const s = layer.given().shape();
    double off = 0;
    double all = 0;
    for (index_t h = 0; h < s.heads; ++h) {
        for (index_t r = 0; r < s.queries; ++r) {
            std::vector<double> weights(static_cast<std::size_t>(s.visible(r)));
            std::vector<double> row(static_cast<std::size_t>(s.value_dim));
            ref::row_logits(layer.q.cview().slice<axis::head>(h).slice<axis::query>(r),
                            layer.k.cview().slice<axis::kv_head>(h / s.group()), s.scale, weights);
            ref::softmax(weights);
            ref::weighted_sum<float>(weights, layer.v.cview().slice<axis::kv_head>(h / s.group()),
                                     row);
            for (index_t d = 0; d < s.value_dim; ++d) {
                double const expected = row[static_cast<std::size_t>(d)];
                double const error = static_cast<double>(record.output(h, r, d)) - expected;
                off += error * error;
                all += expected * expected;
            }
        }
    }
    return std::sqrt(off / all);
}

/// Keys that are loaded if each row computes what is within 4 logits of its best: for whole rows in
/// one tile, one block of queries, and exact scores.
std::uint64_t expected_key_loads(layer_case const& layer, run_record const& record,
                                 index_t together) {
    problem_shape const s = layer.given().shape();
    std::uint64_t loads = 0;
    std::set<key_id> computed;
    for (index_t h = 0; h < s.heads; ++h) {
        for (index_t r = 0; r < s.queries; ++r) {
            std::vector<double> logits(static_cast<std::size_t>(s.keys));
            ref::row_logits(layer.q.cview().slice<axis::head>(h).slice<axis::query>(r),
                            layer.k.cview().slice<axis::kv_head>(h / s.group()), s.scale, logits);
            auto const logit = [&](key_id k) { return logits[static_cast<std::size_t>(k)]; };
            auto const& kept = record.kept[static_cast<std::size_t>(h * s.queries + r)];
            double const best = logit(*std::ranges::max_element(kept, {}, logit));
            std::ranges::copy_if(kept, std::inserter(computed, computed.end()),
                                 [&](key_id k) { return logit(k) >= best - 4.0; });
        }
        if ((h + 1) % together == 0) {
            loads += computed.size();
            computed.clear();
        }
    }
    return loads;
}

template <selection_scope Scope>
using scope_constant = std::integral_constant<selection_scope, Scope>;
using per_head = scope_constant<selection_scope::per_query_head>;
using per_group = scope_constant<selection_scope::per_group>;

template <index_t Width>
using counting_lanes = exec::executor<exec::scalar_lanes<Width>, probe::ledger, double>;

} // namespace

TEST_CASE_TEMPLATE("attention.reuse: exact scores, reused, give what recomputed logits give", S,
                   sads::full_topk, sads::segment_topk<>, sads::adaptive<>, running) {
    SOFATTN_GENERATOR(random);
    for_layers(random, [&](layer_case const& layer, selection_scope scope) {
        auto const check = [&]<class Tail, class Order>(Tail, Order, sads::budget budget) {
            auto const options = with(budget, 16, scope);
            auto const reused =
                run(attending<sufa::reused, dlzs::exact, S, exec::reference, Tail, Order>(options),
                    layer.given());
            auto const recomputed = run(
                attending<sufa::recomputed, dlzs::exact, S, exec::reference, Tail, Order>(options),
                layer.given());
            CHECK(reused.kept == recomputed.kept);
            CHECK(reused.result.kept_share() < 1.0);
            CHECK(apart(reused, recomputed) <= 1e-6);
            if (Tail::by == sufa::stand_in::nobody) {
                CHECK(deviation(layer, reused) <= 2e-6); // the contract of every attender
            }
        };
        auto budget = budget_for<S>();
        check(sufa::no_tail{}, sufa::descending{}, budget);
        check(sufa::no_tail{}, sufa::ascending{}, budget);
        check(sufa::segment_tail{}, sufa::descending{}, budget);
        budget.sinks = 2;
        budget.window = 4;
        check(sufa::mean_tail{}, sufa::descending{}, budget);
    });
}

TEST_CASE("attention.reuse: with all keys, 8-bit scores come within 0.5 % of dense attention") {
    SOFATTN_GENERATOR(random);
    for (bool const causal : {false, true}) {
        for (index_t const dim : {64, 80}) {
            layer_case layer(random, {2, 1, 140, 160, dim, 16}, causal);
            auto const off = [&]<class P>(P, selection_scope scope) {
                auto const record = run(attending<sufa::reused, P, sads::full_topk>(
                                            with(sads::budget::of_ratio(1.0), 64, scope)),
                                        layer.given());
                CHECK(record.result.kept_share() == 1.0);
                return off_dense(layer, record);
            };
            CAPTURE(causal);
            CAPTURE(dim);
            CHECK(off(dlzs::rotated_int8{}, selection_scope::per_query_head) <= 0.005);
            CHECK(off(dlzs::rotated_int8{}, selection_scope::per_group) <= 0.005);
            // The same logits with a channel that takes the range of all the others.
            for_each_index(layer.k.view().extents(), [&](auto const& i) {
                at(layer.k.view(), i) *= i.back() == 3 ? 24.0f : 1.0f;
            });
            for_each_index(layer.q.view().extents(), [&](auto const& i) {
                at(layer.q.view(), i) /= i.back() == 3 ? 24.0f : 1.0f;
            });
            double const rotated = off(dlzs::rotated_int8{}, selection_scope::per_query_head);
            double const plain = off(dlzs::int8_per_query{}, selection_scope::per_query_head);
            CHECK(rotated <= 0.005);
            CHECK(rotated * 2.0 <= plain);
        }
    }
}

TEST_CASE_TEMPLATE("attention.reuse: a key is loaded if some query is within 4 logits of its best",
                   Scope, per_head, per_group) {
    SOFATTN_GENERATOR(random);
    for (bool const causal : {false, true}) {
        auto const layer = layer_of(random, {4, 2, 6, 90, 16, 24}, causal, 6.0f);
        auto const options = with(sads::budget::of_ratio(0.5), 90, Scope::value);
        auto const reused =
            run(attending<sufa::reused, dlzs::exact, sads::full_topk>(options), layer.given());
        auto const recomputed =
            run(attending<sufa::recomputed, dlzs::exact, sads::full_topk>(options), layer.given());
        CAPTURE(causal);
        CHECK(recomputed.result.key_loads == recomputed.result.value_loads);
        CHECK(reused.result.value_loads == recomputed.result.value_loads);
        CHECK(
            reused.result.key_loads ==
            expected_key_loads(layer, reused, options.heads_per_selection(layer.given().shape())));
        CHECK(2 * reused.result.key_loads < reused.result.value_loads);
    }
}

TEST_CASE_TEMPLATE("attention.reuse: bytes follow loads, and key products those that are computed",
                   S, sads::full_topk, sads::segment_topk<>, sads::adaptive<>, running) {
    SOFATTN_GENERATOR(random);
    for_layers(random, [&](layer_case const& layer, selection_scope scope) {
        exec::counting x;
        index_t const tile = 90; // one for a row
        auto const record = run(attending<sufa::reused, dlzs::rotated_int8, S, exec::counting>(
                                    with(budget_for<S>(), tile, scope)),
                                x, layer.given());
        auto const& result = record.result;
        using enum probe::event;
        CHECK(x.probe.traffic(key_bytes) == bytes(result.key_loads * 16 * 2));
        CHECK(x.probe.traffic(value_bytes) == bytes(result.value_loads * 6 * 2));
        CHECK(result.key_loads <= result.value_loads);
        CHECK(result.key_loads > 0);

        auto const count = [&](probe::event e) {
            return x.probe.count(probe::stage::attention, e);
        };
        std::uint64_t const kept = result.kept_pairs;
        std::uint64_t const rows = 4 * 24;
        // A score becomes a logit by a multiply and an add.
        std::uint64_t const products = count(multiply) - kept * (6 + 1) - count(max_update);
        std::uint64_t const computed = products / (16 + 1);
        CHECK(products % (16 + 1) == 0);
        CHECK(computed >= result.key_loads);
        CHECK(computed < kept);
        CHECK(count(add) == computed * 16 + kept * (6 + 2 + 1) + rows);
        CHECK(count(compare) == 2 * kept);
        CHECK(count(exp) == kept);
    });
}

TEST_CASE_TEMPLATE("attention.reuse: the same bits and counts on every executor", X,
                   counting_lanes<4>, counting_lanes<16>, watched_executor) {
    SOFATTN_GENERATOR(random);
    for_layers(random, [&](layer_case const& layer, selection_scope scope) {
        auto const check = [&]<class S>(S) {
            auto const options = with(budget_for<S>(), 16, scope);
            auto const on = [&]<class Execution>(Execution& x) {
                return run(attending<sufa::reused, dlzs::rotated_int8, S, Execution>(options), x,
                           layer.given());
            };
            exec::reference silent;
            exec::counting narrow;
            exec::hardware hardware;
            X x;
            auto const expected = on(narrow);
            auto const record = on(x);
            CHECK(same(record, expected));
            CHECK(record.result.key_loads == expected.result.key_loads);
            CHECK(x.probe == narrow.probe);
            CHECK(same(on(silent), expected));
            CHECK(same(on(hardware), expected));
            CHECK(hardware.probe.total() == narrow.probe);
        };
        check(sads::full_topk{});
        check(sads::segment_topk<>{});
        check(running{});
    });
}

TEST_CASE_TEMPLATE("attention.reuse: rotating a key or a query costs its additions, once", Scope,
                   per_head, per_group) {
    SOFATTN_GENERATOR(random);
    for (index_t const dim : {7, 16, 24}) {
        CAPTURE(dim);
        // More than a block of queries.
        layer_case const layer(random, {4, 2, 150, 90, dim, 6}, false);
        auto const counts = [&]<class P>(P) {
            exec::counting x;
            run(attending<sufa::recomputed, P, sads::full_topk, exec::counting>(
                    with(sads::budget::of_ratio(0.5), 16, Scope::value)),
                x, layer.given());
            return x.probe;
        };
        auto const rotated = counts(dlzs::rotated_int8{});
        auto const plain = counts(dlzs::int8_per_query{});
        auto const more = [&](probe::stage at, probe::event e) {
            return rotated.count(at, e) - plain.count(at, e);
        };
        auto const each = static_cast<std::uint64_t>(hadamard_adds(dim));
        CHECK(more(probe::stage::key_prediction, probe::event::add) == 2 * 90 * each);
        CHECK(more(probe::stage::score_prediction, probe::event::add) == 4 * 150 * each);
        CHECK(more(probe::stage::score_prediction, probe::event::multiply_add_8) == 0);
        CHECK(more(probe::stage::score_prediction, probe::event::index_bytes) == 0);
    }
}

TEST_CASE("attention.reuse: rows without keys stay zero, one key is its value") {
    SOFATTN_GENERATOR(random);
    layer_case const layer(random, {.queries = 30, .keys = 10}, true);
    auto const record = run(attending<sufa::reused, dlzs::rotated_int8, sads::segment_topk<>>(
                                with(sads::budget::of_ratio(0.5), 4)),
                            layer.given());
    for (index_t r = 0; r < 30; ++r) {
        CHECK((record.output(0, r, 0) == 0.0f) == (r < 20));
    }
    CHECK(record.output(3, 20, 5) == layer.v(1, 0, 5));
}
