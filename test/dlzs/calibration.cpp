// SPDX-License-Identifier: MIT
#include "dlzs/oracle.hpp"
#include <sofattn/core/bfloat16.hpp>
#include <sofattn/core/half.hpp>
#include <sofattn/dlzs/calibration.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <string>
#include <vector>

using namespace sofattn;
using axis::dim;
using axis::head;
using axis::key;
using axis::query;

namespace {

struct nearest : dlzs::dlzs8 {
    static constexpr dlzs::lz_rounding rounding = dlzs::lz_rounding::nearest;
};

#define SOFATTN_INTEGER_POLICIES                                                                   \
    dlzs::dlzs8, dlzs::dlzs16, dlzs::two_sided, dlzs::lz_keys, dlzs::int8, dlzs::int4,             \
        dlzs::int8_per_query, dlzs::centred_int4, nearest

/// A KV head's keys and the queries of the heads that read it, in floats and in codes.
template <class P, class T = float>
struct head_case {
    tensor<T, head, query, dim> q;
    tensor<T, key, dim> k;
    dlzs::key_index<P> index;
    dlzs::query_codes<P> codes;

    head_case(tensor<T, head, query, dim> queries, tensor<T, key, dim> keys)
        : q(std::move(queries)), k(std::move(keys)), index(k.cview()), codes(q.cview(), index) {}

    [[nodiscard]] index_t keys() const { return k.template extent<key>(); }
    [[nodiscard]] index_t queries() const { return q.template extent<query>(); }
    [[nodiscard]] index_t dims() const { return k.template extent<dim>(); }

    [[nodiscard]] double exact(index_t h, index_t r, index_t at) const {
        double sum = 0.0;
        for (index_t d = dims(); d-- > 0;) {
            sum +=
                static_cast<double>(to_float(q(h, r, d))) * static_cast<double>(to_float(k(at, d)));
        }
        return sum;
    }
    /// In units of score.
    [[nodiscard]] double predicted(index_t h, index_t r, index_t at) const {
        std::int64_t sum = 0;
        for (index_t d = 0; d < dims(); ++d) {
            sum += test::decoded(P::query, codes.row(h, r)(d)) *
                   test::decoded(P::key, index.codes()(at, d));
        }
        return static_cast<double>(sum);
    }
    template <class Visible>
    [[nodiscard]] dlzs::score_calibration calibration(index_t h, Visible visible) const {
        return dlzs::calibrate<P>(q.cview().template slice<head>(h), codes, h, k.cview(), index,
                                  visible);
    }
    [[nodiscard]] dlzs::score_calibration calibration(index_t h = 0) const {
        return calibration(h, [this](index_t) { return keys(); });
    }
    [[nodiscard]] score_line line(index_t h, index_t r, double scale, dlzs::score_calibration c,
                                  index_t visible) const {
        return dlzs::key_means<P>(k.cview(), index)
            .line(q.cview().template slice<head>(h).template slice<query>(r), codes.row(h, r),
                  codes.product_step(r), scale, c, visible);
    }
};

template <class P, class T = float>
head_case<P, T> random_case(test::generator& random, index_t heads, index_t queries, index_t keys,
                            index_t dims, test::spread kind = test::spread::normal) {
    auto q = test::random_matrix<T, head, query, dim>(random, {heads, queries, dims});
    auto k = test::random_matrix<T, key, dim>(random, {keys, dims}, kind);
    return {std::move(q), std::move(k)};
}

/// The line by least squares over all pairs, with the mean of every query taken off: the slope is
/// cov / var, the variance that of what the line leaves.
template <class P, class T, class Visible>
dlzs::score_calibration fitted(head_case<P, T> const& c, index_t h, Visible visible) {
    std::vector<double> x;
    std::vector<double> y;
    for (index_t r = 0; r < c.queries(); ++r) {
        index_t const seen = visible(r);
        double mean_x = 0.0;
        double mean_y = 0.0;
        for (index_t i = 0; i < seen; ++i) {
            mean_x += c.predicted(h, r, i) * c.codes.product_step(r);
            mean_y += c.exact(h, r, i);
        }
        for (index_t i = 0; i < seen; ++i) {
            x.push_back(c.predicted(h, r, i) * c.codes.product_step(r) -
                        mean_x / static_cast<double>(seen));
            y.push_back(c.exact(h, r, i) - mean_y / static_cast<double>(seen));
        }
    }
    double xx = 0.0;
    double xy = 0.0;
    for (std::size_t i = 0; i < x.size(); ++i) {
        xx += x[i] * x[i];
        xy += x[i] * y[i];
    }
    dlzs::score_calibration result{xy / xx, 0.0};
    for (std::size_t i = 0; i < x.size(); ++i) {
        double const off = y[i] - result.slope * x[i];
        result.variance += off * off / static_cast<double>(x.size());
    }
    return result;
}

void check_close(dlzs::score_calibration got, dlzs::score_calibration expected) {
    CHECK(got.slope == doctest::Approx(expected.slope).epsilon(1e-9));
    // The sums of squares cancel: the residual of 16-bit keys is a millionth of them.
    CHECK(got.variance == doctest::Approx(expected.variance).epsilon(1e-6));
}

bool same(dlzs::score_calibration a, dlzs::score_calibration b) {
    return a.slope == b.slope && a.variance == b.variance;
}

/// Mean of scale * q.k over the first `count` keys, and what the line says of it.
template <class P, class T>
void check_anchored(head_case<P, T> const& c, index_t h, index_t r, double scale,
                    dlzs::score_calibration calibration, index_t visible, index_t count) {
    score_line const line = c.line(h, r, scale, calibration, visible);
    double exact = 0.0;
    double estimated = 0.0;
    double magnitude = 0.0;
    for (index_t i = 0; i < count; ++i) {
        double const logit = scale * c.exact(h, r, i);
        exact += logit / static_cast<double>(count);
        estimated += line.logit(c.predicted(h, r, i)) / static_cast<double>(count);
        magnitude = std::max(magnitude, std::abs(logit));
    }
    CAPTURE(visible);
    CAPTURE(count);
    CHECK(std::abs(estimated - exact) <= 1e-9 * std::max(magnitude, std::abs(line.offset)));
}

} // namespace

TEST_CASE("core.score_line: a logit is offset plus slope times score, the identity by default") {
    static_assert(score_line{}.logit(-3.5) == -3.5);
    static_assert(score_line{2.0, 0.25}.logit(8.0) == 4.0);
    CHECK(score_line{1.0, 0.5}.logit(0.0) == 1.0);
}

TEST_CASE_TEMPLATE("dlzs.calibration: the line is that of least squares over all visible pairs", P,
                   SOFATTN_INTEGER_POLICIES) {
    SOFATTN_GENERATOR(random);
    for (auto const kind : test::all_spreads) {
        auto const c = random_case<P>(random, 2, 20, 90, 16, kind);
        auto const all = [](index_t) -> index_t { return 90; };
        auto const causal = [](index_t q) -> index_t { return 71 + q; };
        auto const late = [](index_t q) { return std::max<index_t>(0, 5 * (q - 3)); };
        for (index_t h = 0; h < 2; ++h) {
            check_close(c.calibration(h, all), fitted(c, h, all));
            check_close(c.calibration(h, causal), fitted(c, h, causal));
            check_close(c.calibration(h, late), fitted(c, h, late));
        }
    }
}

TEST_CASE_TEMPLATE("dlzs.calibration: 8-bit products have slope 1 and hardly a residual", P,
                   dlzs::int8, dlzs::int8_per_query) {
    SOFATTN_GENERATOR(random);
    auto const c = random_case<P>(random, 1, 200, 1000, 64);
    auto const got = c.calibration();
    CHECK(std::abs(got.slope - 1.0) <= 1e-3);
    CHECK(got.variance > 0.0);
    CHECK(got.variance <= 1e-3 * 64.0); // q.k of 64 normal products has variance 64
}

TEST_CASE("dlzs.calibration: a leading-zero operand that is rounded down loses about a third") {
    SOFATTN_GENERATOR(random);
    auto const slope = [&]<class P>(P) {
        auto const got = random_case<P>(random, 1, 200, 1000, 64).calibration();
        std::string const name = P::name;
        INFO(name);
        CHECK(got.variance > 0.01 * 64.0);
        CHECK(got.variance < 0.5 * 64.0);
        return got.slope;
    };
    double const dlzs8 = slope(dlzs::dlzs8{});
    CHECK(dlzs8 >= 1.3);
    CHECK(dlzs8 <= 1.45);
    double const lz_keys = slope(dlzs::lz_keys{});
    CHECK(lz_keys >= 1.3);
    CHECK(lz_keys <= 1.45);
    double const two_sided = slope(dlzs::two_sided{});
    CHECK(two_sided == doctest::Approx(dlzs8 * lz_keys).epsilon(0.05));
    CHECK(std::abs(slope(nearest{}) - 1.0) < 0.1); // as often up as down
}

TEST_CASE("dlzs.calibration: longer inputs are sampled evenly and give about the same line") {
    SOFATTN_GENERATOR(random);
    auto const c = random_case<dlzs::dlzs8>(random, 1, 150, 700, 16);
    auto const all = [](index_t) -> index_t { return 700; };
    auto const got = c.calibration();
    auto const expected = fitted(c, 0, all);
    CHECK(got.slope == doctest::Approx(expected.slope).epsilon(0.02));
    CHECK(got.variance == doctest::Approx(expected.variance).epsilon(0.1));
    CHECK(same(got, c.calibration())); // and again the same
}

TEST_CASE_TEMPLATE("dlzs.calibration: constant or zero operands tell nothing, so the slope is 1", P,
                   SOFATTN_INTEGER_POLICIES) {
    SOFATTN_GENERATOR(random);
    auto const silent = [](dlzs::score_calibration c) { return c.slope == 1.0 && c.variance == 0; };
    auto const q = test::random_matrix<float, head, query, dim>(random, {1, 10, 8});
    auto const k = test::random_matrix<float, key, dim>(random, {30, 8});
    tensor<float, key, dim> equal_keys({30, 8});
    test::for_each_index(equal_keys.view().extents(),
                         [&](auto const& i) { test::at(equal_keys.view(), i) = k(3, i[1]); });
    CHECK(silent(head_case<P>(q, equal_keys).calibration()));
    CHECK(silent(head_case<P>(q, tensor<float, key, dim>({30, 8})).calibration()));
    CHECK(silent(head_case<P>(tensor<float, head, query, dim>({1, 10, 8}), k).calibration()));
    // Nothing to read at all.
    CHECK(silent(head_case<P>(q, tensor<float, key, dim>({0, 8})).calibration()));
    CHECK(silent(head_case<P>(tensor<float, head, query, dim>({1, 0, 8}), k).calibration()));
    CHECK(silent(head_case<P>(q, k).calibration(0, [](index_t) -> index_t { return 0; })));
    CHECK(silent(head_case<P>(q, k).calibration(0, [](index_t) -> index_t { return 1; })));
}

TEST_CASE("dlzs.calibration: predictions that point the wrong way are not followed") {
    SOFATTN_GENERATOR(random);
    auto const c = random_case<dlzs::int8>(random, 1, 10, 30, 8);
    auto opposite = c.k;
    test::for_each_index(opposite.view().extents(), [&](auto const& i) {
        test::at(opposite.view(), i) = -test::at(c.k.view(), i);
    });
    auto const got =
        dlzs::calibrate<dlzs::int8>(c.q.cview().slice<head>(0), c.codes, 0, opposite.cview(),
                                    c.index, [](index_t) -> index_t { return 30; });
    CHECK(same(got, {}));
}

TEST_CASE("dlzs.calibration: the exact predictor needs none") {
    SOFATTN_GENERATOR(random);
    auto const c = random_case<dlzs::exact>(random, 1, 10, 100, 8);
    CHECK(same(c.calibration(), {1.0, 0.0}));
    score_line const line = c.line(0, 2, 0.25, {}, 70);
    CHECK(line.offset == 0.0);
    CHECK(line.per_score == 0.25);
}

TEST_CASE_TEMPLATE("dlzs.calibration: keys that no query sees may be anything", P,
                   SOFATTN_INTEGER_POLICIES) {
    SOFATTN_GENERATOR(random);
    auto const c = random_case<P>(random, 1, 12, 80, 8);
    auto const visible = [](index_t q) -> index_t { return 30 + q; }; // 41 at most
    auto const expected = c.calibration(0, visible);
    auto keys = c.k;
    for (index_t i = 41; i < 80; ++i) {
        for (index_t d = 0; d < 8; ++d) {
            keys(i, d) = std::numeric_limits<float>::quiet_NaN();
        }
    }
    CHECK(same(dlzs::calibrate<P>(c.q.cview().template slice<head>(0), c.codes, 0, keys.cview(),
                                  c.index, visible),
               expected));
    // Through the index too, so long as its steps stay: the same numbers in another order.
    auto moved = c.k;
    for (index_t i = 41; i < 80; ++i) {
        for (index_t d = 0; d < 8; ++d) {
            moved(i, d) = c.k(120 - i, d);
        }
    }
    CHECK(c.codes.product_step(0) == head_case<P>(c.q, moved).codes.product_step(0));
    if constexpr (!P::centred_keys) { // the order of summation may move a mean by a bit
        CHECK(same(head_case<P>(c.q, moved).calibration(0, visible), expected));
    }
}

TEST_CASE_TEMPLATE("dlzs.calibration: storage types do not matter beyond their rounding", T, half,
                   bfloat16) {
    SOFATTN_GENERATOR(random);
    auto const c = random_case<dlzs::dlzs8, T>(random, 1, 10, 100, 8);
    head_case<dlzs::dlzs8> const wide(test::converted<float>(c.q.cview()),
                                      test::converted<float>(c.k.cview()));
    CHECK(same(c.calibration(), wide.calibration()));
    CHECK(c.line(0, 3, 0.5, {1.3, 0.0}, 100).offset ==
          wide.line(0, 3, 0.5, {1.3, 0.0}, 100).offset);
}

TEST_CASE_TEMPLATE("dlzs.key_means: over the anchoring keys the line is right on average", P,
                   SOFATTN_INTEGER_POLICIES) {
    SOFATTN_GENERATOR(random);
    for (auto const kind : test::all_spreads) {
        for (index_t const keys : {1, 40, 64, 130, 192, 200}) {
            CAPTURE(keys);
            auto const c = random_case<P>(random, 2, 3, keys, 16, kind);
            auto const calibration = c.calibration(1);
            for (index_t r = 0; r < 3; ++r) {
                check_anchored(c, 1, r, 0.25, calibration, keys, keys);
                check_anchored(c, 1, r, 0.25, {1.7, 0.0}, keys, keys); // whatever the slope
                for (index_t const visible : {1, 2, 63, 64, 65, 127, 128, 129, 191}) {
                    if (visible < keys) {
                        index_t const whole = std::max<index_t>(64, visible / 64 * 64);
                        check_anchored(c, 1, r, 0.25, calibration, visible, std::min(whole, keys));
                    }
                }
            }
        }
    }
}

TEST_CASE("dlzs.key_means: the slope of the line is scale, calibration and step") {
    SOFATTN_GENERATOR(random);
    auto const c = random_case<dlzs::int8_per_query>(random, 1, 3, 100, 16);
    for (index_t r = 0; r < 3; ++r) {
        CHECK(c.line(0, r, 0.25, {1.5, 9.0}, 100).per_score ==
              doctest::Approx(0.25 * 1.5 * c.codes.product_step(r)).epsilon(1e-15));
    }
}

TEST_CASE("dlzs.key_means: a row is anchored at the last whole 64 keys that it sees") {
    SOFATTN_GENERATOR(random);
    auto const c = random_case<dlzs::dlzs8>(random, 1, 1, 150, 16);
    auto const offset = [&](index_t visible) { return c.line(0, 0, 1.0, {}, visible).offset; };
    for (index_t const visible : {0, 1, 63, 64, 65, 127}) {
        CHECK(offset(visible) == offset(64));
    }
    for (index_t const visible : {128, 129, 149}) {
        CHECK(offset(visible) == offset(128));
    }
    CHECK(offset(64) != offset(128));
    CHECK(offset(128) != offset(150)); // the end, whole or not
}

TEST_CASE("dlzs.key_means: the offset brings back the centre that was taken off the keys") {
    SOFATTN_GENERATOR(random);
    using policy = dlzs::centred_int4;
    for (int round = 0; round < 20; ++round) {
        auto q = test::random_matrix<float, head, query, dim>(random, {1, 1, 16});
        auto k = test::random_matrix<float, key, dim>(random, {300, 16});
        for (index_t i = 0; i < 300; ++i) {
            for (index_t d = 0; d < 16; ++d) {
                k(i, d) += d % 2 == 0 ? 10.0f : -7.0f;
            }
        }
        head_case<policy> const c(std::move(q), std::move(k));
        double q_centre = 0.0;
        for (index_t d = 0; d < 16; ++d) {
            q_centre += static_cast<double>(c.q(0, 0, d)) *
                        static_cast<double>(c.index.centre()[static_cast<std::size_t>(d)]);
        }
        double const offset = c.line(0, 0, 0.25, c.calibration(), 300).offset;
        // 4-bit codes of centred keys are zero on average up to their rounding: steps of 0.4 or so
        // err by 0.12 (rms), the mean of 300 by 0.007, and q.k of 16 of them by 0.03.
        CHECK(std::abs(offset - 0.25 * q_centre) <= 0.25 * 0.2);
    }
}

TEST_CASE("dlzs.key_means: no keys and no index leave the logits alone") {
    dlzs::key_means<dlzs::dlzs8> const none;
    head_case<dlzs::dlzs8> const c(tensor<float, head, query, dim>({1, 1, 4}),
                                   tensor<float, key, dim>({0, 4}));
    CHECK(c.line(0, 0, 0.5, {}, 0).offset == 0.0);
    CHECK(none.line(c.q.cview().slice<head>(0).slice<query>(0), c.codes.row(0, 0), 0.5, 1.0, {}, 0)
              .offset == 0.0);
}

TEST_CASE_TEMPLATE("dlzs.key_means: lines have the bits of means and products taken one by one", P,
                   dlzs::rotated_int8, dlzs::dlzs8, dlzs::two_sided, dlzs::dlzs16) {
    SOFATTN_GENERATOR(random);
    auto const check = [&]<class T>(T, index_t dims) {
        index_t const keys = random.integer<index_t>(1, 200);
        auto const c = random_case<P, T>(random, 1, 2, keys, dims);
        auto const kind =
            test::all_layouts[static_cast<std::size_t>(dims) % test::all_layouts.size()];
        auto const k = test::strided(random, c.k.view(), kind);
        auto const q = test::strided(random, c.q.view(), kind);
        dlzs::key_means<P> const means(k.cview(), c.index);
        for (index_t const visible : {index_t{0}, keys / 2, keys}) {
            index_t const seen =
                visible == keys ? keys : std::min(keys, std::max<index_t>(visible / 64, 1) * 64);
            double exact = 0;
            double predicted = 0;
            for (index_t d = 0; d < dims; ++d) {
                double sum = 0;
                double coded = 0;
                for (index_t i = 0; i < seen; ++i) {
                    sum += static_cast<double>(to_float(c.k(i, d)));
                    coded += static_cast<double>(test::decoded(P::key, c.index.codes()(i, d)));
                }
                exact +=
                    static_cast<double>(to_float(c.q(0, 1, d))) * (sum / static_cast<double>(seen));
                predicted += static_cast<double>(test::decoded(P::query, c.codes.row(0, 1)(d))) *
                             (coded / static_cast<double>(seen));
            }
            auto const line =
                means.line(q.cview().template slice<head>(0).template slice<query>(1),
                           c.codes.row(0, 1), c.codes.product_step(1), 0.3, {}, visible);
            CHECK(line.per_score == 0.3 * 1.0 * c.codes.product_step(1));
            CHECK(line.offset == 0.3 * exact - line.per_score * predicted);
        }
    };
    for (index_t dims = 1; dims <= 130; ++dims) {
        check(0.0f, dims);
        check(half{}, dims);
        check(bfloat16{}, dims);
    }
}
