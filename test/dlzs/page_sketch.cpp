// SPDX-License-Identifier: MIT
#include "dlzs/sketch_codes.hpp"
#include "support/generators.hpp"
#include <sofattn/core/half.hpp>
#include <sofattn/core/tensor.hpp>
#include <sofattn/dlzs/page_sketch.hpp>

#include <doctest/doctest.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

using namespace sofattn;
using dlzs::sketch_part;

namespace {

using key_tensor = tensor<float, axis::key, axis::dim>;

/// Channels of very different sizes; some keys far out.
key_tensor some_keys(test::generator& random, index_t keys, index_t dim) {
    auto k = test::random_matrix<float, axis::key, axis::dim>(random, {keys, dim});
    for (index_t d = 0; d < dim; ++d) {
        float const size = static_cast<float>(std::exp2(random.uniform(-6.0, 4.0)));
        float const centre = static_cast<float>(random.uniform(-3.0, 3.0)) * size;
        for (index_t i = 0; i < keys; ++i) {
            k(i, d) = k(i, d) * size + centre;
        }
    }
    for (index_t i = 0; i < keys; ++i) {
        if (random.chance(0.02)) {
            for (index_t d = 0; d < dim; ++d) {
                k(i, d) *= 6.0f;
            }
        }
    }
    return k;
}

/// In double throughout: what codes should be near, calibrated on the first `all` keys.
struct plain_sketch {
    std::vector<double> mean, variance, outlier; // [dim]
};
plain_sketch sketch_of(key_tensor const& keys, index_t page, index_t all) {
    index_t const dim = keys.cview().extent<axis::dim>();
    auto const n = static_cast<std::size_t>(dim);
    std::vector<double> centre(n), within(n);
    for (index_t d = 0; d < dim; ++d) {
        for (index_t k = 0; k < all; ++k) {
            centre[static_cast<std::size_t>(d)] += keys(k, d) / static_cast<double>(all);
        }
    }
    auto const x = [&](index_t k, std::size_t d) {
        return static_cast<double>(keys(k, static_cast<index_t>(d))) - centre[d];
    };
    auto const mean_of = [&](index_t p, std::size_t d) {
        double sum = 0;
        for (index_t k = p * 16; k < p * 16 + 16; ++k) {
            sum += x(k, d);
        }
        return sum / 16;
    };
    for (std::size_t d = 0; d < n; ++d) {
        for (index_t p = 0; p < all / 16; ++p) {
            double const mean = mean_of(p, d);
            for (index_t k = p * 16; k < p * 16 + 16; ++k) {
                within[d] += (x(k, d) - mean) * (x(k, d) - mean);
            }
        }
        within[d] /= static_cast<double>(all / 16 * 16);
    }
    index_t far = 0;
    double most = -1;
    for (index_t k = page * 16; k < page * 16 + 16; ++k) {
        double distance = 0;
        for (std::size_t d = 0; d < n; ++d) {
            double const off = x(k, d) - mean_of(page, d);
            distance +=
                within[d] > 0 ? off * off * std::exp2(-std::floor(std::log2(within[d]))) : 0.0;
        }
        if (distance > most) {
            most = distance;
            far = k;
        }
    }
    plain_sketch s{std::vector<double>(n), std::vector<double>(n), std::vector<double>(n)};
    for (std::size_t d = 0; d < n; ++d) {
        s.outlier[d] = x(far, d);
        for (index_t k = page * 16; k < page * 16 + 16; ++k) {
            s.mean[d] += k == far ? 0.0 : x(k, d) / 15;
        }
        for (index_t k = page * 16; k < page * 16 + 16; ++k) {
            double const off = x(k, d) - s.mean[d];
            s.variance[d] += k == far ? 0.0 : off * off / 15;
        }
    }
    return s;
}

} // namespace

TEST_CASE("dlzs.page_sketch: mean and variance of 15 keys, and the one that lies farthest out") {
    SOFATTN_GENERATOR(random);
    for (index_t const dim : {1, 3, 16, 33, 64, 130}) {
        index_t const keys = random.integer<index_t>(16, 300);
        key_tensor const all = some_keys(random, keys, dim);
        dlzs::page_sketches const sketches(all.cview());
        REQUIRE(sketches.pages() == keys / 16);
        for (index_t p = 0; p < sketches.pages(); ++p) {
            plain_sketch const right = sketch_of(all, p, keys);
            for (index_t d = 0; d < dim; ++d) {
                auto const near = [&](sketch_part part, std::vector<double> const& wanted) {
                    double const found = test::sketch_code(sketches, part, p, d) *
                                         static_cast<double>(sketches.step(part, d));
                    return std::abs(found - wanted[static_cast<std::size_t>(d)]) <=
                           0.501 * static_cast<double>(sketches.step(part, d));
                };
                REQUIRE(near(sketch_part::mean, right.mean));
                REQUIRE(near(sketch_part::variance, right.variance));
                REQUIRE(near(sketch_part::outlier, right.outlier));
                REQUIRE(test::sketch_code(sketches, sketch_part::variance, p, d) >= 0);
            }
        }
    }
}

TEST_CASE(
    "dlzs.page_sketch: no page below 16 keys, and keys behind the last whole one do not count "
    "as one") {
    SOFATTN_GENERATOR(random);
    CHECK(dlzs::page_sketches().pages() == 0);
    CHECK(dlzs::page_sketches(some_keys(random, 15, 8).cview()).pages() == 0);
    CHECK(dlzs::page_sketches(some_keys(random, 47, 8).cview()).pages() == 2);
}

TEST_CASE("dlzs.page_sketch: pages beyond the range of those that calibrate it double its steps") {
    SOFATTN_GENERATOR(random);
    for (index_t const keys : {200, 500, 511}) {
        auto k = test::random_matrix<float, axis::key, axis::dim>(random, {keys, 40});
        for (index_t i = 0; i < keys; ++i) {
            for (index_t d = 0; d < 40; ++d) {
                k(i, d) *= d == 7 && i < 256 ? 0.0f : static_cast<float>(1 + (i / 100) * (d % 9));
            }
        }
        index_t const by = dlzs::page_sketches::calibrated_by(keys);
        dlzs::page_sketches grown(k.cview().range<axis::key>(0, 16), 16);
        for (index_t n = 17; n <= keys; ++n) {
            if (grown.is_calibrated_for(n)) {
                grown.reserve(n);
                grown.append(k.cview().range<axis::key>(0, n));
            } else {
                grown = dlzs::page_sketches(k.cview().range<axis::key>(0, n),
                                            dlzs::page_sketches::calibrated_by(n));
            }
        }
        dlzs::page_sketches const made(k.cview(), by);
        REQUIRE(grown.pages() == keys / 16);
        CHECK(test::all_codes(grown) == test::all_codes(made));
        CHECK(test::same_steps(grown, made));
        dlzs::page_sketches const first(k.cview().range<axis::key>(0, by));
        index_t wider = 0;
        for (index_t p = 0; p < grown.pages(); ++p) {
            // Halves of codes add up to three quarters of a step, and a factor's rounding.
            plain_sketch const right = sketch_of(k, p, by);
            for (index_t d = 0; d < 40; ++d) {
                auto const near = [&](sketch_part part, std::vector<double> const& wanted) {
                    auto const step = static_cast<double>(grown.step(part, d));
                    double const ratio = step / static_cast<double>(first.step(part, d));
                    CHECK((first.step(part, d) == 0.0f ||
                           ratio == std::exp2(std::round(std::log2(ratio)))));
                    wider += ratio > 1.0;
                    return std::abs(test::sketch_code(grown, part, p, d) * step -
                                    wanted[static_cast<std::size_t>(d)]) <= 1.01 * step;
                };
                REQUIRE(near(sketch_part::mean, right.mean));
                REQUIRE(near(sketch_part::variance, right.variance));
                REQUIRE(near(sketch_part::outlier, right.outlier));
            }
        }
        CHECK((wider > 0 || keys == 511));
    }
}

TEST_CASE("dlzs.page_sketch: equal keys have no spread, and steps of 0 where all is 0") {
    key_tensor keys({64, 4});
    for (index_t k = 0; k < 64; ++k) {
        keys(k, 1) = 2.5f;
        keys(k, 2) = k < 32 ? 1.0f : -1.0f;
    }
    dlzs::page_sketches const sketches(keys.cview());
    for (index_t d = 0; d < 4; ++d) {
        CHECK(sketches.step(sketch_part::variance, d) == 0.0f);
        CHECK((sketches.step(sketch_part::mean, d) > 0.0f) == (d == 2));
    }
    CHECK(test::sketch_code(sketches, sketch_part::mean, 0, 2) == 127);
    CHECK(test::sketch_code(sketches, sketch_part::mean, 3, 2) == -127);
}

TEST_CASE("dlzs.page_sketch: strides and storage do not matter") {
    SOFATTN_GENERATOR(random);
    auto const stored = test::random_matrix<half, axis::key, axis::dim>(random, {70, 20});
    key_tensor floats({70, 20});
    test::for_each_index(floats.view().extents(), [&](auto const& i) {
        test::at(floats.view(), i) = to_float(test::at(stored.cview(), i));
    });
    auto const right = test::all_codes(dlzs::page_sketches(floats.cview()));
    CHECK(test::all_codes(dlzs::page_sketches(stored.cview())) == right);
    for (test::layout const kind : test::all_layouts) {
        auto const strided = test::strided(random, floats.cview(), kind);
        CHECK(test::all_codes(dlzs::page_sketches(strided.cview())) == right);
    }
}

TEST_CASE("dlzs.page_sketch: a query's three products say what its pages weigh") {
    SOFATTN_GENERATOR(random);
    constexpr index_t dim = 64;
    // Pages whose keys are normal about a mean of their own, but for one key.
    key_tensor keys({4096, dim});
    for (index_t p = 0; p < 256; ++p) {
        std::vector<double> mean(dim);
        for (double& m : mean) {
            m = random.normal();
        }
        for (index_t k = p * 16; k < p * 16 + 16; ++k) {
            for (index_t d = 0; d < dim; ++d) {
                keys(k, d) =
                    static_cast<float>(mean[static_cast<std::size_t>(d)] + 0.5 * random.normal());
            }
        }
    }
    dlzs::page_sketches const sketches(keys.cview());
    double worst = 0;
    for (int round = 0; round < 10; ++round) {
        std::vector<float> query(dim);
        for (float& q : query) {
            q = static_cast<float>(0.5 * random.normal());
        }
        auto const found = test::sketch_positions(sketches, query);
        std::vector<float> const centre = column_means(keys.cview());
        for (index_t p = 0; p < sketches.pages(); ++p) {
            double weight = 0;
            for (index_t k = p * 16; k < p * 16 + 16; ++k) {
                double logit = 0;
                for (std::size_t d = 0; d < query.size(); ++d) {
                    logit += static_cast<double>(query[d]) *
                             (static_cast<double>(keys(k, static_cast<index_t>(d))) -
                              static_cast<double>(centre[d]));
                }
                weight += std::exp2(logit) / 16;
            }
            double const off = found[static_cast<std::size_t>(p)] / 256.0 - std::log2(weight);
            worst = std::max(worst, std::abs(off));
        }
    }
    MESSAGE("octaves off at most: " << worst);
    CHECK(worst < 4.0);
    CHECK(worst > 0.1); // an estimate it is
}
