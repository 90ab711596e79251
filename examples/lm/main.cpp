// SPDX-License-Identifier: MIT
// sofattn-lm: a language model on this library's attention, from the folder it was published in.
#include "attend/command.hpp"
#include "attend/json.hpp"
#include "attend/progress.hpp"
#include "lm/generate.hpp"
#include "lm/method.hpp"
#include "lm/model_folder.hpp"
#include "lm/perplexity.hpp"
#include "lm/record.hpp"
#include "lm/tasks.hpp"
#include "tune/sizes.hpp"
#include <sofattn/core/error.hpp>
#include <sofattn/io/file.hpp>
#include <sofattn/io/npy.hpp>

#include <CLI/CLI.hpp>
#include <unistd.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace sofattn::lm {
namespace {

struct arguments {
    std::filesystem::path model;
    std::filesystem::path text;
    std::string prompt;
    std::filesystem::path folder;
    std::vector<index_t> recorded_layers;
    index_t skip = 0;
    std::vector<std::string> tasks;
    index_t samples = 4;
    std::vector<std::string> methods;
    std::vector<std::string> budgets;
    std::string prefill = "dense";
    perplexity_options windows;
    generate_options generation;
    index_t dense_below = 0;
    index_t threads = 0;
    bool no_bos = false;
    bool layers = false;
    bool quiet = false;
    std::filesystem::path tiles;
    std::filesystem::path json_file;
};

constexpr char const* introduction =
    "Runs a language model of the Llama family (Llama, Mistral, Qwen2) from a Hugging Face "
    "folder:\n"
    "config.json, model.safetensors (F32, F16 or BF16; one file or shards), tokenizer.json "
    "(byte-level\n"
    "BPE). Attention is this library's, dense or sparse; the other products are the system's "
    "BLAS.\n";

constexpr char const* reading =
    "\nA way to attend is dense, dense/bf16 or dense/int8; mass:P keeps the softmax mass P of "
    "every "
    "row,\n"
    "error:E an estimated output error of E spreads of the values, radius:R what is within R "
    "logits "
    "of\n"
    "the best (with /dropped, dropped keys are not stood in for; with /computed, predicted scores "
    "are\n"
    "not reused as logits); mass:P/pages attends to all keys of the pages of 16 that have the "
    "mass\n"
    "P, error:E/pages to those of pages with all but E / 2 of it, /bf16 with bf16 products;\n"
    "pages is mass:0.99/pages; budgets:FILE is a table of sofattn-dse or sofattn-calibrate;\n"
    "paper:RATIO is the paper's own, on the slow reference executor.\n"
    "\n"
    "Reading the table: KL is the divergence from the dense model's prediction, in nats; same top, "
    "how\n"
    "often both find the same token likeliest; kept, the share of visible keys attended, mean "
    "over\n"
    "layers; attention s includes prediction, selection and the index of the keys.\n"
    "\n"
    "Examples:\n"
    "  sofattn-lm perplexity MODEL wiki.txt\n"
    "  sofattn-lm perplexity MODEL tokens.npy --attention error:0.004 --context 8192 --json "
    "p.json\n"
    "  sofattn-lm record MODEL wiki.txt DIR --skip 100000\n"
    "  sofattn-calibrate DIR --kept 0.1 --out budgets.json\n"
    "  sofattn-lm perplexity MODEL wiki.txt --budgets budgets.json\n"
    "  sofattn-dse model MODEL wiki.txt --out found.json    # searched on the model itself\n"
    "  sofattn-lm tasks MODEL --task needle --context 4096\n"
    "  sofattn-lm generate MODEL 'Once upon a time' --tokens 200 --temperature 0.8 --seed 1\n"
    "  sofattn-tune --dim 96 --threads 2 --out t.json && sofattn-lm perplexity MODEL wiki.txt "
    "--threads 2 --tiles t.json\n"
    "\n"
    "Exit codes: 0 done, 2 bad input (one line on standard error).";

/// What `perplexity` compares unless told: two budgets of the output error, the mass that comes
/// close to the first, what it loses without stand-ins, whole pages, and the paper's rule.
std::vector<std::string> const usual_methods{"error:0.004",       "error:0.01", "mass:0.95",
                                             "mass:0.95/dropped", "pages",      "pages/bf16",
                                             "paper:0.1"};

void declare_budgets(CLI::App& command, arguments& a) {
    command
        .add_option("--budgets", a.budgets,
                    "The same as --attention budgets:FILE, of sofattn-dse or sofattn-calibrate; "
                    "repeatable")
        ->type_name("FILE")
        ->allow_extra_args(false)
        ->take_all();
}

/// Those that were asked for, or else `usual`.
std::vector<attention_method> methods_of(arguments const& a,
                                         std::vector<std::string> const& usual) {
    std::vector<std::string> names = a.methods;
    for (std::string const& file : a.budgets) {
        names.push_back("budgets:" + file);
    }
    std::vector<attention_method> methods{dense_method()};
    for (std::string const& name : names.empty() ? usual : names) {
        methods.push_back(find_method(name, a.dense_below));
    }
    return methods;
}

void declare_machine(CLI::App& command, arguments& a) {
    command.add_option("--threads", a.threads, "Threads; default: as many as OpenMP would take")
        ->check(CLI::Range(1, 4096));
    command.add_flag("--no-bos", a.no_bos, "Do not begin with the model's first token");
    command.add_flag("--quiet", a.quiet, "No progress bar");
}

void declare_common(CLI::App& command, arguments& a) {
    declare_machine(command, a);
    command
        .add_option("--dense-below", a.dense_below,
                    "Sparse methods are dense below so many keys; default 0")
        ->check(CLI::NonNegativeNumber);
    command
        .add_option("--tiles", a.tiles,
                    "Sizes that sofattn-tune found, for dense attention; of this processor, the "
                    "model's heads and so many threads")
        ->type_name("FILE");
    command.add_option("--json", a.json_file, "Write the results to this file");
}

void declare(CLI::App& app, arguments& a) {
    app.require_subcommand(1);
    auto* judge = app.add_subcommand(
        "perplexity", "How well the model predicts a text, dense and sparse side by side");
    judge->add_option("MODEL", a.model, "Folder of the model")->required();
    judge->add_option("TEXT", a.text, "Text file, or token ids as int32 [tokens] in a .npy file")
        ->required();
    judge
        ->add_option("--attention", a.methods,
                     "Ways to attend beside dense; repeatable. Default: error:0.004 error:0.01 "
                     "mass:0.95 mass:0.95/dropped pages pages/bf16 paper:0.1")
        ->allow_extra_args(false)
        ->take_all();
    declare_budgets(*judge, a);
    judge->add_option("--context", a.windows.context, "Tokens of a window")
        ->check(CLI::Range(2, 1 << 30))
        ->capture_default_str();
    judge->add_option("--first", a.windows.first, "Judge tokens of a window from here on")
        ->check(CLI::Range(1, 1 << 30))
        ->capture_default_str();
    judge->add_option("--windows", a.windows.windows, "Windows at most; 0: all of the text")
        ->check(CLI::NonNegativeNumber)
        ->capture_default_str();
    judge->add_flag("--layers", a.layers, "What every layer keeps, too");
    declare_common(*judge, a);

    auto* write = app.add_subcommand("generate", "Text that goes on from a prompt");
    write->add_option("MODEL", a.model, "Folder of the model")->required();
    write->add_option("PROMPT", a.prompt, "Text; the tokenizer's added tokens are found in it")
        ->required();
    write->add_option("--tokens", a.generation.tokens, "Tokens at most")
        ->check(CLI::NonNegativeNumber)
        ->capture_default_str();
    write->add_option("--temperature", a.generation.temperature, "0: the likeliest token, always")
        ->check(CLI::Range(0.0, 100.0))
        ->capture_default_str();
    write->add_option("--seed", a.generation.seed, "Of the choices by chance")
        ->capture_default_str();
    write->add_option("--attention", a.prefill, "How the prompt attends")->capture_default_str();
    write
        ->add_option("--chunk", a.generation.chunk,
                     "Tokens of the prompt at a time; default all. Pages keep an index that grows")
        ->check(CLI::PositiveNumber);
    write
        ->add_option("--keep", a.generation.keep,
                     "Keys that a new token attends to, found by a 4-bit index; default all")
        ->check(CLI::PositiveNumber);
    declare_common(*write, a);

    auto* keep = app.add_subcommand(
        "record", "What the layers attend to on a text, for sofattn-attend and sofattn-calibrate");
    keep->add_option("MODEL", a.model, "Folder of the model")->required();
    keep->add_option("TEXT", a.text, "As for perplexity")->required();
    keep->add_option("DIR", a.folder, "Folder for manifest.json and arrays in f16")->required();
    keep->add_option("--context", a.windows.context, "Tokens to record")
        ->check(CLI::Range(1, 1 << 30))
        ->capture_default_str();
    keep->add_option("--skip", a.skip, "Tokens of the text to pass over first")
        ->check(CLI::NonNegativeNumber);
    keep->add_option("--layers", a.recorded_layers, "Only these layers, e.g. 0,5")
        ->delimiter(',')
        ->allow_extra_args(false);
    declare_machine(*keep, a);

    auto* test = app.add_subcommand(
        "tasks", "Made-up long contexts with an answer, in RULER's style, dense and sparse");
    test->add_option("MODEL", a.model, "Folder of the model")->required();
    test->add_option("--task", a.tasks, "needle, variables or words; repeatable. Default: all")
        ->allow_extra_args(false)
        ->take_all();
    test->add_option("--attention", a.methods, "As for perplexity; default error:0.004 mass:0.95")
        ->allow_extra_args(false)
        ->take_all();
    declare_budgets(*test, a);
    test->add_option("--context", a.windows.context, "Tokens of a sample at most")
        ->check(CLI::Range(2, 1 << 30))
        ->capture_default_str();
    test->add_option("--samples", a.samples, "Of each task")
        ->check(CLI::Range(1, 1 << 20))
        ->capture_default_str();
    test->add_option("--seed", a.generation.seed, "Of the first sample")->capture_default_str();
    test->add_option("--out", a.folder,
                     "Only write the samples there: tokens as .npy, and tasks.json");
    declare_common(*test, a);
}

void write_json(std::filesystem::path const& file, nlohmann::ordered_json const& content) {
    if (!file.empty()) {
        io::atomic_file out(file);
        out.write(content.dump(2, ' ', false, nlohmann::json::error_handler_t::replace));
        out.write("\n");
        out.commit();
    }
}
/// Before the work; whoever stops it leaves no file.
void try_to_write(std::filesystem::path const& file) {
    if (!file.empty()) {
        io::atomic_file const tried(file);
    }
}

/// Those of --tiles; the library's own without.
tune::sizes sizes_for(arguments const& a, model_folder const& e) {
    if (a.tiles.empty()) {
        return {};
    }
    exec::openmp const run(a.threads);
    auto const found =
        tune::read_sizes(a.tiles, tune::this_machine(e.model.config().head_dim, run.threads()));
    if (!found) {
        throw error(io::shown(a.tiles), "not there", "a file that sofattn-tune has written");
    }
    return found->found;
}
std::vector<attention_method> tiled(std::vector<attention_method> methods,
                                    tune::sizes const& sizes) {
    for (attention_method& m : methods) {
        m = with_tiles(std::move(m), sizes);
    }
    return methods;
}

void check_fit(attention_method const& method, arguments const& a, model_folder const& e) {
    if (method.check) {
        method.check({model_name(a.model), e.model.config().layers, e.model.config().heads});
    }
}

int run_perplexity(arguments const& a) {
    auto const untiled = methods_of(a, usual_methods);
    try_to_write(a.json_file);
    model_folder const e(a.model);
    auto const methods = tiled(untiled, sizes_for(a, e));
    auto const tokens = e.tokens_of(a.text);
    for (auto const& method : methods) {
        check_fit(method, a, e);
    }
    perplexity_options options = a.windows;
    options.begins_with_bos = !a.no_bos;
    attend::progress_bar bar(!a.quiet);
    auto report =
        perplexity(e.model, tokens, methods, options, exec::openmp(a.threads),
                   [&](double share, std::string const& what) { bar.update(share, what); });
    bar.clear();
    report.model = io::shown(a.model);
    report.text = io::shown(a.text);
    write_json(a.json_file, attend::detail::value_to_json(report));
    std::fputs(to_text(report, a.layers).c_str(), stdout);
    return 0;
}

int run_generate(arguments const& a) {
    auto const untiled = find_method(a.prefill, a.dense_below);
    try_to_write(a.json_file);
    model_folder const e(a.model);
    tune::sizes const sizes = sizes_for(a, e);
    auto const prefill = with_tiles(untiled, sizes);
    check_fit(prefill, a, e);
    std::vector<token_id> prompt;
    if (!a.no_bos && e.model.config().bos) {
        prompt.push_back(*e.model.config().bos);
    }
    auto const text = e.text.encode(a.prompt);
    prompt.insert(prompt.end(), text.begin(), text.end());
    generate_options options = a.generation;
    options.tiles.part_keys = sizes.decode.keys_least;
    auto const result =
        generate(e.model, prompt, prefill, options, exec::openmp(a.threads), [&](token_id id) {
            auto const bytes = e.text.bytes_of(id);
            std::fwrite(bytes.data(), 1, bytes.size(), stdout);
            std::fflush(stdout);
        });
    std::fputs("\n", stdout);
    nlohmann::ordered_json report;
    report["model"] = io::shown(a.model);
    report["prompt_tokens"] = result.prompt_tokens;
    report["tokens"] = result.tokens;
    report["text"] = e.text.decode(result.tokens);
    report["ended"] = result.ended;
    report["prefill_time_seconds"] = result.prefill_time_seconds;
    report["decode_time_seconds"] = result.decode_time_seconds;
    report["decode_tokens_per_second"] = result.decode_tokens_per_second();
    report["prefill_kept_share"] = result.prefill_kept_share;
    report["decode_kept_share"] = result.decode_kept_share;
    report["cache_bytes_per_token"] = result.cache_bytes_per_token;
    write_json(a.json_file, report);
    if (!a.quiet && isatty(STDERR_FILENO) == 1) {
        std::fprintf(stderr, "%td tokens of prompt in %.2f s, %zu tokens in %.2f s (%.1f / s)\n",
                     result.prompt_tokens, result.prefill_time_seconds, result.tokens.size(),
                     result.decode_time_seconds, result.decode_tokens_per_second());
    }
    return 0;
}

int run_record(arguments const& a) {
    model_folder const e(a.model);
    auto const text = e.tokens_of(a.text);
    bool const has_bos = !a.no_bos && e.model.config().bos;
    std::vector<token_id> window;
    if (has_bos) {
        window.push_back(*e.model.config().bos);
    }
    index_t const wanted = a.windows.context - std::ssize(window);
    if (std::ssize(text) - a.skip < wanted) {
        throw error(io::shown(a.text) + ": tokens", std::to_string(text.size()),
                    "at least --skip and --context, " + std::to_string(a.skip + wanted));
    }
    window.insert(window.end(), text.begin() + a.skip, text.begin() + a.skip + wanted);
    attend::progress_bar bar(!a.quiet);
    record(e.model, window, a.folder,
           {model_name(a.model), io::shown(a.text.filename()), a.recorded_layers},
           exec::openmp(a.threads), [&](double share) { bar.update(share, "recording"); });
    bar.clear();
    std::printf("%zu tokens recorded in %s\n", window.size(), io::shown(a.folder).c_str());
    return 0;
}

void write_samples(std::vector<task_sample> const& samples, std::filesystem::path const& folder) {
    std::filesystem::path const list = folder / "tasks.json";
    if (std::filesystem::exists(list)) {
        throw error(io::shown(list), "there", "left to this program to write");
    }
    std::filesystem::create_directories(folder);
    auto content = nlohmann::ordered_json::array();
    for (auto const& sample : samples) {
        std::string const file =
            std::string(name_of(sample.kind)) + "_" + std::to_string(sample.seed) + ".npy";
        io::write_npy(folder / file, view<token_id const, axis::key>(sample.tokens.data(),
                                                                     {std::ssize(sample.tokens)}));
        content.push_back({{"file", file},
                           {"task", name_of(sample.kind)},
                           {"seed", sample.seed},
                           {"tokens", sample.tokens.size()},
                           {"prompt_tokens", sample.prompt_tokens},
                           {"answer", sample.answer}});
    }
    write_json(list, content);
    std::printf("%zu samples in %s\n", samples.size(), io::shown(folder).c_str());
}

int run_tasks(arguments const& a) {
    std::vector<task_kind> kinds(all_tasks.begin(), all_tasks.end());
    if (!a.tasks.empty()) {
        kinds.clear();
        for (auto const& name : a.tasks) {
            kinds.push_back(find_task(name));
        }
    }
    auto const untiled = methods_of(a, {"error:0.004", "mass:0.95"});
    try_to_write(a.json_file);
    model_folder const e(a.model);
    auto const methods = tiled(untiled, sizes_for(a, e));
    for (auto const& method : methods) {
        check_fit(method, a, e);
    }
    auto const bos = a.no_bos ? std::nullopt : e.model.config().bos;
    std::vector<task_sample> samples;
    for (task_kind const kind : kinds) {
        for (index_t n = 0; n < a.samples; ++n) {
            samples.push_back(tokenised(kind, a.windows.context,
                                        a.generation.seed + static_cast<std::uint64_t>(n), e.text,
                                        bos));
        }
    }
    if (!a.folder.empty()) {
        write_samples(samples, a.folder);
        return 0;
    }
    attend::progress_bar bar(!a.quiet);
    auto const reports =
        judge_tasks(e.model, samples, methods, exec::openmp(a.threads),
                    [&](double share, std::string const& what) { bar.update(share, what); });
    bar.clear();
    nlohmann::ordered_json content;
    content["model"] = io::shown(a.model);
    content["context_tokens"] = a.windows.context;
    content["tasks"] = attend::detail::value_to_json(reports);
    write_json(a.json_file, content);
    std::fputs(to_text(reports).c_str(), stdout);
    return 0;
}

int run(CLI::App const& app, arguments const& a) {
    return app.got_subcommand("perplexity") ? run_perplexity(a)
           : app.got_subcommand("generate") ? run_generate(a)
           : app.got_subcommand("record")   ? run_record(a)
                                            : run_tasks(a);
}

} // namespace
} // namespace sofattn::lm

int main(int argc, char** argv) {
    using namespace sofattn::lm;
    return sofattn::attend::command<arguments>{"sofattn-lm", introduction, reading, declare,
                                               run}(argc, argv);
}
