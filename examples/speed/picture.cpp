// SPDX-License-Identifier: MIT
// The picture: hue says the method, dashes say on which data, small dots are single layers.
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
constexpr double top = 110;          ///< title, legend, names of panels
constexpr double least_error = 1e-5; ///< that is drawn, on a logarithmic axis
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
.m0 { stroke: #6d28d9 }
.m1 { stroke: #1d4ed8 }
.m2 { stroke: #b45309 }
.m3 { stroke: #0f766e }
.m0.dot { fill: #6d28d9; stroke: none }
.m1.dot { fill: #1d4ed8; stroke: none }
.m2.dot { fill: #b45309; stroke: none }
.m3.dot { fill: #0f766e; stroke: none }
.dense { fill: #57606a; stroke: none }
.layer { fill-opacity: 0.35 }
.share { font-size: 10px; text-anchor: middle }
@media (prefers-color-scheme: dark) {
.page { fill: #0d1117 }
text { fill: #e6edf3 }
.note { fill: #adb6c0 }
.grid { stroke: #30363d }
.even { stroke: #8b949e }
.m0 { stroke: #c4a7ff }
.m1 { stroke: #79b8ff }
.m2 { stroke: #f0a33e }
.m3 { stroke: #5eead4 }
.m0.dot { fill: #c4a7ff }
.m1.dot { fill: #79b8ff }
.m2.dot { fill: #f0a33e }
.m3.dot { fill: #5eead4 }
.dense { fill: #adb6c0 }
}
</style>
)";

std::string css(std::string const& classes) { return "class=\"" + classes + "\""; }

std::string dash_of(curve const& one) { return one.data == "random" ? " random" : ""; }

/// The class of a method's hue.
std::string hue_of(curves const& all, std::string const& method) {
    auto const at = std::ranges::find(all.of.methods, method) - all.of.methods.begin();
    return "m" + std::to_string(at % 4);
}

/// What readers see of a method's name.
std::string words_of(std::string const& method) {
    if (method == "keys_reused") {
        return "keys one by one";
    }
    if (method == "keys_computed") {
        return "keys, exact logits";
    }
    if (method == "pages_f32") {
        return "whole pages, f32";
    }
    return method == "pages_bf16" ? "whole pages, bf16" : method;
}

std::string dot(double x, double y, double radius, std::string const& classes) {
    return "<circle cx=\"" + svg_place(x) + "\" cy=\"" + svg_place(y) + "\" r=\"" +
           svg_place(radius) + "\" " + css(classes) + "/>\n";
}

std::string line(std::string const& path, std::string const& hue, curve const& one) {
    return "<path d=\"" + path + "\" " + css("curve " + hue + dash_of(one)) + "/>\n";
}

/// What a panel shows over what.
struct panel {
    std::string head;
    std::string axis; ///< name and unit
    std::vector<curve> const& list;
    std::function<double(point const&)> across;
    std::function<std::string(double)> tick;
    std::vector<double> ticks;                      ///< empty: the axis' own
    std::function<std::string(point const&)> label; ///< of recorded data's means
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

std::string drawn(curves const& all, panel const& p, linear_axis const& up, double x0) {
    log_axis const across = across_of(p, x0);
    std::string out = svg_words(across.from, top - 14, p.head, css("head"));
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
        std::string const hue = hue_of(all, one.method);
        std::string const spot = hue + " dot";
        std::string const small_spot = spot + " layer";
        std::string path;
        std::string dots;
        for (auto const& at : one.points) {
            double const x = across.at(p.across(at.mean));
            double const y = up.at(at.mean.over_f32);
            path += path.empty() ? "M" : " L";
            path += svg_place(x) + " " + svg_place(y);
            dots += dot(x, y, 3, spot);
            if (one.data != "random") {
                dots += svg_words(x, y - 7, p.label(at.mean), css("share"));
            }
            for (auto const& layer : at.layers) {
                if (at.layers.size() > 1) {
                    dots += dot(across.at(p.across(layer)), up.at(layer.over_f32), 2, small_spot);
                }
            }
        }
        out += line(path, hue, one) + dots;
    }
    return out;
}

/// Dense attention with bf16 products: what it gains over f32 and what it costs, on the first curve's data.
std::string dense_bf16(panel const& p, linear_axis const& up, double x0) {
    point const& at = p.list.front().points.front().mean;
    double const x = across_of(p, x0).at(p.across({0, 1, at.bf16_error, 0, 0, 0, 0, 0}));
    double const y = up.at(at.over_f32 / at.over_bf16);
    return "<path d=\"M" + svg_place(x) + " " + svg_place(y - 6) + " l6 6 l-6 6 l-6 -6 Z\" " +
           css("dense") + "/>\n" + svg_words(x + 10, y + 4, "dense bf16", css("note"));
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
    std::string recorded;
    bool has_random = false;
    for (auto const& method : all.of.methods) {
        bool is_shown = false;
        for (auto const& one : all.over_error) {
            is_shown = is_shown || one.method == method;
            has_random = has_random || one.data == "random";
            recorded = one.data == "random" ? recorded : one.data;
        }
        if (is_shown) {
            entry(hue_of(all, method), words_of(method));
        }
    }
    if (!recorded.empty()) {
        entry("even", recorded);
    }
    if (has_random) {
        entry("even random", "random data");
    }
    return out;
}

} // namespace

std::string to_svg(curves const& all) {
    double most = 1;
    std::vector<double> lengths;
    for (auto const* list : {&all.over_error, &all.over_tokens}) {
        for_each_point(*list, [&](point const& p) {
            most = std::max({most, p.over_f32, p.over_f32 / p.over_bf16});
        });
    }
    for_each_point(all.over_tokens,
                   [&](point const& p) { lengths.push_back(static_cast<double>(p.tokens)); });
    std::ranges::sort(lengths);
    lengths.erase(std::unique(lengths.begin(), lengths.end()), lengths.end());
    linear_axis const up{1.1 * most, top + panel_height, top};
    panel const over_error{"speed over the error of the output, " + std::to_string(all.of.tokens) +
                               " tokens",
                           "error, relative (Frobenius); numbers are the keys attended to",
                           all.over_error,
                           [](point const& p) { return std::max(p.error, least_error); },
                           [](double error) { return formatted("%g", error); },
                           {},
                           [](point const& p) { return formatted("%.2g %%", 100 * p.kept); }};
    panel const over_tokens{
        "speed over length: " + std::to_string(all.of.kept_percent) + " % of the keys, or " +
            formatted("%g", all.of.lost_permille / 10.0) + " % of the mass lost",
        "context length, tokens; numbers are errors",
        all.over_tokens,
        [](point const& p) { return static_cast<double>(p.tokens); },
        [](double tokens) { return formatted("%g", tokens); },
        lengths,
        [](point const& p) { return formatted("%.1g", p.error); }};
    std::string const threads =
        std::to_string(all.of.threads) + (all.of.threads == 1 ? " thread" : " threads");
    double const width = 2 * panel_width + gap;
    double const height = top + panel_height + bottom;
    std::string const title =
        "Sparse prefill: how many times as fast as our dense attention in f32";
    return io::svg_opening(width, height, title) + style + "<rect width=\"100%\" height=\"100%\" " +
           css("page") + "/>\n" + svg_words(left, 22, title, css("title")) +
           svg_words(left, 42,
                     "one causal head, d = " + std::to_string(all.of.dim) + ", " + threads +
                         "; above the line at 1, sparse is faster; the index of the keys is not "
                         "counted; small dots are single layers" +
                         (all.date.empty() ? "" : "; " + all.date),
                     css("note")) +
           legend(all) + drawn(all, over_error, up, 0) + dense_bf16(over_error, up, 0) +
           drawn(all, over_tokens, up, panel_width + gap) + "</svg>\n";
}

} // namespace sofattn::speed
