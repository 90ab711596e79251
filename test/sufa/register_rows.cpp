// SPDX-License-Identifier: MIT
#include "support/generators.hpp"
#include <sofattn/core/half.hpp>
#include <sofattn/sufa/register_rows.hpp>

#include <doctest/doctest.h>

#include <type_traits>
#include <utility>

using namespace sofattn;
using axis::dim;
using axis::key;

namespace {

template <class T>
bool holds(sufa::row_of_registers found, view<T const, key, dim> wanted) {
    auto const [rows, columns] = wanted.extents();
    bool same = found.width % exec::vector_width == 0 && found.width >= columns &&
                found.width < columns + exec::vector_width;
    for (index_t r = 0; r < rows; ++r) {
        for (index_t c = 0; c < found.width; ++c) {
            float const right = c < columns ? to_float(wanted(r, c)) : 0.0f;
            same = same && found.data[r * found.row + c] == right;
        }
    }
    return same;
}

} // namespace

TEST_CASE_TEMPLATE("sufa.register_rows: every row, zeros behind it, whatever the strides", T, float,
                   half) {
    SOFATTN_GENERATOR(random);
    for (index_t columns = 1; columns <= 40; ++columns) {
        auto const rows = random.integer<index_t>(1, 9);
        auto const from = test::random_matrix<T, key, dim>(random, {rows, columns});
        for (test::layout const kind : test::all_layouts) {
            auto const strided = test::strided(random, from.cview(), kind);
            sufa::register_rows<key, dim> made(strided.cview());
            CHECK(holds(made.rows(), from.cview()));
            auto const moved = std::move(made);
            CHECK(holds(moved.rows(), from.cview()));
        }
    }
}

TEST_CASE("sufa.register_rows: what fills whole registers is not copied") {
    SOFATTN_GENERATOR(random);
    auto const whole = test::random_matrix<float, key, dim>(random, {5, 32});
    CHECK(sufa::register_rows<key, dim>(whole.cview()).rows().data == whole.cview().data());
    tensor<float, key, dim> changing({5, 3});
    sufa::register_rows<key, dim> const of_tensor(changing);
    changing(4, 2) = 7.0f;
    CHECK(holds(of_tensor.rows(), changing.cview()));
    static_assert(!std::is_copy_constructible_v<sufa::register_rows<key, dim>>);
}
