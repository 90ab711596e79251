// SPDX-License-Identifier: MIT
// Attention on vector registers against double precision, and against the attender it stands for.
#include "core/aborts.hpp"
#include "sufa/attend_case.hpp"
#include "support/generators.hpp"
#include <sofattn/core/bfloat16.hpp>
#include <sofattn/core/half.hpp>
#include <sofattn/sufa/register_attend.hpp>
#include <sofattn/sufa/register_rows.hpp>
#include <sofattn/sufa/sorted_updating.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

using namespace sofattn;

namespace {

constexpr double tolerance = 2e-5;

/// A case's rows in registers, and a row's state.
template <class T>
struct on_registers {
    explicit on_registers(test::attend_case<T> const& c)
        : scale(static_cast<float>(c.scale)), keys(c.keys.cview()), values(c.values.cview()),
          query(view<T const, axis::query, axis::dim>(c.query.cview().data(),
                                                      {1, c.query.cview().size()})),
          o(static_cast<std::size_t>(values.rows().width)), scratch(c.key_count()),
          state(sufa::softmax_state<float>::empty(o)) {}

    [[nodiscard]] sufa::register_inputs inputs() const {
        return {query.rows().data, keys.rows(), values.rows(), scale};
    }
    [[nodiscard]] std::vector<float> row(index_t value_dim) const {
        std::vector<float> all(o.size());
        state.finish(all);
        all.resize(static_cast<std::size_t>(value_dim));
        return all;
    }

    float scale;
    sufa::register_rows<axis::key, axis::dim> keys;
    sufa::register_rows<axis::key, axis::value_dim> values;
    sufa::register_rows<axis::query, axis::dim> query;
    std::vector<float> o;
    sufa::register_attend_scratch scratch;
    sufa::softmax_state<float> state;
};

} // namespace

TEST_CASE_TEMPLATE("sufa.register_attend: the softmax over the keys, in any order and any tiles", T,
                   float, half, bfloat16) {
    SOFATTN_GENERATOR(random);
    for (index_t const dim : {1, 15, 16, 17, 64, 200}) {
        for (index_t const value_dim : {1, 16, 33, 128}) {
            for (index_t const count : {0, 1, 2, 15, 16, 17, 90}) {
                test::attend_case<T> c(random, 100, dim, value_dim);
                test::for_each_index(c.values.view().extents(), [&](auto const& i) {
                    auto& v = test::at(c.values.view(), i);
                    v = T(0.3f + std::abs(to_float(v)));
                });
                auto const keys =
                    test::arranged(random, c, test::random_keys(random, 100, count),
                                   test::all_arrivals[random.integer<std::size_t>(0, 4)]);
                on_registers<T> x(c);
                index_t const tile = random.integer<index_t>(1, 40);
                for (index_t from = 0; from < count; from += tile) {
                    auto const kept = test::as_kept(std::span(keys).subspan(
                        static_cast<std::size_t>(from),
                        static_cast<std::size_t>(std::min(tile, count - from))));
                    sufa::register_attend<sufa::recomputed>{}(
                        x.inputs(), std::span<ranked<int> const>(kept), x.scratch, x.state);
                }
                CAPTURE(dim);
                CAPTURE(value_dim);
                CAPTURE(count);
                CHECK(test::deviation(x.row(value_dim), test::expected_output(c, keys)) <=
                      tolerance);
                CHECK(std::all_of(x.o.begin() + value_dim, x.o.end(),
                                  [](float f) { return f == 0.0f; }));
            }
        }
    }
}

TEST_CASE("sufa.register_attend: one logit far above the others, wherever it comes") {
    SOFATTN_GENERATOR(random);
    for (std::size_t const far : {0u, 1u, 40u, 99u}) {
        test::attend_case<float> c(random, 100, 16, 16);
        for (index_t d = 0; d < 16; ++d) {
            c.keys(static_cast<index_t>(far), d) = 100.0f * c.query(d);
        }
        on_registers<float> x(c);
        auto const keys = test::random_keys(random, 100, 100);
        auto const kept = test::as_kept(keys);
        sufa::register_attend<sufa::recomputed>{}(x.inputs(), std::span<ranked<int> const>(kept),
                                                  x.scratch, x.state);
        CHECK(test::deviation(x.row(16), test::expected_output(c, keys)) <= tolerance);
    }
}

TEST_CASE("sufa.register_attend: reused logits, but of keys near the best, which are computed") {
    SOFATTN_GENERATOR(random);
    for (int round = 0; round < 60; ++round) {
        auto const dim = random.integer<index_t>(1, 80);
        test::attend_case<float> c(random, 100, dim, 20);
        c.stretch_to(random.uniform(2.0, 30.0));
        // Scores that are off by up to a logit, of keys 50 and on.
        score_line const line{random.uniform(-3.0, 3.0), 0.01};
        std::vector<std::int32_t> scores;
        for (index_t k = 0; k < 50; ++k) {
            scores.push_back(static_cast<std::int32_t>(
                std::lround((c.logit(50 + k) + random.uniform() - line.offset) / line.per_score)));
        }
        std::vector<ranked<std::int32_t>> kept;
        for (index_t k = 50; k < 100; k += random.integer<index_t>(1, 3)) {
            kept.push_back({scores[static_cast<std::size_t>(k - 50)], static_cast<key_id>(k)});
        }
        random.shuffle(kept);
        double top = -1e30;
        for (auto const& entry : kept) {
            top = std::max(top, line.logit(entry.score));
        }
        std::vector<key_id> near;
        std::vector<double> o(20);
        double sum = 0;
        for (auto const& entry : kept) {
            double logit = line.logit(entry.score);
            if (logit >= top - 4.0) {
                near.push_back(entry.key);
                logit = c.logit(entry.key);
            }
            double const weight = std::exp(logit - top);
            sum += weight;
            for (index_t d = 0; d < 20; ++d) {
                o[static_cast<std::size_t>(d)] +=
                    weight * static_cast<double>(c.values(entry.key, d));
            }
        }
        for (double& x : o) {
            x /= sum;
        }
        on_registers<float> x(c);
        std::vector<key_id> computed;
        sufa::register_attend<sufa::reused>{}(
            x.inputs(), std::span<ranked<std::int32_t> const>(kept), line,
            std::span<std::int32_t const>(scores), 50, x.scratch, x.state,
            [&](key_id key) { computed.push_back(key); });
        CHECK(computed == near);
        CHECK(test::deviation(x.row(20), o) <= 5 * tolerance);
    }
}

TEST_CASE("sufa.register_attend: a list longer than its buffers is refused") {
    SOFATTN_GENERATOR(random);
    test::attend_case<float> const c(random, 10, 4, 4);
    on_registers<float> x(c);
    auto const kept = test::as_kept(test::random_keys(random, 10, 10));
    sufa::register_attend_scratch small(9);
    SOFATTN_CHECK_ABORTS("scratch.which.size()",
                         sufa::register_attend<sufa::recomputed>{}(
                             x.inputs(), std::span<ranked<int> const>(kept), small, x.state));
}
