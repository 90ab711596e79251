// SPDX-License-Identifier: MIT
#include "support/generators.hpp"
#include <sofattn/core/types.hpp>
#include <sofattn/exec/tile_product.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

using namespace sofattn;
using exec::product_rows;
using exec::product_width;
using exec::tile_operands;
using exec::tile_start;

namespace {

/// How a lies in memory.
enum class lie { rows, columns, wide_columns, backwards };

constexpr index_t guard = 32; ///< floats before and after
constexpr index_t steps_most = 17;

/// Random a, b and c of a product of product_rows rows, in poison that no result may touch.
class product_case {
public:
    product_case(test::generator& random, index_t steps, lie kind, index_t b_gap, index_t c_gap)
        : steps_(steps), a_(buffer(1000)), b_(buffer(steps_most * (product_width + b_gap))),
          c_(buffer(product_rows * (product_width + c_gap))), scale_(buffer(product_width)),
          b_step_(product_width + b_gap), c_row_(product_width + c_gap) {
        switch (kind) {
        case lie::rows: // 3 floats between rows
            a_row_ = steps + 3;
            a_step_ = 1;
            break;
        case lie::columns:
            a_row_ = 1;
            a_step_ = product_rows;
            break;
        case lie::wide_columns: // those of a larger array, every second
            a_row_ = 2;
            a_step_ = 40;
            break;
        case lie::backwards:
            a_row_ = -steps - 1;
            a_step_ = -1;
            a_origin_ = 900;
            break;
        }
        for (index_t r = 0; r < product_rows; ++r) {
            for (index_t s = 0; s < steps; ++s) {
                a_[place(a_index(r, s))] = static_cast<float>(random.normal());
            }
            for (index_t i = 0; i < product_width; ++i) {
                c_[place(c_index(r, i))] = static_cast<float>(random.normal(3.0));
            }
        }
        for (index_t i = 0; i < product_width; ++i) {
            scale_[place(i)] = static_cast<float>(random.uniform(0.0, 1.0));
        }
        for (index_t s = 0; s < steps; ++s) {
            for (index_t i = 0; i < product_width; ++i) {
                b_[place(s * b_step_ + i)] = static_cast<float>(random.normal());
            }
        }
    }

    /// c after the product of rows [first, first + rows).
    template <tile_start Start>
    [[nodiscard]] std::vector<float> run(std::vector<float> c, index_t first, index_t rows) const {
        exec::tile_product<Start>(rows, tile_operands{.a = a_.data() + guard + a_index(first, 0),
                                                      .a_row = a_row_,
                                                      .a_step = a_step_,
                                                      .b = b_.data() + guard,
                                                      .b_step = b_step_,
                                                      .c = c.data() + guard + c_index(first, 0),
                                                      .c_row = c_row_,
                                                      .steps = steps_,
                                                      .scale = scale_.data() + guard});
        return c;
    }

    /// Largest error in [0, rows), relative to the sum of magnitudes.
    template <tile_start Start>
    [[nodiscard]] double deviation(std::vector<float> const& after, index_t rows) const {
        double worst = 0;
        for (index_t r = 0; r < rows; ++r) {
            for (index_t i = 0; i < product_width; ++i) {
                double sum = Start == tile_start::zero ? 0.0 : double{c_[place(c_index(r, i))]};
                if (Start == tile_start::scale) {
                    sum *= double{scale_[place(i)]};
                }
                double magnitude = std::abs(sum);
                for (index_t s = 0; s < steps_; ++s) {
                    double const product =
                        double{a_[place(a_index(r, s))]} * double{b_[place(s * b_step_ + i)]};
                    sum += product;
                    magnitude += std::abs(product);
                }
                double const off = std::abs(double{after[place(c_index(r, i))]} - sum);
                double const share = magnitude > 0 ? off / magnitude : off;
                worst = share <= worst ? worst : share; // NaN stays
            }
        }
        return worst;
    }

    /// Nothing but the block of rows [first, first + rows) differs from before.
    [[nodiscard]] bool kept_outside(std::vector<float> const& after, index_t first,
                                    index_t rows) const {
        std::vector<float> expected = c_;
        for (index_t r = first; r < first + rows; ++r) {
            auto const row = static_cast<std::ptrdiff_t>(place(c_index(r, 0)));
            std::copy_n(after.begin() + row, product_width, expected.begin() + row);
        }
        return same_bits(after, expected);
    }

    [[nodiscard]] static bool same_bits(std::vector<float> const& x, std::vector<float> const& y) {
        return std::ranges::equal(x, y, [](float a, float b) {
            return std::bit_cast<std::uint32_t>(a) == std::bit_cast<std::uint32_t>(b);
        });
    }

    void scale_by_one() { std::ranges::fill(scale_, 1.0f); }
    [[nodiscard]] std::vector<float> const& c() const { return c_; }

private:
    static std::vector<float> buffer(index_t count) {
        return std::vector<float>(place(count + guard), std::numeric_limits<float>::quiet_NaN());
    }
    static std::size_t place(index_t i) { return static_cast<std::size_t>(guard + i); }
    [[nodiscard]] index_t a_index(index_t row, index_t step) const {
        return a_origin_ + row * a_row_ + step * a_step_;
    }
    [[nodiscard]] index_t c_index(index_t row, index_t i) const { return row * c_row_ + i; }

    index_t steps_;
    std::vector<float> a_;
    std::vector<float> b_;
    std::vector<float> c_;
    std::vector<float> scale_;
    index_t a_origin_ = 0;
    index_t a_row_ = 0;
    index_t a_step_ = 0;
    index_t b_step_;
    index_t c_row_;
};

/// f(case) for all steps and ways that a lies, with gaps in b and c or without.
template <class F>
void for_each_case(test::generator& random, F f) {
    for (index_t steps = 0; steps <= steps_most; ++steps) {
        for (lie const kind : {lie::rows, lie::columns, lie::wide_columns, lie::backwards}) {
            CAPTURE(steps);
            CAPTURE(static_cast<int>(kind));
            f(product_case(random, steps, kind, 0, 0));
            f(product_case(random, steps, kind, random.integer<index_t>(1, 9),
                           random.integer<index_t>(1, 9)));
        }
    }
}

template <tile_start Start>
struct start {
    static constexpr tile_start value = Start;
};

} // namespace

TEST_CASE_TEMPLATE("exec.tile_product: any rows, steps and strides give the sum, in its place", S,
                   start<tile_start::zero>, start<tile_start::add>, start<tile_start::scale>) {
    SOFATTN_GENERATOR(random);
    for_each_case(random, [](product_case const& given) {
        for (index_t rows = 1; rows <= product_rows; ++rows) {
            CAPTURE(rows);
            auto const after = given.run<S::value>(given.c(), 0, rows);
            CHECK(given.deviation<S::value>(after, rows) <= 1e-5);
            CHECK(given.kept_outside(after, 0, rows));
        }
    });
}

TEST_CASE_TEMPLATE("exec.tile_product: the grouping of rows does not change a bit", S,
                   start<tile_start::zero>, start<tile_start::add>, start<tile_start::scale>) {
    SOFATTN_GENERATOR(random);
    for_each_case(random, [&](product_case const& given) {
        auto const together = given.run<S::value>(given.c(), 0, product_rows);
        for (index_t first = 1; first <= product_rows; ++first) { // groups of `first` rows
            auto apart = given.c();
            for (index_t r = 0; r < product_rows; r += first) {
                apart = given.run<S::value>(apart, r, std::min<index_t>(first, product_rows - r));
            }
            CHECK(product_case::same_bits(apart, together));
        }
    });
}

TEST_CASE("exec.tile_product: tops are raised to the largest sum of their column") {
    SOFATTN_GENERATOR(random);
    auto const size = static_cast<std::size_t>(product_rows * product_width);
    std::vector<float> a(static_cast<std::size_t>(product_rows * steps_most));
    std::vector<float> b(static_cast<std::size_t>(product_width * steps_most));
    for (int round = 0; round < 20; ++round) {
        std::ranges::generate(a, [&] { return static_cast<float>(random.normal()); });
        std::ranges::generate(b, [&] { return static_cast<float>(random.normal()); });
        for (index_t rows = 1; rows <= product_rows; ++rows) {
            std::vector<float> sums(size);
            std::vector<float> top(static_cast<std::size_t>(product_width));
            std::ranges::generate(top, [&] { return static_cast<float>(random.normal(3.0)); });
            std::vector<float> expected = top;
            exec::tile_product<tile_start::zero>(rows, {a.data(), 1, product_rows, b.data(),
                                                        product_width, sums.data(), product_width,
                                                        17, nullptr, top.data()});
            for (index_t i = 0; i < rows * product_width; ++i) {
                float& column = expected[static_cast<std::size_t>(i % product_width)];
                column = std::max(column, sums[static_cast<std::size_t>(i)]);
            }
            CHECK(product_case::same_bits(top, expected));
        }
    }
}

TEST_CASE("exec.tile_product: scaling by 1 is adding, to the bit") {
    SOFATTN_GENERATOR(random);
    for_each_case(random, [](product_case given) {
        given.scale_by_one();
        CHECK(product_case::same_bits(given.run<tile_start::scale>(given.c(), 0, product_rows),
                                      given.run<tile_start::add>(given.c(), 0, product_rows)));
    });
}

TEST_CASE("exec.tile_product: steps may be cut in two, the second added to the first") {
    SOFATTN_GENERATOR(random);
    std::vector<float> a(static_cast<std::size_t>(product_rows * steps_most));
    std::vector<float> b(static_cast<std::size_t>(product_width * steps_most));
    std::ranges::generate(a, [&] { return static_cast<float>(random.normal()); });
    std::ranges::generate(b, [&] { return static_cast<float>(random.normal()); });
    auto const size = static_cast<std::size_t>(product_rows * product_width);
    std::vector<float> once(size);
    exec::tile_product<tile_start::zero>(
        product_rows,
        {a.data(), 1, product_rows, b.data(), product_width, once.data(), product_width, 17});
    for (index_t cut = 0; cut <= steps_most; ++cut) {
        std::vector<float> twice(size);
        exec::tile_product<tile_start::zero>(
            product_rows,
            {a.data(), 1, product_rows, b.data(), product_width, twice.data(), product_width, cut});
        exec::tile_product<tile_start::add>(product_rows,
                                            {a.data() + cut * product_rows, 1, product_rows,
                                             b.data() + cut * product_width, product_width,
                                             twice.data(), product_width, steps_most - cut});
        CHECK(product_case::same_bits(once, twice));
    }
}

TEST_CASE("exec.tile_product: no rows, nothing read or written") {
    exec::tile_product<tile_start::zero>(0, {nullptr, 0, 0, nullptr, 0, nullptr, 0, 100});
    SOFATTN_GENERATOR(random);
    product_case const given(random, 3, lie::rows, 0, 0);
    CHECK(given.kept_outside(given.run<tile_start::add>(given.c(), 0, 0), 0, 0));
}

TEST_CASE("exec.tile_product: small integers are exact") {
    // Row r of a is r + 1, r + 2, ...; column i of b is i: c = i * (sum of row r).
    index_t const steps = 5;
    std::vector<float> a;
    for (index_t r = 0; r < product_rows; ++r) {
        for (index_t s = 0; s < steps; ++s) {
            a.push_back(static_cast<float>(r + 1 + s));
        }
    }
    std::vector<float> b(static_cast<std::size_t>(product_width * steps));
    for (std::size_t i = 0; i < b.size(); ++i) {
        b[i] = static_cast<float>(i % static_cast<std::size_t>(product_width));
    }
    std::vector<float> c(static_cast<std::size_t>(product_width * product_rows), 1000.0f);
    exec::tile_product<tile_start::add>(product_rows, {a.data(), steps, 1, b.data(), product_width,
                                                       c.data(), product_width, steps});
    for (index_t r = 0; r < product_rows; ++r) {
        for (index_t i = 0; i < product_width; ++i) {
            CHECK(c[static_cast<std::size_t>(r * product_width + i)] ==
                  static_cast<float>(1000 + i * (5 * r + 15)));
        }
    }
}

TEST_CASE("exec.tile_product: the block of sums leaves registers for its operands") {
    constexpr index_t sums = index_t{product_rows} * exec::product_vectors;
    static_assert(sums + exec::product_vectors + 1 <= exec::vector_registers);
    static_assert(product_width == exec::product_vectors * exec::vector_width);
    CHECK(sums >= 12); // to hide the latency of multiply-adds
}
