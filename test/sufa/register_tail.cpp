// SPDX-License-Identifier: MIT
// Tail compensation on vector registers against the definition in double.
#include "support/generators.hpp"
#include <sofattn/exec/executor.hpp>
#include <sofattn/sufa/register_rows.hpp>
#include <sofattn/sufa/register_tail.hpp>
#include <sofattn/sufa/tail.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

using namespace sofattn;

namespace {

struct short_segments : sufa::segment_tail {
    static constexpr index_t segment = 16;
};

/// (m, l, o) and a waiting tail, in either arithmetic.
template <class Real>
struct row_state {
    explicit row_state(index_t width)
        : o(static_cast<std::size_t>(width)), sum(static_cast<std::size_t>(width)),
          state(sufa::softmax_state<Real>::empty(o)), tail(sufa::tail_state<Real>::empty(sum)) {}

    /// As if some key had been attended.
    void begin(double m, double l, double value) {
        state.m = static_cast<Real>(m);
        state.l = static_cast<Real>(l);
        std::ranges::fill(o, static_cast<Real>(l * value));
    }
    [[nodiscard]] std::vector<float> row() {
        tail.compensate(state);
        std::vector<float> all(o.size());
        state.finish(all);
        return all;
    }

    std::vector<Real> o;
    std::vector<Real> sum;
    sufa::softmax_state<Real> state;
    sufa::tail_state<Real> tail;
};

} // namespace

TEST_CASE_TEMPLATE("sufa.register_tail: the definition's outputs, run after run", Tail,
                   sufa::no_tail, sufa::mean_tail, sufa::segment_tail, sufa::int8_tail,
                   short_segments) {
    SOFATTN_GENERATOR(random);
    for (int round = 0; round < 150; ++round) {
        auto const keys = random.integer<index_t>(1, 400);
        auto const dims = random.integer<index_t>(1, 70);
        auto values = test::random_matrix<float, axis::key, axis::value_dim>(random, {keys, dims});
        test::for_each_index(values.view().extents(), [&](auto const& i) {
            auto& v = test::at(values.view(), i);
            v = 0.5f + std::abs(v);
        });
        sufa::tail_values<Tail> const prepared(values.cview());
        sufa::register_tail_rows<Tail> const stand_ins(
            Tail::by == sufa::stand_in::nobody
                ? sufa::register_tail_rows<Tail>()
                : sufa::register_tail_rows<Tail>(prepared, keys, dims));
        sufa::register_rows<axis::key, axis::value_dim> const rows(values.cview());
        index_t const width = rows.rows().width;
        score_line const line{random.uniform(-5.0, 5.0), std::exp2(random.uniform(-14.0, -6.0))};
        row_state<double> wanted(dims);
        row_state<float> found(width);
        if (random.chance(0.8)) {
            double const m = random.uniform(-10.0, 30.0);
            wanted.begin(m, 2.0, 0.7);
            found.begin(m, 2.0, 0.7);
            std::fill(found.o.begin() + dims, found.o.end(), 0.0f);
        }
        sufa::tail_scratch<double> scratch(keys, dims);
        sufa::register_tail_scratch registers(keys, Tail::segment, width);
        index_t const run = random.chance(0.5) ? keys : random.integer<index_t>(1, keys);
        double const keep = random.chance(0.2) ? 1.0 : random.uniform(0.0, 0.9);
        exec::reference x;
        for (index_t first = 0; first < keys; first += run) {
            index_t const count = std::min(run, keys - first);
            std::vector<std::int32_t> scores;
            std::vector<ranked<std::int32_t>> kept;
            for (index_t k = 0; k < count; ++k) {
                scores.push_back(static_cast<std::int32_t>(random.normal(2000.0)));
                if (random.chance(keep)) {
                    kept.push_back({scores.back(), static_cast<key_id>(first + k)});
                }
            }
            random.shuffle(kept);
            sufa::tail_compensation<Tail>{}(
                x, values.cview(), prepared, line, first, std::span<std::int32_t const>(scores),
                std::span<ranked<std::int32_t> const>(kept), scratch, wanted.state, wanted.tail);
            sufa::register_tail<Tail>{}(
                rows.rows(), stand_ins.rows(), line, first, std::span<std::int32_t const>(scores),
                std::span<ranked<std::int32_t> const>(kept), registers, found.state, found.tail);
        }
        auto const right = wanted.row();
        auto const got = found.row();
        double off = 0;
        for (std::size_t d = 0; d < right.size(); ++d) {
            off = std::max(off, static_cast<double>(std::abs(got[d] - right[d])));
        }
        CHECK(off <= 2e-5 * static_cast<double>(std::ranges::max(right) + 1e-30f));
        CHECK(std::all_of(got.begin() + dims, got.end(), [](float f) { return f == 0.0f; }));
    }
}
