// SPDX-License-Identifier: MIT
// Tail compensation through the whole pipeline: what dropped keys weigh, and for whom.
#include "attention/layer_case.hpp"
#include "support/generators.hpp"
#include <sofattn/attention/attention.hpp>
#include <sofattn/dlzs/calibration.hpp>
#include <sofattn/sads/adaptive.hpp>
#include <sofattn/sads/row_selectors.hpp>
#include <sofattn/sufa/rivals.hpp>
#include <sofattn/sufa/tail.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <type_traits>
#include <vector>

using namespace sofattn;
using namespace sofattn::test;

namespace {

template <class P, class S, class Tail, class A = sufa::sorted_updating<>,
          class X = exec::reference>
using compensated = attention<P, S, A, X, rass::reuse_aware, dlzs::coded_weights, Tail>;

using running = sads::adaptive<sads::tile_by_tile>;

/// Budgets that mean something to the selector.
template <class S>
sads::budget budget_for() {
    return weighs_scores<S> ? sads::budget::of_mass(0.7) : sads::budget::of_ratio(0.25);
}

/// The logit that a predictor estimates for every pair, [head * queries + query][key].
using estimates = std::vector<std::vector<double>>;

estimates exact_logits(layer_case const& layer) {
    problem_shape const s = layer.given().shape();
    estimates all;
    for (index_t h = 0; h < s.heads; ++h) {
        for (index_t r = 0; r < s.queries; ++r) {
            std::vector<double> row(static_cast<std::size_t>(s.keys));
            for (index_t k = 0; k < s.keys; ++k) {
                double sum = 0;
                for (index_t d = 0; d < s.dim; ++d) {
                    sum += static_cast<double>(layer.q(h, r, d)) *
                           static_cast<double>(layer.k(h / s.group(), k, d));
                }
                row[static_cast<std::size_t>(k)] = s.scale * sum;
            }
            all.push_back(row);
        }
    }
    return all;
}

/// By the parts of dlzs, one pair at a time: codes of the heads that select together, a
/// calibration per query head.
template <class P>
estimates estimated_logits(layer_case const& layer, selection_scope scope) {
    problem_shape const s = layer.given().shape();
    index_t const together = scope == selection_scope::per_group ? s.group() : 1;
    estimates all;
    exec::reference x;
    for (index_t h = 0; h < s.heads; ++h) {
        index_t const leader = h - h % together;
        auto const keys = layer.k.cview().slice<axis::kv_head>(h / s.group());
        dlzs::key_index<P> const index(keys);
        dlzs::query_codes<P> const codes(layer.q.cview().range<axis::head>(leader, together),
                                         index);
        auto const queries = layer.q.cview().slice<axis::head>(h);
        dlzs::score_calibration calibration; // bytes need none
        if (dlzs::needs_slope<P>) {
            calibration = dlzs::calibrate<P>(queries, codes, h - leader, keys, index,
                                             [&](index_t q) { return s.visible(q); });
        }
        dlzs::key_means<P> const means(keys, index);
        for (index_t r = 0; r < s.queries; ++r) {
            std::vector<dlzs::score_type<P>> scores(static_cast<std::size_t>(s.keys));
            dlzs::predict_scores<P>{}(x, codes.row(h - leader, r), index.codes(),
                                      std::span(scores));
            score_line const line =
                means.line(queries.slice<axis::query>(r), codes.row(h - leader, r),
                           codes.product_step(r), s.scale, calibration, s.visible(r));
            std::vector<double> row;
            for (auto const score : scores) {
                row.push_back(line.logit(static_cast<double>(score)));
            }
            all.push_back(row);
        }
    }
    return all;
}

/// A value of the layer in 8 bits with its key's own step.
double coded_value(layer_case const& layer, index_t kv, index_t k, index_t d) {
    float most = 0.0f;
    for (index_t c = 0; c < layer.shape.value_dim; ++c) {
        most = std::max(most, std::abs(layer.v(kv, k, c)));
    }
    return most == 0.0f ? 0.0
                        : static_cast<double>(most / 127.0f *
                                              std::nearbyint(layer.v(kv, k, d) * (127.0f / most)));
}

/// Largest difference of outputs from the definition, relative to the row's largest |output|.
/// `tile`: keys per run, for policies whose means end there.
template <class Tail>
double tail_deviation(layer_case const& layer, run_record const& record, estimates const& dropped,
                      index_t tile) {
    problem_shape const s = layer.given().shape();
    estimates const exact = exact_logits(layer);
    double worst = 0;
    bool all_seen = true;
    for (index_t h = 0; h < s.heads; ++h) {
        index_t const kv = h / s.group();
        for (index_t r = 0; r < s.queries; ++r) {
            auto const row = static_cast<std::size_t>(h * s.queries + r);
            index_t const seen = s.visible(r);
            std::vector<char> is_kept(static_cast<std::size_t>(s.keys));
            for (key_id const k : record.kept[row]) {
                all_seen = all_seen && k < seen;
                is_kept[static_cast<std::size_t>(k)] = 1;
            }
            auto const kept = [&](index_t k) { return is_kept[static_cast<std::size_t>(k)] != 0; };
            auto const same_mean = [&](index_t a, index_t b) {
                return Tail::by == sufa::stand_in::row_mean ||
                       (a / tile == b / tile && a / Tail::segment == b / Tail::segment);
            };
            double top = -std::numeric_limits<double>::infinity();
            auto const logit = [&](index_t k) {
                return (kept(k) ? exact : dropped)[row][static_cast<std::size_t>(k)];
            };
            for (index_t k = 0; k < seen; ++k) {
                top = std::max(top, logit(k));
            }
            double mass = 0;
            std::vector<double> o(static_cast<std::size_t>(s.value_dim));
            for (index_t k = 0; k < seen; ++k) {
                if (!kept(k) && Tail::by == sufa::stand_in::nobody) {
                    continue;
                }
                double const weight = std::exp(logit(k) - top);
                mass += weight;
                for (index_t d = 0; d < s.value_dim; ++d) {
                    double value = static_cast<double>(layer.v(kv, k, d));
                    if (!kept(k) && Tail::by == sufa::stand_in::int8_values) {
                        value = coded_value(layer, kv, k, d);
                    } else if (!kept(k)) {
                        double sum = 0;
                        double count = 0;
                        for (index_t other = 0; other < seen; ++other) {
                            if (!kept(other) && same_mean(k, other)) {
                                sum += static_cast<double>(layer.v(kv, other, d));
                                count += 1;
                            }
                        }
                        value = sum / count;
                    }
                    o[static_cast<std::size_t>(d)] += weight * value;
                }
            }
            double largest = 0;
            double off = 0;
            for (index_t d = 0; d < s.value_dim; ++d) {
                double const out = mass > 0 ? o[static_cast<std::size_t>(d)] / mass : 0.0;
                largest = std::max(largest, std::abs(out));
                off = std::max(off, std::abs(out - static_cast<double>(record.output(h, r, d))));
            }
            worst = std::max(worst, largest > 0 ? off / largest : off);
        }
    }
    CHECK(all_seen);
    return worst;
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

run_record dense(layer_case const& layer) {
    return run(attention<dlzs::unpredicted, sads::keep_all, sufa::flash_attention_2>(with({})),
               layer.given());
}

/// Both masks, groups of 1 and 4, both scopes.
template <class F>
void for_layers(generator& random, F f) {
    for (bool const causal : {false, true}) {
        for (index_t const kv_heads : {1, 4}) {
            for (auto const scope : {selection_scope::per_query_head, selection_scope::per_group}) {
                CAPTURE(causal);
                CAPTURE(kv_heads);
                CAPTURE(static_cast<int>(scope));
                f(layer_case(random, {4, kv_heads, 24, 90, 8, 6}, causal), scope);
            }
        }
    }
}

#define SOFATTN_TAILS sufa::no_tail, sufa::mean_tail, sufa::segment_tail, sufa::int8_tail

template <index_t Width>
using counting_lanes = exec::executor<exec::scalar_lanes<Width>, probe::ledger, double>;

static_assert(std::is_same_v<attention<dlzs::dlzs8, sads::segment_topk<>, sufa::two_pass>::tail,
                             sufa::no_tail>);
static_assert(weighs_scores<running> && weighs_scores<sads::adaptive<>>);
static_assert(!weighs_scores<sads::full_topk> && !weighs_scores<sads::segment_topk<>>);

} // namespace

TEST_CASE_TEMPLATE("attention.tail: exact scores give the softmax of kept keys and stand-ins", Tail,
                   SOFATTN_TAILS) {
    SOFATTN_GENERATOR(random);
    for_layers(random, [&](layer_case const& layer, selection_scope scope) {
        auto const check = [&]<class S>(S, index_t tile) {
            std::string const name = S::name;
            CAPTURE(name);
            CAPTURE(tile);
            auto const record =
                run(compensated<dlzs::exact, S, Tail>(with(budget_for<S>(), tile, scope)),
                    layer.given());
            CHECK(record.result.kept_share() > 0.05);
            CHECK(record.result.kept_share() < 0.95);
            CHECK(tail_deviation<Tail>(layer, record, exact_logits(layer),
                                       S::tile_ready ? tile : layer.shape.keys) <= 1e-6);
        };
        for (index_t const tile : {7, 16, 80}) {
            check(sads::segment_topk<>{}, tile);
            check(running{}, tile);
        }
        check(sads::full_topk{}, 16);
        check(sads::adaptive<>{}, 16);
    });
}

TEST_CASE_TEMPLATE("attention.tail: predicted scores weigh as their head's calibrated line says", P,
                   dlzs::dlzs8, dlzs::int8_per_query, dlzs::centred_int4, dlzs::two_sided) {
    SOFATTN_GENERATOR(random);
    for_layers(random, [&](layer_case const& layer, selection_scope scope) {
        auto const estimated = estimated_logits<P>(layer, scope);
        auto const check = [&]<class S, class Tail>(S, Tail, index_t tile) {
            auto const record =
                run(compensated<P, S, Tail>(with(budget_for<S>(), tile, scope)), layer.given());
            CHECK(tail_deviation<Tail>(layer, record, estimated,
                                       S::tile_ready ? tile : layer.shape.keys) <= 1e-6);
        };
        check(sads::segment_topk<>{}, sufa::mean_tail{}, 16);
        check(sads::full_topk{}, sufa::segment_tail{}, 16);
        check(running{}, sufa::int8_tail{}, 40);
        check(sads::adaptive<>{}, sufa::mean_tail{}, 16);
    });
}

TEST_CASE("attention.tail: exact scores and 8-bit values come within half a step of dense") {
    SOFATTN_GENERATOR(random);
    for_layers(random, [&](layer_case const& layer, selection_scope scope) {
        double most = 0;
        for_each_index(layer.v.cview().extents(), [&](auto const& i) {
            most = std::max(most, std::abs(static_cast<double>(at(layer.v.cview(), i))));
        });
        auto const options = with(sads::budget::of_ratio(0.1), 16, scope);
        auto const exact = dense(layer);
        auto const record =
            run(compensated<dlzs::exact, sads::segment_topk<>, sufa::int8_tail>(options),
                layer.given());
        auto const paper = run(
            compensated<dlzs::exact, sads::segment_topk<>, sufa::no_tail>(options), layer.given());
        CHECK(record.kept == paper.kept);
        CHECK(apart(record, exact) <= 0.5 * most / 127.0 + 1e-6);
        CHECK(apart(paper, exact) > 10.0 * apart(record, exact));
    });
}

TEST_CASE_TEMPLATE("attention.tail: adaptive selection keeps the mass that was asked for", S,
                   sads::adaptive<>, running) {
    SOFATTN_GENERATOR(random);
    for (bool const causal : {false, true}) {
        for (double const mass : {0.3, 0.8, 0.95, 0.999}) {
            CAPTURE(causal);
            CAPTURE(mass);
            layer_case const layer(random, {4, 2, 60, 90, 8, 6}, causal);
            auto const record =
                run(compensated<dlzs::exact, S, sufa::mean_tail>(with(sads::budget::of_mass(mass))),
                    layer.given());
            auto const logits = exact_logits(layer);
            double least = 1.0;
            for (std::size_t row = 0; row < logits.size(); ++row) {
                auto const seen = static_cast<std::size_t>(
                    layer.given().shape().visible(static_cast<index_t>(row) % layer.shape.queries));
                double all = 0;
                double kept = 0;
                for (std::size_t k = 0; k < seen; ++k) {
                    all += std::exp(logits[row][k]);
                }
                for (key_id const k : record.kept[row]) {
                    kept += std::exp(logits[row][static_cast<std::size_t>(k)]);
                }
                least = std::min(least, kept / all);
            }
            CHECK(least >= mass - 1e-3);
            CHECK(record.result.kept_share() < 1.0);
        }
    }
}

TEST_CASE_TEMPLATE("attention.tail: by whole rows, tiles change no mean", S, sads::full_topk,
                   sads::adaptive<>) {
    SOFATTN_GENERATOR(random);
    for_layers(random, [&](layer_case const& layer, selection_scope scope) {
        auto const with_tile = [&](index_t tile) {
            return run(
                compensated<dlzs::dlzs8, S, sufa::mean_tail>(with(budget_for<S>(), tile, scope)),
                layer.given());
        };
        auto const expected = with_tile(90);
        for (index_t const tile : {1, 7, 64, 500}) {
            auto const record = with_tile(tile);
            CHECK(record.kept == expected.kept);
            CHECK(apart(record, expected) <= 1e-6);
        }
    });
}

TEST_CASE_TEMPLATE("attention.tail: nothing dropped, nothing changed, to the bit", Tail,
                   sufa::mean_tail, sufa::segment_tail, sufa::int8_tail) {
    SOFATTN_GENERATOR(random);
    for_layers(random, [&](layer_case const& layer, selection_scope scope) {
        auto const check = [&]<class S>(S) {
            auto const options = with(sads::budget::of_ratio(1.0), 16, scope);
            auto const record = run(compensated<dlzs::dlzs8, S, Tail>(options), layer.given());
            CHECK(record.result.kept_share() == 1.0);
            CHECK(same(record,
                       run(compensated<dlzs::dlzs8, S, sufa::no_tail>(options), layer.given())));
        };
        check(sads::segment_topk<>{});
        check(sads::full_topk{});
        check(sads::adaptive<>{}); // neither mass nor error
    });
}

TEST_CASE_TEMPLATE("attention.tail: the default is none: only kept keys count, and no event", S,
                   sads::segment_topk<>, sads::full_topk) {
    SOFATTN_GENERATOR(random);
    using plain = attention<dlzs::dlzs8, S, sufa::sorted_updating<>, exec::counting>;
    static_assert(std::is_same_v<plain, compensated<dlzs::dlzs8, S, sufa::no_tail,
                                                    sufa::sorted_updating<>, exec::counting>>);
    for_layers(random, [&](layer_case const& layer, selection_scope scope) {
        exec::counting x;
        auto const record = run(plain(with(budget_for<S>(), 16, scope)), x, layer.given());
        CHECK(deviation(layer, record) <= 2e-6);
        for (std::size_t e = 0; e < probe::event_count; ++e) {
            CHECK(x.probe.count(probe::stage::compensation, static_cast<probe::event>(e)) == 0);
        }
    });
}

TEST_CASE_TEMPLATE("attention.tail: the tail does not choose: the same keys are kept", Tail,
                   sufa::mean_tail, sufa::segment_tail, sufa::int8_tail) {
    SOFATTN_GENERATOR(random);
    for_layers(random, [&](layer_case const& layer, selection_scope scope) {
        auto const check = [&]<class S>(S) {
            auto const options = with(budget_for<S>(), 16, scope);
            CHECK(run(compensated<dlzs::dlzs8, S, Tail>(options), layer.given()).kept ==
                  run(compensated<dlzs::dlzs8, S, sufa::no_tail>(options), layer.given()).kept);
        };
        check(sads::segment_topk<>{});
        check(sads::full_topk{});
        check(sads::adaptive<>{});
        check(running{});
    });
}

TEST_CASE_TEMPLATE("attention.tail: the same bits and counts on every executor", Tail,
                   sufa::mean_tail, sufa::segment_tail, sufa::int8_tail) {
    SOFATTN_GENERATOR(random);
    for_layers(random, [&](layer_case const& layer, selection_scope scope) {
        auto const options = with(sads::budget::of_ratio(0.25), 16, scope);
        auto const on = [&]<class X>(X& x) {
            return run(
                compensated<dlzs::dlzs8, sads::segment_topk<>, Tail, sufa::sorted_updating<>, X>(
                    options),
                x, layer.given());
        };
        exec::reference silent;
        exec::counting counting;
        exec::hardware hardware;
        counting_lanes<8> wide;
        auto const expected = on(silent);
        CHECK(same(on(counting), expected));
        CHECK(same(on(hardware), expected));
        CHECK(same(on(wide), expected));
        CHECK(hardware.probe.total() == counting.probe);
        CHECK(wide.probe == counting.probe);
    });
}

TEST_CASE("attention.tail: a comparison per dropped pair, a division per row that drops") {
    SOFATTN_GENERATOR(random);
    layer_case const layer(random, {4, 2, 90, 90, 8, 6}, true);
    exec::counting x;
    auto const record =
        run(compensated<dlzs::dlzs8, sads::segment_topk<>, sufa::mean_tail, sufa::two_pass,
                        exec::counting>(with(sads::budget::of_ratio(0.25))),
            x, layer.given());
    std::uint64_t rows = 0; // that drop something
    for (std::size_t row = 0; row < record.kept.size(); ++row) {
        rows += record.kept[row].size() < row % 90 + 1 ? 1 : 0;
    }
    auto const count = [&](probe::event e) { return x.probe.count(probe::stage::compensation, e); };
    std::uint64_t const dropped = record.result.visible_pairs - record.result.kept_pairs;
    CHECK(count(probe::event::compare) == dropped + rows);
    CHECK(count(probe::event::exp) == dropped + 2 * rows);
    CHECK(count(probe::event::divide) == rows);
    CHECK(count(probe::event::multiply) == dropped + rows * ((2 * 6 + 2) + 6));
    CHECK(count(probe::event::multiply_add_8) == 0);
    // Sums of whole segments are made once per KV head, an addition per element.
    exec::counting all_kept;
    run(compensated<dlzs::dlzs8, sads::segment_topk<>, sufa::mean_tail, sufa::two_pass,
                    exec::counting>(with(sads::budget::of_ratio(1.0))),
        all_kept, layer.given());
    CHECK(all_kept.probe.count(probe::stage::compensation, probe::event::add) == 2 * 90 * 6);
    CHECK(all_kept.probe.count(probe::stage::compensation, probe::event::exp) == 0);
}

TEST_CASE("attention.tail: causal rows before the first key stay zero") {
    SOFATTN_GENERATOR(random);
    layer_case const layer(random, {.queries = 30, .keys = 10}, true);
    auto const record = run(compensated<dlzs::dlzs8, sads::segment_topk<>, sufa::mean_tail>(
                                with(sads::budget::of_ratio(0.5), 4)),
                            layer.given());
    for (index_t r = 0; r < 30; ++r) {
        CHECK((record.output(0, r, 0) == 0.0f) == (r < 20));
    }
}

TEST_CASE("attention.tail: more than a block of queries and keys, and one of each") {
    SOFATTN_GENERATOR(random);
    auto const check = [&]<class Tail>(Tail, layer_case const& layer) {
        auto const record = run(compensated<dlzs::dlzs8, sads::segment_topk<>, Tail>(
                                    with(sads::budget::of_ratio(0.2), 48)),
                                layer.given());
        auto const estimated =
            estimated_logits<dlzs::dlzs8>(layer, selection_scope::per_query_head);
        CHECK(tail_deviation<Tail>(layer, record, estimated, 48) <= 1e-6);
    };
    for (bool const causal : {false, true}) {
        layer_case const large(random, {2, 1, 150, causal ? 150 : 200, 8, 3}, causal);
        check(sufa::mean_tail{}, large);
        check(sufa::segment_tail{}, large);
        check(sufa::int8_tail{}, large);
        check(sufa::mean_tail{}, layer_case(random, {1, 1, 1, 1, 1, 1}, causal));
    }
}
