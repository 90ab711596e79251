// SPDX-License-Identifier: MIT
// The Walsh-Hadamard rotation: spreads a few large channels evenly over all of them.
#pragma once

#include <sofattn/core/types.hpp>

#include <algorithm>
#include <cstddef>
#include <span>

namespace sofattn {

/// Channels that turn together: the largest power of two that divides `dim`, 1 for an odd one.
[[nodiscard]] constexpr index_t hadamard_block(index_t dim) noexcept { return dim & -dim; }

/// Additions per row of `dim` channels.
[[nodiscard]] constexpr index_t hadamard_adds(index_t dim) noexcept {
    index_t stages = 0;
    for (index_t block = hadamard_block(dim); block > 1; block /= 2) {
        ++stages;
    }
    return dim * stages;
}

/// row [dim] times a Hadamard matrix per block, divided by the block length: a rotation up to the
/// factor sqrt(block), so that a.b = block * (rotated a).(rotated b), and no element leaves the
/// range of the row. Exact but for the rounding of double: sums and a power of two.
constexpr void hadamard_rotate(std::span<double> row) noexcept {
    auto const dim = std::ssize(row);
    index_t const block = hadamard_block(dim);
    for (index_t half = 1; half < block; half *= 2) {
        for (index_t from = 0; from < dim; from += 2 * half) {
            for (index_t i = from; i < from + half; ++i) {
                double& a = row[static_cast<std::size_t>(i)];
                double& b = row[static_cast<std::size_t>(i + half)];
                double const sum = a + b;
                b = a - b;
                a = sum;
            }
        }
    }
    std::ranges::for_each(row, [&](double& x) { x /= static_cast<double>(block); });
}

} // namespace sofattn
