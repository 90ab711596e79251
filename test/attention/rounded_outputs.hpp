// SPDX-License-Identifier: MIT
// What is written in 16 bits is what is written in f32, rounded to nearest: to the bit, in any layout.
#pragma once

#include "support/generators.hpp"
#include <sofattn/attention/problem.hpp>
#include <sofattn/core/bfloat16.hpp>
#include <sofattn/core/half.hpp>
#include <sofattn/core/output_array.hpp>
#include <sofattn/core/tensor.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/core/view.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>
#include <vector>

namespace sofattn::test {

template <class T>
[[nodiscard]] auto bits_of(T x) {
    return std::bit_cast<std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint16_t>>(x);
}

/// Memory for outputs whose axes lie in any order, with gaps and signs, that notices what else is written.
template <class T>
class watched_outputs {
public:
    /// `rows_together`: channels are neighbours, as engines have them.
    watched_outputs(generator& random, std::array<index_t, 3> extents, bool rows_together) {
        std::vector<std::size_t> order{0, 1, 2}; // slowest first
        random.shuffle(order);
        if (rows_together) {
            std::swap(*std::ranges::find(order, std::size_t{2}), order[2]);
        }
        std::array<index_t, 3> strides{};
        index_t step = rows_together ? 1 : random.integer<index_t>(1, 3);
        index_t origin = guard;
        for (std::size_t i = 3; i-- > 0;) {
            std::size_t const axis = order[i];
            bool const backwards = !(rows_together && axis == 2) && random.chance(0.4);
            strides[axis] = backwards ? -step : step;
            origin += backwards ? (extents[axis] - 1) * step : 0;
            step *= extents[axis];
            step += random.integer<index_t>(0, 5);
        }
        memory_.assign(static_cast<std::size_t>(step + 2 * guard), poison);
        view_ = {memory_.data() + origin, extents, strides};
    }
    [[nodiscard]] view<T, axis::head, axis::query, axis::value_dim> outputs() { return view_; }

    /// Whether all of `wanted`, in this type, was written, and nothing else.
    [[nodiscard]] bool
    hold(view<float const, axis::head, axis::query, axis::value_dim> const& wanted) {
        bool same = true;
        for_each_index(wanted.extents(), [&](auto const& i) {
            same = same && bits_of(at(view_, i)) == bits_of(T(at(wanted, i)));
            at(view_, i) = poison;
        });
        return same &&
               std::ranges::all_of(memory_, [](T x) { return bits_of(x) == bits_of(poison); });
    }

private:
    static constexpr index_t guard = 64;
    static constexpr T poison{-12345.0f};

    std::vector<T> memory_;
    view<T, axis::head, axis::query, axis::value_dim> view_;
};

/// attend(output_array) does the same each time.
template <class Attend>
void check_rounded_outputs(generator& random, problem_shape const& s, Attend const& attend) {
    tensor<float, axis::head, axis::query, axis::value_dim> wanted(
        {s.heads, s.queries, s.value_dim});
    attend(output_array(wanted.view()));
    auto const check = [&]<class T>(T) {
        watched_outputs<T> found(random, wanted.view().extents(), random.chance(0.5));
        attend(output_array(found.outputs()));
        CHECK(found.hold(wanted.cview()));
    };
    check(float{});
    check(half{});
    check(bfloat16{});
}

} // namespace sofattn::test
