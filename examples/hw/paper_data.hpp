// SPDX-License-Identifier: MIT
// Table II of the paper, as printed, and what has to be guessed to recompute it.
#pragma once

#include <array>
#include <string_view>

namespace sofattn::hw {

/// A row: raw figures, then the paper's normalised ones; 0 where the table has a dash.
struct table2_row {
    std::string_view design;
    double nanometres = 0;
    double gigahertz = 0;
    double square_millimetres = 0;
    double core_watts = 0;
    double io_watts = 0;
    double gops = 0;
    double saved_share = 0;
    double core_efficiency = 0;   ///< GOPS/W
    double device_efficiency = 0; ///< GOPS/W
    double area_efficiency = 0;   ///< GOPS/mm2
    double milliseconds = 0;
    double multipliers = 0;      ///< not in the table
    bool is_count_known = false; ///< from another source than the fit
};

/// The multiplier counts are what makes the latency column come out; FACT's, Sanger's, DOTA's, A3's
/// and SOFA's stand in the designs' own papers, the others are fits.
inline constexpr std::array<table2_row, 9> table2{{
    {"A3", 40, 1, 2.08, .205, .617, 221, .40, 1863, 300, 217, 622, 128, true},
    {"ELSA", 40, 1, 1.26, .969, .525, 1090, .73, 1944, 1004, 1765, 252, 256, false},
    {"Sanger", 55, .5, 16.9, 2.76, 0, 2285, .76, 2342, 0, 522, 241, 1024, true},
    {"DOTA", 22, 1, 4.44, 3.02, 0, 4905, .80, 817, 0, 683, 448, 2048, true},
    {"Energon", 45, 1, 4.2, .32, 2.4, 1153, .77, 7007, 450, 709, 477, 512, false},
    {"DTATrans", 40, 1, 1.49, .734, 0, 1304, .74, 3071, 0, 1786, 652, 792, false},
    {"SpAtten", 40, 1, 1.55, .325, .617, 360, .67, 1915, 447, 474, 382, 128, false},
    {"FACT", 28, .5, 6.03, .337, 0, 928, .79, 2754, 0, 154, 296, 512, true},
    {"SOFA", 28, 1, 5.69, .95, 2.45, 24423, .82, 25708, 7183, 4292, 45, 1024, true},
}};

/// The supply that makes Table II's energy columns come out; the paper does not print it.
[[nodiscard]] constexpr double assumed_volts(double nanometres) noexcept {
    return nanometres >= 55 ? 1.2 : nanometres >= 40 ? 1.1 : nanometres >= 28 ? 1.0 : 0.8;
}

} // namespace sofattn::hw
