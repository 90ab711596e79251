// SPDX-License-Identifier: MIT
// sofattn._hardware: what sofattn-hw reports, as JSON. Documented in sofattn/__init__.py.
#include "hw/report.hpp"
#include "hw/settings.hpp"
#include <sofattn/core/error.hpp>
#include <sofattn/hw/run.hpp>

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <string>
#include <vector>

namespace {

/// A name or file of each, and "FIELD=VALUE" of either.
std::string report(std::string const& machine_name, std::string const& workload_name,
                   std::vector<std::string> const& assignments) {
    namespace hw = sofattn::hw;
    try {
        hw::chosen_workload chosen = hw::load_workload(workload_name);
        hw::machine machine = hw::load_machine(machine_name);
        for (std::string const& one : assignments) {
            hw::assign(one, machine, chosen.of);
        }
        return hw::to_json(hw::named_run{chosen.name, hw::run(chosen.of, machine)}).dump();
    } catch (sofattn::error const& e) {
        throw pybind11::value_error(e.what());
    }
}

} // namespace

PYBIND11_MODULE(_hardware, m) {
    m.def("report", &report, pybind11::call_guard<pybind11::gil_scoped_release>());
}
