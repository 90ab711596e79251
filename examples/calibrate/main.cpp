// SPDX-License-Identifier: MIT
// sofattn-calibrate: budgets per layer and query head from recorded data, for a total of keys or of
// error.
#include "attend/budgets.hpp"
#include "attend/command.hpp"
#include "attend/dataset.hpp"
#include "attend/evaluate.hpp"
#include "attend/progress.hpp"
#include "attend/runner.hpp"
#include "calibrate/allocate.hpp"
#include <sofattn/core/error.hpp>
#include <sofattn/io/file.hpp>
#include <sofattn/io/table.hpp>

#include <CLI/CLI.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace sofattn::calibrate {
namespace {

struct arguments {
    std::filesystem::path folder;
    std::vector<int> layers;
    std::string policy = "recommended";
    std::optional<double> kept;
    std::optional<double> error;
    std::filesystem::path out;
    bool quiet = false;
};

constexpr char const* introduction =
    "Finds how much output error each query head of each layer may make, so that together they "
    "keep\n"
    "few keys and err little. Heads differ: some lose nothing at 2 % of the keys, others need half "
    "of\n"
    "them. Runs the policy on recorded data (a folder with manifest*.json, as for sofattn-attend) "
    "with\n"
    "a row of budgets and gives every head the same price of an error.\n";

constexpr char const* reading = "\nExamples:\n"
                                "  sofattn-calibrate DIR --kept 0.1 --out budgets.json\n"
                                "  sofattn-calibrate DIR --error 0.03 --out budgets.json\n"
                                "  sofattn-attend DIR --policy recommended --budgets budgets.json\n"
                                "\n"
                                "Exit codes: 0 done, 2 bad input (one line on standard error).";

void declare(CLI::App& app, arguments& a) {
    auto const share = [](double x) { return x > 0 && x <= 1; };
    auto const checked = [&](char const* limit, auto accepted) {
        return CLI::Validator(
            [limit = std::string(limit), accepted](std::string const& text) {
                double value = 0;
                return CLI::detail::lexical_cast(text, value) && accepted(value)
                           ? std::string()
                           : "value is " + io::quoted(text) + ", must be " + limit;
            },
            "");
    };
    app.add_option("FOLDER", a.folder, "Folder with manifest*.json")->required();
    app.add_option("--layers", a.layers, "Only these layer numbers, e.g. 5,16")
        ->delimiter(',')
        ->allow_extra_args(false);
    app.add_option("--policy", a.policy,
                   "recommended, or PREDICTOR/adaptive/sufa/TAIL; its selector must be adaptive");
    auto* kept = app.add_option("--kept", a.kept, "Mean share of keys to keep, in (0, 1]");
    auto* error =
        app.add_option("--error", a.error, "Or: mean relative output error to reach, above 0");
    kept->check(checked("a number in (0, 1]", share))->excludes(error);
    error->check(
        checked("a finite number above 0", [](double x) { return x > 0 && std::isfinite(x); }));
    app.add_option("--out", a.out, "Write the table to this file")->required();
    app.add_flag("--quiet", a.quiet, "No progress bar");
}

/// Halving steps over the useful range of errors, in spreads of the values.
std::vector<double> settings() {
    std::vector<double> list;
    for (double error = 0.16; error > 0.0003; error /= std::sqrt(2.0)) {
        list.push_back(error);
    }
    return list;
}

std::vector<std::size_t> chosen_layers(attend::dataset const& data, arguments const& a) {
    std::vector<std::size_t> chosen;
    for (std::size_t at = 0; at < data.layers().size(); ++at) {
        if (a.layers.empty() ||
            std::ranges::find(a.layers, data.layers()[at].layer) != a.layers.end()) {
            chosen.push_back(at);
        }
    }
    if (chosen.empty()) {
        throw sofattn::error(io::shown(a.folder) + ": --layers",
                             a.layers.empty() ? "no layer" : std::to_string(a.layers.front()),
                             "a layer of the folder");
    }
    return chosen;
}

std::string number(char const* format, double value) {
    std::array<char, 64> text{};
    std::snprintf(text.data(), text.size(), format, value);
    return text.data();
}

std::string to_text(attend::budget_table const& table) {
    io::table rows({"layer", "heads", "output error budget", "kept", "error"});
    for (auto const& layer : table.layers) {
        double least = layer.heads.front().output_error_spreads;
        double most = least;
        double kept = 0;
        double error = 0;
        for (auto const& head : layer.heads) {
            least = std::min(least, head.output_error_spreads);
            most = std::max(most, head.output_error_spreads);
            kept += head.kept_share / static_cast<double>(layer.heads.size());
            error += head.output_error_relative / static_cast<double>(layer.heads.size());
        }
        rows.add({layer.model.substr(0, layer.model.find(' ')) + " " + std::to_string(layer.layer),
                  std::to_string(layer.heads.size()),
                  number("%.4f", least) + " to " + number("%.4f", most),
                  number("%.1f %%", 100 * kept), number("%.4f", error)});
    }
    rows.add({"all", "", "", number("%.1f %%", 100 * table.kept_share),
              number("%.4f", table.output_error_relative)});
    return rows.markdown();
}

int run(CLI::App const&, arguments const& a) {
    if (!a.kept && !a.error) {
        throw error("--kept or --error", "missing", "one of them given");
    }
    attend::named_policy base = attend::find_policy(a.policy);
    if (!base.reads_weights()) {
        throw error("--policy", io::quoted(a.policy), "one with an adaptive selector");
    }
    auto const data = attend::dataset::of_folder(a.folder);
    auto const layers = chosen_layers(data, a);
    { io::atomic_file const tried(a.out); } // before the work; whoever stops it leaves no file

    std::vector<attend::named_policy> policies;
    for (double const setting : settings()) {
        policies.push_back(base);
        policies.back().options.budget.mass.reset();
        policies.back().options.budget.output_error = setting;
    }
    attend::budget_table table;
    table.policy = base.predictor + "/" + base.selector + "/" + base.attender + "/" + base.tail;
    std::vector<std::vector<measured>> heads; // of all layers
    attend::progress_bar bar(!a.quiet);
    for (std::size_t l = 0; l < layers.size(); ++l) {
        auto const given = data.load(layers[l]);
        auto const& info = given.info;
        constexpr index_t settled = 256; // as sofattn-attend judges
        index_t const first = info.causal && info.queries > settled ? settled : 0;
        auto const outcomes = attend::evaluate(
            attend::layer_views::of(given), policies, policies.size(), first, [&](double share) {
                bar.update((static_cast<double>(l) + share) / static_cast<double>(layers.size()),
                           info.model + ", layer " + std::to_string(info.layer));
            });
        attend::layer_budgets layer{info.model, info.layer, {}};
        for (std::size_t h = 0; h < info.q_heads.size(); ++h) {
            layer.heads.push_back({info.q_heads[h], 0, 0, 0});
            heads.emplace_back();
            for (std::size_t s = 0; s < policies.size(); ++s) {
                auto const& q = outcomes[s].heads[h];
                heads.back().push_back(
                    {*policies[s].options.budget.output_error, q.kept_share(), q.error()});
            }
        }
        table.layers.push_back(std::move(layer));
    }
    bar.clear();
    auto const found = allocate(heads, {a.kept, a.error});
    if (!found) {
        throw error(a.kept ? "--kept" : "--error", number("%g", a.kept ? *a.kept : *a.error),
                    "within reach of budgets from " + number("%g", settings().back()) + " to " +
                        number("%g", settings().front()) + " spreads");
    }
    table.kept_share = found->kept_share;
    table.output_error_relative = found->error;
    std::size_t next = 0;
    for (auto& layer : table.layers) {
        for (auto& head : layer.heads) {
            measured const& m = heads[next][found->choice[next]];
            head.output_error_spreads = m.setting;
            head.kept_share = m.kept_share;
            head.output_error_relative = m.error;
            ++next;
        }
    }
    io::atomic_file out(a.out);
    out.write(attend::to_json_text(table));
    out.commit();
    std::fputs(to_text(table).c_str(), stdout);
    return 0;
}

} // namespace
} // namespace sofattn::calibrate

int main(int argc, char** argv) {
    using namespace sofattn::calibrate;
    return sofattn::attend::command<arguments>{"sofattn-calibrate", introduction, reading, declare,
                                               run}(argc, argv);
}
