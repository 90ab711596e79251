// SPDX-License-Identifier: MIT
// What pictures of measurements share: text, lines and axes as pieces of SVG.
#pragma once

#include <array>
#include <cmath>
#include <cstdio>
#include <string>
#include <vector>

namespace sofattn::attend::svg {

[[nodiscard]] inline std::string number(char const* format, double value) {
    std::array<char, 64> text{};
    std::snprintf(text.data(), text.size(), format, value);
    return text.data();
}
/// A coordinate, in pixels.
[[nodiscard]] inline std::string place(double value) { return number("%.1f", value); }

[[nodiscard]] inline std::string escaped(std::string const& text) {
    std::string out;
    for (char const c : text) {
        out += c == '&' ? "&amp;" : c == '<' ? "&lt;" : c == '>' ? "&gt;" : std::string(1, c);
    }
    return out;
}

/// The first two lines of a picture.
[[nodiscard]] inline std::string opening(double width, double height, std::string const& title) {
    return "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 " + place(width) + " " +
           place(height) + "\" width=\"" + place(width) + "\" height=\"" + place(height) +
           "\" font-family=\"sans-serif\">\n<title>" + escaped(title) + "</title>\n";
}

/// `style`: further attributes, as they stand.
[[nodiscard]] inline std::string line(double x1, double y1, double x2, double y2,
                                      std::string const& style) {
    return "<line x1=\"" + place(x1) + "\" y1=\"" + place(y1) + "\" x2=\"" + place(x2) +
           "\" y2=\"" + place(y2) + "\" " + style + "/>\n";
}
[[nodiscard]] inline std::string words(double x, double y, std::string const& text,
                                       std::string const& style) {
    return "<text x=\"" + place(x) + "\" y=\"" + place(y) + "\" " + style + ">" + escaped(text) +
           "</text>\n";
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
    [[nodiscard]] std::vector<double> ticks() const {
        std::vector<double> marks;
        for (double decade = 1e-6; decade < 10; decade *= 10) {
            for (double const step : {1.0, 2.0, 5.0}) {
                if (decade * step >= low * 0.999 && decade * step <= high * 1.001) {
                    marks.push_back(decade * step);
                }
            }
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

} // namespace sofattn::attend::svg
