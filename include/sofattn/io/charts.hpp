// SPDX-License-Identifier: MIT
// Figures of reports: stacked bars, lines, a roofline, a timeline.
#pragma once

#include <sofattn/core/error.hpp>
#include <sofattn/io/figure.hpp>
#include <sofattn/io/svg.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <string>
#include <vector>

namespace sofattn::io {

// --- stacked bars --------------------------------------------------------------------------------

struct bar {
    std::string name;
    std::vector<double> parts; ///< none negative
};

struct stacked_bars {
    std::string title;
    std::string unit; ///< behind totals
    std::vector<std::string> parts;
    std::vector<bar> bars{};
    bool as_shares = false; ///< every bar as long as the page, without its total
};

/// Bars lie, names stand above them: there is room for long ones. Throws `error` for parts that do
/// not fit the names, and for values that are no length.
[[nodiscard]] inline figure draw(stacked_bars const& of) {
    using namespace detail;
    figure out{.title = of.title, .description = "Stacked bars of "};
    double most = 0.0;
    for (bar const& one : of.bars) {
        if (one.parts.size() != of.parts.size()) {
            throw error("chart: parts of bar " + one.name, std::to_string(one.parts.size()),
                        "as many as names, " + std::to_string(of.parts.size()));
        }
        double sum = 0.0;
        for (double const value : one.parts) {
            if (!(value >= 0.0) || !std::isfinite(value)) {
                throw error("chart: length of a part of bar " + one.name, std::to_string(value),
                            "finite and at least 0");
            }
            sum += value;
        }
        most = std::max(most, sum);
        out.description += (&one == of.bars.data() ? "" : ", ") + one.name + " " +
                           short_number(sum) + (of.unit.empty() ? "" : " " + of.unit);
    }
    out.body = svg_words(margin, 20.0, of.title, css("head"));
    double y = margin + head;
    bool const is_one = of.parts.size() == 1; // then neither a legend nor shares say anything
    y += (is_one ? 0.0 : legend(out.body, of.parts, margin, y, out.width - margin, false)) + 4.0;
    double const length = out.width - 2.0 * margin;
    for (bar const& one : of.bars) {
        double sum = 0.0;
        for (double const value : one.parts) {
            sum += value;
        }
        std::string const total = short_number(sum) + (of.unit.empty() ? "" : " " + of.unit);
        out.body += svg_words(margin, y + 13.0, one.name, css(""));
        if (!of.as_shares) {
            out.body += svg_words(out.width - margin, y + 13.0, total, css("soft end"));
        }
        double const whole = of.as_shares ? sum : most;
        double x = margin;
        for (std::size_t p = 0; p < one.parts.size() && whole > 0.0; ++p) {
            double const wide = length * one.parts[p] / whole;
            std::string const share = formatted("%.0f %%", 100.0 * one.parts[p] / sum);
            if (wide > 0.0) {
                out.body += box(x, y + 18.0, wide, 20.0, "edge " + hue('f', p),
                                one.name + ", " + of.parts[p] + ": " + short_number(one.parts[p]) +
                                    " " + of.unit + ", " + share);
            }
            if (!is_one && wide > text_width(share, 12.0) + 6.0) {
                out.body += svg_words(x + wide / 2.0, y + 32.5, share, css("on middle"));
            }
            x += wide;
        }
        y += 46.0;
    }
    out.height = y + 4.0;
    return out;
}

// --- lines ---------------------------------------------------------------------------------------

struct chart_point {
    double x = 0.0;
    double y = 0.0;
    bool marked = false; ///< drawn larger: on a Pareto front, say
};
struct chart_line {
    std::string name;
    std::vector<chart_point> points;
    bool joined = true; ///< else points only
};

struct line_chart {
    std::string title;
    std::string x_name; ///< with its unit
    std::string y_name;
    std::vector<chart_line> lines{};
    bool log_x = false;
    bool log_y = false;
};

/// Throws `error` for values that the axes do not have.
[[nodiscard]] inline figure draw(line_chart const& of) {
    using namespace detail;
    figure out{.title = of.title,
               .description = "Lines of " + of.y_name + " over " + of.x_name + ":"};
    double low_x = 0.0, high_x = 0.0, low_y = 0.0, high_y = 0.0;
    bool any = false;
    std::vector<std::string> names;
    for (chart_line const& line : of.lines) {
        names.push_back(line.name);
        out.description += (names.size() > 1 ? ", " : " ") + line.name;
        for (chart_point const& p : line.points) {
            check_positive("x of " + line.name, of.log_x, p.x);
            check_positive("y of " + line.name, of.log_y, p.y);
            low_x = any ? std::min(low_x, p.x) : p.x;
            high_x = any ? std::max(high_x, p.x) : p.x;
            low_y = any ? std::min(low_y, p.y) : p.y;
            high_y = any ? std::max(high_y, p.y) : p.y;
            any = true;
        }
    }
    if (!any) {
        throw error("chart: points of " + of.title, "0", "at least 1");
    }
    out.body = svg_words(margin, 20.0, of.title, css("head"));
    double const top = margin + head +
                       legend(out.body, names, margin, margin + head, out.width - margin, true) +
                       24.0;
    plot_area const in{{of.log_x, low_x, high_x, 62.0, out.width - 2.0 * margin},
                       {of.log_y, low_y, high_y, top + 240.0, top},
                       62.0,
                       out.width - 2.0 * margin,
                       top,
                       top + 240.0};
    out.body += frame(in, of.x_name, of.y_name);
    for (std::size_t n = 0; n < of.lines.size(); ++n) {
        std::string path;
        std::string dots;
        for (chart_point const& p : of.lines[n].points) {
            double const x = in.across.at(p.x);
            double const y = in.up.at(p.y);
            path += (path.empty() ? "M" : " L") + svg_place(x) + " " + svg_place(y);
            dots += "<circle cx=\"" + svg_place(x) + "\" cy=\"" + svg_place(y) + "\" r=\"" +
                    (p.marked ? "6" : "3.2") + "\" " + css("edge " + hue('f', n)) + "><title>" +
                    svg_escaped(of.lines[n].name + ": " + short_number(p.x) + ", " +
                                short_number(p.y)) +
                    "</title></circle>\n";
        }
        if (of.lines[n].joined) {
            out.body += "<path d=\"" + path + "\" " + css("curve " + hue('s', n)) + "/>\n";
        }
        out.body += dots;
    }
    out.height = in.bottom + 46.0;
    return out;
}

// --- roofline ------------------------------------------------------------------------------------

struct named_value {
    std::string name;
    double value = 0.0;
};
struct roofline_point {
    std::string name;
    double operations_per_byte = 0.0;
    double operations_per_second = 0.0;
};

/// Operations per second against operations per byte, both logarithmic. What is under no roof is
/// drawn all the same: a reader should see it.
struct roofline {
    std::string title;
    std::vector<named_value> peaks;      ///< operations per second, flat roofs
    std::vector<named_value> bandwidths; ///< bytes per second, slopes
    std::vector<roofline_point> points{};
};

[[nodiscard]] inline figure draw(roofline const& of) {
    using namespace detail;
    figure out{.title = of.title, .description = "Roofline:"};
    if (of.peaks.empty() || of.bandwidths.empty()) {
        throw error("chart: roofs of " + of.title,
                    std::to_string(std::min(of.peaks.size(), of.bandwidths.size())),
                    "at least one peak and one bandwidth");
    }
    double highest = 0.0, widest = 0.0;
    for (auto const& [name, value] : of.peaks) {
        check_positive("peak " + name, true, value);
        highest = std::max(highest, value);
    }
    for (auto const& [name, value] : of.bandwidths) {
        check_positive("bandwidth " + name, true, value);
        widest = std::max(widest, value);
    }
    double const ridge = highest / widest;
    double low_x = ridge / 4.0, high_x = ridge * 4.0;
    double low_y = highest / 10.0, high_y = highest;
    std::vector<std::string> names;
    for (roofline_point const& p : of.points) {
        check_positive("operations per byte of " + p.name, true, p.operations_per_byte);
        check_positive("operations per second of " + p.name, true, p.operations_per_second);
        low_x = std::min(low_x, p.operations_per_byte);
        high_x = std::max(high_x, p.operations_per_byte);
        low_y = std::min(low_y, p.operations_per_second);
        high_y = std::max(high_y, p.operations_per_second);
        names.push_back(p.name);
        out.description += (names.size() > 1 ? ", " : " ") + p.name + " " +
                           short_number(p.operations_per_second) + " per second at " +
                           short_number(p.operations_per_byte) + " per byte";
    }
    out.body = svg_words(margin, 20.0, of.title, css("head"));
    double const top = margin + head +
                       legend(out.body, names, margin, margin + head, out.width - margin, false) +
                       24.0;
    plot_area const in{{true, low_x, high_x, 62.0, out.width - 2.0 * margin},
                       {true, low_y, high_y * 1.4, top + 240.0, top},
                       62.0,
                       out.width - 2.0 * margin,
                       top,
                       top + 240.0};
    out.body += frame(in, "operations per byte of DRAM", "operations per second");
    auto const clip = [&](double y) { return std::clamp(y, in.top, in.bottom); };
    double const first = low_x * 0.9;
    double const last = std::max(high_x, low_x * 1.1) * 1.1;
    std::string labels;            // over all lines
    constexpr double below = 16.0; // the highest roof's name is above it, the others' are not
    for (auto const& [name, value] : of.bandwidths) {
        // From the floor or the left edge to the highest roof.
        double const floor = std::max(first, low_y * 0.9 / value);
        double const end = std::min(last, highest / value);
        if (floor < end) {
            double const x = in.across.at(floor);
            double const y = clip(in.up.at(floor * value));
            double const x_end = in.across.at(end);
            double const y_end = clip(in.up.at(end * value));
            out.body += svg_line(x, y, x_end, y_end, css("axis curve"));
            double const degrees = std::atan2(y_end - y, x_end - x) * 180.0 / 3.14159265358979;
            labels += svg_words(x + 8.0, y + (value < widest ? below : -6.0), name,
                                css("soft halo") + " transform=\"rotate(" + svg_place(degrees) +
                                    " " + svg_place(x) + " " + svg_place(y) + ")\"");
        }
    }
    for (auto const& [name, value] : of.peaks) {
        double const begin = std::max(first, value / widest);
        out.body += svg_line(in.across.at(begin), clip(in.up.at(value)), in.right,
                             clip(in.up.at(value)), css("axis curve"));
        labels += svg_words(in.right, clip(in.up.at(value)) + (value < highest ? below : -9.0),
                            name, css("soft end halo"));
    }
    out.body += labels;
    for (std::size_t n = 0; n < of.points.size(); ++n) {
        roofline_point const& p = of.points[n];
        out.body += "<circle cx=\"" + svg_place(in.across.at(p.operations_per_byte)) + "\" cy=\"" +
                    svg_place(in.up.at(p.operations_per_second)) + "\" r=\"6\" " +
                    css("edge " + hue('f', n)) + "><title>" + svg_escaped(p.name) +
                    "</title></circle>\n";
    }
    out.height = in.bottom + 46.0;
    return out;
}

// --- timeline ------------------------------------------------------------------------------------

struct timeline_span {
    double from = 0.0;
    double to = 0.0;
    std::size_t kind = 0; ///< index of the chart's kinds
    std::string label;    ///< shown where there is room, and on pointing at it
};
struct timeline_track {
    std::string name;
    std::vector<timeline_span> spans;
};

struct timeline_chart {
    std::string title;
    std::string unit; ///< of the time axis
    std::vector<std::string> kinds;
    std::vector<timeline_track> tracks{};
    double width = 960.0; ///< wider than others: a page lets it scroll
};

[[nodiscard]] inline figure draw(timeline_chart const& of) {
    using namespace detail;
    figure out{.title = of.title, .description = "Timeline of", .width = of.width};
    double until = 0.0;
    double names = 0.0;
    for (timeline_track const& track : of.tracks) {
        names = std::max(names, text_width(track.name));
        out.description += (&track == of.tracks.data() ? " " : ", ") + track.name;
        for (timeline_span const& span : track.spans) {
            check_positive("beginning of a span of " + track.name, false, span.from);
            check_positive("end of a span of " + track.name, false, span.to);
            if (span.kind >= of.kinds.size()) {
                throw error("chart: kind of a span of " + track.name, std::to_string(span.kind),
                            "below the number of kinds, " + std::to_string(of.kinds.size()));
            }
            until = std::max(until, span.to);
        }
    }
    out.body = svg_words(margin, 20.0, of.title, css("head"));
    double y = margin + head;
    y += legend(out.body, of.kinds, margin, y, out.width - margin, false) + 8.0;
    double const left = margin + names + 10.0;
    linear_axis const across{until > 0.0 ? until : 1.0, left, out.width - 2.0 * margin};
    double const bottom = y + 26.0 * static_cast<double>(of.tracks.size());
    for (double const tick : across.ticks()) {
        out.body +=
            svg_line(across.at(tick), y, across.at(tick), bottom, css("grid")) +
            svg_words(across.at(tick), bottom + 16.0, short_number(tick), css("soft middle"));
    }
    out.body += svg_words((left + out.width) / 2.0, bottom + 34.0, of.unit, css("soft middle"));
    for (timeline_track const& track : of.tracks) {
        out.body += svg_words(left - 8.0, y + 17.0, track.name, css("end"));
        for (timeline_span const& span : track.spans) {
            double const x = across.at(span.from);
            double const wide = across.at(span.to) - x;
            out.body += box(x, y + 3.0, wide, 20.0, "edge " + hue('f', span.kind),
                            track.name + ", " + of.kinds[span.kind] + ": " + span.label);
            // Only work is numbered: letters on every stall would be noise.
            if (span.kind == 0 && wide > text_width(span.label, 12.0) + 4.0) {
                out.body += svg_words(x + wide / 2.0, y + 17.5, span.label, css("on middle"));
            }
        }
        y += 26.0;
    }
    out.height = bottom + 44.0;
    return out;
}

} // namespace sofattn::io
