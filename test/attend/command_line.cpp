// SPDX-License-Identifier: MIT
// sofattn-attend as its users run it: arguments in, exit code, two streams and a file out.
#include "support/tool.hpp"

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>
#include <unistd.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

using namespace sofattn::test;
using sofattn::half;

namespace {

/// The same text with every run of blanks as one.
std::string single_spaced(std::string_view text) {
    std::string result;
    for (char c : text) {
        if (c != ' ' || !result.ends_with(' ')) {
            result += c;
        }
    }
    return result;
}

std::string number(char const* format, double value) {
    std::array<char, 64> text{};
    std::snprintf(text.data(), text.size(), format, value);
    return text.data();
}

/// As the table of qualities prints them.
std::string quality_text(json const& q) {
    return number("%.1f %%", 100 * q.at("kept_share").get<double>()) +
           number(" %.3f", q.at("recall").get<double>()) +
           number(" %.3f", q.at("mass").get<double>()) +
           number(" %.4f", q.at("output_error_relative").get<double>());
}

json const& policy_of(json const& report, std::size_t policy = 0, std::size_t layer = 0) {
    return report.at("layers").at(layer).at("policies").at(policy);
}

json const& overall(json const& report, std::size_t policy = 0) {
    return policy_of(report, policy).at("overall");
}

/// Times differ from run to run.
json without_times(json const& report) {
    if (!report.is_structured()) {
        return report;
    }
    json result = report;
    if (report.is_object()) {
        result.erase("time_seconds");
    }
    for (auto& item : result) {
        item = without_times(item);
    }
    return result;
}

std::size_t lines_with(std::string_view text, std::string_view part) {
    std::size_t count = 0;
    for (std::size_t at = 0; (at = text.find(part, at)) != std::string_view::npos; ++at) {
        ++count;
    }
    return count;
}

} // namespace

// --- what is refused: files ----------------------------------------------------------------------

TEST_CASE("attend: a file that is no array it can read is refused in one line") {
    three_files const files;
    std::string const valid = read_bytes(files.q);
    auto const says = [&](std::string const& bytes, words const& parts) {
        write_bytes(files.q, bytes);
        files.refuse({}, words{files.q.string()} + parts);
    };
    says("", {"header", "0 bytes", "at least 10 bytes"});
    says(valid.substr(0, 8), {"header", "8 bytes", "at least 10 bytes"});
    says(valid.substr(0, 60), {"truncated header", "50 bytes", "118 bytes"});
    says(std::string("\x93NUMPY\x02\x00\x00\x00\x10\x00", 12) + std::string(1 << 20, ' '),
         {"length of the header", "1048576 bytes", "at most 65536 bytes"});
    says("PK" + valid, {"start", "PK", "NUMPY"});
    says(npy_bytes("<f8", "False", "(4, 6, 8)", 1536), {"dtype", "<f8", "'<f4' or '<f2'"});
    says(npy_bytes("<i8", "False", "(4, 6, 8)", 1536), {"dtype", "<i8", "'<f4' or '<f2'"});
    says(npy_bytes("<i4", "False", "(4, 6, 8)", 768), {"dtype", "<i4", "'<f4' or '<f2'"});
    says(npy_bytes(">f4", "False", "(4, 6, 8)", 768),
         {"dtype", "big-endian", ">f4", "'<f4' or '<f2'"});
    says(npy_bytes("<f4", "True", "(4, 6, 8)", 768), {"order", "Fortran order", "C order"});
    says(npy_bytes("<f4", "False", "(4, 48)", 768), {"rank", "2", "3, [heads, tokens, dim]"});
    says(npy_bytes("<f4", "False", "(4, 0, 8)", 0), {"number of tokens", "0", "from 1"});
    says(npy_bytes("<f4", "False", "(0, 6, 8)", 0), {"number of heads", "0", "from 1"});
    says(npy_bytes("<f4", "False", "(4, 6, 0)", 0), {"head dimension", "0", "from 1 to 256"});
    says(npy_bytes("<f4", "False", "(1, 1, 257)", 1028), {"head dimension", "257", "to 256"});
    says(npy_bytes("<f4", "False", "(4, 6, 9)", 768), {"data", "768 bytes", "864 bytes"});
    says(valid.substr(0, valid.size() - 1), {"data", "767 bytes", "768 bytes"});
    says(valid + "x", {"data", "769 bytes", "768 bytes"});

    fs::remove(files.q);
    files.refuse({}, {files.q.string(), "missing", "a readable file"});
    fs::create_directory(files.q);
    files.refuse({}, {files.q.string(), "a folder", "a regular file"});
    refused(files.folder, {"--q", "/dev/null", "--k", files.k.string(), "--v", files.v.string()},
            {"/dev/null", "a special file", "a regular file"});
    if (geteuid() != 0) { // nothing is unreadable for root
        fs::permissions(files.k, fs::perms::none);
        refused(files.folder,
                {"--q", files.v.string(), "--k", files.k.string(), "--v", files.v.string()},
                {files.k.string(), "unreadable", "a readable file"});
    }
}

TEST_CASE("attend: arrays that do not fit each other are refused") {
    three_files const files;
    auto const says = [&](sizes const& s, fs::path const& file, words const& parts) {
        files.write<half>(s);
        files.refuse({}, words{file.string()} + parts);
    };
    says({.heads = 3}, files.q, {"number of heads", "3", "a multiple of the 2", "k.npy"});
    says({.queries = 7}, files.q, {"number of tokens", "7", "at most 6", "k.npy", "if causal"});
    files.write<half>({});
    write_array<half>(files.k, {2, 6, 9}, 2);
    files.refuse({}, {files.k.string(), "head dimension", "9", "8", "q.npy"});
    files.write<half>({});
    write_array<half>(files.v, {2, 5, 8}, 2);
    files.refuse({}, {files.v.string(), "number of tokens", "5", "6", "k.npy"});
    write_array<half>(files.v, {1, 6, 8}, 2);
    files.refuse({}, {files.v.string(), "number of heads", "1", "2", "k.npy"});
}

TEST_CASE("attend: NaN and infinity are refused with their position, also late in a run") {
    constexpr float infinity = std::numeric_limits<float>::infinity();
    three_files const files;
    poke(files.k, 50, std::numeric_limits<float>::quiet_NaN());
    files.refuse({}, {files.k.string(), "element [1, 0, 2]", "nan", "finite"});
    poke(files.k, 0, -infinity);
    files.refuse({}, {files.k.string(), "element [0, 0, 0]", "-inf", "finite"});
    poke(files.q, 191, infinity);
    files.refuse({}, {files.q.string(), "element [3, 5, 7]", "inf", "finite"});

    recorded_folder const recorded; // the second layer is read when the first one is done
    write_array<float>(recorded.folder / "L5_v.npy", {2, 6, 8}, 4);
    poke(recorded.folder / "L5_v.npy", 95, infinity);
    refused(recorded.folder, recorded.given({"--json", (recorded.folder / "r.json").string()}),
            {"L5_v.npy", "element [1, 5, 7]", "inf", "finite"});
}

TEST_CASE("attend: a folder whose manifest is missing or wrong is refused") {
    recorded_folder const recorded;
    std::string const valid = recorded.content.dump();
    recorded.refuse(valid.substr(0, valid.size() - 1), {"line 1", "the end of the file", "JSON"});
    recorded.refuse("{\n\"model\": tiny}", {"line 2, column", "valid JSON"});
    recorded.refuse("", {"line 1, column 1", "the end of the file", "valid JSON"});
    recorded.refuse("[]", {"document", "an array", "an object"});
    for (char const* field : {"model", "causal", "files"}) {
        json without = recorded.content;
        without.erase(field);
        recorded.refuse(without.dump(), {field, "missing"});
    }
    json changed = recorded.content;
    changed["files"].erase(5);
    recorded.refuse(changed.dump(), {"layer 5: v", "missing", "listed"});
    changed = recorded.content;
    changed["files"][4].erase("shape");
    recorded.refuse(changed.dump(), {"files[4].shape", "missing", "an array"});

    recorded.save(valid);
    words const to_file{"--json", (recorded.folder / "result.json").string()};
    fs::remove(recorded.folder / "L5_k.npy");
    refused(recorded.folder, recorded.given(to_file), {"L5_k.npy", "missing", "a readable file"});
    fs::remove(recorded.manifest);
    refused(recorded.folder, recorded.given(to_file),
            {recorded.folder.path().string(), "manifest*.json", "missing", "at least one file"});
    fs::create_directory(recorded.manifest);
    refused(recorded.folder, recorded.given(to_file),
            {recorded.manifest.string(), "a folder", "a regular file"});
    refused(recorded.folder, words{(recorded.folder / "L3_q.npy").string()} + to_file,
            {"L3_q.npy", "not a folder", "a folder with manifest*.json"});
    refused(recorded.folder, words{(recorded.folder / "none").string()} + to_file,
            {(recorded.folder / "none").string(), "missing", "a folder with manifest*.json"});
}

// --- what is refused: options --------------------------------------------------------------------

TEST_CASE("attend: a number out of range is refused as it was typed") {
    three_files const files;
    auto const says = [&](std::string const& option, words const& values,
                          std::string const& limit) {
        for (auto const& value : values) {
            files.refuse({option, value}, {option, "\"" + value + "\"", limit});
        }
    };
    says("--ratio", {"0", "-1", "1.5", "1.0000001", "nan", "abc", "0.5x", ""}, "in (0, 1]");
    says("--count", {"0", "-3", "1.5", "ten", "99999999999999999999"}, "at least 1");
    says("--radius", {"-1", "nan", "-inf", "x"}, "at least 0");
    says("--tile", {"0", "-1", "1e3", "99999999999999999999"}, "at least 1");
    says("--mass", {"0", "1.01", "nan", "x"}, "in (0, 1]");
    says("--output-error", {"0", "-1", "inf", "nan"}, "above 0");
    says("--minimum", {"-1", "0.5"}, "at least 0");
    says("--maximum", {"0", "-1", "x"}, "at least 1");
    says("--sinks", {"-1", "many"}, "at least 0");
    says("--window", {"-1", "1 2"}, "at least 0");
    says("--first-row", {"-1", "x"}, "at least 0");
    says("--layers", {"-1", "x", "", "99999999999"}, "at least 0");
    says("--scale", {"0", "-1", "nan", "inf", "x"}, "above 0");
    files.refuse({"--count", "7"},
                 {files.q.string(), "count of keys kept", "7", "the number of keys, 6"});
    files.refuse({"--first-row", "6"}, {files.q.string(), "--first-row", "6", "from 0 to 5"});
    files.refuse({"--layers", "0,7"}, {files.q.string(), "--layers", "7", "one of 0"});
    files.refuse({"--ratio", "a\nb"}, {"--ratio", R"("a\x0ab")", "in (0, 1]"});

    recorded_folder const recorded;
    refused(recorded.folder, recorded.given({"--layers", "3,4"}),
            {recorded.folder.path().string(), "--layers", "4", "one of 3, 5"});
}

TEST_CASE("attend: a name that is not known is refused with those that are") {
    three_files const files;
    auto const says = [&](std::string const& policy, words const& parts) {
        files.refuse({"--policy", policy}, words{"policy \"" + policy + "\""} + parts);
    };
    files.refuse({"--policy", "papre"}, {"policy", "\"papre\"", "paper, recommended, dense"});
    files.refuse({"--policy", ""}, {"policy", "\"\"", "paper, recommended, dense"});
    files.refuse({"--policy", "int8/sads"}, {"\"int8/sads\"", "PREDICTOR/SELECTOR/ATTENDER"});
    says("int9/sads/sufa", {"predictor", "\"int9\"", "dlzs8, dlzs16"});
    says("int8/sadz/sufa", {"selector", "\"sadz\"", "sads, sads_strided"});
    says("int8/sads/suffa", {"attender", "\"suffa\"", "sufa, sufa_ascending"});
    says("int8, int4/sads/sufa", {"predictor", "\"int8, int4\"", "dlzs8, dlzs16"});
    says("int8/threshold/sufa", {"--radius", "missing", "given"});
    says("unpredicted/sads/sufa", {"predictor", "\"unpredicted\"", "dlzs8, dlzs16"});
    says("int8/sads/sufa/", {"tail", "\"\"", "none, mean, segment_means, int8_values"});
    says("int8/sads/sufa/none/", {"tail", "\"none/\"", "segment_means"});
    says("int8/sads/sufa/mean", {"combination", "full_topk, adaptive, adaptive_running"});
    says("dlzs8/adaptive/two_pass", {"combination", "dlzs8, dlzs16", "sufa"});
    files.refuse({"--policy", "paper", "--policy", "no\nsuch"}, {R"("no\x0asuch")"});
    files.refuse({"--weights", "heavy"}, {"--weights", "heavy", "sofa_inferred"});
    files.refuse({"--select-per", "layer"}, {"--select-per", "layer", "head", "group"});
    files.refuse({"--study", "hard"}, {"--study", "hard", "ranking", "keys"});
}

TEST_CASE("attend: options that are unknown, missing or do not go together are refused") {
    three_files const files;
    recorded_folder const recorded;
    std::string const folder = recorded.folder.path().string();
    auto const says = [&](words const& arguments, words const& parts) {
        refused(files.folder, arguments, parts);
    };
    says({}, {"input", "missing", "FOLDER", "--q, --k and --v"});
    says({"--quiet"}, {"input", "missing"});
    files.refuse({"--raito"}, {"--raito"});
    files.refuse({"--raito", "0.2"}, {"--raito"}); // not that 0.2 were a FOLDER too many
    files.refuse({"--two\nlines"}, {"--two?lines"});
    files.refuse({"--ratio"}, {"--ratio"});
    files.refuse({"--ratio", "0.5", "--count", "3"}, {"--ratio", "--count"});
    files.refuse({"--ratio", "0.5", "--ratio", "0.2"}, {"--ratio"});
    files.refuse({"--mass", "0.5", "--output-error", "0.2"}, {"--mass", "--output-error"});
    words const adaptive{"--policy", "dlzs8/adaptive/sufa/mean"};
    for (char const* option : {"--ratio", "--count"}) {
        files.refuse(adaptive + words{option, "1"}, {option, "given", "no policy here reads it"});
    }
    for (char const* option : {"--mass", "--output-error", "--maximum"}) {
        files.refuse({"--policy", "paper", option, "1"}, {option, "given", "adaptive selector"});
    }
    files.refuse({"--policy", "recommended", "--maximum", "31"},
                 {"maximum count", "31", "at least the minimum count, 32"});
    says({folder, "--study", "frontier", "--expect", files.q.string()}, {"--expect", "no figures"});
    says({folder, "--study", "keys", "--svg", "x.svg"}, {"--svg", "only the frontier"});
    says({folder, "--study", "keys", "--json", "x.json"}, {"--json", "prints its table only"});
    files.refuse({"--svg", "x.svg"}, {"--svg", "--study"});
    says({"--q", files.q.string()}, {"--q", "--k"});
    says({"--k", files.k.string()}, {"--k", "--q"});
    says({"--v", files.v.string()}, {"--v", "--q"});
    says({"--q", files.q.string(), "--k", files.k.string()}, {"--q", "--v"});
    files.refuse({folder}, {"--q", "given", "FOLDER is " + folder});
    says({folder, folder}, {folder});
    says({folder, "--bidirectional"}, {"--bidirectional", "given", "manifest"});
    says({folder, "--scale", "1"}, {"--scale", "given", "manifest"});
    files.refuse({"--expect", files.q.string()}, {"--expect", "--study"});
    files.refuse({"--study", "ranking"}, {"--json", "given", "left out"});
    for (words const& option : std::vector<words>{{"--policy", "paper"},
                                                  {"--ratio", "0.5"},
                                                  {"--window", "0"},
                                                  {"--tile", "8"},
                                                  {"--no-ladder"}}) {
        says(words{folder, "--study", "ranking"} + option,
             {option.front(), "given", "left out", "study"});
    }
}

TEST_CASE("attend: a result that cannot be written is refused before the work") {
    three_files const files;
    auto const says = [&](fs::path const& target, words const& parts) {
        refused(files.folder, files.input() + words{"--json", target.string()}, parts);
    };
    fs::path const nowhere = files.folder / "none" / "result.json";
    says(nowhere, {nowhere.string(), "not writable", "No such file"});
    says(files.folder.path(), {files.folder.path().string(), "a folder", "a regular file"});
    says("/dev/null", {"/dev/null", "a special file", "a regular file"});
    says(files.q / "result.json", {"q.npy/result.json", "not writable"});
    says("", {"--json", "\"\"", "name of a file"});
    if (geteuid() != 0) {
        fs::permissions(files.folder.path(), fs::perms::owner_write, fs::perm_options::remove);
        says(files.result, {files.result.string(), "not writable"});
        fs::permissions(files.folder.path(), fs::perms::owner_write, fs::perm_options::add);
    }
}

TEST_CASE("attend: a refusal leaves an earlier result as it was, a run replaces it") {
    three_files const files;
    write_bytes(files.result, "earlier");
    files.refuse({"--ratio", "2"}, {"--ratio"});
    CHECK(read_bytes(files.result) == "earlier");
    poke(files.v, 0, std::numeric_limits<float>::infinity());
    files.refuse({}, {"v.npy", "inf"});
    CHECK(read_bytes(files.result) == "earlier");
    files.write<half>({});
    CHECK(files.run().contains("layers"));
    CHECK(files.folder.entries() == 4);
}

TEST_CASE("attend: a full standard output is an error, not a success") {
    if (!fs::exists("/dev/full")) {
        return;
    }
    three_files const files;
    for (words const& arguments : {files.input(), words{"--help"}, words{"--list"}}) {
        outcome const run = run_tool(arguments, {.out_to = "/dev/full"});
        CAPTURE(run.err);
        CHECK(run.code == 2);
        CHECK(is_message(run.err));
        CHECK(holds(run.err, "standard output is not writable"));
    }
}

// --- good runs -----------------------------------------------------------------------------------

TEST_CASE("attend: the screen and the JSON file carry the same figures") {
    three_files const files;
    outcome const run = accepted(files.given({"--policy", "paper", "--policy", "dense"}));
    json const report = json::parse(read_bytes(files.result));
    std::string const out = single_spaced(run.out);
    CAPTURE(out);
    json const& layer = report.at("layers").at(0);
    json const& paper = policy_of(report, 0);
    json const& dense = policy_of(report, 1);
    CHECK(layer.at("model") == "q.npy");
    CHECK(layer.at("query_heads") == 4);
    CHECK(layer.at("kv_heads") == 2);
    CHECK(layer.at("query_tokens") == 6);
    CHECK(layer.at("key_tokens") == 6);
    CHECK(layer.at("causal") == true);
    CHECK(paper.at("groups").size() == 2);
    CHECK(holds(out, "all 2 " + quality_text(paper.at("overall")) + " " +
                         quality_text(dense.at("overall"))));
    for (std::size_t g = 0; g < 2; ++g) {
        CHECK(holds(out, " " + std::to_string(g) + " " +
                             quality_text(paper.at("groups").at(g).at("quality"))));
    }
    std::size_t counts = 0;
    for (auto const& policy : layer.at("policies")) {
        for (auto const& stage : policy.at("operations")) {
            for (auto const& item : stage.items()) {
                std::string const& name = item.key();
                json const& value = item.value();
                CAPTURE(name);
                bool const is_count = name.ends_with("_count");
                CHECK((is_count || name.ends_with("_bytes")));
                CHECK(value > 0);
                constexpr int first_prefix = 1000; // "1.23 k" from here on
                if (is_count && value < first_prefix) {
                    ++counts;
                    CHECK(holds(out, std::to_string(value.get<int>()) + " " +
                                         name.substr(0, name.rfind('_'))));
                }
            }
        }
    }
    CHECK(counts > 5);
    json const& base = report.at("ladder").at(0).at("complexity");
    CHECK(report.at("ladder").size() == 4);
    for (auto const& rung : report.at("ladder")) {
        std::string row = rung.at("design");
        for (auto const& c : rung.at("complexity")) {
            for (auto const& reference : base) {
                if (reference.at("weights") == c.at("weights") &&
                    c.at("weights") == "sofa_inferred") {
                    for (char const* stage : {"prediction", "selection", "attention"}) {
                        row += number(" %.1f", 100 * c.at(stage).get<double>() /
                                                   reference.at("total").get<double>());
                    }
                }
            }
        }
        for (std::size_t w = 0; w < base.size(); ++w) {
            row += number(" %.1f %%", 100 * rung.at("complexity")[w].at("total").get<double>() /
                                          base[w].at("total").get<double>());
        }
        CAPTURE(row);
        CHECK(holds(out, row));
    }
    CHECK(paper.at("time_seconds") >= 0.0);
    CHECK(report.at("time_seconds") > 0.0);
    CHECK(paper.at("key_loads_count") > 0);
    json const& budget = paper.at("budget");
    CHECK(budget.at("keep_ratio") == 0.1);
    CHECK(budget.at("keep_count_keys").is_null());
    CHECK(budget.at("radius_logits").is_null());
    CHECK(budget.at("tile_keys") == 128);
    CHECK(budget.contains("minimum_keys"));
    CHECK(budget.contains("sink_keys"));
    CHECK(budget.contains("window_keys"));
    CHECK(dense.at("budget").at("keep_ratio") == 1.0);
}

TEST_CASE("attend: dense attention is exact for any heads, sizes, masks and storage") {
    three_files const files;
    for (sizes const& s :
         {sizes{}, sizes{.heads = 2}, sizes{.heads = 6, .kv_heads = 1}, sizes{.value_dim = 3},
          sizes{.dim = 5, .value_dim = 16}, sizes{.queries = 2, .keys = 9},
          sizes{.heads = 1, .kv_heads = 1, .queries = 1, .keys = 1, .dim = 1},
          sizes{.heads = 1, .kv_heads = 1, .dim = 256, .value_dim = 256}, sizes{.keys = 130}}) {
        for (words const& mask : {words{}, words{"--bidirectional"}}) {
            words const options = mask + words{"--policy", "dense", "--policy", "paper"};
            files.write<float>(s);
            json const report = files.run(options);
            CAPTURE(report.at("layers").at(0).dump());
            CHECK(report.at("layers").at(0).at("causal") == mask.empty());
            CHECK(report.at("layers").at(0).at("value_dim") == s.value_dim);
            CHECK(overall(report).at("output_error_relative") < 1e-6);
            CHECK(overall(report).at("kept_share") == 1.0);
            CHECK(overall(report).at("recall") == 1.0);
            CHECK(overall(report).at("mass") == doctest::Approx(1.0));
            CHECK(overall(report, 1).at("mass") <= 1.0 + 1e-9);
            files.write<half>(s); // the same numbers
            CHECK(without_times(files.run(options)) == without_times(report));
        }
    }
    files.write<float>({.queries = 9, .keys = 4}); // queries without a mask may outnumber keys
    CHECK(overall(files.run({"--bidirectional", "--policy", "dense"})).at("recall") == 1.0);
}

TEST_CASE("attend: a budget keeps what it says") {
    three_files const files;
    files.write<float>({.queries = 40, .keys = 40});
    auto const kept = [&](words const& options) {
        words const fixed{"--bidirectional", "--no-ladder", "--policy", "exact/full_topk/two_pass"};
        return overall(files.run(fixed + options)).at("kept_share").get<double>();
    };
    CHECK(kept({"--ratio", "1"}) == 1.0);
    CHECK(kept({"--ratio", "0.25"}) == 0.25);
    CHECK(kept({"--count", "1"}) == 1.0 / 40);
    CHECK(kept({"--count", "40"}) == 1.0);
    CHECK(kept({"--ratio", "0.1", "--minimum", "20"}) == 0.5);
    CHECK(kept({"--ratio", "0.1", "--minimum", "9223372036854775807"}) == 1.0);
    CHECK(kept({"--ratio", "0.1", "--sinks", "4"}) == 0.1);
    CHECK(kept({"--count", "1", "--sinks", "4", "--window", "6"}) > 0.2);
    CHECK(kept({"--ratio", "1", "--radius", "0"}) < 0.2);
    CHECK(kept({"--ratio", "1", "--radius", "inf"}) == 1.0);
    CHECK(kept({"--ratio", "1", "--window", "9223372036854775807"}) == 1.0);
    CHECK(kept({"--ratio", "0.25", "--tile", "1"}) == 0.25);
    CHECK(kept({"--ratio", "0.25", "--tile", "7"}) == 0.25);
    CHECK(kept({"--ratio", "0.25", "--tile", "9223372036854775807"}) == 0.25);
    CHECK(kept({"--ratio", "0.25", "--scale", "1e-300"}) == 0.25);
    CHECK(kept({"--ratio", "0.25", "--first-row", "39"}) == 0.25);
}

TEST_CASE("attend: adaptive budgets keep what a mass or an error asks for") {
    three_files const files;
    files.write<float>({.queries = 80, .keys = 80});
    auto const quality = [&](char const* policy, words const& options) {
        words const fixed{"--bidirectional", "--no-ladder", "--policy", policy};
        json const report = files.run(fixed + options);
        json const& budget = policy_of(report).at("budget");
        CHECK(budget.at("keep_ratio").is_null());
        CHECK(budget.at("keep_mass").is_null() != budget.at("output_error_spreads").is_null());
        return overall(report);
    };
    for (char const* selector : {"adaptive", "adaptive_running"}) {
        for (char const* mass : {"0.5", "0.8", "0.95"}) {
            json const q = quality((std::string("exact/") + selector + "/sufa").c_str(),
                                   {"--mass", mass, "--minimum", "1"});
            CHECK(q.at("mass").get<double>() >= std::stod(mass) - 1e-3);
            CHECK(q.at("kept_share").get<double>() < 1.0);
        }
    }
    auto const error = [](json const& q) { return q.at("output_error_relative").get<double>(); };
    json const none = quality("int8_per_query/adaptive/sufa", {"--mass", "0.8"});
    json const mean = quality("int8_per_query/adaptive/sufa/mean", {"--mass", "0.8"});
    json const segments = quality("int8_per_query/adaptive/sufa/segment_means", {"--mass", "0.8"});
    json const int8 = quality("int8_per_query/adaptive/sufa/int8_values", {"--mass", "0.8"});
    CHECK(none.at("kept_share") == mean.at("kept_share"));
    CHECK(error(mean) < error(none));
    CHECK(error(segments) < error(none));
    CHECK(error(int8) < 0.2 * error(mean));
    CHECK(error(quality("recommended", {"--output-error", "0.001"})) <
          error(quality("recommended", {"--output-error", "0.1"})));
    CHECK(quality("recommended", {"--mass", "1", "--maximum", "32"}).at("kept_share") < 0.65);
}

TEST_CASE("attend: a table of budgets sets every head's, and only those it has") {
    recorded_folder const recorded;
    fs::path const result = recorded.folder / "r.json";
    fs::path const file = recorded.folder / "budgets.json";
    json table = {{"format", "sofattn-budgets-1"}, {"policy", "p"}, {"layers", json::array()}};
    for (int layer : {3, 5}) {
        json heads = json::array();
        for (int head = 0; head < 4; ++head) { // the first pair may err as it likes
            heads.push_back({{"query_head", head}, {"output_error_spreads", head < 2 ? 99 : 1e-6}});
        }
        table["layers"].push_back({{"model", "tiny"}, {"layer", layer}, {"heads", heads}});
    }
    write_bytes(file, table.dump());
    words const with{"--policy",  "int8_per_query/adaptive/sufa/mean",
                     "--minimum", "1",
                     "--sinks",   "0",
                     "--window",  "0",
                     "--budgets", file.string(),
                     "--json",    result.string()};
    static_cast<void>(accepted(recorded.given(with)));
    json const report = json::parse(read_bytes(result));
    for (std::size_t layer = 0; layer < 2; ++layer) {
        auto const kept = [&](std::size_t group) {
            return policy_of(report, 0, layer).at("groups")[group].at("quality").at("kept_share");
        };
        CHECK(kept(0).get<double>() < 0.5);
        CHECK(kept(1).get<double>() > 0.9);
    }
    table["layers"][1]["heads"].erase(3);
    write_bytes(file, table.dump());
    fs::remove(result);
    refused(recorded.folder, recorded.given(with),
            {file.string(), "layer 5, query head 3", "missing"});
    table["layers"].erase(1);
    write_bytes(file, table.dump());
    refused(recorded.folder, recorded.given(with), {file.string(), "layer 5", "missing"});
    refused(recorded.folder, recorded.given({"--policy", "paper", "--budgets", file.string()}),
            {"--budgets", "no policy here has an adaptive selector"});
}

TEST_CASE("attend: the frontier is a table, JSON and a picture") {
    recorded_folder const recorded;
    fs::path const result = recorded.folder / "f.json";
    fs::path const picture = recorded.folder / "f.svg";
    outcome const run = accepted(recorded.given(
        {"--study", "frontier", "--json", result.string(), "--svg", picture.string()}));
    CHECK(holds(run.out, "tiny, layers 3,5"));
    CHECK(holds(run.out, "| paper preset "));
    json const report = json::parse(read_bytes(result));
    CHECK(report.at("frontiers").size() == 3); // the mean, and both layers
    for (auto const& one : report.at("frontiers")) {
        CHECK(one.at("model") == "tiny");
        CHECK(one.at("series").size() == 13);
        for (auto const& series : one.at("series")) {
            CHECK(series.at("points").size() >= 6);
            for (auto const& point : series.at("points")) {
                CHECK(point.at("quality").at("kept_share") > 0.0);
            }
        }
    }
    std::string const svg = read_bytes(picture);
    CHECK(svg.starts_with("<svg "));
    CHECK(svg.ends_with("</svg>\n"));
    CHECK_FALSE(holds(svg, "nan"));
    CHECK_FALSE(holds(svg, "inf"));
    fs::path const nowhere = recorded.folder / "none" / "f.svg";
    refused(recorded.folder, recorded.given({"--study", "frontier", "--svg", nowhere.string()}),
            {nowhere.string(), "not writable"});
}

TEST_CASE("attend: certificates of every row are held against the truth") {
    recorded_folder const recorded;
    fs::path const result = recorded.folder / "c.json";
    outcome const run =
        accepted(recorded.given({"--study", "certificates", "--json", result.string()}));
    CHECK(holds(run.out, "tiny, layer 5"));
    CHECK(holds(run.out, "every bound holds\n"));
    json const report = json::parse(read_bytes(result));
    REQUIRE(report.at("certificates").size() == 2 * 7); // layers and policies
    for (auto const& one : report.at("certificates")) {
        CAPTURE(one.dump());
        CHECK(one.at("rows_count") > 0);
        CHECK(one.at("mass_bound_violations_count") == 0);
        CHECK(one.at("error_bound_violations_count") == 0);
        if (one.at("mass") > 0.0) {
            CHECK(one.at("kept_mass") >= one.at("mass").get<double>() - 0.01);
        }
    }
    refused(recorded.folder,
            recorded.given({"--study", "certificates", "--expect", result.string()}),
            {"--expect", "no figures to compare with"});
}

TEST_CASE("attend: every judged row is of one of three kinds") {
    recorded_folder const recorded;
    fs::path const result = recorded.folder / "k.json";
    outcome const run = accepted(recorded.given({"--study", "rows", "--json", result.string()}));
    CHECK(holds(run.out, "tiny 5"));
    json const report = json::parse(read_bytes(result));
    REQUIRE(report.at("row_kinds").size() == 2 * 3); // layers and masses
    for (auto const& one : report.at("row_kinds")) {
        CAPTURE(one.dump());
        CHECK(one.at("rows_count") == 4 * 6);
        double const sum = one.at("few_share").get<double>() +
                           one.at("spread_share").get<double>() +
                           one.at("concentrated_share").get<double>();
        CHECK(sum == doctest::Approx(1));
    }
    refused(recorded.folder, recorded.given({"--study", "rows", "--tile", "4"}),
            {"--tile", "its own policies"});
}

TEST_CASE("attend: reused scores change the output a little, the keys not, and load fewer") {
    recorded_folder const recorded;
    fs::path const result = recorded.folder / "r.json";
    static_cast<void>(
        accepted(recorded.given({"--policy", "rotated_int8/adaptive/sufa_reusing/segment_means",
                                 "--policy", "rotated_int8/adaptive/sufa/segment_means",
                                 "--minimum", "1", "--json", result.string()})));
    json const report = json::parse(read_bytes(result));
    json const& reused = policy_of(report, 0);
    json const& computed = policy_of(report, 1);
    CHECK(reused.at("overall").at("kept_share") == computed.at("overall").at("kept_share"));
    CHECK(reused.at("overall").at("recall") == computed.at("overall").at("recall"));
    CHECK(reused.at("overall") != computed.at("overall"));
    CHECK(reused.at("overall").at("output_error_relative") <
          computed.at("overall").at("output_error_relative").get<double>() + 0.01);
    CHECK(reused.at("key_loads_count") <= computed.at("key_loads_count"));
    refused(recorded.folder, recorded.given({"--policy", "dlzs8/adaptive/sufa_reusing"}),
            {"a combination that is not built", "rotated_int8"});
}

TEST_CASE("attend: a dense first policy gives the ladder no budget") {
    three_files const files;
    files.write<float>({.queries = 40, .keys = 40});
    json const alone = files.run({"--policy", "dlzs8/sads/sufa"});
    json const second = files.run({"--policy", "dense", "--policy", "dlzs8/sads/sufa"});
    CHECK(alone.at("ladder") == second.at("ladder"));
}

TEST_CASE("attend: three policies make two tables, and no line is wider than a screen") {
    three_files const files;
    outcome const run = accepted(files.given({"--policy", "paper", "--policy", "recommended",
                                              "--policy", "int8/full_topk/flash_attention_2"}));
    CHECK(lines_with(run.out, "head group") == 2);
    CHECK(lines_with(run.out, "operations of ") == 3);
    CHECK(holds(run.out, "int8/full_topk/flash_attention_2\n"));
    std::size_t start = 0;
    for (std::size_t end = 0; (end = run.out.find('\n', start)) != std::string::npos;
         start = end + 1) {
        CAPTURE(run.out.substr(start, end - start));
        CHECK(end - start <= 100);
    }
    CHECK(start == run.out.size());
    CHECK(json::parse(read_bytes(files.result)).at("layers")[0].at("policies").size() == 3);
}

TEST_CASE("attend: heads of a group can select together") {
    three_files const files;
    files.write<float>({.heads = 8, .queries = 20, .keys = 20});
    json const head = files.run({"--select-per", "head", "--ratio", "0.25"});
    json const group = files.run({"--select-per", "group", "--ratio", "0.25"});
    CHECK(policy_of(head).at("budget").at("selection_scope") == "per_query_head");
    CHECK(policy_of(group).at("budget").at("selection_scope") == "per_group");
    CHECK(policy_of(group).at("key_loads_count") < policy_of(head).at("key_loads_count"));
    CHECK(overall(group).at("recall") < overall(head).at("recall"));
}

TEST_CASE("attend: the ladder can be weighed in four ways or left out") {
    three_files const files;
    for (char const* weights : {"unit", "sofa_inferred", "bit_level", "energy_28nm"}) {
        outcome const run = accepted(files.input() + words{"--weights", weights});
        CHECK(holds(run.out, "complexity ladder"));
        CHECK(holds(run.out, "stages: " + std::string(weights) + " weights"));
    }
    outcome const without = accepted(files.given({"--no-ladder"}));
    CHECK_FALSE(holds(without.out, "ladder"));
    CHECK(json::parse(read_bytes(files.result)).at("ladder").empty());
}

TEST_CASE("attend: of many head groups three are shown, or all") {
    three_files const files;
    files.write<float>({.heads = 8, .kv_heads = 8});
    auto const rows = [&](words const& options) {
        std::string const out = accepted(files.input() + words{"--no-ladder"} + options).out;
        std::size_t const first = out.find('\n', out.find("head group"));
        return lines_with(out.substr(first, out.find("all 8") - first), "\n") - 1;
    };
    CHECK(rows({}) == 3);
    CHECK(rows({"--groups"}) == 8);
}

TEST_CASE("attend: results do not depend on the number of threads") {
    three_files const files;
    files.write<float>({.heads = 12, .kv_heads = 6, .queries = 30, .keys = 30});
    words const options{"--policy", "paper", "--policy", "int8/threshold/two_pass",
                        "--radius", "3",     "--tile",   "7"};
    json const one = files.run(options, {.threads = "1"});
    json const two = files.run(options, {.threads = "2"});
    CHECK(without_times(one) == without_times(two));
    CHECK(without_times(one) != one);
}

TEST_CASE("attend: help teaches, and the list names what may be named") {
    for (char const* option : {"--help", "-h"}) {
        std::string const help = accepted({option}).out;
        for (char const* part :
             {"Examples:", "sofattn-attend examples/data", "--q q.npy --k k.npy --v v.npy",
              "Exit codes: 0 done, 1 ", "2 bad input", "[heads, tokens, dim]", "FOLDER", "--policy",
              "--json", "(0, 1]"}) {
            CAPTURE(part);
            CHECK(holds(help, part));
        }
    }
    std::string const list = accepted({"--list"}).out;
    for (char const* part :
         {"paper, recommended, dense", "dlzs8, dlzs16", "sads, sads_strided, full_topk, threshold",
          "sufa, sufa_ascending, flash_attention_2, two_pass", "bit_level", "multiply_add_16"}) {
        CAPTURE(part);
        CHECK(holds(list, part));
    }
}

TEST_CASE("attend: every name of the list makes a policy") {
    three_files const files;
    words const in_all{"--no-ladder", "--radius", "2"}; // threshold asks for one
    for (char const* predictor : {"dlzs8", "dlzs16", "two_sided", "lz_keys", "int8",
                                  "int8_per_query", "int4", "centred_int4", "exact"}) {
        words options = in_all;
        for (char const* selector : {"sads", "sads_strided", "full_topk", "threshold"}) {
            for (char const* attender :
                 {"sufa", "sufa_ascending", "flash_attention_2", "two_pass"}) {
                options = options + words{"--policy",
                                          std::string(predictor) + "/" + selector + "/" + attender};
            }
        }
        json const report = files.run(options);
        CHECK(report.at("layers")[0].at("policies").size() == 16);
        for (auto const& policy : report.at("layers")[0].at("policies")) {
            CAPTURE(policy.at("policy").get<std::string>());
            CHECK(policy.at("overall").at("mass") > 0.0);
            CHECK(policy.at("overall").at("output_error_relative").is_number());
        }
    }
}

TEST_CASE("attend: any path will do: relative, absolute, with blanks, quotes and other letters") {
    three_files const files;
    fs::path const odd = files.folder / "ein Ordner – 中文 'q\" $x";
    fs::create_directory(odd);
    for (fs::path const& file : {files.q, files.k, files.v}) {
        fs::copy(file, odd / file.filename());
    }
    fs::copy(files.q, odd / "-q.npy");
    words const tail{"--k",    (odd / "k.npy").string(), "--v", "../v.npy",
                     "--json", "Ergebnis ä.json"};
    outcome const run = accepted(words{"--q", "./q.npy"} + tail, {.folder = odd});
    CHECK(holds(run.out, "Ergebnis ä.json"));
    CHECK(json::parse(read_bytes(odd / "Ergebnis ä.json")).at("input") == "./q.npy");
    static_cast<void>(accepted(words{"--q", "-q.npy"} + tail, {.folder = odd}));
    static_cast<void>(accepted(words{"--q=-q.npy"} + tail, {.folder = odd}));
    fs::remove(odd / "k.npy");
    refused(files.folder, words{"--q", files.q.string()} + tail, {(odd / "k.npy").string()});

    std::string const no_utf8 = "x\xff.npy"; // a file name may be any bytes, JSON may not
    fs::copy(files.q, odd / no_utf8);
    json const report = files.run({"--quiet"}, {.folder = odd}); // absolute paths need no folder
    CHECK(report.at("input") == files.q.string());
    static_cast<void>(accepted({"--q", (odd / no_utf8).string(), "--k", files.k.string(), "--v",
                                files.v.string(), "--json", files.result.string()}));
    CHECK(
        holds(json::parse(read_bytes(files.result)).at("input").get<std::string>(), "x\ufffd.npy"));
}

TEST_CASE("attend: a folder that takes no files can be read") {
    recorded_folder const recorded;
    fs::permissions(recorded.folder.path(), fs::perms::owner_write, fs::perm_options::remove);
    outcome const run = run_tool(recorded.given({"--no-ladder"}));
    fs::permissions(recorded.folder.path(), fs::perms::owner_write, fs::perm_options::add);
    CHECK(run.code == 0);
    CHECK(run.err.empty());
}

TEST_CASE("attend: a folder runs all its layers or the ones asked for") {
    recorded_folder const recorded;
    temporary_folder const elsewhere;
    std::string const result = (elsewhere / "result.json").string();
    auto const layers = [&](words const& arguments) {
        static_cast<void>(accepted(arguments + words{"--json", result, "--no-ladder"}));
        std::vector<int> numbers;
        json const report = json::parse(read_bytes(result));
        for (auto const& layer : report.at("layers")) {
            CHECK(layer.at("model") == "tiny");
            numbers.push_back(layer.at("layer"));
        }
        return numbers;
    };
    std::string const folder = recorded.folder.path().string();
    CHECK(layers({folder}) == std::vector{3, 5});
    CHECK(layers({folder + "/"}) == std::vector{3, 5});
    CHECK(layers({folder, "--layers", "5"}) == std::vector{5});
    CHECK(layers({"--layers", "5,3", folder}) == std::vector{3, 5});
    CHECK(layers({"--layers", "3", "--layers", "5", "--policy", "dense", folder}) ==
          std::vector{3, 5});
}

// --- studies -------------------------------------------------------------------------------------

TEST_CASE("attend: a study prints its table and compares it with figures that are expected") {
    recorded_folder const recorded;
    words const study = recorded.given({"--study", "ranking"});
    outcome const run = accepted(study);
    CHECK(holds(run.out, "tiny, layers 3,5"));
    // Rows of a short layer are judged from the first one, as a run does.
    CHECK(holds(single_spaced(run.out), "| exact | 20 % | 1.000 | 0."));

    fs::path const figures = recorded.folder / "figures.json";
    auto const expect = study + words{"--expect", figures.string()};
    json golden = {{"tolerance_recall", 0.01},
                   {"rows",
                    {{{"study", "ranking"},
                      {"model", "tiny"},
                      {"layers", "3,5"},
                      {"ranking", "exact"},
                      {"keep_ratio", 0.2},
                      {"recall", 1.0}}}}};
    write_bytes(figures, golden.dump());
    CHECK(holds(accepted(expect).out, "1 figures compared"));

    golden["rows"][0]["recall"] = 0.5;
    write_bytes(figures, golden.dump());
    outcome const deviating = run_tool(expect);
    CHECK(deviating.code == 1);
    CHECK(deviating.err.empty());
    CHECK(holds(deviating.out, "deviates: tiny layers 3,5 exact at 0.2: recall is 1.0000"));

    auto const says = [&](std::string const& text, words const& parts) {
        write_bytes(figures, text);
        refused(recorded.folder, expect, words{figures.string()} + parts);
    };
    says("", {"not JSON"});
    says("{\"rows\": [", {"not JSON"});
    says("[1]", {"a JSON object with rows"});
    says(R"({"rows": []})", {"0", "at least 1"});
    says(R"({"rows": [{}]})", {"ill-formed", "'study'", "rows of a study"});
    says(R"({"rows": [7]})", {"ill-formed", "rows of a study"});
    says(R"({"rows": 7})", {"ill-formed", "rows of a study"});
    golden.erase("tolerance_recall");
    says(golden.dump(), {"ill-formed", "tolerance_recall"});
    golden["rows"][0]["model"] = 7;
    says(golden.dump(), {"ill-formed", "string"});
    fs::remove(figures);
    refused(recorded.folder, expect, {figures.string(), "missing", "a readable file"});
    refused(recorded.folder, study + words{"--expect", recorded.folder.path().string()},
            {"a folder", "a regular file"});
    refused(recorded.folder, study + words{"--first-row", "6"}, {"--first-row", "6", "0 to 5"});
    refused(recorded.folder, recorded.given({"--study", "keys"}),
            {recorded.folder.path().string(), "layers with x, wk and wv", "0", "at least 1"});
}

// --- damage --------------------------------------------------------------------------------------

TEST_CASE("attend: hundreds of damaged inputs run or are refused in one line") {
    SOFATTN_GENERATOR(random);
    three_files const files;
    files.write<half>({});
    std::array<fs::path, 3> const paths{files.q, files.k, files.v};
    std::array<std::string, 3> const valid{read_bytes(files.q), read_bytes(files.k),
                                           read_bytes(files.v)};
    words const arguments = files.given({"--no-ladder", "--policy", "paper"});
    std::string const digits = "0123456789(),-'<f24{}: ";
    constexpr std::size_t header_bytes = 128;
    constexpr std::size_t text_at = 10;
    int ran = 0;
    int refusals = 0;
    for (int round = 0; round < 300; ++round) {
        auto const which = random.integer<std::size_t>(0, 2);
        std::string bytes = valid[which];
        auto const any = [&](std::size_t first, std::size_t end) {
            return random.integer<std::size_t>(first, end - 1);
        };
        switch (random.integer(0, 5)) {
        case 0: bytes.resize(any(0, bytes.size())); break;
        case 1: bytes[any(0, header_bytes)] = static_cast<char>(random.integer(0, 255)); break;
        case 2: bytes[any(0, text_at)] ^= static_cast<char>(1 << random.integer(0, 7)); break;
        case 3: // where the words are
            bytes[any(text_at, 70)] = digits[any(0, digits.size())];
            break;
        case 4: bytes[any(header_bytes, bytes.size())] = '\x7c'; break; // infinite if in the top
        default: // one extent more or less, and data that fit it
            bytes.replace(bytes.find(", 8)"), 4, ", 7)");
            bytes.resize(header_bytes + (bytes.size() - header_bytes) / 8 * 7);
        }
        write_bytes(paths[which], bytes);
        outcome const run = run_tool(arguments);
        bool const refusal = run.code == 2 && run.out.empty() && is_message(run.err) &&
                             holds(run.err, files.folder.path().string()) &&
                             files.folder.entries() == 3;
        bool const success = run.code == 0 && run.err.empty() && files.folder.entries() == 4 &&
                             json::accept(read_bytes(files.result));
        if (!refusal && !success) {
            FAIL("round ", round, ": code ", run.code, ", signal ", run.signal, ": ", run.err);
        }
        ran += success ? 1 : 0;
        refusals += refusal ? 1 : 0;
        fs::remove(files.result);
        write_bytes(paths[which], valid[which]);
    }
    CHECK(ran > 20);
    CHECK(refusals > 100);
}
