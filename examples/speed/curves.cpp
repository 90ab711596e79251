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
#include <map>
#include <set>
#include <sstream>
#include <utility>

namespace sofattn::speed {

namespace {

using io::formatted;

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
    return {m.tokens,   m.kept,      m.error,
            m.over_f32, m.over_bf16, m.over_f32 * m.time_ms / (m.time_ms + m.index_ms)};
}

point mean_of(std::vector<point> const& layers) {
    point mean;
    mean.tokens = layers.front().tokens;
    double const weight = 1.0 / static_cast<double>(layers.size());
    double f32 = 0;
    double bf16 = 0;
    double with_index = 0;
    for (auto const& p : layers) {
        mean.kept += weight * p.kept;
        mean.error += weight * p.error;
        f32 += weight * std::log(p.over_f32);
        bf16 += weight * std::log(p.over_bf16);
        with_index += weight * std::log(p.over_f32_with_index);
    }
    mean.over_f32 = std::exp(f32);
    mean.over_bf16 = std::exp(bf16);
    mean.over_f32_with_index = std::exp(with_index);
    return mean;
}

/// Rows that agree in `across` make one point; curves are sorted by `along` of their means.
template <class Across, class Along>
std::vector<curve> curves_by(std::vector<measurement> const& rows, Across across, Along along) {
    std::vector<curve> result;
    for (bool const recorded : {true, false}) {
        std::map<index_t, std::vector<point>> groups;
        std::set<int> layers;
        for (auto const& row : rows) {
            if (row.recorded == recorded) {
                groups[std::invoke(across, row)].push_back(point_of(row));
                layers.insert(row.layer);
            }
        }
        if (groups.empty()) {
            continue;
        }
        curve one;
        one.name =
            recorded ? (layers.size() > 1 ? "recorded, layers" : "recorded, layer") : "random";
        for (char const* separator = " "; int const layer : layers) {
            one.name += recorded ? std::exchange(separator, ", ") + std::to_string(layer) : "";
        }
        for (auto& group : groups) {
            one.points.push_back({mean_of(group.second), std::move(group.second)});
        }
        std::ranges::sort(one.points, {},
                          [&](auto const& p) { return std::invoke(along, p.mean); });
        result.push_back(std::move(one));
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
    io::table table(
        {"data", "tokens", "kept", "error", "over f32", "over bf16", "over f32, with index"});
    for (auto const& one : list) {
        for (auto const& p : one.points) {
            table.add({one.name, std::to_string(p.mean.tokens),
                       formatted("%.1f %%", 100 * p.mean.kept), formatted("%.4f", p.mean.error),
                       with_range(p, &point::over_f32), with_range(p, &point::over_bf16),
                       with_range(p, &point::over_f32_with_index)});
        }
    }
    return table.markdown();
}

} // namespace

curves curves_of(measurements const& from, choice const& wanted) {
    auto const& files = from.files;
    auto rows = only(from.rows, "--logits", wanted.logits, files, &measurement::logits);
    rows = only(std::move(rows), "--dim", wanted.dim, files, &measurement::dim);
    rows = only(std::move(rows), "--threads", wanted.threads, files, &measurement::threads);
    curves result;
    result.of = wanted;
    result.date = from.date;
    result.over_kept = curves_by(only(rows, "--tokens", wanted.tokens, files, &measurement::tokens),
                                 &measurement::kept_percent, &point::kept);
    result.over_tokens =
        curves_by(only(rows, "--kept", wanted.kept_percent, files, &measurement::kept_percent),
                  &measurement::tokens, &point::tokens);
    return result;
}

std::string to_text(curves const& all) {
    std::string const rest = "dim " + std::to_string(all.of.dim) + ", threads " +
                             std::to_string(all.of.threads) + ", logits " + all.of.logits;
    return "Over the share of keys kept; tokens " + std::to_string(all.of.tokens) + ", " + rest +
           "\n\n" + table_of(all.over_kept) + "\nOver tokens; rows that aim at " +
           std::to_string(all.of.kept_percent) + " % kept, " + rest + "\n\n" +
           table_of(all.over_tokens);
}

} // namespace sofattn::speed
