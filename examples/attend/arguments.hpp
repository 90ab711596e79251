// SPDX-License-Identifier: MIT
// sofattn-attend's command line.
#pragma once

#include <sofattn/core/types.hpp>

#include <CLI/CLI.hpp>

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace sofattn::attend {

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
    std::optional<double> mass;
    std::optional<double> output_error;
    std::filesystem::path budgets;
    std::optional<double> radius;
    std::optional<index_t> minimum;
    std::optional<index_t> maximum;
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
    std::filesystem::path svg;
    bool list = false;
};

/// Text before and after the list of options in --help.
extern char const* const introduction;
extern char const* const reading;

/// Declares every option, with its range.
void declare(CLI::App& app, arguments& a);

/// Throws sofattn::error for an option that nothing would read: that is a misunderstanding, better
/// told than passed over.
void refuse_ignored(CLI::App const& app, arguments const& a);

} // namespace sofattn::attend
