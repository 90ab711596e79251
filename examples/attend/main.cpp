// SPDX-License-Identifier: MIT
// sofattn-attend: sparse attention on recorded Q, K, V, judged against dense attention.
#include "attend/dataset.hpp"
#include "attend/evaluate.hpp"
#include "attend/progress.hpp"
#include "attend/report.hpp"
#include "attend/runner.hpp"
#include "attend/study.hpp"
#include <sofattn/core/error.hpp>
#include <sofattn/io/file.hpp>
#include <sofattn/sads/row_selectors.hpp>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <new>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

namespace sofattn::attend {
namespace {

struct arguments {
    std::filesystem::path folder;
    std::filesystem::path q;
    std::filesystem::path k;
    std::filesystem::path v;
    bool bidirectional = false;
    double scale = 0;
    std::vector<int> layers;
    std::vector<std::string> policies{"paper", "recommended"};
    std::optional<double> ratio;
    std::optional<index_t> count;
    std::optional<double> radius;
    std::optional<index_t> minimum;
    std::optional<index_t> sinks;
    std::optional<index_t> window;
    std::optional<index_t> tile_keys;
    std::string scope = "head";
    std::optional<index_t> first_row;
    std::string weights = "sofa_inferred";
    bool no_ladder = false;
    bool all_groups = false;
    bool quiet = false;
    std::filesystem::path json;
    std::string study;
    std::filesystem::path expect;
    bool list = false;
};

constexpr char const* introduction =
    "Runs dynamic sparse attention on recorded queries, keys and values and says what it kept, "
    "what\n"
    "that cost in quality against dense attention in double precision, and in counted operations.\n"
    "\n"
    "Input is three .npy arrays [heads, tokens, dim] (f16 or f32, C order; fewer K and V heads "
    "than Q\n"
    "heads mean grouped queries), or a folder with manifest*.json that lists such arrays by "
    "layer.\n"
    "\n"
    "A policy is a preset (paper: what the SOFA paper does; recommended; dense) or is composed:\n"
    "PREDICTOR/SELECTOR/ATTENDER, e.g. int8/full_topk/flash_attention_2. --list names them all.\n";

constexpr char const* reading =
    "\nReading the output: kept is the share of visible keys attended; recall, how many of a "
    "row's\n"
    "kept keys are among as many truly best ones; mass, the softmax mass they carry; error, the\n"
    "relative error of the output (Frobenius norm, mean over heads). The ladder exchanges one "
    "stage at\n"
    "a time, from 4-bit multiplication + full sort + FlashAttention-2 to DLZS + SADS + SU-FA; its\n"
    "numbers hold under the printed weights only.\n"
    "\n"
    "Examples:\n"
    "  sofattn-attend examples/data\n"
    "  sofattn-attend --q q.npy --k k.npy --v v.npy --ratio 0.2 --json result.json\n"
    "  sofattn-attend DIR --layers 5,16 --policy paper --policy int8/full_topk/sufa --sinks 1\n"
    "\n"
    "Exit codes: 0 done, 1 a study deviates from --expect, 2 bad input (one line on standard "
    "error).";

/// Accepts the text of a number in range; a message shows it as it was typed.
template <class Number>
CLI::Validator within(std::string limit, bool (*accepted)(Number)) {
    auto const check = [limit, accepted](std::string const& text) {
        Number value{};
        char const* const end = text.data() + text.size();
        auto const read = std::from_chars(text.data(), end, value);
        bool const is_number = read.ec == std::errc() && read.ptr == end;
        return is_number && accepted(value) ? std::string()
                                            : "value is " + io::quoted(text) + ", must be " + limit;
    };
    return {check, ""}; // no name: --help says the range in words
}
CLI::Validator real(std::string limit, bool (*accepted)(double)) {
    return within<double>(std::move(limit), accepted);
}
CLI::Validator whole_from(index_t least) {
    return least == 0
               ? within<index_t>("a whole number, at least 0", [](index_t n) { return n >= 0; })
               : within<index_t>("a whole number, at least 1", [](index_t n) { return n >= 1; });
}

void declare(CLI::App& app, arguments& a) {
    app.add_option("FOLDER", a.folder, "Folder with manifest*.json");
    auto* q = app.add_option("--q", a.q, "Queries [heads, tokens, dim]")->group("Input");
    auto* k = app.add_option("--k", a.k, "Keys [kv_heads, tokens, dim]")->group("Input");
    auto* v = app.add_option("--v", a.v, "Values [kv_heads, tokens, value_dim]")->group("Input");
    q->needs(k)->needs(v);
    k->needs(q);
    v->needs(q);
    app.add_flag("--bidirectional", a.bidirectional, "No causal mask (for --q, --k, --v)")
        ->group("Input");
    app.add_option("--scale", a.scale, "Softmax scale (for --q, --k, --v); default 1 / sqrt(dim)")
        ->check(real("a finite number above 0",
                     [](double scale) { return std::isfinite(scale) && scale > 0; }))
        ->group("Input");
    app.add_option("--layers", a.layers, "Only these layer numbers, e.g. 5,16")
        ->check(within<int>("a whole number, at least 0", [](int layer) { return layer >= 0; }))
        ->delimiter(',')
        ->allow_extra_args(false) // what follows may be FOLDER
        ->group("Input");

    app.add_option("--policy", a.policies, "Preset or PREDICTOR/SELECTOR/ATTENDER; repeatable")
        ->allow_extra_args(false) // what follows may be FOLDER
        ->group("What runs")
        ->take_all();
    auto* ratio = app.add_option("--ratio", a.ratio, "Share of visible keys to keep, in (0, 1]");
    auto* count = app.add_option("--count", a.count, "Keys to keep per row");
    ratio->group("What runs")->excludes(count)->check(real("a number in (0, 1]", [](double share) {
        return share > 0 && share <= 1;
    }));
    count->group("What runs")->excludes(ratio)->check(whole_from(1));
    app.add_option("--radius", a.radius, "Drop keys this many logits below their segment's best")
        ->check(real("a number, at least 0", [](double logits) { return logits >= 0; }))
        ->group("What runs");
    app.add_option("--minimum", a.minimum, "Keep at least this many keys per row")
        ->check(whole_from(0))
        ->group("What runs");
    app.add_option("--sinks", a.sinks, "Always keep this many first keys")
        ->check(whole_from(0))
        ->group("What runs");
    app.add_option("--window", a.window, "Always keep this many last keys")
        ->check(whole_from(0))
        ->group("What runs");
    app.add_option("--tile", a.tile_keys, "Keys per tile and segment (Bc); default 128")
        ->check(whole_from(1))
        ->group("What runs");
    app.add_option("--select-per", a.scope,
                   "head, or group: query heads of a KV head select together")
        ->check(CLI::IsMember({"head", "group"}))
        ->group("What runs");

    app.add_option("--first-row", a.first_row,
                   "Judge rows from here on; default 256 if causal and longer than that, else 0")
        ->check(whole_from(0))
        ->group("What is shown");
    app.add_option("--weights", a.weights, "Complexity weights of the ladder's stages")
        ->check(CLI::IsMember({"unit", "sofa_inferred", "bit_level", "energy_28nm"}))
        ->group("What is shown");
    app.add_flag("--no-ladder", a.no_ladder, "Leave out the complexity ladder")
        ->group("What is shown");
    app.add_flag("--groups", a.all_groups, "Every head group, also where there are many")
        ->group("What is shown");
    app.add_option("--json", a.json, "Write the results to this file")->group("What is shown");
    app.add_flag("--quiet", a.quiet, "No progress bar")->group("What is shown");
    app.add_flag("--list", a.list, "Names of policies and the tables of weights, then stop")
        ->group("What is shown");

    auto* study =
        app.add_option("--study", a.study,
                       "ranking: predictors at 5, 10, 20 %; keys: K predicted from X and Wk")
            ->check(CLI::IsMember({"ranking", "keys"}))
            ->group("Studies");
    app.add_option("--expect", a.expect, "Compare a study with the figures in this JSON file")
        ->needs(study)
        ->group("Studies");
}

/// An option that nothing would read is a misunderstanding: better told than passed over.
void refuse_ignored(CLI::App const& app, arguments const& a) {
    auto const refuse = [&](std::vector<std::string> const& names, std::string const& why) {
        for (auto const& name : names) {
            if (app.get_option(name)->count() > 0) {
                throw error(name, "given", "left out: " + why);
            }
        }
    };
    if (!a.folder.empty()) {
        refuse({"--q", "--k", "--v"}, "FOLDER is " + io::shown(a.folder) + " already");
        refuse({"--bidirectional", "--scale"}, "a FOLDER's manifest says it");
    }
    if (!a.study.empty()) {
        refuse({"--policy", "--ratio", "--count", "--radius", "--minimum", "--sinks", "--window",
                "--tile", "--select-per", "--weights", "--no-ladder", "--groups"},
               "a study has its own policies, budgets and tables");
        refuse({"--json"}, "a study prints its table only");
    }
    if (app.get_option("--json")->count() > 0 && a.json.empty()) {
        throw error("--json", "\"\"", "the name of a file");
    }
}

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

void apply_budget(arguments const& a, attention_options& options) {
    auto& budget = options.budget;
    if (a.ratio) {
        budget.ratio = *a.ratio;
        budget.count.reset();
    }
    budget.count = a.count ? a.count : budget.count;
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
    for (auto const& name : a.policies) {
        policies.push_back(find_policy(name));
        apply_budget(a, policies.back().options);
        if (policies.back().selector == sads::threshold::name && !a.radius) {
            throw error("policy " + io::quoted(name) + ": --radius", "missing",
                        "given, as threshold looks at no count and would keep every key");
        }
    }
    return policies;
}

/// A budget means nothing to a policy that keeps every key.
bool selects(named_policy const& policy) { return policy.selector != sads::keep_all::name; }

/// Fig. 17: one stage after the other is exchanged, all at one budget, that of the first policy
/// that has one.
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
              std::vector<named_policy> const& policies, arguments const& a) {
    for (std::size_t const at : layers) {
        layer_info const& info = data.layers()[at];
        problem_shape shape;
        shape.heads = info.heads;
        shape.kv_heads = info.kv_heads;
        shape.keys = info.keys;
        for (auto const& policy : policies) {
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
               std::vector<named_policy> policies, arguments const& a, progress_bar& bar) {
    auto const start = std::chrono::steady_clock::now();
    std::size_t const judged = policies.size();
    if (!a.no_ladder) {
        auto const selecting = std::ranges::find_if(policies, selects);
        attention_options const options =
            (selecting == policies.end() ? policies.front() : *selecting).options;
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
            layer_views::of(given), policies, judged, one.first_judged_row, [&](double share) {
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

int run_study(dataset const& data, std::vector<std::size_t> const& layers, arguments const& a,
              progress_bar& bar) {
    if (!a.expect.empty()) {
        require_json(a.expect);
    }
    index_t first_row = 0; // the same for all layers
    for (bool first = true; std::size_t const at : layers) {
        if (layer_info const& info = data.layers()[at]; info.causal) {
            index_t const row = first_judged_row(info, a);
            first_row = std::exchange(first, false) ? row : std::min(first_row, row);
        }
    }
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
        "attenders:  %s\n\ncomplexity weights (a convention, named wherever it is used)\n%s",
        names.predictors.c_str(), names.selectors.c_str(), names.attenders.c_str(),
        weights_text().c_str());
}

int run_with(arguments const& a) {
    if (a.list) {
        print_list();
        return 0;
    }
    auto const policies = chosen_policies(a);
    dataset const data = open(a);
    auto const layers = chosen_layers(data, a);
    validate(data, layers, policies, a);
    progress_bar bar(!a.quiet);
    if (!a.study.empty()) {
        return run_study(data, layers, a, bar);
    }
    if (!a.json.empty()) {
        // Tried before the work, but not held during it: whoever stops the run leaves no file.
        io::atomic_file const tried(a.json);
    }
    run_report const report = run(data, layers, policies, a, bar);
    bar.clear();
    if (!a.json.empty()) {
        io::atomic_file json(a.json);
        // A name of a file need not be UTF-8, but JSON is.
        json.write(to_json(report).dump(2, ' ', false, nlohmann::json::error_handler_t::replace) +
                   "\n");
        json.commit();
    }
    std::fputs(to_text(report, a.weights, a.all_groups).c_str(), stdout);
    std::printf("%.1f s in all%s\n", report.time_seconds,
                a.json.empty() ? "" : ("; results in " + io::shown(a.json)).c_str());
    return 0;
}

int run_program(int argc, char** argv) {
    arguments given;
    CLI::App app(introduction, "sofattn-attend");
    app.footer(reading);
    declare(app, given);
    int code = 0;
    try {
        app.parse(argc, argv);
        refuse_ignored(app, given);
        code = run_with(given);
    } catch (CLI::Success const& help) {
        code = app.exit(help);
    }
    if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0) {
        throw error("standard output",
                    "not writable (" + std::generic_category().message(errno) + ")", "writable");
    }
    return code;
}

/// The bad input's exit code; what was typed must not break the line.
int refuse(std::string const& message) {
    std::fprintf(stderr, "sofattn-attend: %s\n", io::shown(message).c_str());
    return 2;
}

} // namespace
} // namespace sofattn::attend

int main(int argc, char** argv) {
    using sofattn::attend::refuse;
    try {
        return sofattn::attend::run_program(argc, argv);
    } catch (CLI::ParseError const& e) {
        return refuse(std::string(e.what()) + " (--help explains)");
    } catch (std::bad_alloc const&) {
        return refuse("memory is too small for this input, must be larger");
    } catch (std::exception const& e) {
        return refuse(e.what());
    }
}
