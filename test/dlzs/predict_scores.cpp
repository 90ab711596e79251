// SPDX-License-Identifier: MIT
#include "core/aborts.hpp"
#include "dlzs/oracle.hpp"
#include "support/watched.hpp"
#include <sofattn/dlzs/predict_scores.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

using namespace sofattn;
using axis::dim;
using axis::head;
using axis::key;
using axis::query;
using dlzs::operand;
using probe::event;
using probe::stage;

namespace {

struct int16 : dlzs::int8 {
    static constexpr int query_bits = 16;
    static constexpr int key_bits = 16;
};
struct two_sided16 : dlzs::dlzs16 {
    static constexpr operand key = operand::leading_zero;
};
struct int12 : dlzs::int8 { // as wide as 32-bit sums allow
    static constexpr int query_bits = 12;
    static constexpr int key_bits = 12;
};
struct dlzs8_nearest : dlzs::dlzs8 {
    static constexpr dlzs::lz_rounding rounding = dlzs::lz_rounding::nearest;
};

#define SOFATTN_COUNTED_POLICIES                                                                   \
    dlzs::dlzs8, dlzs::dlzs16, dlzs::two_sided, dlzs::lz_keys, dlzs::int8, dlzs::int4,             \
        dlzs::centred_int4, int16, two_sided16, int12

template <class P>
constexpr bool is_coded = P::query == operand::leading_zero || P::key == operand::leading_zero;

/// Stored operands of one query and a run of keys.
template <class P>
struct problem {
    using predictor = dlzs::predict_scores<P>;
    tensor<typename predictor::query_element, dim> q;
    tensor<typename predictor::key_element, key, dim> k;

    [[nodiscard]] index_t keys() const { return k.template extent<key>(); }
    [[nodiscard]] index_t dims() const { return q.template extent<dim>(); }
};

template <class P>
problem<P> random_problem(test::generator& random, index_t keys, index_t dims, double zeros) {
    using predictor = dlzs::predict_scores<P>;
    return {test::random_operands<typename predictor::query_element, dim>(random, {dims}, P::query,
                                                                          P::query_bits, zeros),
            test::random_operands<typename predictor::key_element, key, dim>(
                random, {keys, dims}, P::key, P::key_bits, zeros)};
}

template <class P>
using scores = std::vector<dlzs::score_type<P>>;

template <class P, class X>
scores<P> predicted(X& x, problem<P> const& p) {
    scores<P> result(static_cast<std::size_t>(p.keys()), -1);
    dlzs::predict_scores<P>{}(x, p.q.cview(), p.k.cview(), std::span(result));
    return result;
}

/// Products of decoded operands, summed.
template <class P>
scores<P> oracle(problem<P> const& p) {
    scores<P> result;
    for (index_t r = 0; r < p.keys(); ++r) {
        std::int64_t sum = 0;
        for (index_t d = 0; d < p.dims(); ++d) {
            sum += test::decoded(P::query, p.q(d)) * test::decoded(P::key, p.k(r, d));
        }
        result.push_back(static_cast<dlzs::score_type<P>>(sum));
        CHECK(result.back() == sum); // it fits
    }
    return result;
}

/// A product per (key, dim), skipped where a coded policy meets a zero.
template <class P>
probe::ledger declared(problem<P> const& p) {
    std::uint64_t skipped = 0;
    for (index_t r = 0; r < p.keys(); ++r) {
        for (index_t d = 0; d < p.dims(); ++d) {
            skipped += is_coded<P> && (p.q(d) == 0 || p.k(r, d) == 0) ? 1 : 0;
        }
    }
    probe::ledger ledger;
    auto const products = static_cast<std::uint64_t>(p.keys() * p.dims());
    ledger(stage::score_prediction, dlzs::product_event<P>(), products - skipped);
    ledger(stage::score_prediction, event::skipped_zero, skipped);
    return ledger;
}

/// Scores and ledgers on every executor.
template <class P>
void check(problem<P> const& p) {
    CAPTURE(P::name);
    CAPTURE(p.keys());
    CAPTURE(p.dims());
    auto const expected = oracle(p);
    auto const ledger = declared(p);
    exec::reference reference;
    CHECK(predicted(reference, p) == expected);
    test::for_each_width([&]<index_t Width>() {
        test::counted<Width> x;
        CHECK(predicted(x, p) == expected);
        CHECK(x.probe == ledger);
    });
    exec::hardware hardware;
    CHECK(predicted(hardware, p) == expected);
    CHECK(hardware.probe.total() == ledger);

    test::watched_executor watched;
    scores<P> seen;
    auto const done = test::watch([&] { seen = predicted(watched, p); });
    CHECK(seen == expected);
    CHECK(watched.probe == ledger);
    std::uint64_t const products = ledger.count(dlzs::product_event<P>());
    CHECK(products + ledger.count(event::skipped_zero) ==
          static_cast<std::uint64_t>(p.keys() * p.dims()));
    CHECK(done == (is_coded<P> ? test::tally{.adds = products, .shifts = products}
                               : test::tally{.adds = products, .multiplies = products}));
}

/// Real queries and keys, their predicted logits, and how far off they may be.
template <class P>
void check_logits(test::generator& random, test::spread kind) {
    CAPTURE(P::name);
    CAPTURE(static_cast<int>(kind));
    index_t const heads = 2;
    index_t const rows = 3;
    index_t const keys = 40;
    index_t const dims = 64;
    auto const q = test::random_matrix<float, head, query, dim>(random, {heads, rows, dims}, kind);
    auto k = test::random_matrix<float, key, dim>(random, {keys, dims}, kind);
    for (index_t r = 0; r < keys; ++r) {
        k(r, 1) += 3.0f; // a mean to take off
    }
    dlzs::key_index<P> const index(k.cview());
    dlzs::query_codes<P> const codes(q.cview(), index);
    exec::reference x;
    scores<P> predicted(static_cast<std::size_t>(keys));
    for (index_t h = 0; h < heads; ++h) {
        for (index_t r = 0; r < rows; ++r) {
            dlzs::predict_scores<P>{}(x, codes.row(h, r), index.codes(), std::span(predicted));
            double const step = codes.product_step(r);
            for (index_t n = 0; n < keys; ++n) {
                double exact = 0;
                double bound = 0;
                double magnitude = 0;
                for (index_t d = 0; d < dims; ++d) {
                    double const centre =
                        P::centred_keys
                            ? static_cast<double>(index.centre()[static_cast<std::size_t>(d)])
                            : 0.0;
                    double const carried =
                        index.has_channel_steps() ? static_cast<double>(index.step(d)) : 1.0;
                    // In the units that are quantised: the query carries the channel's step.
                    double const a = static_cast<double>(q(h, r, d)) * carried;
                    double const b = (static_cast<double>(k(n, d)) - centre) / carried;
                    double const key_step =
                        index.has_channel_steps() ? 1.0 : static_cast<double>(index.step(d));
                    // |ab - (a + e)(b + f)| <= |a||f| + |b||e| + |e||f|
                    double const e =
                        test::operand_error(P::query, P::query_bits, step / key_step, a);
                    double const f = test::operand_error(P::key, P::key_bits, key_step, b);
                    exact += a * b;
                    bound += std::abs(a) * f + std::abs(b) * e + e * f;
                    magnitude += std::abs(a * b);
                }
                double const found =
                    step * static_cast<double>(predicted[static_cast<std::size_t>(n)]);
                CHECK(std::abs(found - exact) <= bound + 1e-6 * magnitude);
            }
        }
    }
}

} // namespace

TEST_CASE_TEMPLATE("dlzs.predict_scores: scores and counts of the definition on every executor", P,
                   SOFATTN_COUNTED_POLICIES) {
    SOFATTN_GENERATOR(random);
    for (index_t const keys : test::telling_counts) {
        for (index_t const dims : {0, 1, 3, 64, 255, 256}) {
            check(random_problem<P>(random, keys, dims, 0.2));
        }
    }
    check(random_problem<P>(random, 33, 64, 0.95)); // blocks that are all zero
    check(random_problem<P>(random, 33, 64, 0.0));
}

TEST_CASE_TEMPLATE("dlzs.predict_scores: the largest operands do not overflow", P,
                   SOFATTN_COUNTED_POLICIES) {
    for (int const sign_q : {-1, 1}) {
        for (int const sign_k : {-1, 1}) {
            problem<P> p;
            p.q = decltype(p.q)({max_head_dim});
            p.k = decltype(p.k)({5, max_head_dim});
            for (index_t d = 0; d < max_head_dim; ++d) {
                p.q(d) = static_cast<typename decltype(p)::predictor::query_element>(
                    sign_q * test::stored_form(P::query, P::query_bits, code_limit<P::query_bits>));
                for (index_t r = 0; r < 5; ++r) {
                    p.k(r, d) = static_cast<typename decltype(p)::predictor::key_element>(
                        sign_k * test::stored_form(P::key, P::key_bits, code_limit<P::key_bits>));
                }
            }
            check(p);
            exec::reference x;
            auto const largest = static_cast<double>(predicted(x, p).front());
            // Within half of the range: a selector may subtract a radius.
            CHECK(std::abs(largest) <= (sizeof(dlzs::score_type<P>) == 4 ? 0x1p30 : 0x1p62));
            CHECK((largest > 0) == (sign_q == sign_k));
        }
    }
}

TEST_CASE("dlzs.predict_scores: the oracle sums exact products in dimension order") {
    SOFATTN_GENERATOR(random);
    for (index_t const keys : test::telling_counts) {
        for (index_t const dims : {0, 1, 3, 64, 255, 256}) {
            problem<dlzs::exact> const p{
                test::random_matrix<float, dim>(random, {dims}),
                test::random_matrix<float, key, dim>(random, {keys, dims})};
            std::vector<double> expected;
            for (index_t r = 0; r < keys; ++r) {
                double sum = 0;
                for (index_t d = 0; d < dims; ++d) {
                    sum += static_cast<double>(p.q(d)) * static_cast<double>(p.k(r, d));
                }
                expected.push_back(sum);
            }
            exec::reference reference;
            CHECK(predicted(reference, p) == expected);
            test::for_each_width([&]<index_t Width>() {
                test::silent<Width> x;
                CHECK(predicted(x, p) == expected);
            });
        }
    }
}

TEST_CASE("dlzs.predict_scores: 24 x 6 is 96 with one operand coded, 64 with both, 144 exactly") {
    // The paper's example, Fig. 7: 6 codes as 2^2, 24 as 2^4.
    exec::counting x;
    auto const score_of = [&]<class P>(P, int q, int k) {
        using predictor = dlzs::predict_scores<P>;
        problem<P> p;
        p.q = decltype(p.q)({1});
        p.k = decltype(p.k)({1, 1});
        p.q(0) = static_cast<typename predictor::query_element>(
            test::stored_form(P::query, P::query_bits, q));
        p.k(0, 0) =
            static_cast<typename predictor::key_element>(test::stored_form(P::key, P::key_bits, k));
        return predicted(x, p).front();
    };
    CHECK(score_of(dlzs::dlzs8{}, 6, 24) == 96);
    CHECK(score_of(dlzs::dlzs16{}, 6, 24) == 96);
    CHECK(score_of(dlzs::lz_keys{}, 24, 6) == 96);
    CHECK(score_of(dlzs::two_sided{}, 24, 6) == 64);
    CHECK(score_of(dlzs::int8{}, 24, 6) == 144);
    CHECK(x.probe.count(event::shift_add_8) == 3);
    CHECK(x.probe.count(event::shift_add_16) == 1);
    CHECK(x.probe.count(event::multiply_add_8) == 1);
}

TEST_CASE("dlzs.predict_scores: two keys by hand, from real numbers to scores") {
    // Magnitude 127 on either side, so the steps are 1 and the codes are the numbers.
    // q = (6, -127, 0) codes as (2^2, -2^6, 0).
    float const q[] = {6.0f, -127.0f, 0.0f};
    float const k[] = {24.0f, 1.0f,  127.0f, //
                       0.0f,  -3.0f, 5.0f};
    dlzs::key_index<dlzs::dlzs8> const index(view<float const, key, dim>(k, {2, 3}));
    dlzs::query_codes<dlzs::dlzs8> const codes(view<float const, head, query, dim>(q, {1, 1, 3}),
                                               index);
    CHECK(codes.product_step(0) == 1.0);
    std::vector<std::int32_t> s(2);
    exec::counting x;
    dlzs::predict_scores<dlzs::dlzs8>{}(x, codes.row(0, 0), index.codes(), std::span(s));
    CHECK(s[0] == 24 * 4 - 1 * 64); // + 127 * 0, skipped
    CHECK(s[1] == 3 * 64);          // 0 * 4 and 5 * 0, skipped
    CHECK(x.probe.count(stage::score_prediction, event::shift_add_8) == 3);
    CHECK(x.probe.count(stage::score_prediction, event::skipped_zero) == 3);
}

TEST_CASE("dlzs.predict_scores: a range of keys gives the same scores as the whole") {
    SOFATTN_GENERATOR(random);
    auto const p = random_problem<dlzs::dlzs8>(random, 40, 64, 0.2);
    exec::counting whole;
    auto const expected = predicted(whole, p);
    exec::counting parts;
    std::vector<std::int32_t> s(40);
    for (index_t first = 0; first < 40; first += 16) {
        index_t const count = std::min<index_t>(16, 40 - first);
        dlzs::predict_scores<dlzs::dlzs8>{}(
            parts, p.q.cview(), p.k.cview().range<key>(first, count),
            std::span(s).subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(count)));
    }
    CHECK(s == expected);
    CHECK(parts.probe == whole.probe); // tiles make up the whole
}

TEST_CASE_TEMPLATE("dlzs.predict_scores: strides of codes do not matter", P, dlzs::dlzs16,
                   dlzs::two_sided, dlzs::centred_int4) {
    SOFATTN_GENERATOR(random);
    auto const p = random_problem<P>(random, 19, 33, 0.2);
    exec::reference x;
    auto const expected = predicted(x, p);
    for (auto const kind : test::all_layouts) {
        auto const q = test::strided(random, p.q.view(), kind);
        auto const k = test::strided(random, p.k.view(), kind);
        scores<P> s(19);
        test::counted<8> wide;
        dlzs::predict_scores<P>{}(wide, q.cview(), k.cview(), std::span(s));
        CHECK(s == expected);
        CHECK(wide.probe == declared(p));
    }
}

TEST_CASE_TEMPLATE("dlzs.predict_scores: logits are as close to q.k as the quantisers allow", P,
                   dlzs::dlzs8, dlzs::dlzs16, dlzs::two_sided, dlzs::lz_keys, dlzs::int8,
                   dlzs::int4, dlzs::centred_int4, int16, two_sided16, dlzs8_nearest,
                   dlzs::int8_per_query, dlzs::exact) {
    SOFATTN_GENERATOR(random);
    for (auto const kind : test::all_spreads) {
        check_logits<P>(random, kind);
    }
}

TEST_CASE("dlzs.predict_scores: shapes that do not fit are refused") {
    exec::reference x;
    std::vector<std::int32_t> s(2);
    auto const run = [&](index_t query_dims, index_t key_dims) {
        tensor<std::int8_t, dim> const q({query_dims});
        tensor<std::int8_t, key, dim> const k({2, key_dims});
        dlzs::predict_scores<dlzs::int8>{}(x, q.cview(), k.cview(), std::span(s));
    };
    run(8, 8);
    SOFATTN_CHECK_ABORTS("query.template extent<axis::dim>() == dims", run(8, 9));
    SOFATTN_CHECK_ABORTS("dims <= max_head_dim", run(257, 257));
    s.resize(3);
    SOFATTN_CHECK_ABORTS("std::ssize(scores) == count", run(8, 8));
}
