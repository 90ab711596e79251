// SPDX-License-Identifier: MIT
// sofattn-paper as its users run it, with the real programs and with ones that fail.
#include "support/temporary_folder.hpp"
#include "support/tool.hpp"

#include <doctest/doctest.h>

#include <csignal>
#include <filesystem>
#include <string>

using namespace sofattn::test;

namespace {

/// Folders and files of a run.
struct workplace {
    temporary_folder folder;
    fs::path markdown = folder / "p.md";
    fs::path html = folder / "p.html";
    fs::path programs = folder / "programs";
    fs::path sample = folder / "sample";

    workplace() {
        fs::create_directory(programs);
        fs::create_directory(sample);
    }
    [[nodiscard]] words given(words const& more) const {
        return words{"--sample",   sample.string(),   "--results", (folder / "results").string(),
                     "--markdown", markdown.string(), "--html",    html.string()} +
               more;
    }
    /// A program that is this shell script; in it "$result" is the file to be written.
    void program(std::string const& name, std::string const& script) const {
        write_bytes(programs / name, "#!/bin/sh\nfor result; do :; done\n" + script);
        fs::permissions(programs / name, fs::perms::owner_all);
    }
    [[nodiscard]] words with_programs(words const& more) const {
        return given(words{"--tools", programs.string()} + more);
    }
    [[nodiscard]] std::string text() const { return read_bytes(markdown); }
};

/// What sofattn-attend tells of rows, of one decoder layer.
std::string row_kinds(double few, double spread, double concentrated) {
    json list = json::array();
    for (double const mass : {0.5, 0.8, 0.9}) {
        list.push_back({{"model", "made up"},
                        {"layer", 1},
                        {"causal", true},
                        {"mass", mass},
                        {"rows_count", 10},
                        {"few_share", few},
                        {"spread_share", spread},
                        {"concentrated_share", concentrated}});
    }
    return json{{"row_kinds", list}}.dump();
}

/// A program that answers both of fig8's questions.
std::string fig8_script(std::string const& kinds, double recall) {
    json const policy{{"overall", {{"recall", recall}}}};
    json const segments{{"layers", {{{"policies", {policy, policy}}}}}};
    return "case \"$*\" in *rows*) echo '" + kinds + "' ;; *) echo '" + segments.dump() +
           "' ;; esac > \"$result\"\n";
}

} // namespace

TEST_CASE("paper: parts by name, as Markdown and as a page, the same bytes twice") {
    workplace const w;
    outcome const run = accepted(w.given({"--only", "fig15", "--only", "fig7"}));
    CHECK(holds(run.out, "fig15"));
    CHECK(holds(run.out, "2 reproduced"));
    std::string const first = w.text();
    CHECK(holds(first, "Fig. 15: loads, RASS"));
    CHECK(holds(first, "sofattn-hw tables\n"));
    CHECK(holds(first, "Some parts only"));
    CHECK_FALSE(holds(first, "## Table II"));
    CHECK(holds(read_bytes(w.html), "</html>"));
    static_cast<void>(accepted(w.given({"--only", "fig7", "--only", "fig15", "--quiet"})));
    CHECK(w.text() == first);
    static_cast<void>(
        accepted(w.given({"--only", "fig7", "--only", "fig15", "--stamp", "a Friday"})));
    CHECK(holds(w.text(), "Made on: a Friday"));
    outcome const list = accepted({"--list"});
    CHECK(holds(list.out, "algorithm1"));
    CHECK(w.folder.entries() == 4); // no results where no program ran
}

TEST_CASE("paper: bad input is refused in one line and leaves no report") {
    workplace const w;
    refused(w.folder, w.given({"--only", "fig99"}), {"--only", "fig99", "fig15, "});
    refused(w.folder, w.given({"--recorded", "/none"}), {"/none", "missing", "a folder"});
    refused(w.folder, w.given({"--timeout", "0"}), {"--timeout"});
    refused(w.folder,
            {"--only", "fig7", "--sample", w.sample.string(), "--html",
             (w.folder / "none" / "p.html").string()},
            {"p.html", "not writable"});
}

TEST_CASE("paper: the real sofattn-attend on small layers") {
    recorded_folder recorded;
    for (auto& file : recorded.content["files"]) { // the sample's numbers
        if (file["layer"] == 3) {
            file["layer"] = 16;
        }
    }
    recorded.save(recorded.content.dump(1));
    workplace const w;
    static_cast<void>(
        accepted({"--sample", recorded.folder.path().string(), "--only", "fig8", "--results",
                  (w.folder / "results").string(), "--markdown", w.markdown.string()}));
    CHECK(holds(w.text(), "tiny 16"));
    CHECK(holds(w.text(), "--study rows --quiet --json"));
    CHECK(fs::exists(w.folder / "results" / "fig8.json"));
    CHECK_FALSE(fs::exists(w.html));
}

TEST_CASE("paper: what is measured decides the status") {
    workplace const w;
    w.program("sofattn-attend", fig8_script(row_kinds(0.25, 0.74, 0.01), 0.97));
    static_cast<void>(accepted(w.with_programs({"--only", "fig8"})));
    CHECK(holds(w.text(), "7 reproduced, 0 by calibration, 0 input, 0 cannot be reproduced"));
    w.program("sofattn-attend", fig8_script(row_kinds(0.25, 0.50, 0.25), 0.90));
    static_cast<void>(accepted(w.with_programs({"--only", "fig8"})));
    CHECK(holds(w.text(), "1 reproduced, 0 by calibration, 0 input, 6 cannot be reproduced"));
}

TEST_CASE("paper: a part that fails is in the report with its fault, the others too") {
    workplace const w;
    auto const fails = [&](words const& more, words const& parts) {
        outcome const run =
            run_tool(w.with_programs(words{"--only", "fig8", "--only", "fig7"} + more));
        CHECK(run.code == 1);
        CHECK(holds(run.out, "NOT COMPUTED"));
        std::string const text = w.text();
        CHECK(holds(text, "Fig. 7: 24 * 6, DLZS"));
        CHECK(holds(text, "4 reproduced, 0 by calibration"));
        for (std::string const& part : parts) {
            CAPTURE(part);
            CHECK(holds(text, part));
            CHECK(holds(run.out, part));
        }
        CHECK(holds(read_bytes(w.html), "Not computed"));
    };
    fails({}, {"sofattn-attend", "not started"});
    w.program("sofattn-attend", "echo first >&2; echo 'no such layer' >&2; exit 3\n");
    fails({}, {"exit status 3 (no such layer)"});
    w.program("sofattn-attend", "kill -SEGV $$\n");
    fails({}, {"signal 11"});
    w.program("sofattn-attend", "exec sleep 60\n");
    fails({"--timeout", "0.2"}, {"time", "at most"});
    w.program("sofattn-attend", "echo '{' > \"$result\"\n");
    fails({}, {"fig8.json", "valid JSON"});
    w.program("sofattn-attend", "echo '{}' > \"$result\"\n");
    fails({}, {"row_kinds"});
    w.program("sofattn-attend", "exit 0\n"); // what an earlier run wrote is not taken for its own
    fails({}, {"fig8.json", "missing"});
}

TEST_CASE("paper: whoever is stopped leaves the old report whole") {
    workplace const w;
    write_bytes(w.markdown, "old");
    w.program("sofattn-attend", "exec sleep 60\n");
    surroundings where;
    where.most_seconds = 1;
    outcome const run = run_tool(w.with_programs({"--only", "fig7", "--only", "fig8"}), where);
    CHECK(run.signal == SIGALRM);
    CHECK(w.text() == "old");
    CHECK_FALSE(fs::exists(w.html));
    CHECK(w.folder.entries() == 4); // programs, sample, results, the old report
}
