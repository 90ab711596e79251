// SPDX-License-Identifier: MIT
// Soft caps, ALiBi and learned sinks against their formulas in double precision.
#include "attention/decode_case.hpp"
#include "attention/dense_outcome.hpp"
#include "support/generators.hpp"
#include "support/own_threads.hpp"
#include <sofattn/attention/decode.hpp>
#include <sofattn/attention/dense.hpp>
#include <sofattn/attention/listed.hpp>
#include <sofattn/attention/logit_terms.hpp>
#include <sofattn/attention/paged_problem.hpp>
#include <sofattn/attention/prefill.hpp>
#include <sofattn/attention/presets.hpp>
#include <sofattn/attention/softmax_sums.hpp>
#include <sofattn/attention/sparse_decode.hpp>
#include <sofattn/core/bfloat16.hpp>
#include <sofattn/core/error.hpp>
#include <sofattn/core/half.hpp>
#include <sofattn/dlzs/calibration.hpp>
#include <sofattn/dlzs/page_ranges.hpp>
#include <sofattn/dlzs/policy.hpp>
#include <sofattn/exec/executor.hpp>
#include <sofattn/exec/parallel.hpp>
#include <sofattn/ref/dense_attention.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <numeric>
#include <span>
#include <vector>

using namespace sofattn;
using namespace sofattn::test;

namespace {

/// Numbers of every head, and the terms that point to them.
struct some_terms {
    some_terms(generator& random, index_t heads, bool caps, bool biases, bool sinks)
        : cap(caps ? static_cast<float>(random.uniform(0.5, 20.0)) : 0.0f) {
        for (index_t h = 0; biases && h < heads; ++h) {
            slopes.push_back(static_cast<float>(random.chance(0.2) ? -0.01 : std::exp2(-h)));
        }
        for (index_t h = 0; sinks && h < heads; ++h) {
            sink_logits.push_back(static_cast<float>(random.uniform(-6.0, 8.0)));
        }
    }
    [[nodiscard]] logit_terms terms() const {
        return {cap, slopes.empty() ? nullptr : slopes.data(),
                sink_logits.empty() ? nullptr : sink_logits.data()};
    }

    float cap;
    std::vector<float> slopes;
    std::vector<float> sink_logits;
};

struct true_row {
    std::vector<double> output;
    double log_sum = -std::numeric_limits<double>::infinity(); ///< of exponentials, its sink's too
};

/// By the definition, over the keys for which attended(key) holds.
template <class Q, class KV, class Attended>
true_row by_definition(problem<Q, KV> const& given, index_t head, index_t query,
                       Attended attended) {
    problem_shape const s = given.shape();
    logit_terms const& t = given.terms;
    auto const values = given.values.template slice<axis::kv_head>(head / s.group());
    std::vector<double> logits(static_cast<std::size_t>(s.keys));
    ref::row_logits(
        given.queries.template slice<axis::head>(head).template slice<axis::query>(query),
        given.keys.template slice<axis::kv_head>(head / s.group()), s.scale, logits);
    true_row row;
    row.output.assign(static_cast<std::size_t>(s.value_dim), 0.0);
    double sum = t.sink_logits == nullptr ? 0.0 : std::exp(double{t.sink_logits[head]});
    key_range const sees = s.sees(query);
    for (index_t k = sees.from; k < sees.to; ++k) {
        if (!attended(k)) {
            continue;
        }
        double x = logits[static_cast<std::size_t>(k)];
        if (t.softcap > 0) {
            x = double{t.softcap} * std::tanh(x / double{t.softcap});
        }
        if (t.alibi_slopes != nullptr) {
            auto const position = static_cast<double>(query + s.keys - s.queries);
            x -= double{t.alibi_slopes[head]} * std::abs(position - static_cast<double>(k));
        }
        double const weight = std::exp(x);
        sum += weight;
        for (index_t d = 0; d < s.value_dim; ++d) {
            row.output[static_cast<std::size_t>(d)] +=
                weight * static_cast<double>(to_float(values(k, d)));
        }
    }
    for (double& x : row.output) {
        x = sum > 0 ? x / sum : 0.0;
    }
    row.log_sum = std::log(sum);
    return row;
}

struct difference {
    double output = 0;  ///< relative, Frobenius, the worst head
    double log_sum = 0; ///< the worst row
};

/// attended(head, query, key)
template <class Q, class KV, class Attended>
difference between(problem<Q, KV> const& given, dense_outcome const& found, Attended attended) {
    problem_shape const s = given.shape();
    difference worst;
    for (index_t h = 0; h < s.heads; ++h) {
        double error = 0;
        double size = 0;
        for (index_t q = 0; q < s.queries; ++q) {
            true_row const truth =
                by_definition(given, h, q, [&](index_t k) { return attended(h, q, k); });
            for (index_t d = 0; d < s.value_dim; ++d) {
                double const t = truth.output[static_cast<std::size_t>(d)];
                error += std::pow(double{found.output.cview()(h, q, d)} - t, 2);
                size += t * t;
            }
            double const m = double{found.max.cview()(h, q)};
            double const l = double{found.sum.cview()(h, q)};
            if (std::isinf(truth.log_sum)) {
                CHECK(l == 0.0);
                CHECK(m == -std::numeric_limits<double>::infinity());
            } else {
                worst.log_sum = std::max(worst.log_sum, std::abs(m + std::log(l) - truth.log_sum));
            }
        }
        double const relative = size > 0 ? std::sqrt(error / size) : std::sqrt(error);
        worst.output = std::max(worst.output, std::isnan(relative) ? 1e9 : relative);
    }
    return worst;
}
template <class Q, class KV>
difference between(problem<Q, KV> const& given, dense_outcome const& found) {
    return between(given, found, [](index_t, index_t, index_t) { return true; });
}

bool same(dense_outcome const& a, dense_outcome const& b) {
    return same_bits(a.output, b.output) && same_bits(a.max, b.max) && same_bits(a.sum, b.sum);
}

/// f(cap?, bias?, sinks?), some of them.
template <class F>
void for_all_terms(F f) {
    for (int which = 1; which < 8; ++which) {
        CAPTURE(which);
        f((which & 1) != 0, (which & 2) != 0, (which & 4) != 0);
    }
}

} // namespace

TEST_CASE_TEMPLATE("attention.logit_terms: dense attention, every mask", T, float, half, bfloat16) {
    SOFATTN_GENERATOR(random);
    for_all_terms([&](bool caps, bool biases, bool sinks) {
        for (bool const causal : {false, true}) {
            for (index_t const queries : {1, 5, 70}) {
                index_t const keys = random.chance(0.2) ? 3 : random.integer<index_t>(1, 420);
                decode_case<T> layer(random, {2, 3, queries, keys, 16, 8, causal});
                layer.window = causal && random.chance(0.3) ? random.integer<index_t>(1, 60) : 0;
                some_terms const of(random, 6, caps, biases, sinks);
                problem<T> given = layer.given();
                given.terms = of.terms();
                CAPTURE(queries);
                CAPTURE(keys);
                difference const off = between(given, dense(given));
                CHECK(off.output <= 2e-5);
                CHECK(off.log_sum <= 2e-5 + 1e-6 * double{of.cap});
                difference const rounded = between(given, dense<dense_products::bf16>(given));
                CHECK(rounded.output <= 2e-2);
                if (layer.window == 0 || queries == 1) {
                    dense_outcome const one = decoded(given);
                    difference const step = between(given, one);
                    CHECK(step.output <= 2e-5);
                    CHECK(step.log_sum <= 2e-5 + 1e-6 * double{of.cap});
                    CHECK(same(decoded(given, own_threads{}), one));
                }
            }
        }
    });
}

TEST_CASE("attention.logit_terms: distances over several chunks and far from the first key") {
    SOFATTN_GENERATOR(random);
    for_all_terms([&](bool caps, bool biases, bool sinks) {
        decode_case<> const layer(random, {1, 4, 2, 5000, 16, 8, true});
        some_terms of(random, 4, caps, biases, sinks);
        for (float& slope : of.slopes) {
            slope *= 1e-3f; // so that all chunks weigh something
        }
        problem<float> given = layer.given();
        given.terms = of.terms();
        difference const step = between(given, decoded(given));
        CHECK(step.output <= 2e-5);
        CHECK(step.log_sum <= 5e-5);
        CHECK(between(given, dense(given)).output <= 2e-5);
    });
}

TEST_CASE("attention.logit_terms: in pages the same bits as in a row") {
    SOFATTN_GENERATOR(random);
    for_all_terms([&](bool caps, bool biases, bool sinks) {
        index_t const keys = random.integer<index_t>(100, 1500);
        decode_case<> const layer(random, {2, 2, 3, keys, 16, 16, true});
        some_terms const of(random, 4, caps, biases, sinks);
        problem<float> given = layer.given();
        given.terms = of.terms();
        constexpr index_t page = 24;
        std::vector<std::int32_t> numbers(static_cast<std::size_t>(ceil_div(keys, page)));
        std::iota(numbers.begin(), numbers.end(), 0);
        random.shuffle(numbers);
        page_table const table{numbers, page};
        index_t const rows = std::ssize(numbers) * page;
        tensor<float, axis::kv_head, axis::key, axis::dim> k({2, rows, 16});
        tensor<float, axis::kv_head, axis::key, axis::value_dim> v({2, rows, 16});
        for_each_index(given.keys.extents(), [&](auto const& i) {
            k(i[0], table.row(i[1]), i[2]) = at(given.keys, i);
            v(i[0], table.row(i[1]), i[2]) = at(given.values, i);
        });
        paged_problem<float> const paged{given.queries, k.cview(), v.cview(), table, keys,
                                         true,          0,         0,         0,     given.terms};
        CHECK(same(decoded(paged), decoded(given)));
        CHECK(same(dense(paged), dense(given)));
    });
}

TEST_CASE("attention.logit_terms: caps and sinks of listed and of best keys") {
    SOFATTN_GENERATOR(random);
    for (int round = 0; round < 20; ++round) {
        index_t const keys = random.integer<index_t>(1, random.chance(0.5) ? 256 : 900);
        decode_case<> const layer(random,
                                  {2, 3, random.integer<index_t>(1, 3), keys, 32, 16, true});
        some_terms const of(random, 6, random.chance(0.6), false, random.chance(0.7));
        problem<float> given = layer.given();
        given.terms = of.terms();
        problem_shape const s = given.shape();

        std::vector<std::int32_t> entries;
        for (std::int32_t k = 0; k < keys; ++k) {
            if (random.chance(0.3)) {
                entries.push_back(k);
            }
        }
        entries.push_back(-1);
        tensor<std::int32_t, axis::head, axis::query, axis::key> list(
            {1, s.queries, std::ssize(entries)});
        for_each_index(list.view().extents(), [&](auto const& i) {
            at(list.view(), i) = entries[static_cast<std::size_t>(i[2])];
        });
        key_lists lists;
        lists.entries = list.cview();
        dense_outcome found(s);
        guarded_workspace workspace(listed_workspace_bytes(s, lists, 1));
        tensor<float, axis::head, axis::query> dropped({s.heads, s.queries});
        listed_attention(given, lists, found.output.view(), workspace.span(), exec::serial{},
                         found.sums(), dropped.view());
        auto const is_listed = [&](index_t k) {
            return std::ranges::find(entries, static_cast<std::int32_t>(k)) != entries.end();
        };
        difference const off =
            between(given, found, [&](index_t, index_t, index_t k) { return is_listed(k); });
        CHECK(off.output <= 2e-5);
        CHECK(off.log_sum <= 5e-5);
        for (index_t h = 0; keys <= 256 && h < s.heads; ++h) { // all keys are looked at
            for (index_t q = 0; q < s.queries; ++q) {
                double const all = by_definition(given, h, q, [](index_t) { return true; }).log_sum;
                double const kept = by_definition(given, h, q, is_listed).log_sum;
                double const share = std::isinf(all) ? 0.0 : 1.0 - std::exp(kept - all);
                CHECK(std::abs(double{dropped.cview()(h, q)} - share) <= 1e-4);
            }
        }

        using index = dlzs::paged_index<dlzs::centred_int4>;
        std::vector<index> indices;
        for (index_t kv = 0; kv < s.kv_heads; ++kv) {
            auto const of_head = given.keys.slice<axis::kv_head>(kv);
            indices.emplace_back(dlzs::key_calibration<dlzs::centred_int4>::of(of_head));
            indices.back().append(of_head);
        }
        sparse_decode_options options;
        options.count = random.integer<index_t>(1, keys);
        options.sinks = 1;
        options.window = 8;
        std::vector<std::vector<char>> kept(static_cast<std::size_t>(s.kv_heads * s.queries),
                                            std::vector<char>(static_cast<std::size_t>(keys)));
        dense_outcome best(s);
        guarded_workspace more(sparse_decode_workspace_bytes(given, options, 1));
        sparse_decode(
            given, std::span<index const>(indices), options, best.output.view(), more.span(),
            exec::serial{},
            [&](index_t head, index_t query, std::span<key_id const> these) {
                for (key_id const k : these) {
                    kept[static_cast<std::size_t>(head / s.group() * s.queries + query)]
                        [static_cast<std::size_t>(k)] = 1;
                }
            },
            best.sums());
        difference const of_best = between(given, best, [&](index_t h, index_t q, index_t k) {
            return kept[static_cast<std::size_t>(h / s.group() * s.queries + q)]
                       [static_cast<std::size_t>(k)] != 0;
        });
        CHECK(of_best.output <= 2e-5);
        CHECK(of_best.log_sum <= 5e-5);
    }
}

TEST_CASE("attention.logit_terms: a sink takes its share of sparse prefill") {
    SOFATTN_GENERATOR(random);
    decode_case<> const layer(random, {1, 2, 90, 300, 32, 16, true});
    some_terms const of(random, 2, false, false, true);
    problem<float> given = layer.given();
    attention_options options;
    options.budget =
        sads::budget::of_mass(1.0); // all keys, so that the formula says what comes out
    sparse_prefill<dlzs::rotated_int8, sufa::recomputed, false> const sparse(options, 0, 0.0);
    auto const run = [&] {
        problem_shape const s = given.shape();
        decode_output output({s.heads, s.queries, s.value_dim});
        guarded_workspace workspace(sparse.workspace_bytes(s, 1));
        sparse.check(s);
        auto const indexes = sparse.index(given, exec::serial{});
        sparse(given, indexes, output.view(), workspace.span(), exec::serial{});
        return output;
    };
    decode_output const without = run();
    given.terms = of.terms();
    decode_output const with = run();
    problem_shape const s = given.shape();
    double error = 0;
    double size = 0;
    for_each_index(with.cview().extents(), [&](auto const& i) {
        double const log_sum =
            by_definition(layer.given(), i[0], i[1], [](index_t) { return true; }).log_sum;
        double const sink = double{of.sink_logits[static_cast<std::size_t>(i[0])]};
        double const truth = double{at(without.cview(), i)} / (1.0 + std::exp(sink - log_sum));
        error += std::pow(double{at(with.cview(), i)} - truth, 2);
        size += truth * truth;
    });
    CHECK(s.heads == 2);
    CHECK(std::sqrt(error / size) <= 1e-4);
}

TEST_CASE("attention.logit_terms: neutral terms change no bit") {
    SOFATTN_GENERATOR(random);
    decode_case<> const layer(random, {2, 2, 40, 200, 16, 8, true});
    std::vector<float> const none(4, 0.0f);
    problem<float> given = layer.given();
    dense_outcome const plain = dense(given);
    dense_outcome const step = decoded(given);
    given.terms.alibi_slopes = none.data();
    CHECK(same(dense(given), plain));
    CHECK(same(decoded(given), step));
}

TEST_CASE("attention.logit_terms: extremes leave numbers") {
    SOFATTN_GENERATOR(random);
    decode_case<> const layer(random, {1, 1, 3, 50, 16, 8, true});
    for (float const sink : {-1e20f, -200.0f, 200.0f, 1e20f}) {
        for (float const slope : {-1e20f, 0.0f, 1e20f}) {
            for (float const cap : {0.0f, 1e-20f, 1e20f}) {
                problem<float> given = layer.given();
                given.terms = {cap, &slope, &sink};
                for (dense_outcome const& found : {dense(given), decoded(given)}) {
                    for_each_index(found.output.cview().extents(), [&](auto const& i) {
                        CHECK(std::isfinite(at(found.output.cview(), i)));
                    });
                }
            }
        }
    }
}

TEST_CASE("attention.logit_terms: what does not do them says so") {
    SOFATTN_GENERATOR(random);
    decode_case<> const layer(random, {1, 1, 4, 300, 16, 8, true});
    std::vector<float> const numbers{1.0f};
    problem<float> given = layer.given();
    given.terms.softcap = std::numeric_limits<float>::quiet_NaN();
    CHECK_THROWS_AS((void)given.shape(), error);
    given.terms.softcap = -1.0f;
    CHECK_THROWS_AS((void)given.shape(), error);
    given.terms.softcap = 30.0f;
    CHECK_NOTHROW((void)given.shape());
    sparse_prefill<> const sparse((attention_options()), 0);
    CHECK_THROWS_WITH_AS(sparse.check(given.shape()), doctest::Contains("soft cap or ALiBi"),
                         error);
    exec::reference x;
    presets::attention<presets::recommended> const reference(presets::recommended::options());
    decode_output output({1, 4, 8});
    CHECK_THROWS_WITH_AS(reference(x, given, output.view()), doctest::Contains("soft caps"), error);
    given.terms = {0.0f, nullptr, numbers.data()};
    CHECK_THROWS_WITH_AS(reference(x, given, output.view()), doctest::Contains("sinks"), error);
    CHECK_NOTHROW(sparse.check(given.shape()));
}
