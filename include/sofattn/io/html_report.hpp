// SPDX-License-Identifier: MIT
// A report as one HTML file: text, tables and figures, nothing to fetch, for desk and telephone.
#pragma once

#include <sofattn/io/figure.hpp>
#include <sofattn/io/svg.hpp>
#include <sofattn/io/table.hpp>

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace sofattn::io {

/// Pieces are added from top to bottom; `text` is the page. All text is escaped.
class html_report {
public:
    /// `summary` stands under the title.
    html_report(std::string_view title, std::string_view summary)
        : title_(svg_escaped(title)), summary_(svg_escaped(summary)) {}

    void heading(std::string_view text) {
        end_figures();
        body_ += "<h2>" + svg_escaped(text) + "</h2>\n";
    }
    void paragraph(std::string_view text) {
        end_figures();
        body_ += "<p>" + svg_escaped(text) + "</p>\n";
    }
    /// Key numbers, side by side: name, value with its unit.
    void numbers(std::vector<std::pair<std::string, std::string>> const& of) {
        end_figures();
        body_ += "<dl class=\"numbers\">\n";
        for (auto const& [name, value] : of) {
            body_ += "<div><dt>" + svg_escaped(name) + "</dt><dd>" + svg_escaped(value) +
                     "</dd></div>\n";
        }
        body_ += "</dl>\n";
    }
    /// What follows until `end_fold` is shown when a reader opens it.
    void begin_fold(std::string_view text) {
        end_figures();
        body_ += "<details><summary>" + svg_escaped(text) + "</summary>\n";
        ++open_folds_;
    }
    void end_fold() {
        end_figures();
        if (open_folds_ > 0) {
            body_ += "</details>\n";
            --open_folds_;
        }
    }
    void list(std::vector<std::string> const& items) {
        end_figures();
        body_ += "<ul>\n";
        for (auto const& item : items) {
            body_ += "<li>" + svg_escaped(item) + "</li>\n";
        }
        body_ += "</ul>\n";
    }
    /// The first column is a name, the others are numbers but for the last `texts`, which are
    /// words and wrap. Rows of any length.
    void table(std::string_view caption, std::vector<std::string> const& header,
               std::vector<std::vector<std::string>> const& rows, std::size_t texts = 0) {
        end_figures();
        std::size_t const words = header.size() - std::min(texts, header.size());
        body_ += "<div class=\"scroll\" tabindex=\"0\"><table><caption>" + svg_escaped(caption) +
                 "</caption>\n<thead><tr>";
        for (std::size_t c = 0; c < header.size(); ++c) {
            body_ += std::string("<th scope=\"col\"") + (c < words ? ">" : " class=\"words\">") +
                     svg_escaped(header[c]) + "</th>";
        }
        body_ += "</tr></thead>\n<tbody>\n";
        for (auto const& row : rows) {
            body_ += "<tr>";
            for (std::size_t c = 0; c < row.size(); ++c) {
                body_ += c == 0 ? "<th scope=\"row\">" + breakable(row[c]) + "</th>"
                                : (c < words ? "<td>" : "<td class=\"words\">") +
                                      svg_escaped(row[c]) + "</td>";
            }
            body_ += "</tr>\n";
        }
        body_ += "</tbody></table></div>\n";
    }
    void table(std::string_view caption, io::table const& of) {
        table(caption, of.header(), of.rows());
    }
    /// Figures that follow each other stand in columns where there is room. One wider than 480
    /// pixels takes the whole width, and scrolls on a narrow screen.
    void add(figure const& of, std::string_view caption = {}) {
        bool const wide = of.width > 480.0;
        if (wide || !in_figures_) {
            end_figures();
            body_ += wide ? "" : "<div class=\"figures\">\n";
            in_figures_ = !wide;
        }
        body_ += wide ? "<figure class=\"wide\"><div class=\"scroll\" tabindex=\"0\">" : "<figure>";
        body_ += to_svg(of, false) + (wide ? "</div>" : "");
        body_ += (caption.empty() ? std::string()
                                  : "<figcaption>" + svg_escaped(caption) + "</figcaption>") +
                 "</figure>\n";
    }

    [[nodiscard]] std::string text() const {
        std::string open = in_figures_ ? "</div>\n" : "";
        for (std::size_t n = 0; n < open_folds_; ++n) {
            open += "</details>\n";
        }
        return "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
               "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
               "<meta name=\"color-scheme\" content=\"light dark\">\n<title>" +
               title_ + "</title>\n<style>" + figure_style + page_style +
               "</style>\n</head>\n<body>\n<main>\n<h1>" + title_ + "</h1>\n<p class=\"summary\">" +
               summary_ + "</p>\n" + body_ + open + "</main>\n</body>\n</html>\n";
    }

private:
    static constexpr char const* page_style = R"(
:root { color-scheme: light dark; --page: #ffffff; --ink: #1f2328; --soft: #57606a;
  --line: #d8dee4; --panel: #f6f8fa }
@media (prefers-color-scheme: dark) {
:root { --page: #0d1117; --ink: #e6edf3; --soft: #9aa4af; --line: #30363d; --panel: #161b22 }
}
* { box-sizing: border-box }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif }
main { max-width: 1120px; margin: 0 auto; padding: 20px 16px 48px }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 4px }
h2 { font-size: 1.2rem; margin: 32px 0 8px; padding-top: 12px; border-top: 1px solid var(--line) }
p { max-width: 46em; margin: 8px 0 }
.summary, figcaption, caption { color: var(--soft) }
.numbers { display: grid; grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)); gap: 10px;
  margin: 16px 0 }
.numbers div { background: var(--panel); border: 1px solid var(--line); border-radius: 8px;
  padding: 8px 12px }
.numbers dt { color: var(--soft); font-size: .85rem }
.numbers dd { margin: 0; font-size: 1.15rem; font-weight: 600; font-variant-numeric: tabular-nums }
.figures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 420px), 1fr));
  gap: 16px; align-items: start }
figure { margin: 0 0 8px; border: 1px solid var(--line); border-radius: 8px; padding: 6px;
  min-width: 0 }
figure svg { display: block; width: 100%; max-width: 500px; height: auto }
figure.wide svg { min-width: 860px; max-width: none }
figcaption { font-size: .9rem; padding: 4px 8px 6px }
.scroll { overflow-x: auto }
table { border-collapse: collapse; margin: 12px 0; font-size: .95rem;
  font-variant-numeric: tabular-nums }
caption { text-align: left; padding-bottom: 6px }
th, td { padding: 5px 9px; border-bottom: 1px solid var(--line); text-align: right;
  white-space: nowrap }
th:first-child { text-align: left; padding-left: 0 }
thead th { font-weight: 600 }
tbody th { font-weight: 400 }
th, td { vertical-align: top }
td.words, th.words { text-align: left; white-space: normal; min-width: 15em; max-width: 40em }
ul { max-width: 46em; padding-left: 1.3em }
summary { cursor: pointer; padding: 6px 0 }
@media (max-width: 560px) {
table { font-size: .85rem }
th, td { padding: 5px 6px }
tbody th { white-space: normal; min-width: 7.5em; max-width: 12em }
}
)";

    /// A name that may be broken between its words, where a line is too short: not "Fig. 5", "1.1B".
    [[nodiscard]] static std::string breakable(std::string_view name) {
        std::string out;
        std::string const text = svg_escaped(name);
        for (std::size_t at = 0; at < text.size(); ++at) {
            out += text[at];
            bool const ends_word =
                text[at] == '.' && at + 1 < text.size() &&
                ((text[at + 1] >= 'a' && text[at + 1] <= 'z') || text[at + 1] == '_');
            out += text[at] == '_' || ends_word ? "<wbr/>" : "";
        }
        return out;
    }
    void end_figures() {
        if (in_figures_) {
            body_ += "</div>\n";
            in_figures_ = false;
        }
    }

    std::string title_;
    std::string summary_;
    std::string body_;
    bool in_figures_ = false;
    std::size_t open_folds_ = 0;
};

} // namespace sofattn::io
