// SPDX-License-Identifier: MIT
// sofattn-attend: sparse attention on recorded Q, K, V, judged against dense attention.
#include "attend/arguments.hpp"
#include "attend/budgets.hpp"
#include "attend/certify.hpp"
#include "attend/command.hpp"
#include "attend/dataset.hpp"
#include "attend/evaluate.hpp"
#include "attend/frontier.hpp"
#include "attend/progress.hpp"
#include "attend/report.hpp"
#include "attend/row_kinds.hpp"
#include "attend/runner.hpp"
#include "attend/study.hpp"
#include <sofattn/attention/presets.hpp>
#include <sofattn/core/error.hpp>
#include <sofattn/io/file.hpp>
#include <sofattn/sads/row_selectors.hpp>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace sofattn::attend {
namespace {

dataset open(arguments const& a) {
    if (!a.q.empty()) {
        return dataset::of_arrays(a.q, a.k, a.v, !a.bidirectional, a.scale);
    }
    if (a.folder.empty()) {
        throw error("input", "missing", "a FOLDER, or --q, --k and --v");
    }
    return dataset::of_folder(a.folder);
}

std::string input_name(arguments const& a) {
    return a.q.empty() ? a.folder.string() : a.q.string();
}

std::vector<std::size_t> chosen_layers(dataset const& data, arguments const& a) {
    std::vector<std::size_t> chosen;
    std::vector<int> unknown = a.layers;
    for (std::size_t at = 0; at < data.layers().size(); ++at) {
        int const number = data.layers()[at].layer;
        if (a.layers.empty() || std::ranges::find(a.layers, number) != a.layers.end()) {
            chosen.push_back(at);
            std::erase(unknown, number);
        }
    }
    if (!unknown.empty()) {
        std::string known;
        for (auto const& info : data.layers()) {
            known += known.empty() ? "" : ", ";
            known += std::to_string(info.layer);
        }
        throw error(input_name(a) + ": --layers", std::to_string(unknown.front()),
                    "one of " + known);
    }
    return chosen;
}

void apply_budget(arguments const& a, named_policy& policy) {
    attention_options& options = policy.options;
    auto& budget = options.budget;
    if (policy.reads_weights()) {
        budget.at_most = a.maximum;
        if (a.mass || a.output_error) {
            budget.mass = a.mass;
            budget.output_error = a.output_error;
        }
    } else {
        if (a.ratio) {
            budget.ratio = *a.ratio;
            budget.count.reset();
        }
        budget.count = a.count ? a.count : budget.count;
    }
    budget.radius = a.radius.value_or(budget.radius);
    budget.at_least = a.minimum.value_or(budget.at_least);
    budget.sinks = a.sinks.value_or(budget.sinks);
    budget.window = a.window.value_or(budget.window);
    options.tile_keys = a.tile_keys.value_or(options.tile_keys);
    if (a.scope == "group") {
        options.scope = selection_scope::per_group;
    }
}

std::vector<named_policy> chosen_policies(arguments const& a) {
    std::vector<named_policy> policies;
    bool counts = false;
    bool weights = false;
    for (auto const& name : a.policies) {
        policies.push_back(find_policy(name));
        counts = counts || policies.back().reads_count();
        weights = weights || policies.back().reads_weights();
        apply_budget(a, policies.back());
        if (policies.back().selector == sads::threshold::name && !a.radius) {
            throw error("policy " + io::quoted(name) + ": --radius", "missing",
                        "given, as threshold looks at no count and would keep every key");
        }
    }
    // An option that no policy reads is a misunderstanding.
    if ((a.ratio || a.count) && !counts) {
        throw error(
            a.ratio ? "--ratio" : "--count", "given",
            "left out: no policy here reads it (adaptive ones read --mass, --output-error)");
    }
    if ((a.mass || a.output_error || a.maximum || !a.budgets.empty()) && !weights) {
        throw error(a.mass           ? "--mass"
                    : a.output_error ? "--output-error"
                    : a.maximum      ? "--maximum"
                                     : "--budgets",
                    "given", "left out: no policy here has an adaptive selector");
    }
    return policies;
}

/// The policies as they run on one layer: with its heads' budgets, where there is a table of them.
std::vector<named_policy> for_layer(std::vector<named_policy> policies, layer_info const& info,
                                    budget_table const& table, arguments const& a) {
    for (auto& policy : policies) {
        if (!a.budgets.empty() && policy.reads_weights()) {
            policy.options.head_budgets = budgets_of(table, a.budgets, info, policy.options.budget);
        }
    }
    return policies;
}

/// A budget means nothing to a policy that keeps every key.
bool selects(named_policy const& policy) { return policy.selector != sads::keep_all::name; }

/// Fig. 17: one stage after the other is exchanged, all at one budget, that of the first policy
/// that has a ratio or a count, or a tenth.
struct rung {
    char const* design;
    char const* policy;
};
constexpr std::array<rung, 4> ladder{
    {{"4-bit + full sort + FA-2", "int4/full_topk/flash_attention_2"},
     {"DLZS + full sort + FA-2", "dlzs8/full_topk/flash_attention_2"},
     {"DLZS + SADS + FA-2", "dlzs8/sads/flash_attention_2"},
     {"DLZS + SADS + SU-FA", "dlzs8/sads/sufa"}}};

/// Bad budgets are found before anything is computed.
void validate(dataset const& data, std::vector<std::size_t> const& layers,
              std::vector<named_policy> const& policies, budget_table const& table,
              arguments const& a) {
    for (std::size_t const at : layers) {
        layer_info const& info = data.layers()[at];
        problem_shape shape;
        shape.heads = info.heads;
        shape.kv_heads = info.kv_heads;
        shape.keys = info.keys;
        for (auto const& policy : for_layer(policies, info, table, a)) {
            try {
                policy.options.validate(shape);
            } catch (error const& e) {
                throw error(input_name(a) + ": layer " + std::to_string(info.layer) + ", " +
                                policy.name + ": " + e.subject(),
                            e.value(), e.limit());
            }
        }
        if (a.first_row && (*a.first_row < 0 || *a.first_row >= info.queries)) {
            throw error(input_name(a) + ": --first-row", std::to_string(*a.first_row),
                        "from 0 to " + std::to_string(info.queries - 1));
        }
    }
}

index_t first_judged_row(layer_info const& info, arguments const& a) {
    constexpr index_t settled = 256; // short causal rows keep everything and would flatter
    return a.first_row.value_or(info.causal && info.queries > settled ? settled : 0);
}

policy_report report_policy(layer_info const& info, named_policy const& policy,
                            policy_outcome const& outcome) {
    policy_report report;
    report.policy = policy.name;
    report.predictor = policy.predictor;
    report.selector = policy.selector;
    report.attender = policy.attender;
    report.tail = policy.tail;
    attention_options options = policy.options;
    if (!selects(policy)) {
        options.budget = {};
    }
    report.budget = budget_fields(options);
    report.overall = mean_quality::of(outcome.heads);
    auto const size = static_cast<std::size_t>(info.heads / info.kv_heads);
    for (index_t kv = 0; kv < info.kv_heads; ++kv) {
        auto const first = static_cast<std::size_t>(kv) * size;
        group_report group;
        group.kv_head = kv;
        group.query_heads.assign(info.q_heads.begin() + static_cast<index_t>(first),
                                 info.q_heads.begin() + static_cast<index_t>(first + size));
        group.quality = mean_quality::of(std::span(outcome.heads).subspan(first, size));
        report.groups.push_back(std::move(group));
    }
    report.operations = outcome.counts;
    report.complexity = complexities_of(outcome.counts);
    report.key_loads_count = outcome.key_loads;
    report.time_seconds = outcome.time_seconds;
    return report;
}

run_report run(dataset const& data, std::vector<std::size_t> const& layers,
               std::vector<named_policy> policies, budget_table const& table, arguments const& a,
               progress_bar& bar) {
    auto const start = std::chrono::steady_clock::now();
    std::size_t const judged = policies.size();
    if (!a.no_ladder) {
        auto const counting = std::ranges::find_if(policies, &named_policy::reads_count);
        attention_options const options =
            counting == policies.end() ? presets::paper::options() : counting->options;
        for (auto const& step : ladder) {
            named_policy policy = find_policy(step.policy);
            policy.options = options;
            policies.push_back(std::move(policy));
        }
    }
    run_report report;
    report.input = input_name(a);
    std::vector<probe::ledger> rungs(policies.size() - judged);
    for (std::size_t done = 0; done < layers.size(); ++done) {
        layer const given = data.load(layers[done]);
        layer_info const& info = given.info;
        layer_report one;
        one.model = info.model;
        one.layer = info.layer;
        one.query_heads = info.heads;
        one.kv_heads = info.kv_heads;
        one.query_tokens = info.queries;
        one.key_tokens = info.keys;
        one.head_dim = info.dim;
        one.value_dim = info.value_dim;
        one.causal = info.causal;
        one.first_judged_row = first_judged_row(info, a);
        auto const outcomes = evaluate(
            layer_views::of(given), for_layer(policies, info, table, a), judged,
            one.first_judged_row, [&](double share) {
                bar.update((static_cast<double>(done) + share) / static_cast<double>(layers.size()),
                           info.model + ", layer " + std::to_string(info.layer));
            });
        for (std::size_t p = 0; p < policies.size(); ++p) {
            if (p < judged) {
                one.policies.push_back(report_policy(info, policies[p], outcomes[p]));
            } else {
                rungs[p - judged] += outcomes[p].counts;
            }
        }
        report.layers.push_back(std::move(one));
    }
    for (std::size_t r = 0; r < rungs.size(); ++r) {
        report.ladder.push_back({ladder[r].design, ladder[r].policy, complexities_of(rungs[r])});
    }
    report.complexity_weights = all_weights();
    report.time_seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    return report;
}

/// Figures that cannot be compared are found before anything is computed.
void require_json(std::filesystem::path const& expect) {
    io::input_file file(expect);
    if (!nlohmann::json::accept(file.stream)) {
        throw error(file.name + ": content", "not JSON", "a JSON object with rows");
    }
}

study_check compared(std::vector<study_row> const& rows, std::filesystem::path const& expect) {
    try {
        return check_study(rows, expect);
    } catch (nlohmann::json::exception const& e) { // a field is missing or of another type
        std::string_view const text = e.what();
        throw error(io::shown(expect) + ": content",
                    "ill-formed (" + std::string(text.substr(text.find("] ") + 2)) + ")",
                    "rows of a study and their tolerances");
    }
}

/// Tried before the work, but not held during it: whoever stops the run leaves no file.
void require_writable(std::filesystem::path const& file) {
    if (!file.empty()) {
        io::atomic_file const tried(file);
    }
}

void write(std::filesystem::path const& file, std::string const& content) {
    if (!file.empty()) {
        io::atomic_file out(file);
        out.write(content);
        out.commit();
    }
}

/// A name of a file need not be UTF-8, but JSON is.
std::string text_of(nlohmann::ordered_json const& report) {
    return report.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

/// Rows before it are judged by no study: the same for all layers.
index_t first_row_of_study(dataset const& data, std::vector<std::size_t> const& layers,
                           arguments const& a) {
    index_t first_row = 0; // the same for all layers
    for (bool first = true; std::size_t const at : layers) {
        if (layer_info const& info = data.layers()[at]; info.causal) {
            index_t const row = first_judged_row(info, a);
            first_row = std::exchange(first, false) ? row : std::min(first_row, row);
        }
    }
    return first_row;
}

int run_frontier(dataset const& data, std::vector<std::size_t> const& layers, arguments const& a,
                 progress_bar& bar) {
    require_writable(a.json);
    require_writable(a.svg);
    auto const frontiers =
        study_frontier(data, layers, first_row_of_study(data, layers, a),
                       [&](double share, std::string const& what) { bar.update(share, what); });
    bar.clear();
    write(a.json, text_of(to_json(frontiers)));
    write(a.svg, to_svg(frontiers));
    std::fputs(to_text(frontiers).c_str(), stdout);
    return 0;
}

int run_certificates(dataset const& data, std::vector<std::size_t> const& layers,
                     arguments const& a, progress_bar& bar) {
    require_writable(a.json);
    auto const certified =
        study_certificates(data, layers, first_row_of_study(data, layers, a),
                           [&](double share, std::string const& what) { bar.update(share, what); });
    bar.clear();
    write(a.json, text_of(to_json(certified)));
    std::fputs(to_text(certified).c_str(), stdout);
    bool const holds = std::ranges::all_of(certified, [](auto const& one) {
        return one.mass_bound_violations_count == 0 && one.error_bound_violations_count == 0;
    });
    std::printf("%s\n", holds ? "every bound holds" : "a bound does not hold");
    return holds ? 0 : 1;
}

int run_row_kinds(dataset const& data, std::vector<std::size_t> const& layers, arguments const& a,
                  progress_bar& bar) {
    require_writable(a.json);
    auto const kinds =
        study_row_kinds(data, layers, first_row_of_study(data, layers, a),
                        [&](double share, std::string const& what) { bar.update(share, what); });
    bar.clear();
    write(a.json, text_of(to_json(kinds)));
    std::fputs(to_text(kinds).c_str(), stdout);
    return 0;
}

int run_study(dataset const& data, std::vector<std::size_t> const& layers, arguments const& a,
              progress_bar& bar) {
    if (a.study == "frontier") {
        return run_frontier(data, layers, a, bar);
    }
    if (a.study == "certificates") {
        return run_certificates(data, layers, a, bar);
    }
    if (a.study == "rows") {
        return run_row_kinds(data, layers, a, bar);
    }
    if (!a.expect.empty()) {
        require_json(a.expect);
    }
    index_t const first_row = first_row_of_study(data, layers, a);
    auto const update = [&](double share, std::string const& what) { bar.update(share, what); };
    auto const rows = a.study == "keys" ? study_keys(data, layers, first_row, update)
                                        : study_ranking(data, layers, first_row, update);
    bar.clear();
    if (rows.empty()) {
        throw error(input_name(a) + ": layers with x, wk and wv", "0", "at least 1");
    }
    auto const check = a.expect.empty() ? study_check{} : compared(rows, a.expect);
    std::fputs(to_text(rows).c_str(), stdout);
    if (a.expect.empty()) {
        return 0;
    }
    for (auto const& line : check.deviations) {
        std::printf("deviates: %s\n", line.c_str());
    }
    std::printf("%d figures compared with %s, %zu deviate\n", check.compared,
                a.expect.string().c_str(), check.deviations.size());
    return check.deviations.empty() ? 0 : 1;
}

void print_list() {
    auto const names = list_policies();
    std::printf(
        "presets:    paper, recommended, dense (unpredicted/keep_all/flash_attention_2)\n"
        "predictors: %s\nselectors:  %s\n"
        "attenders:  %s\n"
        "tails:      %s\n\ncomplexity weights (a convention, named wherever it is used)\n%s",
        names.predictors.c_str(), names.selectors.c_str(), names.attenders.c_str(),
        names.tails.c_str(), weights_text().c_str());
}

int run_with(arguments const& a) {
    if (a.list) {
        print_list();
        return 0;
    }
    auto const policies = chosen_policies(a);
    dataset const data = open(a);
    auto const layers = chosen_layers(data, a);
    budget_table const table = a.budgets.empty() ? budget_table{} : read_budgets(a.budgets);
    validate(data, layers, policies, table, a);
    progress_bar bar(!a.quiet);
    if (!a.study.empty()) {
        return run_study(data, layers, a, bar);
    }
    require_writable(a.json);
    run_report const report = run(data, layers, policies, table, a, bar);
    bar.clear();
    write(a.json, text_of(to_json(report)));
    std::fputs(to_text(report, a.weights, a.all_groups).c_str(), stdout);
    std::printf("%.1f s in all%s\n", report.time_seconds,
                a.json.empty() ? "" : ("; results in " + io::shown(a.json)).c_str());
    return 0;
}

int run_checked(CLI::App const& app, arguments const& a) {
    refuse_ignored(app, a);
    return run_with(a);
}

} // namespace
} // namespace sofattn::attend

int main(int argc, char** argv) {
    using namespace sofattn::attend;
    return command<arguments>{"sofattn-attend", introduction, reading, declare, run_checked}(argc,
                                                                                             argv);
}
