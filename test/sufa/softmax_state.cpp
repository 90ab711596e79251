// SPDX-License-Identifier: MIT
#include "support/generators.hpp"
#include "support/watched.hpp"
#include <sofattn/core/types.hpp>
#include <sofattn/sufa/softmax_state.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <span>
#include <vector>

namespace {

using namespace sofattn;

constexpr double tolerance = 2e-6;
constexpr std::size_t value_dim = 5;

/// A state with the row it owns.
template <class Real>
struct owned {
    std::vector<Real> o = std::vector<Real>(value_dim, Real(9));
    sufa::softmax_state<Real> state = sufa::softmax_state<Real>::empty(o);

    owned() = default;
    owned(owned const& other) : o(other.o), state(other.state) { state.o = o; }
    owned& operator=(owned const& other) {
        o = other.o;
        state = other.state;
        state.o = o;
        return *this;
    }
    ~owned() = default;

    [[nodiscard]] owned with(owned const& other) const {
        owned sum(*this);
        sum.state.merge(other.state);
        return sum;
    }
    [[nodiscard]] std::vector<float> output() const {
        std::vector<float> row(value_dim, -1.0f);
        state.finish(row);
        return row;
    }
    friend bool operator==(owned const& a, owned const& b) {
        return a.state.m == b.state.m && a.state.l == b.state.l && a.o == b.o;
    }
};

struct seen_key {
    double logit;
    std::vector<double> value;
};

/// The state of some keys, from the definition; m may be any reference near the max.
template <class Real>
owned<Real> state_of(std::span<seen_key const> keys, double above_max = 0.0) {
    owned<Real> s;
    if (keys.empty()) {
        return s;
    }
    double max = keys[0].logit;
    for (seen_key const& k : keys) {
        max = std::max(max, k.logit);
    }
    s.state.m = static_cast<Real>(max + above_max);
    double l = 0.0;
    std::vector<double> o(value_dim);
    for (seen_key const& k : keys) {
        double const weight = std::exp(k.logit - static_cast<double>(s.state.m));
        l += weight;
        for (std::size_t d = 0; d < value_dim; ++d) {
            o[d] += weight * k.value[d];
        }
    }
    s.state.l = static_cast<Real>(l);
    std::ranges::transform(o, s.o.begin(), [](double x) { return static_cast<Real>(x); });
    return s;
}

/// Equal outputs and equal masses.
template <class Real>
void check_same(owned<Real> const& a, owned<Real> const& b) {
    std::vector<float> const x = a.output();
    std::vector<float> const y = b.output();
    double largest = 0.0;
    double apart = 0.0;
    for (std::size_t d = 0; d < value_dim; ++d) {
        largest = std::max(largest, std::abs(static_cast<double>(x[d])));
        apart = std::max(apart, std::abs(static_cast<double>(x[d]) - static_cast<double>(y[d])));
    }
    REQUIRE(apart <= tolerance * largest);
    double const mass = a.state.log_sum_exp();
    REQUIRE(std::abs(mass - b.state.log_sum_exp()) <= tolerance * std::max(1.0, std::abs(mass)));
}

/// Logits of a row; `kind` 3 is +-1e4 and both at once. Rounded to float, so that a float state
/// starts from the same numbers.
std::vector<seen_key> random_row(test::generator& random, index_t keys, int kind) {
    std::vector<seen_key> row(static_cast<std::size_t>(keys));
    for (seen_key& k : row) {
        double const logit = kind == 0   ? random.normal()
                             : kind == 1 ? random.normal(20.0)
                             : kind == 2 ? 1e4 + random.normal()
                                         : (random.chance(0.5) ? 1e4 : -1e4) + random.normal();
        k.logit = static_cast<double>(static_cast<float>(logit));
        for (std::size_t d = 0; d < value_dim; ++d) {
            k.value.push_back(1.0 + 0.5 * random.normal());
        }
    }
    return row;
}

/// Cuts a row into `parts` ranges, some of them empty, and takes the state of each.
template <class Real>
std::vector<owned<Real>> random_split(test::generator& random, std::span<seen_key const> row,
                                      index_t parts) {
    std::vector<index_t> cuts{0, std::ssize(row)};
    for (index_t p = 1; p < parts; ++p) {
        cuts.push_back(random.integer<index_t>(0, std::ssize(row)));
    }
    std::ranges::sort(cuts);
    std::vector<owned<Real>> states;
    for (std::size_t p = 1; p < cuts.size(); ++p) {
        states.push_back(
            state_of<Real>(row.subspan(static_cast<std::size_t>(cuts[p - 1]),
                                       static_cast<std::size_t>(cuts[p] - cuts[p - 1]))));
    }
    return states;
}

/// Merges all of them, neighbours or not, in a random grouping.
template <class Real>
owned<Real> merged_anyhow(test::generator& random, std::vector<owned<Real>> states) {
    while (states.size() > 1) {
        auto const into = random.integer<std::size_t>(0, states.size() - 1);
        auto from = random.integer<std::size_t>(0, states.size() - 2);
        from += from >= into ? 1 : 0;
        states[into].state.merge(states[from].state);
        states.erase(states.begin() + static_cast<index_t>(from));
    }
    return states.front();
}

} // namespace

TEST_CASE("sufa.softmax_state: a row that has seen no key is empty and gives zeros") {
    owned<double> const s;
    CHECK(s.state.is_empty());
    CHECK(s.state.m == -std::numeric_limits<double>::infinity());
    CHECK(s.state.l == 0.0);
    CHECK(s.o == std::vector<double>(value_dim));
    CHECK(s.output() == std::vector<float>(value_dim));
    CHECK(s.state.log_sum_exp() == -std::numeric_limits<double>::infinity());
}

TEST_CASE("sufa.softmax_state: two keys merged by hand") {
    double const ln3 = std::log(3.0);
    owned<double> a = state_of<double>(std::vector<seen_key>{{0.0, {4, 0, 0, 0, 8}}});
    owned<double> const b = state_of<double>(std::vector<seen_key>{{ln3, {0, 4, 0, 0, 8}}});
    a.state.merge(b.state); // weights 1/4 and 3/4
    CHECK(a.state.m == ln3);
    CHECK(a.state.l == doctest::Approx(4.0 / 3.0));
    auto const row = a.output();
    CHECK(row[0] == doctest::Approx(1.0));
    CHECK(row[1] == doctest::Approx(3.0));
    CHECK(row[2] == 0.0f);
    CHECK(row[4] == doctest::Approx(8.0));
    CHECK(a.state.log_sum_exp() == doctest::Approx(std::log(4.0)));
}

TEST_CASE_TEMPLATE("sufa.softmax_state: merging in any split and grouping is within 2e-6", Real,
                   double, float) {
    SOFATTN_GENERATOR(random);
    for (int round = 0; round < 2000; ++round) {
        int const kind = round % 4;
        CAPTURE(round);
        auto const row = random_row(random, random.integer<index_t>(1, 100), kind);
        auto const whole = state_of<Real>(row);
        auto const parts =
            random_split<Real>(random, row, random.integer<index_t>(1, sizeof(Real) == 8 ? 40 : 8));
        check_same(merged_anyhow(random, parts), whole);
        owned<Real> left_to_right;
        for (auto const& part : parts) {
            left_to_right = left_to_right.with(part);
        }
        check_same(left_to_right, whole);
    }
}

TEST_CASE("sufa.softmax_state: merging is associative") {
    SOFATTN_GENERATOR(random);
    for (int round = 0; round < 1000; ++round) {
        auto const row = random_row(random, 30, round % 4);
        auto const parts = random_split<double>(random, row, 3);
        check_same(parts[0].with(parts[1]).with(parts[2]), parts[0].with(parts[1].with(parts[2])));
    }
}

TEST_CASE_TEMPLATE("sufa.softmax_state: merging is commutative, to the bit", Real, double, float) {
    SOFATTN_GENERATOR(random);
    for (int round = 0; round < 1000; ++round) {
        auto const row = random_row(random, 20, round % 4);
        auto const parts = random_split<Real>(random, row, 2);
        REQUIRE(parts[0].with(parts[1]) == parts[1].with(parts[0]));
    }
}

TEST_CASE_TEMPLATE("sufa.softmax_state: empty is the identity, to the bit", Real, double, float) {
    SOFATTN_GENERATOR(random);
    owned<Real> const none;
    for (int kind = 0; kind < 4; ++kind) {
        auto const some = state_of<Real>(random_row(random, 20, kind));
        CHECK(some.with(none) == some);
        CHECK(none.with(some) == some);
    }
    CHECK(none.with(none) == none);
}

TEST_CASE("sufa.softmax_state: m may be any reference close to the max") {
    SOFATTN_GENERATOR(random);
    for (int round = 0; round < 200; ++round) {
        auto const row = random_row(random, 24, round % 4);
        auto const half = std::span<seen_key const>(row).first(12);
        auto const rest = std::span<seen_key const>(row).subspan(12);
        auto const merged = state_of<double>(half, random.uniform(-3.0, 3.0))
                                .with(state_of<double>(rest, random.uniform(-3.0, 3.0)));
        check_same(merged, state_of<double>(row));
    }
}

TEST_CASE("sufa.softmax_state: a part that is 1e4 logits below another leaves no trace") {
    auto const high = state_of<double>(std::vector<seen_key>{{1e4, {1, 2, 3, 4, 5}}});
    auto const low = state_of<double>(std::vector<seen_key>{{-1e4, {9, 9, 9, 9, 9}}});
    CHECK(high.with(low) == high);
    CHECK(low.with(high) == high);
}

TEST_CASE("sufa.softmax_state: asking whether a state is empty is not arithmetic") {
    using number = test::watched<double>;
    std::vector<number> o(3);
    auto const state = sufa::softmax_state<number>::empty(o);
    CHECK(test::watch([&] { CHECK(state.is_empty()); }) == test::tally{});
}
