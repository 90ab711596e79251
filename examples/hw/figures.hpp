// SPDX-License-Identifier: MIT
// Figures of runs. Every length and point is a number of their reports.
#pragma once

#include "hw/report.hpp"
#include "hw/settings.hpp"
#include <sofattn/io/figure.hpp>

#include <cstddef>
#include <string>
#include <vector>

namespace sofattn::hw {

/// At most `most` letters of a name that may come from a file, for places of limited width.
[[nodiscard]] std::string shortened(std::string const& name, std::size_t most = 48);

/// A unit that suits the largest of some values: of 2.5e6 pJ {1e6, "uJ"}.
struct scaled_unit {
    double size = 1;
    std::string name;
};
[[nodiscard]] scaled_unit energy_unit(double most_picojoules);
[[nodiscard]] scaled_unit bytes_unit(double most_bytes);

/// Stacked bars by block: of one run dynamic and static, of several a bar each. `core_only` leaves
/// out the DRAM and its interface.
[[nodiscard]] io::figure energy_figure(std::vector<named_run> const& runs, bool core_only);
[[nodiscard]] io::figure area_figure(std::vector<named_run> const& runs);
/// By what is moved: of one run read and written, of several a bar each.
[[nodiscard]] io::figure traffic_figure(std::vector<named_run> const& runs);
/// Of runs with the same memory model: device by cause, and the interface.
[[nodiscard]] io::figure dram_energy_figure(std::vector<named_run> const& runs);
/// Both accountings of each run.
[[nodiscard]] io::figure throughput_figure(std::vector<named_run> const& runs);

/// Operations of the KV and SU-FA arrays (a multiply-add is two) per byte of DRAM traffic.
struct intensity {
    double operations_per_byte = 0; ///< 0 where nothing is moved
    double operations_per_second = 0;
};
[[nodiscard]] intensity intensity_of(run_report const& r);
/// Each run's point under the roofs of every machine.
[[nodiscard]] io::figure roofline_figure(std::vector<named_run> const& runs);

/// A quantity of runs, in its unit.
struct plotted {
    std::string title;
    std::string unit;
    double (*of)(run_report const&);
};
/// Over the values of the last variation, a line per value of the first; bars where the values are
/// no numbers. Points of the Pareto front are larger.
[[nodiscard]] io::figure sweep_figure(std::vector<named_run> const& runs,
                                      std::vector<variation> const& varied,
                                      std::vector<bool> const& pareto, plotted const& what);
/// Energy against time. Points of the Pareto front, which is of area too, are larger.
[[nodiscard]] io::figure pareto_figure(std::vector<named_run> const& runs,
                                       std::vector<bool> const& pareto);

} // namespace sofattn::hw
