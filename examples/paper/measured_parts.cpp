// SPDX-License-Identifier: MIT
// Parts that are measured on recorded data, by the programs beside this one.
#include "attend/frontier.hpp"
#include "attend/row_kinds.hpp"
#include "hw/measured.hpp"
#include "hw/report.hpp"
#include "paper/part.hpp"
#include <sofattn/core/error.hpp>
#include <sofattn/io/charts.hpp>
#include <sofattn/io/file.hpp>
#include <sofattn/probe/complexity.hpp>
#include <sofattn/probe/event.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <iterator>
#include <map>
#include <utility>

namespace sofattn::paper {

namespace {

using hw::number;
using hw::status;

std::string sample_data(inputs const& in) {
    return "the sample, " + io::shown(in.sample) + ": gte-small layer 5, TinyLlama layer 16";
}

/// "TinyLlama-1.1B 16" of a model's long name and a layer.
std::string layer_name(std::string const& model, std::string const& layer) {
    std::string const first = model.substr(0, model.find_first_of(" ,"));
    std::size_t const chat = first.find("-Chat");
    return first.substr(0, chat) + " " + layer;
}

/// What is within `tolerance` of the paper is reproduced.
hw::table_row judged(std::string table, std::string what, double paper, double ours,
                     std::string unit, double tolerance, std::string reason) {
    return {std::move(table),
            std::move(what),
            paper,
            ours,
            std::move(unit),
            std::abs(ours - paper) <= tolerance ? status::reproduced : status::contradicted,
            std::move(reason)};
}

/// As sofattn-hw tables --sample measures it, once for all parts of a sample.
std::vector<hw::table_row> const& sample_rows(inputs const& in) {
    static std::map<std::filesystem::path, std::vector<hw::table_row>> known;
    auto at = known.find(in.sample);
    if (at == known.end()) {
        at = known.emplace(in.sample, hw::measured_rows(in.sample)).first;
    }
    return at->second;
}

// --- Fig. 5 --------------------------------------------------------------------------------------

double operations(json const& policy) {
    for (json const& one : policy.at("complexity")) {
        if (one.at("weights") == "sofa_inferred") {
            return one.at("total").get<double>();
        }
    }
    throw error("complexity", "missing", "given under the weights sofa_inferred");
}

double attention_count(json const& policy, char const* what) {
    return policy.at("operations").at("attention").at(what).get<double>();
}

double weight(probe::event of) { return probe::sofa_weights.of(of); }

/// One layer's policies: tiled, then whole rows.
struct both {
    std::string name;
    json const& layer;
    json const& tiled;
    json const& whole;

    static both of(json const& layer) {
        std::string const number = std::to_string(layer.at("layer").get<int>());
        return {layer_name(layer.at("model"), number), layer, layer.at("policies").at(0),
                layer.at("policies").at(1)};
    }
    [[nodiscard]] double times() const { return operations(tiled) / operations(whole); }
    [[nodiscard]] std::string dim() const {
        return "d = " + std::to_string(layer.at("head_dim").get<int>());
    }
    /// Of a row, what tiles cost more.
    [[nodiscard]] double extra(char const* what) const {
        return (attention_count(tiled, what) - attention_count(whole, what)) /
               (layer.at("query_heads").get<double>() * layer.at("query_tokens").get<double>());
    }
};

/// Bc = 4, where the paper has half as much work again.
void add_overhead(findings& into, both const& b) {
    into.rows.push_back(judged("Fig. 5", "work at Bc = 4, " + b.name, 1.5, b.times(), "x", 0.15,
                               "of FlashAttention-2 over softmax of whole rows, " + b.dim() +
                                   ", weights sofa_inferred, under which a product weighs " +
                                   number("%g", weight(probe::event::multiply)) +
                                   "; the paper names neither d nor its weights"));
}

/// Bc = 16, scaled to the paper's 2048 rows of 2048 keys; rows that see all keys.
void add_extra_counts(findings& into, both const& b) {
    constexpr double keys = 2048;
    double const scale = keys / b.layer.at("key_tokens").get<double>(); // of a row's tiles
    into.rows.push_back(
        {"Fig. 5", "extra exp, counted", 9e6,
         b.extra("exp_count") * scale * keys * weight(probe::event::exp), "ops", status::calibrated,
         "counted on " + b.name + ", scaled to 2048 rows of 2048 keys; the same weight"});
    into.rows.push_back(judged(
        "Fig. 5", "extra compares, counted", 3e5, b.extra("compare_count") * keys, "ops", 1e5,
        "counted likewise: a softmax of whole rows compares inside a tile as well, so only "
        "one more per row remains"));
}

/// What FlashAttention-2 does more than a softmax over whole rows, counted.
findings figure5(inputs const& in, tools& run) {
    static constexpr std::array<index_t, 4> tiles{4, 8, 16, 64};
    findings found{.rows = rows_of(hw::paper_rows(), {"Fig. 5"})};
    io::line_chart chart{.title = "FlashAttention-2 over plain softmax",
                         .x_name = "Bc, keys per tile",
                         .y_name = "operations, times",
                         .log_x = true,
                         .log_y = true};
    for (index_t const tile : tiles) {
        json const result =
            run.run("sofattn-attend",
                    {io::shown(in.sample), "--policy", "unpredicted/keep_all/flash_attention_2",
                     "--policy", "unpredicted/keep_all/two_pass", "--tile", std::to_string(tile),
                     "--no-ladder", "--quiet"},
                    "fig5_" + std::to_string(tile));
        for (std::size_t l = 0; l < result.at("layers").size(); ++l) {
            both const b = both::of(result.at("layers")[l]);
            if (chart.lines.size() <= l) {
                chart.lines.push_back({b.name + ", " + b.dim(), {}});
            }
            chart.lines[l].points.push_back({static_cast<double>(tile), b.times()});
            if (tile == 4) {
                add_overhead(found, b);
            }
            if (tile == 16 && !b.layer.at("causal").get<bool>()) {
                add_extra_counts(found, b);
            }
        }
    }
    found.figures.push_back(
        {draw(chart), "Counted on the sample's layers, under the weights sofa_inferred."});
    return found;
}

// --- Fig. 8 --------------------------------------------------------------------------------------

std::string recorded_data(inputs const& in) {
    return (in.recorded == in.sample ? "the sample, " : "all layers recorded in ") +
           io::shown(in.recorded) + "; segments on the sample, " + io::shown(in.sample);
}

/// The rule of kinds, in words.
std::string rule_text() {
    attend::row_rule const rule;
    return "the paper gives no rule; ours: a row's dominant keys are the fewest with " +
           number("%.0f %% of its mass, up to ", 100 * rule.mass) + std::to_string(rule.few_keys) +
           number(" are kind I, %.0f %% of more in one of ", 100 * rule.region_share) +
           std::to_string(rule.regions) + " regions kind III; mean over ";
}

void add_row_kinds(findings& into, inputs const& in, tools& run) {
    json const result =
        run.run("sofattn-attend", {io::shown(in.recorded), "--study", "rows", "--quiet"}, "fig8");
    io::stacked_bars chart{.title = "Kinds of score rows",
                           .unit = "%",
                           .parts = {"I: a few tokens", "II: spread", "III: one region"},
                           .as_shares = true};
    io::table table({"layer", "I", "II", "III", "I at mass 0.5", "I at mass 0.9"});
    struct sums {
        double layers = 0;
        std::array<double, 3> kinds{};
    };
    std::array<sums, 2> all; // encoders, decoders
    std::map<std::string, std::map<double, double>> few;
    auto const kinds_of = [](json const& one) {
        return std::array{100 * one.at("few_share").get<double>(),
                          100 * one.at("spread_share").get<double>(),
                          100 * one.at("concentrated_share").get<double>()};
    };
    auto const name_of = [](json const& one) {
        return layer_name(one.at("model"), std::to_string(one.at("layer").get<int>()));
    };
    for (json const& one : result.at("row_kinds")) {
        few[name_of(one)][one.at("mass").get<double>()] = kinds_of(one)[0];
    }
    for (json const& one : result.at("row_kinds")) {
        if (one.at("mass").get<double>() != attend::row_rule{}.mass) {
            continue;
        }
        auto const kinds = kinds_of(one);
        std::string const name = name_of(one);
        chart.bars.push_back({name, {kinds[0], kinds[1], kinds[2]}});
        table.add({name, number("%.1f %%", kinds[0]), number("%.1f %%", kinds[1]),
                   number("%.1f %%", kinds[2]), number("%.1f %%", few[name][0.5]),
                   number("%.1f %%", few[name][0.9])});
        sums& of = all[one.at("causal").get<bool>() ? 1 : 0];
        of.layers += 1;
        for (std::size_t n = 0; n < kinds.size(); ++n) {
            of.kinds[n] += kinds[n];
        }
    }
    for (std::size_t n = 0; n < all.size(); ++n) {
        if (all[n].layers == 0) {
            continue;
        }
        std::string const model = n == 0 ? "encoder" : "decoder";
        std::string reason = rule_text();
        reason.append(number("%.0f", all[n].layers)).append(" ").append(model).append(" layer");
        reason += all[n].layers == 1 ? "" : "s";
        auto const mean = [&](std::size_t kind) { return all[n].kinds[kind] / all[n].layers; };
        constexpr double points = 10;
        if (n == 1) { // printed for ViT, GPT-2 and Llama
            into.rows.push_back(
                judged("Fig. 8", "kind I, decoder", 25, mean(0), "%", points, reason));
        }
        into.rows.push_back(
            judged("Fig. 8", "kind II, " + model, 76, mean(1), "%", points, reason));
        into.rows.push_back(judged("Fig. 8", "kinds I and II, " + model, 95, mean(0) + mean(1), "%",
                                   points, reason));
    }
    into.figures.push_back({draw(chart), "By the rule of the notes, at 80 % of the mass."});
    into.tables.push_back(
        {"Shares of rows by kind, at 80 % of the mass, and how kind I depends on that:",
         std::move(table)});
}

/// Section III-B: the top k of a row against the union of its segments' top k/n.
void add_segments(findings& into, inputs const& in, tools& run) {
    struct layer {
        int number;
        char const* tile; ///< a quarter of its keys
        char const* name;
    };
    for (layer const& of : {layer{5, "128", "gte-small"}, layer{16, "512", "TinyLlama"}}) {
        json const result =
            run.run("sofattn-attend",
                    {io::shown(in.sample), "--layers", std::to_string(of.number), "--policy",
                     "exact/sads/sufa", "--policy", "exact/sads_strided/sufa", "--ratio", "0.25",
                     "--tile", of.tile, "--no-ladder", "--quiet"},
                    std::string("segments_") + of.name);
        json const& policies = result.at("layers").at(0).at("policies");
        for (std::size_t p = 0; p < 2; ++p) {
            double const differing =
                100 * (1 - policies.at(p).at("overall").at("recall").get<double>());
            into.rows.push_back(judged(
                "Sec. III-B", std::string(p == 0 ? "neighbours, " : "every n-th key, ") + of.name,
                3, differing, "%", 2,
                p == 0 ? "share of kept indices not in the true top 25 %, 4 segments, exact "
                         "scores; segments are neighbouring keys, as in the paper"
                       : "likewise, segments of every fourth key: near keys have like scores, so "
                         "a segment of neighbours is no fair sample of a row"));
        }
    }
}

findings figure8(inputs const& in, tools& run) {
    findings found;
    add_row_kinds(found, in, run);
    add_segments(found, in, run);
    return found;
}

// --- Fig. 17, 20a --------------------------------------------------------------------------------

findings figure17(inputs const& in, tools& run) {
    run.note("sofattn-hw tables --sample " + io::shown(in.sample));
    std::vector<hw::table_row> rows = rows_of(hw::paper_rows(), {"Sec. III-C"});
    auto const measured = rows_of(sample_rows(in), {"Fig. 17", "Sec. III-C"});
    rows.insert(rows.begin(), measured.begin(), measured.end());
    findings found{.rows = std::move(rows)};
    found.figures.push_back(
        {compared_bars("Complexity, of 4-bit + full sort + FA-2", "%",
                       rows_of(found.rows, {"Fig. 17"})),
         "Counted operations under the weights sofa_inferred, one stage exchanged after the "
         "other."});
    return found;
}

findings figure20(inputs const& in, tools& run) {
    run.note("sofattn-hw tables --sample " + io::shown(in.sample));
    findings found{.rows = rows_of(sample_rows(in), {"Fig. 20a"})};
    found.figures.push_back({compared_bars("Memory accesses saved", "%", found.rows),
                             "RASS alone in vectors; with tiles in bytes."});
    return found;
}

// --- Fig. 18 -------------------------------------------------------------------------------------

std::vector<attend::frontier_series> series_of(json const& frontier) {
    std::vector<attend::frontier_series> all;
    for (json const& one : frontier.at("series")) {
        attend::frontier_series series{one.at("name"), one.at("budget"), {}};
        for (json const& p : one.at("points")) {
            attend::frontier_point point;
            point.setting = p.at("setting").get<double>();
            json const& q = p.at("quality");
            point.quality.kept_share = q.at("kept_share").get<double>();
            point.quality.output_error_relative = q.at("output_error_relative").get<double>();
            series.points.push_back(point);
        }
        all.push_back(std::move(series));
    }
    return all;
}

/// Kept share against error: what Fig. 18 is of, without fine-tuned models.
findings figure18(inputs const& in, tools& run) {
    findings found{.rows = rows_of(hw::paper_rows(), {"Fig. 18"})};
    json const result = run.run("sofattn-attend",
                                {io::shown(in.sample), "--study", "frontier", "--quiet"}, "fig18");
    static constexpr std::array<double, 3> kept{0.074, 0.123, 0.187};
    io::table table({"layer, keys chosen by", "error at 7.4 % kept", "12.3 %", "18.7 %"});
    static constexpr std::array shown{"paper preset", "dlzs8, error, segment means", "int8, ratio",
                                      "int8, error, segment means"};
    for (json const& one : result.at("frontiers")) {
        std::string const name = layer_name(one.at("model"), one.at("layers"));
        io::line_chart chart{.title = name,
                             .x_name = "kept, % of keys",
                             .y_name = "relative output error",
                             .log_x = true,
                             .log_y = true};
        for (attend::frontier_series const& series : series_of(one)) {
            std::vector<std::string> cells{name + ": " + series.name};
            for (double const share : kept) {
                double const error = attend::error_at(series, share);
                cells.push_back(error >= 0 ? number("%.3f", error) : "-");
            }
            table.add(std::move(cells));
            if (std::ranges::find(shown, series.name) == shown.end()) {
                continue;
            }
            io::chart_line line{series.name, {}};
            for (attend::frontier_point const& p : series.points) {
                if (p.quality.kept_share > 0 && p.quality.output_error_relative > 0) {
                    line.points.push_back(
                        {100 * p.quality.kept_share, p.quality.output_error_relative});
                }
            }
            std::ranges::sort(line.points, {}, &io::chart_point::x);
            chart.lines.push_back(std::move(line));
        }
        found.figures.push_back({draw(chart), "Error of the attention output, mean over heads, "
                                              "against dense attention; no model is tuned."});
    }
    found.tables.push_back({"Relative output error at the shares that Fig. 18 keeps, mean over "
                            "heads; a dash where a series does not reach:",
                            std::move(table)});
    found.notes.emplace_back(
        "The paper's losses are of tasks, after fine-tuning; ours are of the attention output of "
        "models that were never trained for it, so the two have no common scale.");
    return found;
}

} // namespace

std::vector<part> measured_parts() {
    return {
        {"fig5", "Fig. 5: what FlashAttention-2 costs more", sample_data, figure5},
        {"fig8", "Fig. 8 and Sec. III-B: kinds of rows, and segments", recorded_data, figure8},
        {"fig17", "Fig. 17 and Sec. III-C: complexity", sample_data, figure17},
        {"fig18", "Fig. 18: kept work against loss", sample_data, figure18},
        {"fig20", "Fig. 20a: memory accesses", sample_data, figure20},
        search_part(),
    };
}

std::vector<part> all_parts() {
    std::vector<part> parts = machine_parts();
    std::ranges::move(measured_parts(), std::back_inserter(parts));
    static constexpr std::array order{"table2", "table3", "table4", "fig3",       "fig5",
                                      "fig7",   "fig8",   "fig15",  "fig17",      "fig18",
                                      "fig19",  "fig20",  "fig21",  "algorithm1", "rest"};
    auto const place = [](part const& p) {
        return std::ranges::find(order, p.name) - order.begin();
    };
    std::ranges::stable_sort(parts, {}, place);
    return parts;
}

} // namespace sofattn::paper
