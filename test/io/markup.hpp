// SPDX-License-Identifier: MIT
// As much of an XML reader as it takes to see whether markup is well formed, and what is in it.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <map>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace sofattn::test {

struct element {
    std::string name;
    std::map<std::string, std::string> attributes{};
    std::string text{}; ///< its own, not that of its children

    [[nodiscard]] double number(std::string const& of) const {
        return std::strtod(attributes.at(of).c_str(), nullptr);
    }
};

/// Elements in the order of their beginning. Throws if a tag is not closed, closed twice or out of
/// order, if an attribute has no quotes or comes twice, or for a bare & or <.
[[nodiscard]] inline std::vector<element> elements_of(std::string_view markup) {
    std::vector<element> found;
    std::vector<std::size_t> open;
    auto const bad = [](std::string const& why) -> std::runtime_error {
        return std::runtime_error("markup: " + why);
    };
    auto const check_text = [&](std::string_view text) {
        for (std::size_t at = text.find('&'); at != text.npos; at = text.find('&', at + 1)) {
            std::string_view const rest = text.substr(at);
            if (!rest.starts_with("&amp;") && !rest.starts_with("&lt;") &&
                !rest.starts_with("&gt;") && !rest.starts_with("&quot;")) {
                throw bad("bare &");
            }
        }
    };
    while (!markup.empty()) {
        std::size_t const next = markup.find('<');
        std::string_view const text = markup.substr(0, next);
        if (!open.empty()) {
            if (found[open.back()].name != "style") { // CSS has its own rules
                check_text(text);
            }
            found[open.back()].text += text;
        }
        if (next == markup.npos) {
            break;
        }
        markup.remove_prefix(next + 1);
        std::size_t const end = markup.find('>');
        if (end == markup.npos) {
            throw bad("open tag");
        }
        std::string_view tag = markup.substr(0, end);
        markup.remove_prefix(end + 1);
        if (tag == "!doctype html") {
            continue;
        }
        if (tag.starts_with('/')) {
            if (open.empty() || found[open.back()].name != tag.substr(1)) {
                throw bad("closed " + std::string(tag));
            }
            open.pop_back();
            continue;
        }
        bool const empty = tag.ends_with('/');
        tag.remove_suffix(empty ? 1 : 0);
        element one{std::string(tag.substr(0, tag.find(' ')))};
        tag.remove_prefix(one.name.size());
        while (tag.find_first_not_of(' ') != tag.npos) {
            tag.remove_prefix(tag.find_first_not_of(' '));
            std::size_t const equals = tag.find("=\"");
            std::size_t const closing = equals == tag.npos ? tag.npos : tag.find('"', equals + 2);
            if (closing == tag.npos) {
                throw bad("attribute in " + one.name);
            }
            std::string_view const value = tag.substr(equals + 2, closing - equals - 2);
            check_text(value);
            if (!one.attributes.emplace(tag.substr(0, equals), value).second) {
                throw bad("attribute twice in " + one.name);
            }
            tag.remove_prefix(closing + 1);
        }
        bool const is_void = one.name == "meta";
        if (!empty && !is_void) {
            open.push_back(found.size());
        }
        found.push_back(std::move(one));
    }
    if (!open.empty()) {
        throw bad("not closed: " + found[open.back()].name);
    }
    return found;
}

} // namespace sofattn::test
