// SPDX-License-Identifier: MIT
#include "paper/document.hpp"

#include "hw/report.hpp"
#include <sofattn/io/charts.hpp>
#include <sofattn/io/html_report.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdlib>
#include <map>
#include <utility>

namespace sofattn::paper {

namespace {

constexpr std::array statuses{hw::status::reproduced, hw::status::calibrated, hw::status::input,
                              hw::status::contradicted};

constexpr char const* title = "The SOFA paper, computed again";
constexpr char const* introduction =
    "Tables and figures of SOFA (MICRO 2024, arXiv 2407.10416) as this library computes them, "
    "beside the printed values.";

constexpr std::array<std::pair<char const*, char const*>, 4> meanings{{
    {"reproduced", "computed from other figures, by the model, or measured, within the tolerance "
                   "that the row's tool declares"},
    {"by calibration", "comes out because a constant was set so"},
    {"input", "printed figures that the model is given"},
    {"cannot be reproduced", "differs, or takes what the paper does not give; the note says why"},
}};

/// Notes are numbered in order of their first use; equal ones are one.
class numbered_notes {
public:
    std::string mark(std::string const& note) {
        if (note.empty()) {
            return "";
        }
        auto const found = std::ranges::find(all_, note);
        auto const at = found - all_.begin();
        if (found == all_.end()) {
            all_.push_back(note);
        }
        return std::to_string(at + 1);
    }
    [[nodiscard]] std::vector<std::string> const& all() const noexcept { return all_; }

private:
    std::vector<std::string> all_;
};

/// A bar divides cells, and a line break rows.
std::string in_cell(std::string const& text) {
    std::string out;
    for (char const c : text) {
        out += c == '|' ? "\\|" : c == '\n' || c == '\r' ? " " : std::string(1, c);
    }
    return out;
}

std::string markdown_of(io::table const& of) {
    auto const escaped = [](std::vector<std::string> cells) {
        for (std::string& cell : cells) {
            cell = in_cell(cell);
        }
        return cells;
    };
    io::table safe(escaped(of.header()));
    for (auto const& row : of.rows()) {
        safe.add(escaped(row));
    }
    return safe.markdown();
}

io::table row_table(std::vector<hw::table_row> const& rows, numbered_notes& notes) {
    io::table table({"figure", "paper", "ours", "unit", "deviation", "status", "note"});
    for (hw::table_row const& r : rows) {
        std::vector<std::string> cells = hw::to_cells(r);
        cells.push_back(notes.mark(r.reason));
        table.add(std::move(cells));
    }
    return table;
}

/// What there is of each figure and table of the paper, in the order of their numbers.
io::table index_table(report const& r) {
    struct entry {
        std::array<std::size_t, statuses.size()> counts{};
        std::vector<std::string> where;
    };
    auto const place = [](std::string const& table) { // "Fig. 20a" after "Fig. 3"
        static constexpr std::array roman{"I", "II", "III", "IV"};
        std::string const last = table.substr(table.find(' ') + 1);
        auto const at = std::ranges::find(roman, last);
        int const number =
            at != roman.end() ? static_cast<int>(at - roman.begin()) + 1 : std::atoi(last.c_str());
        return std::pair(table.starts_with("Table") ? 0 : table.starts_with("Fig") ? 1 : 2, number);
    };
    std::map<std::pair<std::pair<int, int>, std::string>, entry> entries;
    for (section const& s : r.sections) {
        for (hw::table_row const& row : s.found.rows) {
            entry& one = entries[{place(row.table), row.table}];
            ++one.counts[static_cast<std::size_t>(row.how)];
            if (std::ranges::find(one.where, s.name) == one.where.end()) {
                one.where.push_back(s.name);
            }
        }
    }
    std::vector<std::string> header{"of the paper"};
    for (hw::status const status : statuses) {
        header.push_back(to_string(status));
    }
    header.emplace_back("part");
    io::table table(header);
    for (auto const& [key, one] : entries) {
        std::vector<std::string> cells{key.second};
        for (std::size_t const count : one.counts) {
            cells.push_back(count > 0 ? std::to_string(count) : "");
        }
        std::string where;
        for (std::string const& name : one.where) {
            where += (where.empty() ? "" : ", ") + name;
        }
        cells.push_back(where);
        table.add(std::move(cells));
    }
    return table;
}

std::vector<std::string> faults_of(report const& r) {
    std::vector<std::string> faults;
    for (section const& s : r.sections) {
        if (!s.fault.empty()) {
            faults.push_back(s.name + ": " + s.fault);
        }
    }
    return faults;
}

/// Ours over the paper's, every row that has both, by status.
io::figure overview(report const& r) {
    io::line_chart chart{.title = "Ours against the paper's, in the unit of each",
                         .x_name = "printed",
                         .y_name = "ours",
                         .log_x = true,
                         .log_y = true};
    for (hw::status const status : statuses) {
        io::chart_line line{to_string(status), {}, false};
        for (section const& s : r.sections) {
            for (hw::table_row const& row : s.found.rows) {
                if (row.how == status && row.paper > 0 && row.ours > 0) {
                    line.points.push_back({row.paper, row.ours});
                }
            }
        }
        if (!line.points.empty()) {
            chart.lines.push_back(std::move(line));
        }
    }
    return io::draw(chart);
}

bool has_points(report const& r) {
    return std::ranges::any_of(r.sections, [](section const& s) {
        return std::ranges::any_of(
            s.found.rows, [](hw::table_row const& row) { return row.paper > 0 && row.ours > 0; });
    });
}

} // namespace

std::vector<std::pair<std::string, std::size_t>> counts_of(report const& r) {
    std::vector<std::pair<std::string, std::size_t>> counts;
    for (hw::status const status : statuses) {
        std::size_t count = 0;
        for (section const& s : r.sections) {
            count += static_cast<std::size_t>(
                std::ranges::count(s.found.rows, status, &hw::table_row::how));
        }
        counts.emplace_back(to_string(status), count);
    }
    return counts;
}

std::string to_markdown(report const& r) {
    std::string out = std::string("# ") + title + "\n\n" + introduction +
                      " Written by `./dev paper`; not to be edited.";
    out += r.is_whole ? "\n\n" : " Some parts only, by `--only`.\n\n";
    if (!r.stamp.empty()) {
        out += "Made on: " + in_cell(r.stamp) + "\n\n";
    }
    for (auto const& [name, meaning] : meanings) {
        out += std::string("- **") + name + "**: " + meaning + ".\n";
    }
    out += "\nDeviation is ours over the paper's, less one. A dash: no such value.\n\n";
    if (!r.recorded_note.empty()) {
        out += r.recorded_note + "\n\n";
    }
    std::string summary;
    for (auto const& [name, count] : counts_of(r)) {
        summary += (summary.empty() ? "" : ", ") + std::to_string(count) + " " + name;
    }
    out += "Values compared: " + summary + ".\n\n" + markdown_of(index_table(r)) + "\n";
    if (auto const faults = faults_of(r); !faults.empty()) {
        out += "**Not computed:**\n\n";
        for (std::string const& fault : faults) {
            out += "- " + in_cell(fault) + "\n";
        }
        out += "\n";
    }
    for (section const& s : r.sections) {
        out += "## " + s.title + "\n\nPart `" + s.name + "`. Data: " + s.data + ".\n\n";
        if (!s.fault.empty()) {
            out += "**Not computed:** " + in_cell(s.fault) + "\n\n";
        }
        if (!s.commands.empty()) {
            out += "```\n";
            for (std::string const& command : s.commands) {
                out += command + "\n";
            }
            out += "```\n\n";
        }
        numbered_notes notes;
        if (!s.found.rows.empty()) {
            out += markdown_of(row_table(s.found.rows, notes)) + "\n";
        }
        for (std::size_t n = 0; n < notes.all().size(); ++n) {
            out += std::to_string(n + 1) + ". " + in_cell(notes.all()[n]) + "\n";
        }
        out += notes.all().empty() ? "" : "\n";
        for (captioned_table const& t : s.found.tables) {
            out += t.caption + "\n\n" + markdown_of(t.of) + "\n";
        }
        for (std::string const& note : s.found.notes) {
            out += note + "\n\n";
        }
    }
    out.erase(out.find_last_not_of('\n') + 1);
    return out + "\n";
}

std::string to_html(report const& r) {
    io::html_report page(title, introduction);
    std::vector<std::pair<std::string, std::string>> numbers;
    for (auto const& [name, count] : counts_of(r)) {
        numbers.emplace_back(name, std::to_string(count));
    }
    page.numbers(numbers);
    if (!r.stamp.empty()) {
        page.paragraph("Made on: " + r.stamp);
    }
    if (!r.is_whole) {
        page.paragraph("Some parts only, by --only.");
    }
    if (auto const faults = faults_of(r); !faults.empty()) {
        page.heading("Not computed");
        page.list(faults);
    }
    std::vector<std::string> explained;
    explained.reserve(meanings.size());
    for (auto const& [name, meaning] : meanings) {
        explained.push_back(std::string(name) + ": " + meaning + ".");
    }
    page.list(explained);
    if (!r.recorded_note.empty()) {
        page.paragraph(r.recorded_note);
    }
    if (r.is_whole && has_points(r)) {
        page.add(overview(r), "Every value that both have. Equal ones lie on the diagonal.");
    }
    io::table const index = index_table(r);
    page.table("Values compared, by where the paper has them", index.header(), index.rows(), 1);
    for (section const& s : r.sections) {
        page.heading(s.title);
        page.paragraph("Part " + s.name + ". Data: " + s.data + ".");
        if (!s.fault.empty()) {
            page.paragraph("Not computed: " + s.fault);
        }
        for (captioned_figure const& f : s.found.figures) {
            page.add(f.of, f.caption);
        }
        if (!s.found.rows.empty()) {
            std::vector<std::vector<std::string>> rows;
            for (hw::table_row const& row : s.found.rows) {
                rows.push_back(hw::to_cells(row));
                rows.back().push_back(row.reason);
            }
            page.table("The paper's values beside ours",
                       {"figure", "paper", "ours", "unit", "deviation", "status", "note"}, rows, 1);
        }
        for (captioned_table const& t : s.found.tables) {
            page.table(t.caption, t.of);
        }
        for (std::string const& note : s.found.notes) {
            page.paragraph(note);
        }
        if (!s.commands.empty()) {
            page.begin_fold("How it was computed");
            page.list(s.commands);
            page.end_fold();
        }
    }
    return page.text();
}

} // namespace sofattn::paper
