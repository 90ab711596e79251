// SPDX-License-Identifier: MIT
// A table of text: for a terminal, as Markdown and as CSV.
#pragma once

#include <sofattn/core/error.hpp>

#include <algorithm>
#include <cstddef>
#include <string>
#include <utility>
#include <vector>

namespace sofattn::io {

/// Rows of cells under a header. The first column is aligned left, the others right: a name and
/// numbers.
class table {
public:
    explicit table(std::vector<std::string> header) : header_(std::move(header)) {}

    /// Throws `error` if the row has another number of cells than the header.
    void add(std::vector<std::string> row) {
        if (row.size() != header_.size()) {
            throw error("table: cells in a row", std::to_string(row.size()),
                        "those of the header, " + std::to_string(header_.size()));
        }
        rows_.push_back(std::move(row));
    }

    [[nodiscard]] std::vector<std::string> const& header() const noexcept { return header_; }
    [[nodiscard]] std::vector<std::vector<std::string>> const& rows() const noexcept {
        return rows_;
    }

    /// Columns padded with spaces, two between them; `indent` spaces before each line.
    [[nodiscard]] std::string text(std::size_t indent = 0) const {
        std::string out;
        auto const line = [&](std::vector<std::string> const& cells) {
            std::string one(indent, ' ');
            for (std::size_t c = 0; c < cells.size(); ++c) {
                one += (c > 0 ? "  " : "") + padded(cells[c], c);
            }
            one.erase(one.find_last_not_of(' ') + 1);
            out += one + "\n";
        };
        line(header_);
        for (auto const& row : rows_) {
            line(row);
        }
        return out;
    }

    [[nodiscard]] std::string markdown() const {
        std::string out;
        auto const line = [&](std::vector<std::string> const& cells) {
            for (std::size_t c = 0; c < cells.size(); ++c) {
                out += "| " + padded(cells[c], c) + " ";
            }
            out += "|\n";
        };
        line(header_);
        for (std::size_t c = 0; c < header_.size(); ++c) {
            out += c == 0 ? "| --- " : "| ---: ";
        }
        out += "|\n";
        for (auto const& row : rows_) {
            line(row);
        }
        return out;
    }

    /// RFC 4180: cells with commas, quotes or line breaks are quoted.
    [[nodiscard]] std::string csv() const {
        std::string out;
        auto const line = [&](std::vector<std::string> const& cells) {
            for (std::size_t c = 0; c < cells.size(); ++c) {
                out += c > 0 ? "," : "";
                out += quoted(cells[c]);
            }
            out += "\r\n";
        };
        line(header_);
        for (auto const& row : rows_) {
            line(row);
        }
        return out;
    }

private:
    [[nodiscard]] std::string padded(std::string const& cell, std::size_t column) const {
        std::size_t width = header_[column].size();
        for (auto const& row : rows_) {
            width = std::max(width, row[column].size());
        }
        std::string const space(width - cell.size(), ' ');
        return column == 0 ? cell + space : space + cell;
    }
    static std::string quoted(std::string const& cell) {
        if (cell.find_first_of(",\"\r\n") == std::string::npos) {
            return cell;
        }
        std::string out = "\"";
        for (char const c : cell) {
            out += c;
            if (c == '"') {
                out += c;
            }
        }
        return out + "\"";
    }

    std::vector<std::string> header_;
    std::vector<std::vector<std::string>> rows_;
};

} // namespace sofattn::io
