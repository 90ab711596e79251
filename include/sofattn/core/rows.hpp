// SPDX-License-Identifier: MIT
// Walking through a view of any rank, row by row of its last axis.
#pragma once

#include <sofattn/core/types.hpp>
#include <sofattn/core/view.hpp>

#include <array>
#include <cstddef>
#include <utility>

namespace sofattn {

/// Calls row(position, pointer) for every row of the last axis, in C order.
template <class T, class... Axes, class Row>
void for_each_row(view<T, Axes...> array, Row row) {
    constexpr std::size_t rank = sizeof...(Axes);
    if (array.size() == 0) {
        return;
    }
    std::array<index_t, rank> at{};
    for (bool more = true; more;) {
        index_t offset = 0;
        for (std::size_t a = 0; a < rank; ++a) {
            offset += at[a] * array.strides()[a];
        }
        row(std::as_const(at), array.data() + offset);
        more = false;
        for (std::size_t a = rank - 1; a-- > 0 && !more;) {
            more = ++at[a] < array.extents()[a];
            at[a] = more ? at[a] : 0;
        }
    }
}

} // namespace sofattn
