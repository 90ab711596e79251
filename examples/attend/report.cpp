// SPDX-License-Identifier: MIT
#include "attend/report.hpp"

#include "attend/json.hpp"
#include <sofattn/io/table.hpp>
#include <sofattn/probe/event.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <numeric>
#include <string_view>

namespace sofattn::attend {

namespace {

std::string number(char const* format, double value) {
    std::array<char, 64> text{};
    std::snprintf(text.data(), text.size(), format, value);
    return text.data();
}
std::string percent(double share) { return number("%.1f %%", 100.0 * share); }

// --- text ---

/// Words joined by blanks into lines of at most 100 columns, later ones indented.
std::string wrapped(std::string first, std::vector<std::string> const& words, std::size_t indent) {
    constexpr std::size_t columns = 100;
    std::string text;
    std::string line = std::move(first);
    for (auto const& word : words) {
        if (line.size() + 1 + word.size() > columns) {
            text += line + "\n";
            line = std::string(indent, ' ') + word;
        } else {
            line += (line.ends_with(' ') ? "" : " ") + word;
        }
    }
    return text + line + "\n";
}

std::string heading(layer_report const& layer) {
    std::string text = layer.model + ", layer " + std::to_string(layer.layer) + ": " +
                       std::to_string(layer.query_heads) + " query / " +
                       std::to_string(layer.kv_heads) + " KV heads, " +
                       std::to_string(layer.key_tokens) +
                       " tokens, d = " + std::to_string(layer.head_dim) +
                       (layer.causal ? ", causal" : ", bidirectional");
    if (layer.first_judged_row > 0) {
        text += ", rows from " + std::to_string(layer.first_judged_row);
    }
    return text + "\n";
}

void add_quality(std::vector<std::string>& row, mean_quality const& q) {
    row.push_back(percent(q.kept_share));
    row.push_back(number("%.3f", q.recall));
    row.push_back(number("%.3f", q.mass));
    row.push_back(number("%.4f", q.output_error_relative));
}

/// Two policies side by side, so that a line stays within 100 columns.
constexpr std::size_t policies_per_table = 2;

std::string quality_text(layer_report const& layer, bool all_groups) {
    constexpr std::size_t many_groups = 6;
    std::string text;
    for (std::size_t first = 0; first < layer.policies.size(); first += policies_per_table) {
        std::size_t const last = std::min(first + policies_per_table, layer.policies.size());
        std::vector<std::string> header{"head group"};
        for (std::size_t p = first; p < last; ++p) {
            auto const& policy = layer.policies[p];
            header.insert(header.end(), {p > first ? "| kept" : "kept", "recall", "mass", "error"});
            text +=
                (p > first ? "  | " : "  ") + policy.policy +
                (policy.policy.find('/') != std::string::npos
                     ? std::string()
                     : " = " + policy.predictor + "/" + policy.selector + "/" + policy.attender +
                           (policy.tail.empty() || policy.tail == "none" ? "" : "/" + policy.tail));
        }
        text += "\n";
        io::table table(header);
        auto const add = [&](std::string const& name, auto quality_of) {
            std::vector<std::string> row{name};
            for (std::size_t p = first; p < last; ++p) {
                add_quality(row, quality_of(layer.policies[p]));
            }
            table.add(std::move(row));
        };
        auto const& groups = layer.policies[first].groups;
        std::vector<std::size_t> shown(groups.size());
        std::iota(shown.begin(), shown.end(), std::size_t{0});
        if (groups.size() > many_groups && !all_groups) {
            std::ranges::sort(shown, [&](std::size_t a, std::size_t b) {
                return groups[a].quality.mass < groups[b].quality.mass;
            });
            shown = {shown.front(), shown[shown.size() / 2], shown.back()};
        }
        for (std::size_t const g : shown) {
            add(std::to_string(g), [g](policy_report const& p) { return p.groups[g].quality; });
        }
        add("all " + std::to_string(groups.size()),
            [](policy_report const& p) { return p.overall; });
        text += table.text(2);
    }
    return text;
}

std::string operations_text(run_report const& report) {
    std::string text;
    for (std::size_t p = 0; p < report.layers.front().policies.size(); ++p) {
        probe::ledger sum;
        double seconds = 0;
        for (auto const& layer : report.layers) {
            sum += layer.policies[p].operations;
            seconds += layer.policies[p].time_seconds;
        }
        text += "operations of " + report.layers.front().policies[p].policy + " (" +
                number("%.1f s", seconds) + " on the counting reference)\n";
        bool counted = false;
        for (std::size_t s = 0; s < probe::stage_count; ++s) {
            std::vector<std::string> words;
            for (std::size_t e = 0; e < probe::event_count; ++e) {
                auto const event = static_cast<probe::event>(e);
                auto const count = sum.count(static_cast<probe::stage>(s), event);
                if (count > 0) {
                    std::string name(probe::name(event));
                    if (probe::is_bytes(event)) {
                        name = "B " + name.substr(0, name.find('_'));
                    } else {
                        name = " " + name;
                    }
                    if (!words.empty()) {
                        words.back() += ",";
                    }
                    words.push_back(short_count(static_cast<double>(count)) + name);
                }
            }
            if (!words.empty()) {
                counted = true;
                constexpr std::size_t indent = 20;
                std::string stage = "  " + std::string(probe::name(static_cast<probe::stage>(s)));
                stage.resize(indent, ' ');
                text += wrapped(stage, words, indent);
            }
        }
        if (!counted) {
            text += "  none: the exact predictor is an oracle, not a circuit\n";
        }
    }
    return text;
}

std::string ladder_text(run_report const& report, std::string const& weights) {
    std::vector<std::string> header{"complexity ladder (Fig. 17)", "predict", "select", "attend"};
    for (auto const& table : probe::complexity_tables) {
        header.emplace_back(table.name);
    }
    io::table table(header);
    for (auto const& rung : report.ladder) {
        std::vector<std::string> row{rung.design};
        for (std::size_t w = 0; w < rung.complexity.size(); ++w) {
            auto const& c = rung.complexity[w];
            if (c.weights == weights) {
                double const whole = report.ladder.front().complexity[w].total;
                row.insert(row.end(), {number("%.1f", 100 * c.prediction / whole),
                                       number("%.1f", 100 * c.selection / whole),
                                       number("%.1f", 100 * c.attention / whole)});
            }
        }
        for (std::size_t w = 0; w < rung.complexity.size(); ++w) {
            row.push_back(
                percent(rung.complexity[w].total / report.ladder.front().complexity[w].total));
        }
        table.add(std::move(row));
    }
    std::string text = table.text();
    auto const* chosen =
        std::ranges::find(probe::complexity_tables, weights, &probe::complexity_weights::name);
    std::vector<std::string> words{"weights", "(" + std::string(chosen->unit) + "):"};
    for (std::size_t e = 0; e < probe::event_count; ++e) {
        auto const event = static_cast<probe::event>(e);
        if (chosen->of(event) > 0) {
            words.push_back(std::string(probe::name(event)) + number(" %g", chosen->of(event)));
        }
    }
    return text + wrapped("stages: " + weights, words, 2);
}

} // namespace

std::string short_count(double value) {
    static constexpr std::array<char const*, 6> prefixes{"", "k", "M", "G", "T", "P"};
    std::size_t p = 0;
    while (value >= 999.5 && p + 1 < prefixes.size()) {
        value /= 1000;
        ++p;
    }
    char const* const format = p == 0 || value >= 99.95 ? "%.0f" : value >= 9.995 ? "%.1f" : "%.2f";
    return number(format, value) + " " + prefixes[p];
}

std::vector<complexity_report> complexities_of(probe::ledger const& counts) {
    std::vector<complexity_report> all;
    for (auto const& weights : probe::complexity_tables) {
        complexity_report c;
        c.weights = weights.name;
        c.unit = weights.unit;
        c.prediction = complexity(counts, probe::stage::key_prediction, weights) +
                       complexity(counts, probe::stage::score_prediction, weights);
        c.selection = complexity(counts, probe::stage::selection, weights);
        c.attention = complexity(counts, probe::stage::kv_generation, weights) +
                      complexity(counts, probe::stage::attention, weights);
        c.total = complexity(counts, weights);
        all.push_back(std::move(c));
    }
    return all;
}

std::vector<weights_report> all_weights() {
    std::vector<weights_report> all;
    for (auto const& weights : probe::complexity_tables) {
        weights_report w{
            std::string(weights.name), std::string(weights.unit), std::string(weights.source), {}};
        for (std::size_t e = 0; e < probe::event_count; ++e) {
            auto const event = static_cast<probe::event>(e);
            if (!probe::is_bytes(event)) {
                w.weight.emplace_back(probe::name(event), weights.of(event));
            }
        }
        all.push_back(std::move(w));
    }
    return all;
}

budget_report budget_fields(attention_options const& options) {
    budget_report fields;
    fields.keep_mass = options.budget.mass;
    fields.output_error_spreads = options.budget.output_error;
    fields.maximum_keys = options.budget.at_most;
    if (options.budget.count) {
        fields.keep_count_keys = *options.budget.count;
    } else if (!options.budget.mass && !options.budget.output_error) {
        fields.keep_ratio = options.budget.ratio;
    }
    if (std::isfinite(options.budget.radius)) {
        fields.radius_logits = options.budget.radius;
    }
    fields.minimum_keys = options.budget.at_least;
    fields.sink_keys = options.budget.sinks;
    fields.window_keys = options.budget.window;
    fields.tile_keys = options.tile_keys;
    fields.selection_scope =
        options.scope == selection_scope::per_group ? "per_group" : "per_query_head";
    return fields;
}

nlohmann::ordered_json to_json(run_report const& report) { return detail::value_to_json(report); }

std::string to_text(run_report const& report, std::string const& weights, bool all_groups) {
    std::string text;
    for (auto const& layer : report.layers) {
        text += heading(layer) + quality_text(layer, all_groups);
    }
    if (!report.layers.empty()) {
        text += operations_text(report);
    }
    if (!report.ladder.empty()) {
        text += ladder_text(report, weights);
    }
    return text;
}

std::string weights_text() {
    std::vector<std::string> header{"event"};
    for (auto const& weights : probe::complexity_tables) {
        header.emplace_back(weights.name);
    }
    io::table table(header);
    for (std::size_t e = 0; e < probe::event_count; ++e) {
        auto const event = static_cast<probe::event>(e);
        std::vector<std::string> row{std::string(probe::name(event))};
        for (auto const& weights : probe::complexity_tables) {
            row.push_back(number("%g", weights.of(event)));
        }
        if (!probe::is_bytes(event)) {
            table.add(std::move(row));
        }
    }
    std::string text = table.text(2);
    for (auto const& weights : probe::complexity_tables) {
        text += "  " + std::string(weights.name) + ": in " + std::string(weights.unit) + "; " +
                std::string(weights.source) + "\n";
    }
    return text;
}

} // namespace sofattn::attend
