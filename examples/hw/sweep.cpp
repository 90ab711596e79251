// SPDX-License-Identifier: MIT
#include "hw/sweep.hpp"

#include <sofattn/hw/run.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <string>

namespace sofattn::hw {

namespace {

std::array<double, 3> merits(run_report const& r) {
    return {r.seconds(), r.picojoules(), sum(r.square_micrometres)};
}

} // namespace

std::vector<named_run> sweep(machine const& m, workload const& w,
                             std::vector<variation> const& varied) {
    std::vector<named_run> runs;
    std::vector<std::size_t> at(varied.size(), 0);
    for (;;) {
        machine on = m;
        workload of = w;
        std::string name;
        for (std::size_t v = 0; v < varied.size(); ++v) {
            std::string const& value = varied[v].values[at[v]];
            assign(varied[v].path + "=" + value, on, of);
            name += (name.empty() ? "" : ", ") + value;
        }
        runs.push_back({name, run(of, on)});
        std::size_t turn = varied.size();
        while (turn > 0 && ++at[turn - 1] == varied[turn - 1].values.size()) {
            at[--turn] = 0;
        }
        if (turn == 0) {
            return runs;
        }
    }
}

std::string names_of(std::vector<variation> const& varied) {
    std::string names;
    for (variation const& v : varied) {
        names += (names.empty() ? "" : ", ") + v.path.substr(v.path.rfind('.') + 1);
    }
    return names;
}

std::vector<bool> pareto_front(std::vector<named_run> const& runs) {
    std::vector<bool> best(runs.size(), true);
    for (std::size_t i = 0; i < runs.size(); ++i) {
        auto const mine = merits(runs[i].report);
        for (std::size_t j = 0; j < runs.size() && best[i]; ++j) {
            auto const other = merits(runs[j].report);
            bool const no_worse = std::equal(other.begin(), other.end(), mine.begin(),
                                             [](double a, double b) { return a <= b; });
            best[i] = !(no_worse && other != mine);
        }
    }
    return best;
}

} // namespace sofattn::hw
