// SPDX-License-Identifier: MIT
// A figure of a report: SVG with a style for light and dark pages, and what charts are made of.
#pragma once

#include <sofattn/core/error.hpp>
#include <sofattn/io/svg.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <string>
#include <utility>
#include <vector>

namespace sofattn::io {

/// A drawing with its words for those who do not see it. Drawn for a width of 400 pixels, which a
/// telephone shows at nine tenths of its size and a desk at more: letters stay readable on both.
struct figure {
    std::string title;
    std::string description; ///< what it shows, in a sentence
    double width = 400.0;
    double height = 0.0;
    std::string body{}; ///< elements with classes of `figure_style`
};

/// Colours by class, so that a dark page gets other ones. Eight hues that stay apart for the
/// colour-blind in this order (after Okabe and Ito).
inline constexpr char const* figure_style = R"(
.fig { --page: #ffffff; --ink: #1f2328; --soft: #57606a; --grid: #d8dee4; --on: #ffffff;
  --h0: #0b62b0; --h1: #d55e00; --h2: #00855f; --h3: #a8479a; --h4: #b8860b; --h5: #4a9fd8;
  --h6: #8c564b; --h7: #7f8790;
  font-family: system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif }
.fig .page { fill: var(--page) }
.fig text { fill: var(--ink); font-size: 13px }
.fig .head { font-size: 15px; font-weight: 600 }
.fig .soft { fill: var(--soft); font-size: 12px }
.fig .on { fill: var(--on); font-size: 12px }
.fig .halo { paint-order: stroke; stroke: var(--page); stroke-width: 4px; stroke-linejoin: round }
.fig .middle { text-anchor: middle }
.fig .end { text-anchor: end }
.fig .grid { stroke: var(--grid) }
.fig .axis { stroke: var(--soft) }
.fig .curve { fill: none; stroke-width: 2.2 }
.fig .thin { fill: none; stroke-width: 1.2; stroke-dasharray: 5 4 }
.fig .edge { stroke: var(--page); stroke-width: 1 }
.fig .f0 { fill: var(--h0) } .fig .f1 { fill: var(--h1) } .fig .f2 { fill: var(--h2) }
.fig .f3 { fill: var(--h3) } .fig .f4 { fill: var(--h4) } .fig .f5 { fill: var(--h5) }
.fig .f6 { fill: var(--h6) } .fig .f7 { fill: var(--h7) }
.fig .s0 { stroke: var(--h0) } .fig .s1 { stroke: var(--h1) } .fig .s2 { stroke: var(--h2) }
.fig .s3 { stroke: var(--h3) } .fig .s4 { stroke: var(--h4) } .fig .s5 { stroke: var(--h5) }
.fig .s6 { stroke: var(--h6) } .fig .s7 { stroke: var(--h7) }
@media (prefers-color-scheme: dark) {
.fig { --page: #0d1117; --ink: #e6edf3; --soft: #9aa4af; --grid: #30363d; --on: #0d1117;
  --h0: #6cb2f5; --h1: #ff9950; --h2: #3fc79b; --h3: #e58fd8; --h4: #e3b341; --h5: #a5d8ff;
  --h6: #c99a8f; --h7: #a6afb8 }
}
)";
inline constexpr std::size_t figure_hues = 8;

/// The figure alone, with its style: a file of its own, or inside a page that has the style already.
[[nodiscard]] inline std::string to_svg(figure const& of, bool with_style = true) {
    std::string out = "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"fig\" role=\"img\" "
                      "viewBox=\"0 0 " +
                      svg_place(of.width) + " " + svg_place(of.height) + "\"";
    if (with_style) {
        out += " width=\"" + svg_place(of.width) + "\" height=\"" + svg_place(of.height) + "\"";
    }
    out += " aria-label=\"" + svg_escaped(of.title + ". " + of.description) + "\">\n<title>" +
           svg_escaped(of.title) + "</title>\n<desc>" + svg_escaped(of.description) + "</desc>\n";
    if (with_style) {
        out += std::string("<style>") + figure_style + "</style>\n";
    }
    return out + "<rect width=\"100%\" height=\"100%\" class=\"page\"/>\n" + of.body + "</svg>\n";
}

/// Three digits and a prefix: "0", "12.3 k", "4 G", "0.05".
[[nodiscard]] inline std::string short_number(double value) {
    constexpr std::array<std::pair<double, char const*>, 5> prefixes{
        {{1e12, " T"}, {1e9, " G"}, {1e6, " M"}, {1e3, " k"}, {1.0, ""}}};
    for (auto const& [size, prefix] : prefixes) {
        if (std::abs(value) >= 0.9995 * size) {
            return formatted("%.3g", value / size) + prefix;
        }
    }
    return formatted("%.3g", value);
}

namespace detail {

[[nodiscard]] inline std::string css(std::string const& classes) {
    return "class=\"" + classes + "\"";
}
/// Class of the n-th hue: 'f' fills, 's' strokes.
[[nodiscard]] inline std::string hue(char kind, std::size_t n) {
    return std::string(1, kind) + std::to_string(n % figure_hues);
}
/// Pixels, as well as one can know without the font.
[[nodiscard]] inline double text_width(std::string const& text, double size = 13.0) {
    auto const letters = std::ranges::count_if(text, [](char c) { // UTF-8: not the rest of one
        return (static_cast<unsigned char>(c) & 0xc0) != 0x80;
    });
    return 0.55 * size * static_cast<double>(letters);
}
[[nodiscard]] inline std::string box(double x, double y, double width, double height,
                                     std::string const& classes, std::string const& tip) {
    return "<rect x=\"" + svg_place(x) + "\" y=\"" + svg_place(y) + "\" width=\"" +
           formatted("%.2f", width) + "\" height=\"" + svg_place(height) + "\" " + css(classes) +
           "><title>" + svg_escaped(tip) + "</title></rect>\n";
}

/// Entries in lines that wrap; returns the height they took.
inline double legend(std::string& body, std::vector<std::string> const& names, double left,
                     double top, double right, bool lines) {
    double x = left;
    double y = top;
    for (std::size_t n = 0; n < names.size(); ++n) {
        double const wide = 20.0 + text_width(names[n], 12.0) + 18.0;
        if (x > left && x + wide - 18.0 > right) {
            x = left;
            y += 18.0;
        }
        body += lines ? svg_line(x, y + 7.0, x + 15.0, y + 7.0, css("curve " + hue('s', n)))
                      : "<rect x=\"" + svg_place(x) + "\" y=\"" + svg_place(y + 1.0) +
                            "\" width=\"12\" height=\"12\" rx=\"2\" " + css(hue('f', n)) + "/>\n";
        body += svg_words(x + 20.0, y + 11.5, names[n], css("soft"));
        x += wide;
    }
    return names.empty() ? 0.0 : y + 18.0 - top;
}

constexpr double margin = 12.0;
constexpr double head = 24.0; ///< height of the title

/// Linear from 0 or logarithmic: what a chart asks of an axis.
class chart_axis {
public:
    chart_axis(bool is_log, double low, double high, double from, double to)
        : is_log_(is_log), log_{low * 0.9, std::max(high, low * 1.1) * 1.1, from, to},
          linear_{high > 0.0 ? 1.05 * high : 1.0, from, to} {}

    [[nodiscard]] double at(double value) const {
        return is_log_ ? log_.at(value) : linear_.at(value);
    }
    /// Less than three powers of ten: 2 and 5 times them, too, though they be more than seven. A
    /// narrow range holds few of either: then it is divided like a linear one.
    [[nodiscard]] std::vector<double> ticks() const {
        std::vector<double> marks = is_log_ ? log_.ticks(7) : linear_.ticks();
        if (marks.size() < 3 && is_log_) {
            marks = log_.ticks();
        }
        if (marks.size() < 3 && is_log_) {
            double const range = log_.high - log_.low;
            double step = std::pow(10.0, std::floor(std::log10(range / 3.0)));
            step *= range / step > 15.0 ? 5.0 : range / step > 6.0 ? 2.0 : 1.0;
            marks.clear();
            double const first = std::ceil(log_.low / step);
            for (int n = 0; (first + n) * step <= log_.high; ++n) {
                marks.push_back((first + n) * step);
            }
        }
        return marks;
    }

private:
    bool is_log_;
    log_axis log_;
    linear_axis linear_;
};

struct plot_area {
    chart_axis across;
    chart_axis up;
    double left, right, top, bottom;
};

/// Grid, numbers and names of axes.
[[nodiscard]] inline std::string frame(plot_area const& in, std::string const& x_name,
                                       std::string const& y_name) {
    std::string body;
    for (double const tick : in.up.ticks()) {
        double const y = in.up.at(tick);
        body += svg_line(in.left, y, in.right, y, css("grid")) +
                svg_words(in.left - 6.0, y + 4.0, short_number(tick), css("soft end"));
    }
    double free = -1e9; // numbers do not touch
    for (double const tick : in.across.ticks()) {
        double const x = in.across.at(tick);
        std::string const text = short_number(tick);
        body += svg_line(x, in.top, x, in.bottom, css("grid"));
        if (x - text_width(text, 12.0) / 2.0 > free) {
            body += svg_words(x, in.bottom + 16.0, text, css("soft middle"));
            free = x + text_width(text, 12.0) / 2.0 + 8.0;
        }
    }
    return body + svg_line(in.left, in.bottom, in.right, in.bottom, css("axis")) +
           svg_words((in.left + in.right) / 2.0, in.bottom + 34.0, x_name, css("soft middle")) +
           svg_words(margin, in.top - 8.0, y_name, css("soft"));
}

inline void check_positive(std::string const& what, bool is_log, double value) {
    if (!std::isfinite(value) || value < 0.0 || (is_log && value <= 0.0)) {
        throw error("chart: " + what, std::to_string(value),
                    is_log ? "finite and positive on a logarithmic axis" : "finite and at least 0");
    }
}

} // namespace detail

} // namespace sofattn::io
