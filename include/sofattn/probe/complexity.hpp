// SPDX-License-Identifier: MIT
// From counts to one number: named tables of what an event weighs.
#pragma once

#include <sofattn/probe/event.hpp>
#include <sofattn/probe/ledger.hpp>

#include <array>
#include <cstddef>
#include <string_view>

namespace sofattn::probe {

/// Weight per event; traffic weighs nothing here. Complexity is a convention, not a measurement, so
/// every table says where its numbers come from, and a result is only meant beside its table.
struct complexity_weights {
    std::string_view name;
    std::string_view unit;
    std::string_view source;
    std::array<double, event_count> weight{};

    [[nodiscard]] constexpr double of(event e) const noexcept {
        return weight[static_cast<std::size_t>(e)];
    }
    constexpr complexity_weights& with(event e, double value) noexcept {
        weight[static_cast<std::size_t>(e)] = value;
        return *this;
    }
};

/// Weighted sum over the events of one stage.
[[nodiscard]] constexpr double complexity(ledger const& counts, stage s,
                                          complexity_weights const& weights) noexcept {
    double sum = 0;
    for (std::size_t e = 0; e < event_count; ++e) {
        sum += weights.weight[e] * static_cast<double>(counts.count(s, static_cast<event>(e)));
    }
    return sum;
}

/// Weighted sum over all stages.
[[nodiscard]] constexpr double complexity(ledger const& counts,
                                          complexity_weights const& weights) noexcept {
    double sum = 0;
    for (std::size_t s = 0; s < stage_count; ++s) {
        sum += complexity(counts, static_cast<stage>(s), weights);
    }
    return sum;
}

/// Every arithmetic operation is 1; a multiply-add or shift-add is 2.
inline constexpr complexity_weights unit_weights =
    complexity_weights{"unit", "operations", "each operation 1", {}}
        .with(event::lz_encode, 1)
        .with(event::shift_add_8, 2)
        .with(event::shift_add_16, 2)
        .with(event::multiply_add_4, 2)
        .with(event::multiply_add_8, 2)
        .with(event::multiply_add_16, 2)
        .with(event::compare, 1)
        .with(event::add, 1)
        .with(event::multiply, 1)
        .with(event::exp, 1)
        .with(event::divide, 1);

/// What the paper's own figures imply. Compare 1 and exp 34: Fig. 5 gives 3e5 weighted compares and
/// 9e6 weighted exponentials for 262 144 (row, tile) pairs. Multiply 4: its SU-FA claim, 11 % fewer
/// than ascending order, is one multiplication per key against subtract + exp + add = 36, so
/// 36 / 0.89 - 36 = 4.4. Narrow products scale with their width (4 bits: 1, 8 bits: 2), plus the
/// addition; a shift-add is one addition, its shift being a selection of wires. Division as exp.
inline constexpr complexity_weights sofa_weights =
    complexity_weights{"sofa_inferred",
                       "16-bit additions",
                       "backed out of the paper's Fig. 5 and section III-C",
                       {}}
        .with(event::lz_encode, 1)
        .with(event::shift_add_8, 1)
        .with(event::shift_add_16, 1)
        .with(event::multiply_add_4, 2)
        .with(event::multiply_add_8, 3)
        .with(event::multiply_add_16, 5)
        .with(event::compare, 1)
        .with(event::add, 1)
        .with(event::multiply, 4)
        .with(event::exp, 34)
        .with(event::divide, 34);

/// An n-bit multiplication is n^2 full adders, an addition is as many as it has bits (24 for 8-bit
/// sums, 40 for 16-bit ones), a shifter one 2:1 selection per bit and level (taken as half an
/// adder). exp: a 16-bit table step of two multiplications and two additions; division: 16 steps of
/// a 16-bit subtraction.
inline constexpr complexity_weights bit_weights =
    complexity_weights{"bit_level", "full adders", "n^2 per multiplication, n per addition", {}}
        .with(event::lz_encode, 8)
        .with(event::shift_add_8, 0.5 * 15 * 3 + 24)
        .with(event::shift_add_16, 0.5 * 31 * 4 + 40)
        .with(event::multiply_add_4, 16 + 16)
        .with(event::multiply_add_8, 64 + 24)
        .with(event::multiply_add_16, 256 + 40)
        .with(event::compare, 16)
        .with(event::add, 16)
        .with(event::multiply, 256)
        .with(event::exp, 2 * 256 + 2 * 16)
        .with(event::divide, 256);

/// Dynamic energy at 28 nm, 0.9 V. Adds and multiplies: Horowitz's 45 nm table scaled by 0.507
/// (Stillmaker and Baas); 4-bit multiply a quarter of the 8-bit one; shift taken as a 16-bit add;
/// exp and reciprocal of a published 28 nm synthesis (0.82 and 0.22 pJ), division = reciprocal +
/// multiply.
inline constexpr complexity_weights energy_weights =
    complexity_weights{
        "energy_28nm", "picojoules", "Horowitz scaled to 28 nm; public synthesis", {}}
        .with(event::lz_encode, 0.015)
        .with(event::shift_add_8, 0.015 + 0.051)
        .with(event::shift_add_16, 0.025 + 0.051)
        .with(event::multiply_add_4, 0.025 + 0.025)
        .with(event::multiply_add_8, 0.10 + 0.051)
        .with(event::multiply_add_16, 0.41 + 0.051)
        .with(event::compare, 0.025)
        .with(event::add, 0.025)
        .with(event::multiply, 0.41)
        .with(event::exp, 0.82)
        .with(event::divide, 0.22 + 0.41);

inline constexpr std::array complexity_tables{unit_weights, sofa_weights, bit_weights,
                                              energy_weights};

} // namespace sofattn::probe
