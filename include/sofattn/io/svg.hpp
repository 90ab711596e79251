// SPDX-License-Identifier: MIT
// What pictures share: text, lines and axes as pieces of SVG.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdio>
#include <string>
#include <string_view>
#include <vector>

namespace sofattn::io {

[[nodiscard]] inline std::string formatted(char const* format, double value) {
    std::array<char, 64> text{};
    std::snprintf(text.data(), text.size(), format, value);
    return text.data();
}
/// A coordinate, in pixels.
[[nodiscard]] inline std::string svg_place(double value) { return formatted("%.1f", value); }

/// Fit for text and for attributes in double quotes.
[[nodiscard]] inline std::string svg_escaped(std::string_view text) {
    std::string out;
    for (char const c : text) {
        auto const byte = static_cast<unsigned char>(c);
        switch (c) {
        case '&': out += "&amp;"; break;
        case '<': out += "&lt;"; break;
        case '>': out += "&gt;"; break;
        case '"': out += "&quot;"; break;
        case '\n':
        case '\t': out += ' '; break;
        default: out += byte < 0x20 || byte == 0x7f ? '?' : c; break; // not allowed in XML
        }
    }
    return out;
}

/// The first two lines of a picture.
[[nodiscard]] inline std::string svg_opening(double width, double height,
                                             std::string const& title) {
    return "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 " + svg_place(width) + " " +
           svg_place(height) + "\" width=\"" + svg_place(width) + "\" height=\"" +
           svg_place(height) + "\" font-family=\"sans-serif\">\n<title>" + svg_escaped(title) +
           "</title>\n";
}

/// `style`: further attributes, as they stand.
[[nodiscard]] inline std::string svg_line(double x1, double y1, double x2, double y2,
                                          std::string const& style) {
    return "<line x1=\"" + svg_place(x1) + "\" y1=\"" + svg_place(y1) + "\" x2=\"" + svg_place(x2) +
           "\" y2=\"" + svg_place(y2) + "\" " + style + "/>\n";
}
[[nodiscard]] inline std::string svg_words(double x, double y, std::string const& text,
                                           std::string const& style) {
    return "<text x=\"" + svg_place(x) + "\" y=\"" + svg_place(y) + "\" " + style + ">" +
           svg_escaped(text) + "</text>\n";
}

/// A logarithmic axis that covers the given values.
struct log_axis {
    double low;
    double high;
    double from; ///< place of low
    double to;   ///< place of high

    [[nodiscard]] double at(double value) const {
        return from + (to - from) * std::log(value / low) / std::log(high / low);
    }
    /// 1, 2 and 5 times the powers of ten.
    [[nodiscard]] std::vector<double> ticks() const {
        std::vector<double> marks;
        for (auto exponent = static_cast<int>(std::floor(std::log10(low)));
             std::pow(10.0, exponent) <= high * 1.001; ++exponent) {
            for (double const step : {1.0, 2.0, 5.0}) {
                double const mark = step * std::pow(10.0, exponent);
                if (mark >= low * 0.999 && mark <= high * 1.001) {
                    marks.push_back(mark);
                }
            }
        }
        return marks;
    }
    /// No more than `most` of them: powers of ten only, or every second one, and so on.
    [[nodiscard]] std::vector<double> ticks(std::size_t most) const {
        std::vector<double> marks = ticks();
        for (int every = 1; marks.size() > most && every < 100; ++every) {
            marks = ticks();
            std::erase_if(marks, [&](double mark) {
                double const exponent = std::round(std::log10(mark));
                return std::abs(std::log10(mark) - exponent) > 1e-6 ||
                       std::abs(std::remainder(exponent, every)) > 0.5;
            });
        }
        return marks;
    }
};

/// A linear axis from 0.
struct linear_axis {
    double high;
    double from; ///< place of 0
    double to;   ///< place of high

    [[nodiscard]] double at(double value) const { return from + (to - from) * value / high; }
    /// At most eight beside 0, at multiples of 1, 2 or 5 times a power of ten.
    [[nodiscard]] std::vector<double> ticks() const {
        double const decade = std::pow(10.0, std::floor(std::log10(high / 8)));
        double step = 10 * decade;
        for (double const factor : {5.0, 2.0, 1.0}) {
            step = high / (factor * decade) <= 8 ? factor * decade : step;
        }
        std::vector<double> marks;
        for (int i = 0; i * step <= high * 1.001; ++i) {
            marks.push_back(i * step);
        }
        return marks;
    }
};

} // namespace sofattn::io
