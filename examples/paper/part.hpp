// SPDX-License-Identifier: MIT
// A part of the report: one figure or table of the paper, and how it is computed again.
#pragma once

#include "hw/tables.hpp"
#include "paper/tools.hpp"
#include <sofattn/io/figure.hpp>
#include <sofattn/io/table.hpp>

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

namespace sofattn::paper {

/// Where parts find what they read.
struct inputs {
    std::filesystem::path sample;   ///< folder of the two sample layers
    std::filesystem::path recorded; ///< folder with more layers; the sample where there are none
};

struct captioned_table {
    std::string caption;
    io::table of;
};
struct captioned_figure {
    io::figure of;
    std::string caption;
};

/// What a part came to.
struct findings {
    std::vector<hw::table_row> rows{}; ///< the paper's figures beside ours
    std::vector<captioned_table> tables{};
    std::vector<captioned_figure> figures{}; ///< of the HTML page
    std::vector<std::string> notes{};
};

struct part {
    std::string name; ///< for --only
    std::string title;
    /// What it reads, for the report: "none: the model", or a folder.
    std::function<std::string(inputs const&)> data;
    /// Throws where it cannot be computed; `tools` runs programs and remembers their commands.
    std::function<findings(inputs const&, tools&)> compute;
};

/// In the order of the report.
[[nodiscard]] std::vector<part> all_parts();

/// Those that need no data but the paper's, and those that measure.
[[nodiscard]] std::vector<part> machine_parts();
[[nodiscard]] std::vector<part> measured_parts();
[[nodiscard]] part search_part(); ///< of measured_parts: Algorithm 1

/// Rows of these tables or figures, in their order.
[[nodiscard]] std::vector<hw::table_row> rows_of(std::vector<hw::table_row> const& rows,
                                                 std::vector<std::string> const& tables);
/// A bar for each row: the paper's value, then ours.
[[nodiscard]] io::figure compared_bars(std::string const& title, std::string const& unit,
                                       std::vector<hw::table_row> const& rows);

} // namespace sofattn::paper
