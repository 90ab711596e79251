// SPDX-License-Identifier: MIT
#include "dse/pictures.hpp"

#include <sofattn/io/charts.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>

namespace sofattn::dse {

io::figure draw_convergence(std::string const& title, std::string const& y_name,
                            std::vector<named_curve> const& curves,
                            std::function<double(double)> const& shown) {
    io::line_chart chart{title, "evaluations", y_name, {}, false, true};
    for (named_curve const& curve : curves) {
        io::chart_line line{curve.name, {}, true};
        for (std::size_t n = 0; n < curve.best.size(); ++n) {
            bool const improves = n == 0 || curve.best[n] < curve.best[n - 1];
            if (std::isfinite(curve.best[n]) && (improves || n + 1 == curve.best.size())) {
                line.points.push_back({static_cast<double>(n + 1), shown(curve.best[n])});
            }
        }
        if (!line.points.empty()) {
            chart.lines.push_back(std::move(line));
        }
    }
    return io::draw(chart);
}

std::vector<named_curve> curves_of(std::vector<method_run> const& runs) {
    std::vector<named_curve> curves;
    curves.reserve(runs.size());
    for (method_run const& r : runs) {
        curves.push_back({std::string(name_of(r.by)), best_so_far(r.result.state.trials)});
    }
    return curves;
}

io::figure draw_fronts(std::string const& title, std::pair<std::string, std::string> const& names,
                       std::vector<method_run> const& runs,
                       std::function<double(std::size_t, double)> const& shown) {
    io::line_chart chart{title, names.first, names.second, {}, true, true};
    for (method_run const& r : runs) {
        io::chart_line line{std::string(name_of(r.by)), {}, false};
        for (std::size_t const i : pareto_front(r.result.state.trials)) {
            auto const& values = r.result.state.trials[i].result.objectives;
            line.points.push_back({shown(0, values[0]), shown(1, values[1])});
        }
        std::sort(line.points.begin(), line.points.end(),
                  [](auto const& a, auto const& b) { return a.x < b.x; });
        if (!line.points.empty()) {
            chart.lines.push_back(std::move(line));
        }
    }
    return io::draw(chart);
}

} // namespace sofattn::dse
