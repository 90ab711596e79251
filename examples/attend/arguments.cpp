// SPDX-License-Identifier: MIT
#include "attend/arguments.hpp"

#include <sofattn/core/error.hpp>
#include <sofattn/io/file.hpp>

#include <charconv>
#include <cmath>
#include <string_view>
#include <system_error>
#include <utility>

namespace sofattn::attend {

char const* const introduction =
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
    "PREDICTOR/SELECTOR/ATTENDER, e.g. int8/full_topk/flash_attention_2, with /TAIL where dropped "
    "keys\n"
    "are not ignored, e.g. dlzs8/adaptive/sufa/mean. --list names them all.\n";

char const* const reading =
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
    "Exit codes: 0 done, 1 a study deviates from --expect or a bound does not hold, 2 bad input\n"
    "(one line on standard error).";

namespace {

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

} // namespace

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

    app.add_option("--policy", a.policies,
                   "Preset or PREDICTOR/SELECTOR/ATTENDER[/TAIL]; repeatable")
        ->allow_extra_args(false) // what follows may be FOLDER
        ->group("What runs")
        ->take_all();
    auto* ratio = app.add_option("--ratio", a.ratio, "Share of visible keys to keep, in (0, 1]");
    auto* count = app.add_option("--count", a.count, "Keys to keep per row");
    ratio->group("What runs")->excludes(count)->check(real("a number in (0, 1]", [](double share) {
        return share > 0 && share <= 1;
    }));
    count->group("What runs")->excludes(ratio)->check(whole_from(1));
    auto* mass = app.add_option("--mass", a.mass,
                                "Estimated softmax mass to keep, in (0, 1]; adaptive selectors");
    auto* output_error =
        app.add_option("--output-error", a.output_error,
                       "Estimated output error instead, in spreads of the values; adaptive ones");
    mass->group("What runs")
        ->excludes(output_error)
        ->check(real("a number in (0, 1]", [](double p) { return p > 0 && p <= 1; }));
    output_error->group("What runs")
        ->excludes(mass)
        ->check(real("a finite number above 0",
                     [](double spreads) { return std::isfinite(spreads) && spreads > 0; }));
    app.add_option(
           "--budgets", a.budgets,
           "Output errors per layer and head from a file of sofattn-calibrate; adaptive ones")
        ->excludes(mass)
        ->excludes(output_error)
        ->group("What runs");
    app.add_option("--radius", a.radius, "Drop keys this many logits below their segment's best")
        ->check(real("a number, at least 0", [](double logits) { return logits >= 0; }))
        ->group("What runs");
    app.add_option("--minimum", a.minimum, "Keep at least this many keys per row")
        ->check(whole_from(0))
        ->group("What runs");
    app.add_option("--maximum", a.maximum,
                   "Keep at most this many keys per row, beside sinks and window; adaptive ones")
        ->check(whole_from(1))
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
                       "ranking: predictors at 5, 10, 20 %; keys: K predicted from X and Wk; "
                       "frontier: kept share against error (minutes); certificates: bounds and "
                       "estimates of every row against the truth; rows: their kinds (Fig. 8)")
            ->check(CLI::IsMember({"ranking", "keys", "frontier", "certificates", "rows"}))
            ->group("Studies");
    app.add_option("--expect", a.expect, "Compare a study with the figures in this JSON file")
        ->needs(study)
        ->group("Studies");
    app.add_option("--svg", a.svg, "Draw the frontier into this file")
        ->needs(study)
        ->group("Studies");
}

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
        refuse({"--policy", "--ratio", "--count", "--mass", "--output-error", "--budgets",
                "--radius", "--minimum", "--maximum", "--sinks", "--window", "--tile",
                "--select-per", "--weights", "--no-ladder", "--groups"},
               "a study has its own policies, budgets and tables");
    }
    if (a.study == "frontier" || a.study == "certificates" || a.study == "rows") {
        refuse({"--expect"}, "this study has no figures to compare with");
    } else if (!a.study.empty()) {
        refuse({"--json"}, "this study prints its table only");
    }
    if (a.study != "frontier") {
        refuse({"--svg"}, "only the frontier is drawn");
    }
    for (auto const& [name, file] : {std::pair("--json", &a.json), {"--svg", &a.svg}}) {
        if (app.get_option(name)->count() > 0 && file->empty()) {
            throw error(name, "\"\"", "the name of a file");
        }
    }
}

} // namespace sofattn::attend
