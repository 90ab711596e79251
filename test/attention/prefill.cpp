// SPDX-License-Identifier: MIT
#include "attention/layer_case.hpp"
#include "attention/page_oracle.hpp"
#include "attention/prefill_case.hpp"
#include "attention/rounded_outputs.hpp"
#include "support/allocation_counts.hpp"
#include "support/generators.hpp"
#include "support/guarded_workspace.hpp"
#include "support/own_threads.hpp"
#include "support/same_bits.hpp"
#include <sofattn/attention/attention.hpp>
#include <sofattn/attention/prefill.hpp>
#include <sofattn/core/bfloat16.hpp>
#include <sofattn/core/error.hpp>
#include <sofattn/core/half.hpp>
#include <sofattn/core/output_array.hpp>
#include <sofattn/dlzs/policy.hpp>
#include <sofattn/dlzs/predict_scores.hpp>
#include <sofattn/exec/parallel.hpp>
#include <sofattn/sads/adaptive.hpp>
#include <sofattn/sufa/sorted_updating.hpp>
#include <sofattn/sufa/tail.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <numbers>
#include <span>
#include <string>
#include <vector>

namespace {

using namespace sofattn;
using sads::budget;
using test::prefill_case;
using test::prefill_shape;
using test::prefill_shapes;

constexpr double tolerance = 2e-5;   // of outputs, relative, Frobenius
constexpr double tail_error = 2e-4;  // of what compensation adds
constexpr index_t sparse_always = 0; // keys below which attention is dense
constexpr double all_pages = 0.0;    // nothing skipped by a first level

template <class Predictor, class Source, bool Compensates>
using reference = attention<Predictor, sads::adaptive<sads::grain_by_grain>,
                            sufa::sorted_updating<sufa::descending, Source>, exec::reference,
                            rass::reuse_aware, dlzs::coded_weights,
                            std::conditional_t<Compensates, sufa::segment_tail, sufa::no_tail>>;

using output_tensor = tensor<float, axis::head, axis::query, axis::value_dim>;

struct outcome {
    output_tensor output;
    std::vector<std::vector<key_id>> kept; ///< [head * queries + query], sorted
};

template <class Prefill, class Q, class KV, class Run = exec::serial>
outcome prefill(Prefill const& run_prefill, problem<Q, KV> const& given, Run const& run = {}) {
    problem_shape const s = given.shape();
    run_prefill.check(s);
    outcome result{output_tensor({s.heads, s.queries, s.value_dim}), {}};
    result.kept.resize(static_cast<std::size_t>(s.heads * s.queries));
    auto const indexes = run_prefill.index(given, run);
    std::vector<std::byte> workspace(Prefill::workspace_bytes(s, run.threads()), std::byte{0xff});
    run_prefill(given, indexes, result.output.view(), workspace, run,
                [&](index_t h, index_t q, index_t first, std::span<std::int32_t const> kept) {
                    auto& row = result.kept[static_cast<std::size_t>(h * s.queries + q)];
                    for (std::int32_t const key : kept) {
                        row.push_back(static_cast<key_id>(first + key));
                    }
                });
    for (auto& row : result.kept) {
        std::ranges::sort(row);
    }
    return result;
}

/// What one query head's rows see of their keys, predicted.
template <class Predictor, class Q, class KV>
struct predicted_head {
    predicted_head(problem<Q, KV> const& from, attention_options const& allowed, double page_loss,
                   index_t query_head)
        : given(from), options(allowed), loss(page_loss), head(query_head),
          keys(given.keys.template slice<axis::kv_head>(head / given.shape().group())), index(keys),
          means(keys, index), sketches(keys),
          codes(given.queries.template range<axis::head>(head, 1), index) {}

    [[nodiscard]] auto query(index_t q) const {
        return given.queries.template slice<axis::head>(head).template slice<axis::query>(q);
    }
    [[nodiscard]] score_line line(index_t q) const {
        return means.line(query(q), codes.row(0, q), codes.product_step(q), given.shape().scale, {},
                          given.shape().visible(q));
    }
    [[nodiscard]] std::vector<std::int32_t> scores(index_t q) const {
        index_t const visible = given.shape().visible(q);
        std::vector<std::int32_t> found(static_cast<std::size_t>(visible));
        exec::reference x;
        dlzs::predict_scores<Predictor>{}(x, codes.row(0, q),
                                          index.codes().template range<axis::key>(0, visible),
                                          std::span(found));
        return found;
    }
    [[nodiscard]] sads::row_rule rule(index_t q) const {
        return sads::row_rule::of(options.budget_of(head), given.shape().visible(q),
                                  line(q).per_score, given.shape().position(q));
    }
    /// The same for the six rows of a team, one after the other.
    [[nodiscard]] test::looked_at const& looked(index_t q) const {
        if (q / 6 != last_team) {
            last_team = q / 6;
            last = test::looked_by(given, sketches, head, q / 6 * 6, options.budget_of(head), loss);
        }
        return last;
    }
    /// Of the keys in pages that are looked at, what the reference selects.
    [[nodiscard]] std::vector<key_id> kept(index_t q) const {
        auto const& pages = looked(q);
        std::vector<std::int32_t> some;
        std::vector<key_id> numbers;
        auto const all = scores(q);
        for (std::size_t k = 0; k < all.size(); ++k) {
            if (pages.has(static_cast<index_t>(k))) {
                some.push_back(all[k]);
                numbers.push_back(static_cast<key_id>(k));
            }
        }
        sads::row_rule of_some = rule(q);
        if (of_some.window > 0) { // looked-at keys behind the window
            auto const end = static_cast<key_id>(of_some.visible - of_some.after_window);
            of_some.after_window =
                std::ranges::count_if(numbers, [&](key_id k) { return k >= end; });
        }
        of_some.visible = std::ssize(some);
        of_some.at_least = std::min(of_some.at_least, of_some.visible);
        exec::reference x;
        sads::select_scratch<std::int32_t> scratch(std::ssize(some));
        std::vector<ranked<std::int32_t>> entries(some.size());
        entries.resize(static_cast<std::size_t>(sads::adaptive<sads::grain_by_grain>{}(
            x, sads::score_run<std::int32_t>{some, 0}, of_some, {}, scratch, std::span(entries))));
        std::vector<key_id> result;
        for (auto const& entry : entries) {
            result.push_back(numbers[static_cast<std::size_t>(entry.key)]);
        }
        std::ranges::sort(result);
        return result;
    }

    problem<Q, KV> given;
    attention_options const& options;
    double loss;
    index_t head;
    key_view<KV const> keys;
    dlzs::key_index<Predictor> index;
    dlzs::key_means<Predictor> means;
    dlzs::page_sketches sketches;
    dlzs::query_codes<Predictor> codes;
    mutable index_t last_team = -1;
    mutable test::looked_at last;
};

/// The contract in double precision: forced keys and keys near the best position are computed, the
/// others have the logits of their positions; dropped keys of a segment are their mean; pages that are
/// not looked at weigh what they are estimated to, and are their segment's mean.
template <class Predictor, class Source, bool Compensates, class Q, class KV>
double deviation(problem<Q, KV> const& given, attention_options const& options, double loss,
                 outcome const& found) {
    problem_shape const s = given.shape();
    double error = 0;
    double size = 0;
    for (index_t h = 0; h < s.heads; ++h) {
        auto const values = given.values.template slice<axis::kv_head>(h / s.group());
        predicted_head<Predictor, Q, KV> const head(given, options, loss, h);
        for (index_t q = 0; q < s.queries; ++q) {
            index_t const visible = s.visible(q);
            auto const line = head.line(q);
            std::vector<double> exact(static_cast<std::size_t>(visible));
            ref::row_logits(head.query(q), head.keys, s.scale, exact);
            auto const& kept = found.kept[static_cast<std::size_t>(h * s.queries + q)];
            std::vector<double> sum(static_cast<std::size_t>(s.value_dim));
            double weights = 0;
            auto const rule = head.rule(q);
            auto const& pages = head.looked(q);
            auto const add = [&](index_t key, double weight) {
                weights += weight;
                for (index_t d = 0; d < s.value_dim; ++d) {
                    sum[static_cast<std::size_t>(d)] +=
                        weight * static_cast<double>(to_float(values(key, d)));
                }
            };
            std::vector<std::int32_t> positions;
            std::int32_t top = std::numeric_limits<std::int32_t>::min();
            auto const scores = head.scores(q);
            for (index_t key = 0; key < visible; ++key) {
                positions.push_back(
                    rule.drop.weights.position(scores[static_cast<std::size_t>(key)]));
                top = pages.has(key) ? std::max(top, positions.back()) : top;
            }
            double const octave = std::numbers::ln2;
            double const within = std::floor(Source::exact_within / octave * 256);
            double const reference = line.offset + octave * top / 256;
            for (index_t from = 0; from < visible; from += 64) {
                std::vector<index_t> dropped;
                double lost = 0;
                index_t looked = 0;
                for (index_t key = from; key < std::min(from + 64, visible); ++key) {
                    auto const k = static_cast<std::size_t>(key);
                    double const away = static_cast<double>(top - positions[k]);
                    if (!pages.has(key)) {
                        dropped.push_back(key);
                        continue;
                    }
                    ++looked;
                    if (!std::ranges::binary_search(kept, static_cast<key_id>(key))) {
                        dropped.push_back(key);
                        lost += std::exp2(-away / 256);
                    } else if (rule.is_forced(key) || away <= within) {
                        add(key, std::exp(exact[k] - reference));
                    } else {
                        add(key, std::exp2(-away / 256));
                    }
                }
                if (Compensates && looked > 0) {
                    for (index_t const key : dropped) {
                        add(key, lost / static_cast<double>(dropped.size()));
                    }
                }
            }
            double const unit =
                Compensates ? pages.unit(static_cast<std::size_t>(q % 6), top, loss, weights) : 0.0;
            for (index_t from = 0; unit > 0 && from + 64 <= visible; from += 64) {
                double skipped_here = 0;
                for (index_t key = from; key < from + 64; ++key) {
                    skipped_here += pages.has(key) ? 0.0 : pages.weight(key) * unit;
                }
                for (index_t key = from; skipped_here > 0 && key < from + 64; ++key) {
                    add(key, skipped_here / 64);
                }
            }
            for (index_t d = 0; d < s.value_dim; ++d) {
                double const right = weights > 0 ? sum[static_cast<std::size_t>(d)] / weights : 0.0;
                double const off = static_cast<double>(found.output(h, q, d)) - right;
                error += visible > 0 || off == 0 ? off * off : 1e300;
                size += right * right;
            }
        }
    }
    return size > 0 ? std::sqrt(error / size) : std::sqrt(error);
}

budget some_budget(test::generator& random) {
    budget b = random.chance(0.4) ? budget::of_mass(random.uniform(0.5, 1.0))
                                  : budget::of_output_error(std::exp2(random.uniform(-8.0, -1.0)));
    b.at_least = random.integer<index_t>(0, 40);
    b.sinks = random.integer<index_t>(0, 3);
    b.window = random.integer<index_t>(0, 20);
    return b;
}

template <class Predictor, class Source, bool Compensates, class T = float>
void check_against_reference(test::generator& random, prefill_shape const& s) {
    CAPTURE(s.kv_heads);
    CAPTURE(s.group);
    CAPTURE(s.queries);
    CAPTURE(s.keys);
    CAPTURE(s.dim);
    CAPTURE(s.value_dim);
    CAPTURE(s.causal);
    prefill_case<T> const layer(random, s);
    auto given = layer.given();
    given.prefix = s.causal && random.chance(0.3) ? random.integer<index_t>(1, s.keys + 5) : 0;
    CAPTURE(given.prefix);
    auto const options = test::with(some_budget(random), 256);
    auto const found = prefill(
        sparse_prefill<Predictor, Source, Compensates>(options, sparse_always, all_pages), given);
    auto const wanted = test::run(reference<Predictor, Source, Compensates>(options), given);
    bool same = true;
    for (std::size_t row = 0; row < found.kept.size(); ++row) {
        auto sorted = wanted.kept[row];
        std::ranges::sort(sorted);
        same = same && sorted == found.kept[row];
    }
    CHECK(same);
    double const allowed = tolerance + (Compensates ? tail_error : 0.0);
    CHECK(deviation<Predictor, Source, Compensates>(given, options, all_pages, found) <= allowed);
}

} // namespace

TEST_CASE("attention.prefill: the reference's keys, and outputs of double precision on them") {
    SOFATTN_GENERATOR(random);
    for (prefill_shape const& s : prefill_shapes(random)) {
        check_against_reference<dlzs::rotated_int8, sufa::reused, true>(random, s);
        check_against_reference<dlzs::rotated_int8, sufa::recomputed, false>(random, s);
    }
}

namespace {

struct page_counts {
    std::int64_t looked = 0;
    std::int64_t all = 0;
};

template <class Predictor, class Source, bool Compensates, class T = float>
void check_with_pages(test::generator& random, prefill_shape const& s, budget const& b, double loss,
                      page_counts& counts) {
    CAPTURE(s.kv_heads);
    CAPTURE(s.group);
    CAPTURE(s.queries);
    CAPTURE(s.keys);
    CAPTURE(s.dim);
    CAPTURE(s.causal);
    CAPTURE(loss);
    prefill_case<T> layer(random, s);
    test::cluster(random, layer);
    auto const options = test::with(b, 256);
    sparse_prefill<Predictor, Source, Compensates> const sparse(options, sparse_always, loss);
    auto given = layer.given();
    given.prefix = s.causal && random.chance(0.3) ? random.integer<index_t>(1, s.keys + 5) : 0;
    CAPTURE(given.prefix);
    auto const found = prefill(sparse, given);
    double const used = sparse.page_loss(b);
    bool same = true;
    for (index_t h = 0; h < s.kv_heads * s.group; ++h) {
        predicted_head<Predictor, T, T> const head(given, options, used, h);
        for (index_t q = 0; q < s.queries; ++q) {
            same = same && head.kept(q) == found.kept[static_cast<std::size_t>(h * s.queries + q)];
            for (char const page : head.looked(q).pages) {
                counts.looked += page;
                ++counts.all;
            }
        }
    }
    CHECK(same);
    double const allowed = tolerance + (Compensates ? tail_error : 0.0);
    CHECK(deviation<Predictor, Source, Compensates>(given, options, used, found) <= allowed);
}

} // namespace

TEST_CASE("attention.prefill: keys of the pages that sketches leave, and outputs on them") {
    SOFATTN_GENERATOR(random);
    page_counts counts;
    for (prefill_shape s : prefill_shapes(random)) {
        s.keys = s.keys * 2; // the others keep being seen from behind
        budget const b = some_budget(random);
        double const loss = std::exp2(random.uniform(-9.0, -1.0));
        check_with_pages<dlzs::rotated_int8, sufa::reused, true>(random, s, b, loss, counts);
        check_with_pages<dlzs::rotated_int8, sufa::recomputed, false>(random, s, b, loss, counts);
        check_with_pages<dlzs::int8_per_query, sufa::reused, true, half>(random, s, b, loss,
                                                                         counts);
    }
    MESSAGE("pages looked at: " << counts.looked << " of " << counts.all);
    CHECK(counts.looked * 10 < counts.all * 9);
    CHECK(counts.looked * 10 > counts.all);
}

TEST_CASE(
    "attention.prefill: no budget that drops for weight, no page skipped; at most half of what one "
    "lets go") {
    attention_options options;
    sparse_prefill<> const entry(options, 0, 0.01);
    CHECK(entry.page_loss(budget::of_radius(5.0)) == 0.0);
    CHECK(entry.page_loss(budget::of_mass(0.5)) == 0.01);
    CHECK(entry.page_loss(budget::of_mass(0.999)) == doctest::Approx(0.0005));
    CHECK(entry.page_loss(budget::of_output_error(0.004)) == 0.002);
    for (double const loss : {-0.1, 1.0, std::numeric_limits<double>::quiet_NaN()}) {
        CHECK_THROWS_WITH_AS(sparse_prefill<>(options, 0, loss).check({1, 1, 4, 4, 8, 8}),
                             doctest::Contains("mass that skipped pages may have"), error);
    }
}

TEST_CASE("attention.prefill: every combination of predictor, logits and tail") {
    SOFATTN_GENERATOR(random);
    prefill_shape const s{1, 2, 60, 320, 40, 32, true};
    check_against_reference<dlzs::rotated_int8, sufa::reused, false>(random, s);
    check_against_reference<dlzs::rotated_int8, sufa::recomputed, true>(random, s);
    check_against_reference<dlzs::int8_per_query, sufa::reused, true>(random, s);
    check_against_reference<dlzs::int8_per_query, sufa::reused, false>(random, s);
    check_against_reference<dlzs::int8_per_query, sufa::recomputed, true>(random, s);
    check_against_reference<dlzs::int8_per_query, sufa::recomputed, false>(random, s);
}

TEST_CASE_TEMPLATE("attention.prefill: 16-bit storage", T, half, bfloat16) {
    SOFATTN_GENERATOR(random);
    check_against_reference<dlzs::rotated_int8, sufa::reused, true, T>(
        random, {1, 2, 60, 320, 64, 48, true});
    check_against_reference<dlzs::rotated_int8, sufa::recomputed, false, T>(
        random, {2, 1, 30, 290, 33, 64, false});
}

TEST_CASE("attention.prefill: strides do not matter") {
    SOFATTN_GENERATOR(random);
    prefill_case<float> const layer(random, {2, 2, 40, 280, 48, 64, true});
    sparse_prefill<> const sparse(test::with(some_budget(random), 256), sparse_always);
    auto const wanted = prefill(sparse, layer.given());
    for (test::layout const kind : test::all_layouts) {
        auto const q = test::strided(random, layer.q.cview(), kind);
        auto const k = test::strided(random, layer.k.cview(), kind);
        auto const v = test::strided(random, layer.v.cview(), kind);
        problem<float> const given{q.cview(), k.cview(), v.cview(), true, 0};
        auto const found = prefill(sparse, given);
        CHECK(found.kept == wanted.kept);
        CHECK(test::same_bits(found.output, wanted.output));
    }
}

TEST_CASE("attention.prefill: the same bits for any number of threads") {
    SOFATTN_GENERATOR(random);
    prefill_case<float> const layer(random, {2, 3, 150, 400, 64, 64, true});
    sparse_prefill<> const sparse(test::with(some_budget(random), 256), sparse_always);
    auto const alone = prefill(sparse, layer.given());
    CHECK(
        test::same_bits(prefill(sparse, layer.given(), test::own_threads{}).output, alone.output));
    CHECK(test::same_bits(prefill(sparse, layer.given(), exec::openmp(4)).output, alone.output));
    for (index_t const teams : {index_t{1}, index_t{5}, sparse_prefill<>::teams_most}) {
        sparse_prefill<> const cut(sparse.options(), sparse_always,
                                   sparse_prefill<>::default_page_loss, teams);
        CHECK(test::same_bits(prefill(cut, layer.given()).output, alone.output));
    }
}

TEST_CASE("attention.prefill: kernels allocate nothing and stay in the workspace") {
    SOFATTN_GENERATOR(random);
    prefill_case<float> const layer(random, {2, 2, 150, 600, 70, 50, true});
    sparse_prefill<> const sparse(test::with(some_budget(random), 256), sparse_always);
    auto const given = layer.given();
    problem_shape const s = given.shape();
    auto const indexes = sparse.index(given, exec::serial{});
    output_tensor output({s.heads, s.queries, s.value_dim});
    std::size_t const bytes = sparse_prefill<>::workspace_bytes(s, 1);
    CHECK(bytes <= std::size_t{4} << 20);
    test::guarded_workspace memory(bytes, 24);
    long const before = test::allocations.requests;
    sparse(given, indexes, output.view(), memory.span(), exec::serial{});
    CHECK(test::allocations.requests == before);
    CHECK(before > 0); // they are counted
    CHECK(memory.kept_outside());
}

TEST_CASE("attention.prefill: 16-bit outputs are those in f32, rounded to nearest") {
    SOFATTN_GENERATOR(random);
    for (index_t const value_dim : {3, 50, 128}) {
        prefill_case<float> const layer(random, {2, 2, 70, 300, 48, value_dim, true});
        sparse_prefill<> const sparse(test::with(some_budget(random), 256), sparse_always);
        auto const given = layer.given();
        auto const indexes = sparse.index(given, exec::serial{});
        test::check_rounded_outputs(random, given.shape(), [&](output_array const& to) {
            std::vector<std::byte> workspace(sparse_prefill<>::workspace_bytes(given.shape(), 1));
            sparse(given, indexes, to, workspace, exec::serial{});
        });
    }
}

TEST_CASE("attention.prefill: short contexts are dense, to the bit") {
    SOFATTN_GENERATOR(random);
    prefill_case<float> const layer(random, {2, 2, 90, 200, 40, 24, true});
    auto const given = layer.given();
    problem_shape const s = given.shape();
    sparse_prefill<> const entry(test::with(some_budget(random), 256), 201);
    CHECK(entry.is_dense(s));
    CHECK_FALSE(sparse_prefill<>(entry.options(), 200).is_dense(s));
    output_tensor wanted({s.heads, s.queries, s.value_dim});
    std::vector<std::byte> workspace(dense_workspace_bytes(s, 1));
    dense_attention(given, wanted.view(), workspace, exec::serial{});
    auto const found = prefill(entry, given);
    CHECK(test::same_bits(found.output, wanted));
    CHECK(found.kept.front().empty());
}

TEST_CASE("attention.prefill: at 131072 keys and d = 256 a thread needs less than 4 MiB") {
    problem_shape shape;
    shape.heads = shape.kv_heads = 1;
    shape.queries = shape.keys = 131072;
    shape.dim = shape.value_dim = 256;
    CHECK(sparse_prefill<>::workspace_bytes(shape, 1) <= (std::size_t{4} << 20) + 64);
}

TEST_CASE("attention.prefill: heads have budgets of their own, and nothing dropped is dense") {
    SOFATTN_GENERATOR(random);
    prefill_case<float> const layer(random, {1, 2, 70, 300, 32, 32, true});
    auto options = test::with(budget{}, 256);
    options.head_budgets = {budget{}, budget::of_output_error(0.2)};
    sparse_prefill<dlzs::rotated_int8, sufa::recomputed, false> const sparse(options, sparse_always,
                                                                             all_pages);
    auto const found = prefill(sparse, layer.given());
    index_t dropped = 0;
    for (index_t q = 0; q < 70; ++q) {
        index_t const visible = layer.given().shape().visible(q);
        CHECK(std::ssize(found.kept[static_cast<std::size_t>(q)]) == visible);
        dropped += visible - std::ssize(found.kept[static_cast<std::size_t>(70 + q)]);
    }
    CHECK(dropped > 0);
    CHECK(deviation<dlzs::rotated_int8, sufa::recomputed, false>(layer.given(), options, all_pages,
                                                                 found) <= tolerance);
}

TEST_CASE("attention.prefill: budgets that let nearly all go leave finite rows") {
    SOFATTN_GENERATOR(random);
    prefill_case<float> layer(random, {1, 1, 300, 700, 16, 16, true});
    for (index_t k = 300; k < 700; ++k) { // weigh far more than float can tell from the first tile
        for (index_t d = 0; d < 16; ++d) {
            layer.k(0, k, d) = 40.0f * layer.q(0, 299, d);
        }
    }
    auto const all_finite = [](output_tensor const& output) {
        bool finite = true;
        test::for_each_index(output.cview().extents(), [&](auto const& i) {
            finite = finite && std::isfinite(test::at(output.cview(), i));
        });
        return finite;
    };
    auto const options = test::with(budget::of_output_error(1e6), 256);
    sparse_prefill<dlzs::rotated_int8, sufa::recomputed, false> const bare(options, sparse_always);
    CHECK(all_finite(prefill(bare, layer.given()).output));
    CHECK(all_finite(prefill(sparse_prefill<>(options, sparse_always), layer.given()).output));
}

TEST_CASE("attention.prefill: what it does not do is refused with a reason") {
    problem_shape shape;
    shape.heads = 2;
    shape.kv_heads = 1;
    shape.queries = 10;
    shape.keys = 10;
    shape.dim = 8;
    shape.value_dim = 8;
    shape.scale = 1;
    auto const says = [&](attention_options const& options, char const* what) {
        try {
            sparse_prefill<>(options).check(shape);
            FAIL("not refused");
        } catch (error const& e) {
            CHECK(std::string(e.what()).find(what) != std::string::npos);
        }
    };
    says(test::with(budget::of_mass(0.9), 256, selection_scope::per_group), "per_group");
    says(test::with(budget::of_ratio(0.5), 256), "a ratio");
    says(test::with(budget::of_count(5), 256), "a count");
    budget limited = budget::of_mass(0.9);
    limited.at_most = 5;
    says(test::with(limited, 256), "maximum count");
    CHECK_NOTHROW(sparse_prefill<>(test::with(budget::of_mass(0.9), 256)).check(shape));
    shape.causal = true;
    shape.window = 4;
    says(test::with(budget::of_mass(0.9), 256), "window");
}
