// SPDX-License-Identifier: MIT
// The report, as Markdown for the repository and as one HTML page.
#pragma once

#include "paper/part.hpp"

#include <string>
#include <vector>

namespace sofattn::paper {

/// A part that was computed, or was not.
struct section {
    std::string name;
    std::string title;
    std::string data;
    std::vector<std::string> commands;
    findings found;
    std::string fault{}; ///< empty if it was computed
};

struct report {
    std::vector<section> sections;
    std::string stamp{};         ///< date and machine, if told
    bool is_whole = true;        ///< all parts, not those of --only
    std::string recorded_note{}; ///< which data the recorded rows are from
};

/// How many rows have each status, in its order.
[[nodiscard]] std::vector<std::pair<std::string, std::size_t>> counts_of(report const& r);

/// Depends on the report alone: no time, no machine but the stamp.
[[nodiscard]] std::string to_markdown(report const& r);
[[nodiscard]] std::string to_html(report const& r);

} // namespace sofattn::paper
