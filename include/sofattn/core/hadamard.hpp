// SPDX-License-Identifier: MIT
// The Walsh-Hadamard rotation: spreads a few large channels evenly over all of them.
#pragma once

#include <sofattn/core/types.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <span>
#include <utility>

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

namespace detail {

/// A stage of `length` channels: sums of neighbours to the lower half, differences to the upper one.
constexpr void hadamard_stage(double const* __restrict from, double* __restrict to,
                              index_t length) noexcept {
    index_t const part = length / 2;
    for (index_t i = 0; i < part; ++i) {
        double const a = from[2 * i];
        double const b = from[2 * i + 1];
        to[i] = a + b;
        to[i + part] = a - b;
    }
}

/// Two stages at once, the same sums. In words of scalars: GCC 12 vectorises no loop over an array
/// of them.
constexpr void hadamard_two_stages(double const* __restrict from, double* __restrict to,
                                   index_t length) noexcept {
    index_t const part = length / 4;
    for (index_t i = 0; i < part; ++i) {
        double const a = from[4 * i];
        double const b = from[4 * i + 1];
        double const c = from[4 * i + 2];
        double const d = from[4 * i + 3];
        double const a_and_b = a + b;
        double const a_less_b = a - b;
        double const c_and_d = c + d;
        double const c_less_d = c - d;
        to[i] = a_and_b + c_and_d;
        to[i + part] = a_less_b + c_less_d;
        to[i + 2 * part] = a_and_b - c_and_d;
        to[i + 3 * part] = a_less_b - c_less_d;
    }
}

/// All stages of `length` channels, a power of two, in place; `other` is as long.
constexpr void hadamard_stages(double* row, double* other, index_t length) noexcept {
    double* from = row;
    double* to = other;
    index_t left = length; // halved by each stage
    bool const odd = std::countr_zero(static_cast<std::size_t>(length)) % 2 != 0;
    if (odd) {
        hadamard_stage(from, to, length);
        std::swap(from, to);
        left /= 2;
    }
    for (; left > 1; left /= 4) {
        hadamard_two_stages(from, to, length);
        std::swap(from, to);
    }
    if (from != row) {
        std::copy_n(from, length, row);
    }
}

} // namespace detail

/// row [dim] times a Hadamard matrix per block, divided by the block length: a rotation up to the
/// factor sqrt(block), so that a.b = block * (rotated a).(rotated b), and no element leaves the
/// range of the row. Exact but for the rounding of double: sums and a power of two. Stages add what
/// is 1, 2, 4, ... channels apart, in this order.
constexpr void hadamard_rotate(std::span<double> row) noexcept {
    // Stages add neighbours and shuffle perfectly, which turns the bits of a channel's number by
    // one place: the next stage's pairs are neighbours again, and after the last one all channels
    // are in place. Every stage is a loop that compilers vectorise; in place, they leave the first
    // three to scalars, which takes three times as long.
    constexpr index_t most = 256; // a block of max_head_dim is one run; 2 KiB of stack
    auto const dim = std::ssize(row);
    index_t const block = hadamard_block(dim);
    index_t const run = std::min(block, most);
    alignas(64) std::array<double, static_cast<std::size_t>(most)> other;
    for (index_t from = 0; run > 1 && from < dim; from += run) {
        detail::hadamard_stages(row.data() + from, other.data(), run);
    }
    for (index_t half = run; half < block; half *= 2) {
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
    double const scale = 1.0 / static_cast<double>(block); // a power of two: as exact as dividing
    for (double& x : row) {
        x *= scale;
    }
}

} // namespace sofattn
