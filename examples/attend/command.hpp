// SPDX-License-Identifier: MIT
// What the tools' main functions share: parse, run, and one line for whatever is wrong.
#pragma once

#include <sofattn/core/error.hpp>
#include <sofattn/io/file.hpp>

#include <CLI/CLI.hpp>

#include <cerrno>
#include <cstdio>
#include <exception>
#include <new>
#include <string>
#include <system_error>

namespace sofattn::attend {

/// A tool: its name, the text before and after the options in --help, what declares its options and
/// what runs with them.
template <class Arguments>
struct command {
    char const* name;
    char const* introduction;
    char const* reading;
    void (*declare)(CLI::App&, Arguments&);
    int (*run)(CLI::App const&, Arguments const&);

    /// The exit code: what `run` returns, or 2 after one line on standard error.
    int operator()(int argc, char** argv) const noexcept {
        try {
            return parse_and_run(argc, argv);
        } catch (CLI::ParseError const& e) {
            return refuse(std::string(e.what()) + " (--help explains)");
        } catch (std::bad_alloc const&) {
            return refuse("memory is too small for this input, must be larger");
        } catch (std::exception const& e) {
            return refuse(e.what());
        }
    }

private:
    int parse_and_run(int argc, char** argv) const {
        Arguments given;
        CLI::App app(introduction, name);
        app.footer(reading);
        declare(app, given);
        int code = 0;
        try {
            app.parse(argc, argv);
            code = run(app, given);
        } catch (CLI::Success const& help) {
            code = app.exit(help);
        }
        if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0) {
            throw error("standard output",
                        "not writable (" + std::generic_category().message(errno) + ")",
                        "writable");
        }
        return code;
    }

    /// What was typed must not break the line.
    [[nodiscard]] int refuse(std::string const& message) const {
        std::fprintf(stderr, "%s: %s\n", name, io::shown(message).c_str());
        return 2;
    }
};

} // namespace sofattn::attend
