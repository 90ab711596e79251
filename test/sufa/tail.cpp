// SPDX-License-Identifier: MIT
#include "sufa/attend_case.hpp"
#include "support/generators.hpp"
#include "support/watched.hpp"
#include <sofattn/core/bfloat16.hpp>
#include <sofattn/core/half.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/exec/executor.hpp>
#include <sofattn/sufa/rivals.hpp>
#include <sofattn/sufa/tail.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

namespace {

using namespace sofattn;
using probe::event;
using probe::stage;
using sufa::stand_in;

struct short_segments : sufa::segment_tail {
    static constexpr index_t segment = 4;
};
struct mean_by_fours : sufa::mean_tail {
    static constexpr index_t segment = 4;
};
struct mean_by_sevens : sufa::mean_tail {
    static constexpr index_t segment = 7;
};
struct single_keys : sufa::segment_tail {
    static constexpr index_t segment = 1;
};
struct int8_by_fours : sufa::int8_tail {
    static constexpr index_t segment = 4;
};

struct no_stand_in {
    static constexpr char const* name = "x";
    [[maybe_unused]] static constexpr index_t segment = 64;
};
struct numbered_stand_in : no_stand_in {
    static constexpr int by = 1;
};
struct no_segment {
    static constexpr char const* name = "x";
    static constexpr stand_in by = stand_in::row_mean;
};
struct nameless {
    [[maybe_unused]] static constexpr stand_in by = stand_in::row_mean;
    [[maybe_unused]] static constexpr index_t segment = 64;
};
struct empty_segments : sufa::mean_tail {
    static constexpr index_t segment = 0;
};

static_assert(sufa::tail_policy<sufa::no_tail> && sufa::tail_policy<sufa::mean_tail>);
static_assert(sufa::tail_policy<sufa::segment_tail> && sufa::tail_policy<sufa::int8_tail>);
static_assert(sufa::tail_policy<short_segments>);
static_assert(!sufa::tail_policy<no_stand_in> && !sufa::tail_policy<numbered_stand_in>);
static_assert(!sufa::tail_policy<no_segment> && !sufa::tail_policy<nameless>);
static_assert(!sufa::tail_policy<empty_segments> && !sufa::tail_policy<int>);
static_assert(sufa::tail_values<sufa::mean_tail>::has_sums);
static_assert(!sufa::tail_values<sufa::int8_tail>::has_sums);

#define SOFATTN_TAILS                                                                              \
    sufa::no_tail, sufa::mean_tail, sufa::segment_tail, sufa::int8_tail, short_segments,           \
        mean_by_sevens, single_keys, int8_by_fours

template <index_t Width>
using counting_lanes = exec::executor<exec::scalar_lanes<Width>, probe::ledger, double>;

/// A row with predicted scores that need not resemble its logits, and who is kept.
template <class T>
struct tail_case {
    test::attend_case<T> row;
    std::vector<std::int32_t> scores; // [key]
    std::vector<char> is_kept;        // [key]
    score_line line{0.3, 1e-3};

    tail_case(test::generator& random, index_t keys, index_t value_dim, double kept)
        : row(random, keys, 8, value_dim), scores(static_cast<std::size_t>(keys)),
          is_kept(scores.size()) {
        for (std::size_t k = 0; k < scores.size(); ++k) {
            scores[k] = static_cast<std::int32_t>(std::nearbyint(random.normal(1500.0)));
            is_kept[k] = random.chance(kept) ? 1 : 0;
        }
    }

    [[nodiscard]] index_t keys() const { return row.key_count(); }
    [[nodiscard]] bool keeps(index_t k) const { return is_kept[static_cast<std::size_t>(k)] != 0; }
    [[nodiscard]] double estimate(index_t k) const {
        return line.offset +
               line.per_score * static_cast<double>(scores[static_cast<std::size_t>(k)]);
    }
    [[nodiscard]] double value(index_t k, index_t d) const {
        return static_cast<double>(to_float(row.values(k, d)));
    }
    /// The value in 8 bits with a step of its key's own.
    [[nodiscard]] double coded(index_t k, index_t d) const {
        float most = 0.0f;
        for (index_t c = 0; c < row.value_dim(); ++c) {
            most = std::max(most, std::abs(to_float(row.values(k, c))));
        }
        if (most == 0.0f) {
            return 0.0;
        }
        float const code = std::nearbyint(to_float(row.values(k, d)) * (127.0f / most));
        return static_cast<double>(most / 127.0f * code);
    }
};

/// One state per row, with what it owns.
template <class Real>
struct row_state {
    std::vector<Real> o;
    std::vector<Real> sum;
    sufa::softmax_state<Real> state;
    sufa::tail_state<Real> tail;

    explicit row_state(index_t value_dim)
        : o(static_cast<std::size_t>(value_dim), Real(9.0)), sum(o.size(), Real(9.0)),
          state(sufa::softmax_state<Real>::empty(o)), tail(sufa::tail_state<Real>::empty(sum)) {}
    row_state(row_state&&) noexcept = default; // vectors keep their buffers
    row_state& operator=(row_state&&) noexcept = default;
    row_state(row_state const&) = delete;
    row_state& operator=(row_state const&) = delete;
    ~row_state() = default;

    /// The row's mean joins, and the output.
    [[nodiscard]] std::vector<float> finish() {
        tail.compensate(state);
        std::vector<float> row(o.size(), -1.0f);
        state.finish(row);
        return row;
    }
    friend bool same(row_state const& a, row_state const& b) {
        return a.state.m == b.state.m && a.state.l == b.state.l && a.o == b.o &&
               a.tail.m == b.tail.m && a.tail.weight == b.tail.weight &&
               a.tail.count == b.tail.count && a.sum == b.sum;
    }
};

template <class X>
using state_of = row_state<sufa::detail::real_number<X>>;

/// The kept keys of [first, end), shuffled: the order is no one's business.
template <class T>
std::vector<ranked<std::int32_t>> kept_of(test::generator& random, tail_case<T> const& c,
                                          index_t first, index_t end) {
    std::vector<ranked<std::int32_t>> kept;
    for (index_t k = first; k < end; ++k) {
        if (c.keeps(k)) {
            kept.push_back({c.scores[static_cast<std::size_t>(k)], static_cast<key_id>(k)});
        }
    }
    random.shuffle(kept);
    return kept;
}

/// Compensates the run [first, end); attends its kept keys before if `attends`.
template <class Tail, class X, class T>
void add_run(X& x, test::generator& random, tail_case<T> const& c, index_t first, index_t end,
             state_of<X>& into, bool attends = true) {
    using real = sufa::detail::real_number<X>;
    auto const kept = kept_of(random, c, first, end);
    std::span<ranked<std::int32_t> const> const kept_span(kept);
    if (attends) {
        std::vector<real> logits(kept.size());
        sufa::two_pass{}(x, c.row.inputs(), kept_span, std::span(logits), into.state);
    }
    sufa::tail_values<Tail> const prepared(c.row.values.cview());
    sufa::tail_scratch<real> scratch(end - first, c.row.value_dim());
    sufa::tail_compensation<Tail>{}(
        x, c.row.values.cview(), prepared, c.line, first,
        std::span<std::int32_t const>(c.scores).subspan(static_cast<std::size_t>(first),
                                                        static_cast<std::size_t>(end - first)),
        kept_span, scratch, into.state, into.tail);
}

/// Over the runs between `borders`; the first run need not begin at key 0.
template <class Tail, class X, class T>
state_of<X> over_runs(X& x, test::generator& random, tail_case<T> const& c,
                      std::vector<index_t> const& borders) {
    state_of<X> whole(c.row.value_dim());
    for (std::size_t i = 1; i < borders.size(); ++i) {
        state_of<X> run(c.row.value_dim());
        // A new state per run: two_pass wants whole rows.
        add_run<Tail>(x, random, c, borders[i - 1], borders[i], run);
        whole.state.merge(run.state);
        whole.tail.merge(run.tail);
    }
    return whole;
}

/// What must come out: every key has a weight and a value, in double and from the definition.
template <class Tail, class T>
std::vector<double> expected(tail_case<T> const& c, std::vector<index_t> const& borders) {
    auto const dims = static_cast<std::size_t>(c.row.value_dim());
    auto const begin = borders.front();
    auto const end = borders.back();
    /// Whose mean stands for key k.
    auto const group = [&](index_t k) -> index_t {
        if (Tail::by == stand_in::row_mean) {
            return 0;
        }
        auto const run = std::ranges::upper_bound(borders, k) - borders.begin();
        return k / Tail::segment * 1000 + run;
    };
    std::vector<double> logits;
    std::vector<std::vector<double>> values;
    for (index_t k = begin; k < end; ++k) {
        std::vector<double> value(dims);
        if (!c.keeps(k) && Tail::by == stand_in::nobody) {
            continue;
        }
        double count = 0.0;
        for (index_t other = begin; other < end; ++other) {
            bool const stands = c.keeps(k) || Tail::by == stand_in::int8_values
                                    ? other == k
                                    : !c.keeps(other) && group(other) == group(k);
            if (stands) {
                count += 1.0;
                for (std::size_t d = 0; d < dims; ++d) {
                    auto const column = static_cast<index_t>(d);
                    value[d] += !c.keeps(k) && Tail::by == stand_in::int8_values
                                    ? c.coded(other, column)
                                    : c.value(other, column);
                }
            }
        }
        for (double& v : value) {
            v /= count;
        }
        logits.push_back(c.keeps(k) ? c.row.logit(k) : c.estimate(k));
        values.push_back(value);
    }
    std::vector<double> o(dims);
    if (logits.empty()) {
        return o;
    }
    double const top = *std::ranges::max_element(logits);
    double sum = 0.0;
    for (std::size_t i = 0; i < logits.size(); ++i) {
        sum += std::exp(logits[i] - top);
        for (std::size_t d = 0; d < dims; ++d) {
            o[d] += std::exp(logits[i] - top) * values[i][d];
        }
    }
    for (double& v : o) {
        v /= sum;
    }
    return o;
}

template <class Tail, class T>
void check_against_definition(test::generator& random, tail_case<T> const& c,
                              std::vector<index_t> const& borders) {
    CAPTURE(Tail::segment);
    CAPTURE(c.keys());
    CAPTURE(c.row.value_dim());
    CAPTURE(borders.size());
    exec::reference x;
    auto row = over_runs<Tail>(x, random, c, borders);
    REQUIRE(test::deviation(row.finish(), expected<Tail>(c, borders)) <= test::attend_tolerance);
}

/// 0, step, 2 step, ..., keys
std::vector<index_t> tiles(index_t keys, index_t step) {
    std::vector<index_t> borders;
    for (index_t k = 0; k < keys; k += step) {
        borders.push_back(k);
    }
    borders.push_back(keys);
    return borders;
}

/// `parts` ranges of [0, keys), some of them empty, cut at multiples of `grain`.
std::vector<index_t> random_cuts(test::generator& random, index_t keys, index_t parts,
                                 index_t grain) {
    std::vector<index_t> borders{0, keys};
    for (index_t p = 1; p < parts; ++p) {
        borders.push_back(random.integer<index_t>(0, keys / grain) * grain);
    }
    std::ranges::sort(borders);
    return borders;
}

/// All of them into one, neighbours or not, in a random grouping.
template <class Real>
row_state<Real> merged_anyhow(test::generator& random, std::vector<row_state<Real>> parts) {
    while (parts.size() > 1) {
        auto const into = random.integer<std::size_t>(0, parts.size() - 1);
        auto from = random.integer<std::size_t>(0, parts.size() - 2);
        from += from >= into ? 1 : 0;
        parts[into].state.merge(parts[from].state);
        parts[into].tail.merge(parts[from].tail);
        parts.erase(parts.begin() + static_cast<index_t>(from));
    }
    return std::move(parts.front());
}

/// What compensation declares for one run; attention is not counted.
template <class Tail, class X = exec::counting>
probe::ledger declared(test::generator& random, tail_case<float> const& c, index_t first,
                       index_t end) {
    X x;
    state_of<X> row(c.row.value_dim());
    add_run<Tail>(x, random, c, first, end, row, false);
    return x.probe;
}

/// Ten keys from 2 on, so that segments of 4 cut them into 2, 4 and 4; 6 are kept, all of the last
/// segment among them.
tail_case<float> hand_made(test::generator& random) {
    tail_case<float> c(random, 12, 3, 0.0);
    for (std::size_t const k : {3u, 5u, 8u, 9u, 10u, 11u}) {
        c.is_kept[k] = 1;
    }
    return c;
}

} // namespace

TEST_CASE_TEMPLATE("sufa.tail: any kept set, in any runs, is the softmax of the definition", Tail,
                   SOFATTN_TAILS) {
    SOFATTN_GENERATOR(random);
    auto const check = [&]<class T>(T) {
        for (index_t const keys : {1, 2, 3, 63, 64, 65, 100, 128, 200}) {
            for (index_t const value_dim : {1, 5, 65}) {
                tail_case<T> const c(random, keys, value_dim, random.uniform(0.0, 1.0));
                for (index_t const step : {1, 7, 32, 64, 100, 200}) {
                    if (value_dim == 5 || step == 7 || step == 200) {
                        check_against_definition<Tail>(random, c, tiles(keys, step));
                    }
                }
                auto late = random_cuts(random, keys, 5, 1); // may start in a segment's middle
                late.erase(late.begin());
                if (late.front() < keys) {
                    check_against_definition<Tail>(random, c, late);
                }
            }
        }
    };
    check(float{});
    check(half{});
    check(bfloat16{});
}

TEST_CASE_TEMPLATE("sufa.tail: a row that drops nothing is as if there were no tail, to the bit",
                   Tail, SOFATTN_TAILS) {
    SOFATTN_GENERATOR(random);
    exec::counting x;
    tail_case<float> const c(random, 150, 9, 1.0);
    for (index_t const step : {7, 150}) {
        test::generator one = random; // the same shuffles
        test::generator two = random;
        auto const with = over_runs<Tail>(x, one, c, tiles(150, step));
        auto const without = over_runs<sufa::no_tail>(x, two, c, tiles(150, step));
        CHECK(same(with, without));
        CHECK(with.tail.is_empty());
    }
    CHECK(x.probe.count(stage::compensation, event::compare) == 0);
    CHECK(x.probe.count(stage::compensation, event::exp) == 0);
    CHECK(x.probe.count(stage::compensation, event::add) == 0);
}

TEST_CASE_TEMPLATE("sufa.tail: a row that keeps nothing is the stand-ins alone", Tail,
                   SOFATTN_TAILS) {
    SOFATTN_GENERATOR(random);
    for (index_t const keys : {1, 64, 150}) {
        tail_case<float> const c(random, keys, 9, 0.0);
        check_against_definition<Tail>(random, c, tiles(keys, keys));
        check_against_definition<Tail>(random, c, tiles(keys, 13));
    }
    exec::reference x;
    tail_case<float> const c(random, 50, 9, 0.0);
    auto row = over_runs<sufa::no_tail>(x, random, c, tiles(50, 50));
    CHECK(row.state.is_empty());
    CHECK(row.finish() == std::vector<float>(9));
}

TEST_CASE("sufa.tail: equal dropped values give that value, and the mean one its plain mean") {
    SOFATTN_GENERATOR(random);
    exec::reference x;
    tail_case<float> c(random, 100, 2, 0.0);
    double mean = 0.0;
    for (index_t k = 0; k < 100; ++k) {
        c.row.values(k, 1) = 127.0f;
        mean += c.value(k, 0) / 100.0;
    }
    auto by_mean = over_runs<sufa::mean_tail>(x, random, c, tiles(100, 100));
    auto const row = by_mean.finish();
    CHECK(static_cast<double>(row[0]) == doctest::Approx(mean)); // weights do not matter
    CHECK(row[1] == 127.0f);
    auto by_int8 = over_runs<sufa::int8_tail>(x, random, c, tiles(100, 100));
    CHECK(by_int8.finish()[1] == 127.0f);
}

TEST_CASE("sufa.tail: two kept and two dropped keys by hand") {
    // Logits ln 1 and ln 2 kept with values 6 and 12; ln 1 and ln 4 dropped with values 2 and 10.
    SOFATTN_GENERATOR(random);
    exec::reference x;
    tail_case<float> c(random, 4, 1, 0.0);
    double const logits[] = {std::log(1.0), std::log(2.0), std::log(1.0), std::log(4.0)};
    float const values[] = {6.0f, 12.0f, 2.0f, 10.0f};
    c.row.scale = 1.0;
    for (index_t k = 0; k < 4; ++k) {
        c.is_kept[static_cast<std::size_t>(k)] = k < 2 ? 1 : 0;
        c.row.values(k, 0) = values[k];
        for (index_t d = 0; d < 8; ++d) {
            c.row.query(d) = d == 0 ? 1.0f : 0.0f;
            c.row.keys(k, d) = static_cast<float>(logits[k]);
        }
    }
    c.scores = {99, 99, 0, 2}; // the scores of kept keys are not read
    c.line = {0.0, std::log(2.0)};
    auto const output = [&]<class Tail>(Tail) {
        return static_cast<double>(over_runs<Tail>(x, random, c, {0, 4}).finish()[0]);
    };
    CHECK(output(sufa::no_tail{}) == doctest::Approx(30.0 / 3.0));
    CHECK(output(sufa::mean_tail{}) == doctest::Approx((30.0 + 5.0 * 6.0) / 8.0));
    CHECK(output(single_keys{}) == doctest::Approx((30.0 + 2.0 + 40.0) / 8.0));
    CHECK(output(sufa::int8_tail{}) == doctest::Approx((30.0 + 2.0 + 40.0) / 8.0));
}

TEST_CASE_TEMPLATE("sufa.tail: ranges may be compensated apart and merged in any grouping", Tail,
                   SOFATTN_TAILS) {
    // A mean is of the dropped keys of one range and segment. So ranges end at segment borders
    // where means are by segment: cut elsewhere, a segment has two means and, its weights being
    // uneven, another sum. The mean of a row adds up from any ranges, for it is taken at the end.
    constexpr index_t grain = Tail::by == stand_in::segment_means ? Tail::segment : 1;
    SOFATTN_GENERATOR(random);
    exec::reference x;
    for (int round = 0; round < 150; ++round) {
        CAPTURE(round);
        index_t const keys = random.integer<index_t>(1, 200);
        tail_case<float> const c(random, keys, 6, random.uniform(0.0, 0.6));
        auto whole = over_runs<Tail>(x, random, c, {0, keys});
        auto const cuts = random_cuts(random, keys, random.integer<index_t>(1, 12), grain);
        std::vector<state_of<exec::reference>> parts;
        for (std::size_t i = 1; i < cuts.size(); ++i) {
            parts.emplace_back(6);
            add_run<Tail>(x, random, c, cuts[i - 1], cuts[i], parts.back());
        }
        auto merged = merged_anyhow(random, std::move(parts));
        auto const row = whole.finish();
        std::vector<double> const unsplit(row.begin(), row.end());
        REQUIRE(test::deviation(merged.finish(), unsplit) <= 1e-5);
        if (!whole.state.is_empty()) {
            double const mass = whole.state.log_sum_exp();
            REQUIRE(std::abs(merged.state.log_sum_exp() - mass) <=
                    1e-5 * std::max(1.0, std::abs(mass)));
        }
    }
}

TEST_CASE_TEMPLATE("sufa.tail: logits of 1e4 and -1e4 neither overflow nor vanish", Tail,
                   SOFATTN_TAILS) {
    SOFATTN_GENERATOR(random);
    auto const check = [&](auto const& estimates) {
        for (double const magnitude : {1.0, 1e4}) {
            tail_case<float> c(random, 140, 5, 0.4);
            c.line = {0.0, 1.0};
            for (auto& score : c.scores) {
                score = estimates();
            }
            c.row.stretch_to(magnitude);
            check_against_definition<Tail>(random, c, tiles(140, 140));
            check_against_definition<Tail>(random, c, tiles(140, 9));
        }
    };
    check([&] { return random.chance(0.5) ? 10000 : -10000; });
    check([&] { return random.integer(-10000, 10000); });
    check([] { return 10000; });
    check([] { return -10000; });
    check([] { return 0; });
}

TEST_CASE_TEMPLATE("sufa.tail: the state of dropped keys merges as a commutative monoid", Real,
                   double, float) {
    SOFATTN_GENERATOR(random);
    for (int round = 0; round < 300; ++round) {
        auto const make = [&](row_state<Real>& into, double m) {
            into.tail.m = static_cast<Real>(m);
            into.tail.weight = static_cast<Real>(random.uniform(0.5, 3.0));
            into.tail.count = static_cast<Real>(random.integer(1, 9));
            for (Real& s : into.sum) {
                s = static_cast<Real>(random.normal());
            }
        };
        row_state<Real> a(4);
        row_state<Real> b(4);
        row_state<Real> a_too(4);
        row_state<Real> b_too(4);
        row_state<Real> const none(4);
        make(a, random.normal(round % 2 == 0 ? 2.0 : 1e4));
        make(b, random.normal(round % 2 == 0 ? 2.0 : 1e4));
        a_too.tail.merge(a.tail); // onto empty: a copy, to the bit
        b_too.tail.merge(b.tail);
        REQUIRE(same(a_too, a));
        REQUIRE(same(b_too, b));
        a.tail.merge(none.tail);
        REQUIRE(same(a_too, a));
        a.tail.merge(b.tail);
        b_too.tail.merge(a_too.tail);
        REQUIRE(same(a, b_too));
    }
    row_state<Real> nothing(4);
    nothing.tail.compensate(nothing.state);
    CHECK(nothing.state.is_empty());
}

TEST_CASE("sufa.tail: events of ten keys, four of them dropped, counted by hand") {
    SOFATTN_GENERATOR(random);
    auto const c = hand_made(random);
    struct counts {
        std::uint64_t compares, exps, adds, multiplies, divides, multiply_adds;
        bool operator==(counts const&) const = default;
    };
    auto const of = [](probe::ledger const& l) {
        auto const count = [&](event e) { return l.count(stage::compensation, e); };
        return counts{count(event::compare),  count(event::exp),    count(event::add),
                      count(event::multiply), count(event::divide), count(event::multiply_add_8)};
    };
    CHECK(declared<sufa::no_tail>(random, c, 2, 12) == probe::ledger{});
    // Segment size 4: keys 2 and 3, 4 to 7, 8 to 11; the last has no dropped key and no mean.
    // Mean of the row: per dropped key multiply, 3 adds, compare, exp. Values: 3 adds per kept key
    // (6) and per segment touched (2). The mean joins (m, l, o) elsewhere.
    CHECK(of(declared<mean_by_fours>(random, c, 2, 12)) == counts{4, 4, 12 + 24, 4, 0, 0});
    // Two merges: a compare, 2 exp, 2 * 3 + 2 and 3 multiply, 3 + 3 add, a divide each.
    CHECK(of(declared<short_segments>(random, c, 2, 12)) ==
          counts{4 + 2, 4 + 4, 12 + 24 + 12, 4 + 16 + 6, 2, 0});
    // One merge, and 3 products per dropped key.
    CHECK(of(declared<int8_by_fours>(random, c, 2, 12)) ==
          counts{4 + 1, 4 + 2, 12 + 6, 4 + 8, 0, 12});
}

TEST_CASE_TEMPLATE("sufa.tail: counts ignore lane width, and nothing else is emitted", Tail,
                   SOFATTN_TAILS) {
    SOFATTN_GENERATOR(random);
    for (index_t const keys : {1, 64, 65, 200}) {
        tail_case<float> const c(random, keys, 17, 0.3);
        auto const narrow = declared<Tail>(random, c, 0, keys);
        CHECK((declared<Tail, counting_lanes<4>>(random, c, 0, keys) == narrow));
        CHECK((declared<Tail, counting_lanes<16>>(random, c, 0, keys) == narrow));
        for (std::size_t e = 0; e < probe::event_count; ++e) {
            auto const what = static_cast<event>(e);
            CHECK(narrow.count(what) == narrow.count(stage::compensation, what));
        }
    }
}

TEST_CASE_TEMPLATE("sufa.tail: the same bits on every executor and in every run", Tail,
                   SOFATTN_TAILS) {
    SOFATTN_GENERATOR(random);
    for (index_t const keys : {1, 64, 65, 200}) {
        tail_case<float> const c(random, keys, 17, 0.3);
        auto const on = [&]<class X>(X x) {
            test::generator shuffles(7);
            return over_runs<Tail>(x, shuffles, c, tiles(keys, 33));
        };
        auto const expected_bits = on(exec::reference{});
        CHECK(same(on(exec::reference{}), expected_bits));
        CHECK(same(on(exec::counting{}), expected_bits));
        CHECK(same(on(exec::hardware{}), expected_bits));
        CHECK(same(on(counting_lanes<8>{}), expected_bits));
    }
}

TEST_CASE_TEMPLATE("sufa.tail: watched numbers give the same outputs", Tail, SOFATTN_TAILS) {
    SOFATTN_GENERATOR(random);
    tail_case<float> const c(random, 100, 5, 0.3);
    test::generator shuffles = random;
    exec::counting plain;
    auto expected_row = over_runs<Tail>(plain, random, c, tiles(100, 33));
    test::watched_executor x;
    auto row = over_runs<Tail>(x, shuffles, c, tiles(100, 33));
    CHECK(row.finish() == expected_row.finish());
    CHECK(x.probe == plain.probe);
}

TEST_CASE_TEMPLATE("sufa.tail: accumulators in float lose accuracy, not sense", Tail,
                   SOFATTN_TAILS) {
    SOFATTN_GENERATOR(random);
    using single = exec::executor<exec::scalar_lanes<1>, probe::silent, float>;
    for (index_t const keys : {1, 65, 200}) {
        tail_case<float> const c(random, keys, 9, 0.3);
        single x;
        auto row = over_runs<Tail>(x, random, c, tiles(keys, 50));
        CHECK(test::deviation(row.finish(), expected<Tail>(c, tiles(keys, 50))) <= 1e-4);
    }
}

TEST_CASE("sufa.tail: values in any layout are the same values") {
    SOFATTN_GENERATOR(random);
    tail_case<float> const c(random, 130, 7, 0.0);
    auto const check = [&]<class Tail>(Tail) {
        sufa::tail_values<Tail> const dense(c.row.values.cview());
        for (test::layout const kind : test::all_layouts) {
            auto const copy = test::strided(random, c.row.values.cview(), kind);
            sufa::tail_values<Tail> const other(copy.cview());
            for (index_t d = 0; d < 7; ++d) {
                if constexpr (sufa::tail_values<Tail>::has_sums) {
                    CHECK(other.sum(1, d) == dense.sum(1, d));
                    CHECK(other.sum(2, d) == dense.sum(2, d)); // two keys only
                } else {
                    CHECK(other.coded(99, d) == dense.coded(99, d));
                }
            }
        }
    };
    check(sufa::mean_tail{});
    check(sufa::segment_tail{});
    check(sufa::int8_tail{});
}
