// SPDX-License-Identifier: MIT
// The picture: hue says what is beaten, dashes say on which data, small dots are single layers.
#include "speed/speed.hpp"
#include <sofattn/io/svg.hpp>

#include <algorithm>
#include <array>
#include <functional>
#include <string>
#include <vector>

namespace sofattn::speed {

namespace {

using io::formatted;
using io::linear_axis;
using io::log_axis;
using io::svg_line;
using io::svg_place;
using io::svg_words;

constexpr double panel_width = 470;
constexpr double panel_height = 330;
constexpr double left = 56;
constexpr double top = 154; ///< title, legend, names of panels, two rows of numbers
constexpr double bottom = 44;
constexpr double gap = 16;

/// Colours by class, so that a reader's dark page gets other ones.
constexpr char const* style = R"(<style>
.page { fill: #ffffff }
text { fill: #1f2328; font-size: 12px }
.title { font-size: 15px; font-weight: bold }
.head { font-weight: bold }
.note { fill: #4b535c; font-size: 11px }
.middle { text-anchor: middle }
.end { text-anchor: end }
.grid { stroke: #e5e7eb }
.even { stroke: #57606a; stroke-width: 1.5 }
.curve { fill: none; stroke-width: 2 }
.random { stroke-dasharray: 6 4 }
.f32 { stroke: #1d4ed8 }
.bf16 { stroke: #b45309 }
.f32.dot { fill: #1d4ed8; stroke: none }
.bf16.dot { fill: #b45309; stroke: none }
.layer { fill-opacity: 0.45 }
@media (prefers-color-scheme: dark) {
.page { fill: #0d1117 }
text { fill: #e6edf3 }
.note { fill: #adb6c0 }
.grid { stroke: #30363d }
.even { stroke: #8b949e }
.f32 { stroke: #79b8ff }
.bf16 { stroke: #f0a33e }
.f32.dot { fill: #79b8ff }
.bf16.dot { fill: #f0a33e }
}
</style>
)";

std::string css(std::string const& classes) { return "class=\"" + classes + "\""; }

struct rival {
    char const* name; ///< also the class
    double point::*over;
};
constexpr std::array rivals{rival{"f32", &point::over_f32}, rival{"bf16", &point::over_bf16}};

std::string dash_of(curve const& one) { return one.name == "random" ? " random" : ""; }

std::string dot(double x, double y, double radius, std::string const& classes) {
    return "<circle cx=\"" + svg_place(x) + "\" cy=\"" + svg_place(y) + "\" r=\"" +
           svg_place(radius) + "\" " + css(classes) + "/>\n";
}

/// What a panel shows over what.
struct panel {
    std::string head;
    std::string axis; ///< name and unit
    std::vector<curve> const& list;
    std::function<double(point const&)> across;
    std::function<std::string(double)> tick;
    std::vector<double> ticks; ///< empty: the axis' own
};

/// Every point of every layer: what axes have to cover.
template <class Visit>
void for_each_point(std::vector<curve> const& list, Visit visit) {
    for (auto const& one : list) {
        for (auto const& p : one.points) {
            visit(p.mean);
            std::ranges::for_each(p.layers, visit);
        }
    }
}

log_axis across_of(panel const& p, double x0) {
    double least = p.across(p.list.front().points.front().mean);
    double most = least;
    for_each_point(p.list, [&](point const& q) {
        least = std::min(least, p.across(q));
        most = std::max(most, p.across(q));
    });
    return {least * 0.8, most * 1.2, x0 + left, x0 + panel_width - 8};
}

std::string drawn(panel const& p, linear_axis const& up, double x0) {
    log_axis const across = across_of(p, x0);
    std::string out = svg_words(across.from, top - 48, p.head, css("head"));
    // What the first curve, recorded data where there are some, pays for its speed.
    out += svg_words(across.from - 6, top - 26, "kept", css("note end")) +
           svg_words(across.from - 6, top - 10, "error", css("note end"));
    constexpr double word = 44; // more than "0.0026" is wide
    double free_from = across.from - word;
    for (auto const& at : p.list.front().points) {
        double const x = across.at(p.across(at.mean));
        if (x < free_from) {
            continue; // it would lie on its neighbour's
        }
        free_from = x + word;
        out +=
            svg_words(x, top - 26, formatted("%.2g %%", 100 * at.mean.kept), css("note middle")) +
            svg_words(x, top - 10, formatted("%.2g", at.mean.error), css("note middle"));
    }
    for (double const tick : p.ticks.empty() ? across.ticks() : p.ticks) {
        double const x = across.at(tick);
        out += svg_line(x, up.to, x, up.from, css("grid")) +
               svg_words(x, up.from + 16, p.tick(tick), css("note middle"));
    }
    double const middle = (up.from + up.to) / 2;
    out += svg_words(x0 + 16, middle, "times as fast",
                     css("note middle") + " transform=\"rotate(-90 " + svg_place(x0 + 16) + " " +
                         svg_place(middle) + ")\"");
    for (double const tick : up.ticks()) {
        double const y = up.at(tick);
        out += svg_line(across.from, y, across.to, y, css("grid")) +
               svg_words(across.from - 6, y + 4, formatted("%g", tick), css("note end"));
    }
    out += svg_line(across.from, up.at(1), across.to, up.at(1), css("even")) +
           svg_words((across.from + across.to) / 2, up.from + 34, p.axis, css("note middle"));
    for (auto const& one : p.list) {
        for (auto const& against : rivals) {
            std::string const name = against.name;
            std::string path;
            std::string dots;
            for (auto const& at : one.points) {
                double const x = across.at(p.across(at.mean));
                double const y = up.at(at.mean.*against.over);
                path += path.empty() ? "M" : " L";
                path += svg_place(x) + " " + svg_place(y);
                dots += dot(x, y, 3, name + " dot");
                for (auto const& layer : at.layers) {
                    if (at.layers.size() > 1) {
                        dots += dot(across.at(p.across(layer)), up.at(layer.*against.over), 2,
                                    name + " dot layer");
                    }
                }
            }
            out +=
                "<path d=\"" + path + "\" " + css("curve " + name + dash_of(one)) + "/>\n" + dots;
        }
    }
    return out;
}

/// What hues, dashes and dots mean.
std::string legend(curves const& all) {
    std::string out;
    double x = left;
    auto const entry = [&](std::string const& classes, std::string const& text) {
        out += svg_line(x, 62, x + 28, 62, css("curve " + classes)) +
               svg_words(x + 34, 66, text, css("note"));
        x += 58 + 5.6 * static_cast<double>(text.size()); // letters of 11 px are about that wide
    };
    for (auto const& against : rivals) {
        entry(against.name, std::string("over dense ") + against.name);
    }
    for (auto const& one : all.over_kept) {
        bool const mean = one.name != "random";
        entry("even" + dash_of(one),
              mean ? one.name + ": mean, dots are single layers" : "random data");
    }
    return out;
}

} // namespace

std::string to_svg(curves const& all) {
    double most = 1;
    std::vector<double> lengths;
    for (auto const* list : {&all.over_kept, &all.over_tokens}) {
        for_each_point(*list, [&](point const& p) {
            most = std::max({most, p.over_f32, p.over_bf16});
        });
    }
    for_each_point(all.over_tokens,
                   [&](point const& p) { lengths.push_back(static_cast<double>(p.tokens)); });
    std::ranges::sort(lengths);
    lengths.erase(std::unique(lengths.begin(), lengths.end()), lengths.end());
    linear_axis const up{1.1 * most, top + panel_height, top};
    auto const tokens_of = [](point const& p) { return static_cast<double>(p.tokens); };
    panel const over_kept{"speed over share of keys kept, " + std::to_string(all.of.tokens) +
                              " tokens",
                          "keys kept, % of those that the mask allows",
                          all.over_kept,
                          [](point const& p) { return p.kept; },
                          [](double share) { return formatted("%g %%", 100 * share); },
                          {}};
    panel const over_tokens{"speed over length, aiming at " + std::to_string(all.of.kept_percent) +
                                " % kept",
                            "context length, tokens",
                            all.over_tokens,
                            tokens_of,
                            [](double tokens) { return formatted("%g", tokens); },
                            lengths};
    std::string const threads =
        std::to_string(all.of.threads) + (all.of.threads == 1 ? " thread" : " threads");
    double const width = 2 * panel_width + gap;
    double const height = top + panel_height + bottom;
    std::string const title = "Sparse prefill: how many times as fast as our dense attention";
    return io::svg_opening(width, height, title) + style + "<rect width=\"100%\" height=\"100%\" " +
           css("page") + "/>\n" + svg_words(left, 22, title, css("title")) +
           svg_words(
               left, 42,
               "one causal head, d = " + std::to_string(all.of.dim) + ", " + threads + ", logits " +
                   all.of.logits +
                   "; above the line at 1, sparse is faster; the index of the keys is not counted" +
                   (all.date.empty() ? "" : "; " + all.date),
               css("note")) +
           legend(all) + drawn(over_kept, up, 0) + drawn(over_tokens, up, panel_width + gap) +
           "</svg>\n";
}

} // namespace sofattn::speed
