// SPDX-License-Identifier: MIT
// A tool as its users run it: arguments in, exit code, two streams and a file out. And input for it.
#pragma once

#include "support/generators.hpp"
#include "support/temporary_folder.hpp"
#include <sofattn/core/half.hpp>
#include <sofattn/core/tensor.hpp>
#include <sofattn/core/view.hpp>
#include <sofattn/io/npy.hpp>

#include <doctest/doctest.h>
#include <fcntl.h>
#include <nlohmann/json.hpp>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace sofattn::test {

namespace fs = std::filesystem;
using json = nlohmann::json;

/// The program under test, a name in SOFATTN_BIN_DIR: the tool whose folder the test mirrors.
inline constexpr char const* tool = SOFATTN_TOOL;

using words = std::vector<std::string>;

// --- running the program -------------------------------------------------------------------------

struct outcome {
    int code = -1;  ///< exit code; -1: ended by a signal
    int signal = 0; ///< that signal
    std::string out;
    std::string err;
};

struct surroundings {
    fs::path folder{}; ///< working folder; empty: this program's
    fs::path out_to{}; ///< standard output goes there
    char const* threads = "1";
    unsigned most_seconds = 60; ///< then it is ended: nearly all runs take milliseconds
    words launcher{};           ///< before the tool's name; found as a shell would
};

/// Runs the tool with exactly these arguments; no shell sees them.
inline outcome run_tool(words const& arguments, surroundings const& where = {}) {
    auto const close = [](std::FILE* file) { std::fclose(file); };
    using stream = std::unique_ptr<std::FILE, decltype(close)>;
    stream const out(std::tmpfile(), close);
    stream const err(std::tmpfile(), close);
    words line = where.launcher;
    line.push_back(std::string(SOFATTN_BIN_DIR "/") + tool);
    line.insert(line.end(), arguments.begin(), arguments.end());
    std::vector<char*> pointers;
    for (auto& word : line) {
        pointers.push_back(word.data());
    }
    pointers.push_back(nullptr);

    pid_t const child = fork();
    if (child == 0) {
        constexpr int not_started = 127;
        alarm(where.most_seconds);
        int const output =
            where.out_to.empty() ? fileno(out.get()) : open(where.out_to.c_str(), O_WRONLY);
        bool const ready = setenv("OMP_NUM_THREADS", where.threads, 1) == 0 &&
                           dup2(output, STDOUT_FILENO) >= 0 &&
                           dup2(fileno(err.get()), STDERR_FILENO) >= 0 &&
                           (where.folder.empty() || chdir(where.folder.c_str()) == 0);
        if (ready) {
            execvp(pointers.front(), pointers.data());
        }
        _exit(not_started);
    }
    int status = 0;
    if (child < 0 || waitpid(child, &status, 0) != child) {
        throw std::runtime_error("cannot start " + line.front());
    }
    auto const text = [](std::FILE* file) {
        std::string all;
        std::array<char, 4096> part{};
        std::rewind(file);
        for (std::size_t n = 0; (n = std::fread(part.data(), 1, part.size(), file)) > 0;) {
            all.append(part.data(), n);
        }
        return all;
    };
    outcome result;
    result.code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    result.signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    result.out = text(out.get());
    result.err = text(err.get());
    return result;
}

inline words operator+(words left, words const& right) {
    left.insert(left.end(), right.begin(), right.end());
    return left;
}

inline bool holds(std::string_view text, std::string_view part) {
    return text.find(part) != std::string_view::npos;
}

/// One line, and ours.
inline bool is_message(std::string_view err) {
    return err.starts_with(std::string(tool) + ": ") && err.find('\n') == err.size() - 1 &&
           std::none_of(err.begin(), err.end() - 1,
                        [](char c) { return static_cast<unsigned char>(c) < 0x20; });
}

/// Exit code 2, one line that has all these parts, and nothing else anywhere.
inline void refused(temporary_folder const& folder, words const& arguments, words const& parts) {
    std::string line;
    for (auto const& word : arguments) {
        line += word + " ";
    }
    CAPTURE(line);
    std::size_t const before = folder.entries();
    outcome const run = run_tool(arguments);
    CAPTURE(run.err);
    CHECK(run.signal == 0);
    CHECK(run.code == 2);
    CHECK(run.out.empty());
    CHECK(is_message(run.err));
    for (auto const& part : parts) {
        CAPTURE(part);
        CHECK(holds(run.err, part));
    }
    CHECK(folder.entries() == before);
}

/// Exit code 0 and not a word of complaint.
inline outcome accepted(words const& arguments, surroundings const& where = {}) {
    std::string line;
    for (auto const& word : arguments) {
        line += word + " ";
    }
    CAPTURE(line);
    outcome run = run_tool(arguments, where);
    CHECK(run.signal == 0);
    CHECK(run.code == 0);
    CHECK(run.err.empty());
    CHECK_FALSE(run.out.empty());
    return run;
}

// --- input for it --------------------------------------------------------------------------------

/// Multiples of 1/64, which binary16 holds exactly.
template <class T>
std::vector<T> numbers(generator& random, index_t count) {
    std::vector<T> values;
    for (index_t i = 0; i < count; ++i) {
        values.push_back(T(static_cast<float>(random.integer(-128, 128)) / 64.0f));
    }
    return values;
}

template <class T>
void write_array(fs::path const& path, std::array<index_t, 3> extents, std::uint64_t seed) {
    generator random(seed);
    auto const values = numbers<T>(random, extents[0] * extents[1] * extents[2]);
    io::write_npy(path,
                  sofattn::view<T const, axis::head, axis::key, axis::dim>(values.data(), extents));
}

struct sizes {
    index_t heads = 4;
    index_t kv_heads = 2;
    index_t queries = 6;
    index_t keys = 6;
    index_t dim = 8;
    index_t value_dim = 8;
};

/// q.npy, k.npy and v.npy in a folder; by default 4 query heads on 2 KV heads.
struct three_files {
    temporary_folder folder;
    fs::path q = folder / "q.npy";
    fs::path k = folder / "k.npy";
    fs::path v = folder / "v.npy";
    fs::path result = folder / "result.json";

    three_files() { write<float>({}); }
    template <class T>
    void write(sizes const& s) const {
        write_array<T>(q, {s.heads, s.queries, s.dim}, 1);
        write_array<T>(k, {s.kv_heads, s.keys, s.dim}, 2);
        write_array<T>(v, {s.kv_heads, s.keys, s.value_dim}, 3);
    }
    /// Without --json.
    [[nodiscard]] words input() const {
        return {"--q", q.string(), "--k", k.string(), "--v", v.string()};
    }
    [[nodiscard]] words given(words const& more = {}) const {
        return input() + words{"--json", result.string()} + more;
    }
    void refuse(words const& more, words const& parts) const {
        refused(folder, given(more), parts);
    }
    [[nodiscard]] json run(words const& more = {}, surroundings const& where = {}) const {
        static_cast<void>(accepted(given(more), where));
        return json::parse(read_bytes(result));
    }
};

/// A .npy file word by word, right or wrong.
inline std::string npy_bytes(std::string const& descr, std::string const& order,
                             std::string const& shape, std::size_t data_bytes) {
    std::string text =
        "{'descr': '" + descr + "', 'fortran_order': " + order + ", 'shape': " + shape + ", }";
    text.resize(117, ' ');
    text += '\n';
    return std::string("\x93NUMPY\x01\x00\x76\x00", 10) + text + std::string(data_bytes, '\0');
}

/// Changes element `at` of a '<f4' file.
inline void poke(fs::path const& path, std::size_t at, float value) {
    std::string bytes = read_bytes(path);
    std::size_t const offset = io::read_npy_header(path).data_offset + at * sizeof(float);
    bytes.replace(offset, sizeof(float), std::string(reinterpret_cast<char*>(&value), 4));
    write_bytes(path, bytes);
}

/// A folder with layers 3 and 5 of a decoder.
struct recorded_folder {
    temporary_folder folder;
    fs::path manifest = folder / "manifest.json";
    json content = {{"model", "tiny"}, {"causal", true}, {"files", json::array()}};

    recorded_folder() {
        for (int layer : {3, 5}) {
            std::array<index_t, 3> const q{4, 6, 8};
            std::array<index_t, 3> const kv{2, 6, 8};
            for (auto const& [part, extents] :
                 {std::pair("q", q), std::pair("k", kv), std::pair("v", kv)}) {
                std::string const name = "L" + std::to_string(layer) + "_" + part + ".npy";
                write_array<half>(folder / name, extents,
                                  static_cast<std::uint64_t>(10 * layer + part[0]));
                content["files"].push_back({{"file", name}, {"layer", layer}, {"shape", extents}});
            }
        }
        save(content.dump(1));
    }
    void save(std::string const& text) const { write_bytes(manifest, text); }
    [[nodiscard]] words given(words const& more = {}) const {
        return words{folder.path().string()} + more;
    }
    /// The manifest's text is `text`.
    void refuse(std::string const& text, words const& parts) const {
        save(text);
        refused(folder, given({"--json", (folder / "result.json").string()}),
                words{manifest.string()} + parts);
    }
};

} // namespace sofattn::test
