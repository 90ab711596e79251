// SPDX-License-Identifier: MIT
#include "lm/method.hpp"

#include "support/generators.hpp"
#include "tune/sizes.hpp"
#include <sofattn/core/error.hpp>
#include <sofattn/core/tensor.hpp>
#include <sofattn/ref/dense_attention.hpp>

#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

using namespace sofattn;
using namespace sofattn::test;

namespace {

struct layer_data {
    tensor<float, axis::head, axis::query, axis::dim> q;
    tensor<float, axis::kv_head, axis::key, axis::dim> k;
    tensor<float, axis::kv_head, axis::key, axis::value_dim> v;

    layer_data(generator& random, index_t queries, index_t keys)
        : q(random_matrix<float, axis::head, axis::query, axis::dim>(random, {4, queries, 16})),
          k(random_matrix<float, axis::kv_head, axis::key, axis::dim>(random, {2, keys, 16})),
          v(random_matrix<float, axis::kv_head, axis::key, axis::value_dim>(random,
                                                                            {2, keys, 16})) {}
    [[nodiscard]] problem<float> given() const { return {q.cview(), k.cview(), v.cview(), true}; }
};

struct attended {
    tensor<float, axis::head, axis::query, axis::value_dim> output;
    lm::pair_counts counts;
};
attended with(std::string const& name, layer_data const& data, index_t first_row = 0,
              index_t dense_below = 0, index_t threads = 1) {
    auto const given = data.given();
    attended a{tensor<float, axis::head, axis::query, axis::value_dim>(
                   {4, given.queries.extent<axis::query>(), 16}),
               {}};
    a.counts = lm::find_method(name, dense_below)
                   .attend({given, a.output.view(), 0, first_row, exec::openmp(threads)});
    return a;
}

/// Relative, Frobenius.
double off(attended const& a, attended const& b) {
    double difference = 0;
    double norm = 0;
    for_each_index(b.output.cview().extents(), [&](auto const& i) {
        auto const x = static_cast<double>(at(a.output.cview(), i));
        auto const y = static_cast<double>(at(b.output.cview(), i));
        difference += (x - y) * (x - y);
        norm += y * y;
    });
    return std::sqrt(difference / norm);
}

} // namespace

TEST_CASE("lm.method: all ways attend, the more exactly the more they keep") {
    SOFATTN_GENERATOR(random);
    layer_data const data(random, 300, 300);
    auto const dense = with("dense", data);
    CHECK(dense.counts.visible == 4 * 300 * 301 / 2);
    CHECK(dense.counts.kept == dense.counts.visible);
    CHECK(off(with("dense/bf16", data), dense) < 2e-2);
    CHECK(off(with("dense/int8", data), dense) < 4e-2);
    CHECK(off(with("mass:1/computed", data), dense) < 1e-3);
    for (std::string const budget : {"mass:0.9", "error:0.05", "radius:3"}) {
        for (std::string const form :
             {"", "/computed", "/dropped", "/computed/dropped", "/dropped/computed"}) {
            CAPTURE(budget + form);
            auto const sparse = with(budget + form, data);
            CHECK(sparse.counts.visible == dense.counts.visible);
            CHECK(sparse.counts.kept < dense.counts.kept);
            CHECK(sparse.counts.kept > 0);
            CHECK(off(sparse, dense) < 0.5);
            CHECK(off(sparse, dense) > 0.0);
        }
        CHECK(off(with(budget, data), dense) < off(with(budget + "/dropped", data), dense));
    }
    CHECK(with("mass:0.9", data).counts.kept > with("mass:0.7", data).counts.kept);
    auto const paper = with("paper:0.25", data);
    CHECK(paper.counts.kept_share() == doctest::Approx(0.25).epsilon(0.05));
    CHECK(off(paper, dense) < 1.0);
    CHECK(with("paper", data).counts.kept_share() == doctest::Approx(0.10).epsilon(0.1));
}

TEST_CASE("lm.method: sizes of tiles are those of dense methods, each of its products") {
    SOFATTN_GENERATOR(random);
    layer_data const data(random, 300, 300);
    auto const given = data.given();
    tune::sizes sizes;
    sizes.f32 = {96, 50};
    sizes.int8 = {144, 60};
    auto const output_of = [&](lm::attention_method const& m) {
        attended a{tensor<float, axis::head, axis::query, axis::value_dim>({4, 300, 16}), {}};
        a.counts = m.attend({given, a.output.view(), 0, 0, exec::openmp(2)});
        CHECK(a.counts.visible == 4 * 300 * 301 / 2);
        return a;
    };
    auto const changed = [&](char const* name) {
        auto const usual = lm::find_method(name, 0);
        auto const tiled = lm::with_tiles(usual, sizes);
        CHECK(tiled.name == usual.name);
        double const difference = off(output_of(tiled), output_of(usual));
        CHECK(difference < 1e-2); // of int8 products, whose codes' steps are a tile's
        CHECK((difference > 0) == (tiled.what != usual.what));
        return difference > 0;
    };
    CHECK(changed("dense"));
    CHECK_FALSE(changed("dense/bf16"));
    CHECK(changed("dense/int8"));
    CHECK_FALSE(changed("mass:0.9"));
    CHECK_FALSE(changed("pages"));
}

TEST_CASE("lm.method: pages, the more exactly the more they keep") {
    SOFATTN_GENERATOR(random);
    layer_data data(random, 300, 700);
    for_each_index(data.q.cview().extents(), // some pages matter
                   [&](auto const& i) { at(data.q.view(), i) *= 4.0f; });
    auto const dense = with("dense", data);
    auto const most = with("mass:0.999999/pages", data);
    CHECK(most.counts.visible == dense.counts.visible);
    CHECK(off(most, dense) < 1e-4);
    double before = off(most, dense);
    std::uint64_t kept = most.counts.kept;
    for (std::string const mass : {"mass:0.99", "mass:0.9", "mass:0.5"}) {
        CAPTURE(mass);
        auto const pages = with(mass + "/pages", data);
        CHECK(pages.counts.visible == dense.counts.visible);
        CHECK(pages.counts.kept < kept);
        CHECK(pages.counts.kept > 0);
        CHECK(off(pages, dense) > before);
        CHECK(off(pages, dense) < 1.0);
        kept = pages.counts.kept;
        before = off(pages, dense);
        auto const rounded = with(mass + "/pages/bf16", data);
        CHECK(rounded.counts.kept == pages.counts.kept);
        CHECK(off(rounded, pages) < 2e-2);
    }
    CHECK(off(with("error:0.5/pages", data), with("mass:0.75/pages", data)) == 0.0);
    CHECK(off(with("pages", data), with("mass:0.99/pages", data)) == 0.0);
    CHECK(off(with("pages/bf16", data), with("mass:0.99/pages/bf16", data)) == 0.0);
    CHECK(with("mass:1/pages", data).counts.kept == dense.counts.kept);
}

TEST_CASE("lm.method: rows before the first are not counted, threads change nothing") {
    SOFATTN_GENERATOR(random);
    layer_data const data(random, 70, 120);
    for (std::string const name : {"dense", "mass:0.8", "mass:0.5/pages", "paper:0.2"}) {
        CAPTURE(name);
        auto const all = with(name, data);
        auto const some = with(name, data, 20);
        // Queries 20 to 69 stand at keys 70 to 119.
        CHECK(some.counts.visible == 4 * (120 * 121 / 2 - 70 * 71 / 2));
        CHECK(some.counts.kept < all.counts.kept);
        auto const threaded = with(name, data, 0, 0, 3);
        CHECK(threaded.counts.kept == all.counts.kept);
        CHECK(off(threaded, all) == 0.0);
        CHECK(with(name, data, 70).counts.visible == 0);
    }
}

TEST_CASE("lm.method: below so many keys, sparse is dense, to the bit") {
    SOFATTN_GENERATOR(random);
    layer_data const data(random, 120, 120);
    auto const below = with("mass:0.8", data, 0, 121);
    CHECK(off(below, with("dense", data)) == 0.0);
    CHECK(below.counts.kept == below.counts.visible);
    CHECK(with("mass:0.8", data, 0, 120).counts.kept < below.counts.kept);
    auto const pages = with("mass:0.3/pages/bf16", data, 0, 121);
    CHECK(off(pages, with("dense/bf16", data)) == 0.0);
    CHECK(pages.counts.kept == pages.counts.visible);
    CHECK(with("mass:0.3/pages/bf16", data, 0, 120).counts.kept < below.counts.kept);
}

TEST_CASE("lm.method: names that mean nothing are refused") {
    for (std::string const name : {"",
                                   "dens",
                                   "dense/f16",
                                   "mass",
                                   "mass:",
                                   "mass:0",
                                   "mass:1.01",
                                   "mass:nan",
                                   "mass:0.9x",
                                   "mass:-1",
                                   "mass 0.9",
                                   "error:0",
                                   "error:inf",
                                   "error:-1",
                                   "radius:-1",
                                   "radius:nan",
                                   "mass:0.9/",
                                   "mass:0.9/dropped/dropped",
                                   "mass:0.9/computed/computed",
                                   "/dropped",
                                   "/pages",
                                   "pages/",
                                   "pages/pages",
                                   "pages:0.9",
                                   "pages/dropped",
                                   "mass:0.9/bf16",
                                   "mass:0/pages",
                                   "radius:3/pages",
                                   "mass:0.9/dropped/pages",
                                   "mass:0.9/pages/computed",
                                   "mass:0.9/pages/bf16/bf16",
                                   "paper:0",
                                   "paper:2",
                                   "paper:",
                                   "dense/dropped",
                                   "paper/dropped"}) {
        CAPTURE(name);
        CHECK_THROWS_AS(static_cast<void>(lm::find_method(name, 0)), error);
    }
    CHECK(lm::find_method("mass:0.9/dropped", 0).name == "mass:0.9/dropped");
    CHECK(lm::find_method("dense", 0).is_timed);
    CHECK_FALSE(lm::find_method("paper", 0).is_timed);
}
