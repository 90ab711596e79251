// SPDX-License-Identifier: MIT
// Named rules that carry energies and areas from one process to another.
#pragma once

#include <sofattn/core/error.hpp>
#include <sofattn/hw/field.hpp>

#include <string>
#include <string_view>

namespace sofattn::hw {

struct process_point {
    double nanometres = 0;
    double volts = 0;

    friend constexpr bool operator==(process_point, process_point) = default;
};

/// What to multiply by.
struct scale_factors {
    double energy = 1; ///< of events, and static power
    double area = 1;

    friend constexpr bool operator==(scale_factors, scale_factors) = default;
};

/// sofa_table2      the paper's footnote to Table II: power with s V^2, area with s^2, s the ratio of
///                  feature sizes; it is the reading under which the table's columns come out
/// stillmaker_baas  their fit for 45 -> 28 nm, 0.507 at equal supply; area 0.46 for 45 -> 32 nm, then
///                  the square of the feature size; energies with V^2. Other nodes are refused
/// none             nothing is carried: prices stay those of the table's own node
///
/// Throws `error` for a rule that does not know the step, or an unknown rule.
[[nodiscard]] inline scale_factors scale(std::string_view rule, process_point from,
                                         process_point to) {
    double const volts = to.volts * to.volts / (from.volts * from.volts);
    double const size = to.nanometres / from.nanometres;
    if (rule == "none") {
        return {};
    }
    if (rule == "sofa_table2") {
        return {size * volts, size * size};
    }
    if (rule == "stillmaker_baas") {
        if (from.nanometres == to.nanometres) {
            return {volts, 1};
        }
        if (from.nanometres == 45 && to.nanometres == 28) {
            return {0.507 * volts, 0.46 * 28 * 28 / (32.0 * 32)};
        }
        throw error("hardware: process.node_nanometres", detail::number_text(to.nanometres),
                    "28 or the table's own, " + detail::number_text(from.nanometres) +
                        ", where the rule is stillmaker_baas");
    }
    throw error("hardware: process.node_scaling_name", "\"" + std::string(rule) + "\"",
                "sofa_table2, stillmaker_baas or none");
}

} // namespace sofattn::hw
