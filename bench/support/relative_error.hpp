// SPDX-License-Identifier: MIT
// How far an output is from another one.
#pragma once

#include <sofattn/core/tensor.hpp>
#include <sofattn/core/types.hpp>

#include <cmath>

namespace sofattn::bench {

/// Relative Frobenius norm of the difference; of the first head.
[[nodiscard]] inline double
relative_error(tensor<float, axis::head, axis::query, axis::value_dim> const& output,
               tensor<float, axis::head, axis::query, axis::value_dim> const& right) {
    double off = 0;
    double size = 0;
    auto const [heads, tokens, dim] = right.cview().extents();
    for (index_t i = 0; i < tokens; ++i) {
        for (index_t d = 0; d < dim; ++d) {
            double const exact = right(0, i, d);
            double const difference = output(0, i, d) - exact;
            off += difference * difference;
            size += exact * exact;
        }
    }
    return std::sqrt(off / size);
}

} // namespace sofattn::bench
