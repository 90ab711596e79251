// SPDX-License-Identifier: MIT
// Whether two arrays of floats are the same to the bit.
#pragma once

#include "support/generators.hpp"
#include <sofattn/core/tensor.hpp>

#include <bit>
#include <cstdint>

namespace sofattn::test {

template <class... Axes>
[[nodiscard]] bool same_bits(tensor<float, Axes...> const& a, tensor<float, Axes...> const& b) {
    bool same = a.cview().extents() == b.cview().extents();
    for_each_index(a.cview().extents(), [&](auto const& i) {
        same = same && std::bit_cast<std::uint32_t>(at(a.cview(), i)) ==
                           std::bit_cast<std::uint32_t>(at(b.cview(), i));
    });
    return same;
}

} // namespace sofattn::test
