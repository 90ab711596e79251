// SPDX-License-Identifier: MIT
// The frontier as a picture: kept share against error, both logarithmic, a panel per model.
#include "attend/frontier.hpp"
#include <sofattn/io/svg.hpp>

#include <algorithm>
#include <map>
#include <string>
#include <vector>

namespace sofattn::attend {

namespace {

using io::formatted;
using io::log_axis;
using io::svg_line;
using io::svg_place;
using io::svg_words;

constexpr double panel_width = 470;
constexpr double panel_height = 400;
constexpr double left = 56;
constexpr double top = 44;
constexpr double bottom = 40;
constexpr double gap = 16;
constexpr double legend_width = 280;
constexpr double legend_line = 18;

/// Hue: how keys are chosen. Dash: what becomes of the dropped ones. So a reader may follow either.
struct look {
    char const* colour;
    char const* dash;
    double width;
};
look look_of(std::string const& series) {
    bool const coded = series.starts_with("dlzs8");
    look l{"#6b7280", "", coded ? 1.2 : 2.0};
    if (series.find(", ratio") != std::string::npos) {
        l.colour = coded ? "#e9a23b" : "#b45309";
    } else if (series.find(", mass") != std::string::npos) {
        l.colour = coded ? "#5aa9e6" : "#1d4ed8";
    } else if (series.find(", error") != std::string::npos) {
        l.colour = coded ? "#54c08a" : "#047857";
    }
    if (series.find("running") != std::string::npos) {
        l.dash = "8 3 2 3";
    } else if (series.find("segment") != std::string::npos) {
        l.dash = "";
    } else {
        l.dash = series.find("mean") != std::string::npos ? "7 4" : "2 3";
    }
    return l;
}

std::string panel(frontier const& one, double x0) {
    double low = 1;
    double high = 0;
    double least_kept = 1;
    double most_kept = 0;
    for (auto const& series : one.series) {
        for (auto const& p : series.points) {
            double const error = std::max(p.quality.output_error_relative, 1e-5);
            low = std::min(low, error);
            high = std::max(high, error);
            least_kept = std::min(least_kept, std::max(p.quality.kept_share, 1e-4));
            most_kept = std::max(most_kept, p.quality.kept_share);
        }
    }
    log_axis const across{least_kept * 0.9, std::max(most_kept, least_kept * 1.1) * 1.1, x0 + left,
                          x0 + panel_width - 8};
    log_axis const up{low * 0.8, std::max(high, low * 1.1) * 1.2, top + panel_height, top};
    std::string const grid = "stroke=\"#e5e7eb\"";
    std::string const small = "font-size=\"11\" fill=\"#374151\"";
    std::string out = svg_words(x0 + left, 18, one.model, "font-size=\"13\" font-weight=\"bold\"") +
                      svg_words(x0 + left, 34, "mean over layers " + one.layers, small);
    for (double const tick : across.ticks()) {
        double const x = across.at(tick);
        out += svg_line(x, up.to, x, up.from, grid) + svg_words(x, up.from + 16,
                                                                formatted("%g %%", 100 * tick),
                                                                small + " text-anchor=\"middle\"");
    }
    for (double const tick : up.ticks()) {
        double const y = up.at(tick);
        out += svg_line(across.from, y, across.to, y, grid) +
               svg_words(across.from - 6, y + 4, formatted("%g", tick),
                         small + " text-anchor=\"end\"");
    }
    out += svg_words((across.from + across.to) / 2, up.from + 34, "keys kept",
                     small + " text-anchor=\"middle\"");
    for (auto const& series : one.series) {
        look const l = look_of(series.name);
        std::vector<frontier_point> points = series.points;
        std::ranges::sort(points, {}, [](auto const& p) { return p.quality.kept_share; });
        std::string path;
        std::string dots;
        for (auto const& p : points) {
            double const x = across.at(std::max(p.quality.kept_share, 1e-4));
            double const y = up.at(std::max(p.quality.output_error_relative, 1e-5));
            path += (path.empty() ? "M" : " L") + svg_place(x) + " " + svg_place(y);
            dots += "<circle cx=\"" + svg_place(x) + "\" cy=\"" + svg_place(y) +
                    "\" r=\"2\" fill=\"" + l.colour + "\"/>\n";
        }
        out += "<path d=\"" + path + "\" fill=\"none\" stroke=\"" + l.colour +
               "\" stroke-width=\"" + svg_place(l.width) + "\" stroke-dasharray=\"" + l.dash +
               "\"/>\n" + dots;
    }
    return out;
}

} // namespace

std::string to_svg(std::vector<frontier> const& frontiers) {
    // Of each model its first entry: the mean, or its only layer.
    std::map<std::string, frontier const*> panels;
    for (auto const& one : frontiers) {
        panels.try_emplace(one.model, &one);
    }
    auto const count = static_cast<double>(panels.size());
    double const width = count * (panel_width + gap) + legend_width;
    double const height = top + panel_height + bottom;
    std::string out =
        io::svg_opening(width, height, "Relative output error against the share of keys kept") +
        "<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n";
    double x = 0;
    for (auto const& entry : panels) {
        out += panel(*entry.second, x);
        x += panel_width + gap;
    }
    double y = top + 4;
    out += svg_words(x, y, "output error (relative)", "font-size=\"12\" font-weight=\"bold\"");
    for (auto const& series :
         frontiers.empty() ? std::vector<frontier_series>{} : frontiers.front().series) {
        y += legend_line;
        look const l = look_of(series.name);
        out += svg_line(x, y - 4, x + 30, y - 4,
                        std::string("stroke=\"") + l.colour + "\" stroke-width=\"" +
                            svg_place(l.width) + "\" stroke-dasharray=\"" + l.dash + "\"") +
               svg_words(x + 36, y, series.name, "font-size=\"12\" fill=\"#111827\"");
    }
    return out + "</svg>\n";
}

} // namespace sofattn::attend
