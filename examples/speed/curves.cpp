// SPDX-License-Identifier: MIT
// Rows as curves: which are shown, and what the mean over layers is.
#include "speed/speed.hpp"
#include <sofattn/core/error.hpp>
#include <sofattn/io/file.hpp>
#include <sofattn/io/svg.hpp>
#include <sofattn/io/table.hpp>

#include <algorithm>
#include <cmath>
#include <functional>
#include <iterator>
#include <map>
#include <set>
#include <sstream>
#include <utility>

namespace sofattn::speed {

namespace {

using io::formatted;

std::string listed(auto const& words) {
    std::string list;
    for (auto const& word : words) {
        list += (list.empty() ? "" : ", ") + word;
    }
    return list;
}

/// The rows for which `of` gives `wanted`.
template <class T, class Of>
std::vector<measurement> only(std::vector<measurement> rows, char const* option, T const& wanted,
                              std::string const& files, Of of) {
    std::set<T> known;
    for (auto const& row : rows) {
        known.insert(std::invoke(of, row));
    }
    if (!known.contains(wanted)) {
        std::ostringstream value;
        std::ostringstream limit;
        value << wanted;
        for (char const* separator = ""; T const& one : known) {
            limit << std::exchange(separator, ", ") << one;
        }
        throw error(option, value.str(),
                    (known.size() == 1 ? "" : "one of ") + limit.str() +
                        ", as in the rows chosen so far of " + files);
    }
    std::erase_if(rows, [&](auto const& row) { return std::invoke(of, row) != wanted; });
    return rows;
}

point point_of(measurement const& m) {
    return {
        m.tokens,   m.kept,      m.error,     m.bf16_error,
        m.over_f32, m.over_bf16, m.over_int8, m.over_f32 * m.time_ms / (m.time_ms + m.index_ms)};
}

point mean_of(std::vector<point> const& layers) {
    point mean;
    mean.tokens = layers.front().tokens;
    double const weight = 1.0 / static_cast<double>(layers.size());
    for (auto const& p : layers) {
        mean.kept += weight * p.kept;
        mean.error += weight * p.error;
        mean.bf16_error += weight * p.bf16_error;
    }
    for (double point::*const speed :
         {&point::over_f32, &point::over_bf16, &point::over_int8, &point::over_f32_with_index}) {
        double sum = 0;
        for (auto const& p : layers) {
            sum += weight * std::log(p.*speed);
        }
        mean.*speed = std::exp(sum);
    }
    return mean;
}

/// Rows of a method on some data; those that agree in `across` make one point. Sorted by `along` of their means.
template <class Across, class Along>
curve curve_of(std::vector<measurement> const& rows, bool recorded, Across across, Along along) {
    std::map<index_t, std::vector<point>> groups;
    std::set<int> layers;
    for (auto const& row : rows) {
        groups[across(row)].push_back(point_of(row));
        layers.insert(row.layer);
    }
    curve one;
    one.method = rows.front().method;
    one.data = !recorded ? "random" : layers.size() > 1 ? "recorded, layers" : "recorded, layer";
    for (char const* separator = " "; int const layer : layers) {
        one.data += recorded ? std::exchange(separator, ", ") + std::to_string(layer) : "";
    }
    for (auto& group : groups) {
        one.points.push_back({mean_of(group.second), std::move(group.second)});
    }
    std::ranges::sort(one.points, {}, [&](auto const& p) { return along(p.mean); });
    return one;
}
template <class Across, class Along>
std::vector<curve> curves_by(std::vector<measurement> const& rows,
                             std::vector<std::string> const& methods, Across across, Along along) {
    std::vector<curve> result;
    for (auto const& method : methods) {
        for (bool const recorded : {true, false}) {
            std::vector<measurement> some;
            std::ranges::copy_if(rows, std::back_inserter(some), [&](auto const& row) {
                return row.method == method && row.recorded == recorded;
            });
            if (!some.empty()) {
                result.push_back(curve_of(some, recorded, across, along));
            }
        }
    }
    return result;
}

/// "1.53" or, where layers differ, "1.53 (1.44 to 1.79)".
std::string with_range(mean_point const& p, double point::*member) {
    auto const [least, most] = std::ranges::minmax(p.layers, {}, member);
    std::string text = formatted("%.2f", p.mean.*member);
    if (p.layers.size() > 1) {
        text += formatted(" (%.2f", least.*member) + formatted(" to %.2f)", most.*member);
    }
    return text;
}

std::string table_of(std::vector<curve> const& list) {
    io::table table({"method, data", "tokens", "kept", "error", "over f32", "over bf16",
                     "over int8", "over f32, with index"});
    for (auto const& one : list) {
        for (auto const& p : one.points) {
            table.add({one.method + ", " + one.data, std::to_string(p.mean.tokens),
                       formatted("%.1f %%", 100 * p.mean.kept), formatted("%.4f", p.mean.error),
                       with_range(p, &point::over_f32), with_range(p, &point::over_bf16),
                       with_range(p, &point::over_int8),
                       with_range(p, &point::over_f32_with_index)});
        }
    }
    return table.markdown();
}

} // namespace

curves curves_of(measurements const& from, choice const& wanted) {
    auto const& files = from.files;
    auto rows = from.rows;
    auto const is_wanted = [&](measurement const& row) {
        return std::ranges::find(wanted.methods, row.method) != wanted.methods.end();
    };
    if (std::ranges::none_of(rows, is_wanted)) {
        std::set<std::string> known;
        for (auto const& row : rows) {
            known.insert(row.method);
        }
        throw error("--methods", listed(wanted.methods),
                    "among " + listed(known) + ", as in " + files);
    }
    std::erase_if(rows, [&](auto const& row) { return !is_wanted(row); });
    rows = only(std::move(rows), "--dim", wanted.dim, files, &measurement::dim);
    rows = only(std::move(rows), "--threads", wanted.threads, files, &measurement::threads);
    curves result;
    result.of = wanted;
    result.date = from.date;
    result.over_error = curves_by(
        only(rows, "--tokens", wanted.tokens, files, &measurement::tokens), wanted.methods,
        [](measurement const& m) { return index_t{m.kept_percent + m.lost_permille}; },
        [](point const& p) { return p.error; });
    // A method has one of the aims, and 0 for the other.
    auto const aims = [&](measurement const& m) {
        return (m.kept_percent == 0 || m.kept_percent == wanted.kept_percent) &&
               (m.lost_permille == 0 || m.lost_permille == wanted.lost_permille);
    };
    auto of_lengths = rows;
    std::erase_if(of_lengths, [&](auto const& row) { return !aims(row); });
    if (of_lengths.empty()) {
        bool const keys =
            std::ranges::any_of(rows, [](auto const& m) { return m.kept_percent > 0; });
        if (keys) {
            only(rows, "--kept", wanted.kept_percent, files, &measurement::kept_percent);
        }
        only(rows, "--lost", wanted.lost_permille, files, &measurement::lost_permille);
    }
    result.over_tokens = curves_by(
        of_lengths, wanted.methods, [](measurement const& m) { return m.tokens; },
        [](point const& p) { return p.tokens; });
    return result;
}

std::string to_text(curves const& all) {
    std::string const rest =
        "dim " + std::to_string(all.of.dim) + ", threads " + std::to_string(all.of.threads);
    return "By the error of the output; tokens " + std::to_string(all.of.tokens) + ", " + rest +
           "\n\n" + table_of(all.over_error) + "\nOver tokens; rows that aim at " +
           std::to_string(all.of.kept_percent) + " % of the keys kept, or at " +
           std::to_string(all.of.lost_permille) + " per mille of the mass lost with pages, " +
           rest + "\n\n" + table_of(all.over_tokens);
}

} // namespace sofattn::speed
