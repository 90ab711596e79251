// SPDX-License-Identifier: MIT
#include "hw/settings.hpp"

#include "hw/described_json.hpp"
#include "hw/json_file.hpp"
#include <sofattn/core/error.hpp>
#include <sofattn/hw/benchmarks.hpp>
#include <sofattn/io/file.hpp>

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <string_view>
#include <utility>

namespace sofattn::hw {

namespace {

/// A description is a few kilobytes; what is far beyond is something else.
constexpr std::uintmax_t max_bytes = 1u << 20;

bool is_file(std::string const& name) { return name.ends_with(".json"); }

/// Takes the base out of a file's object.
std::string base_of(json& object, std::string_view otherwise) {
    auto const found = object.is_object() ? object.find("base_name") : object.end();
    if (!object.is_object() || found == object.end()) {
        return std::string(otherwise);
    }
    if (!found->is_string()) {
        throw error("base_name", detail::found_text(*found), "a name");
    }
    auto name = found->get<std::string>();
    object.erase("base_name");
    return name;
}

/// What was typed, as the JSON value that it reads as; a text otherwise.
json value_of(std::string const& text) {
    json const parsed = json::parse(text, nullptr, false);
    return parsed.is_number() || parsed.is_boolean() ? parsed : json(text);
}

/// { "a": { "b": value } } of "a.b".
json nested(std::string_view path, json value) {
    std::size_t const dot = path.find('.');
    if (dot == std::string_view::npos) {
        return {{std::string(path), std::move(value)}};
    }
    return {{std::string(path.substr(0, dot)), nested(path.substr(dot + 1), std::move(value))}};
}

bool has_field(std::vector<explained_field> const& of, std::string_view path) {
    return std::any_of(of.begin(), of.end(), [&](auto const& f) { return f.name == path; });
}

std::pair<std::string, std::string> split(std::string const& assignment) {
    std::size_t const sign = assignment.find('=');
    if (sign == std::string::npos || sign == 0 || sign + 1 == assignment.size()) {
        throw error("assignment", io::quoted(assignment), "FIELD=VALUE");
    }
    return {assignment.substr(0, sign), assignment.substr(sign + 1)};
}

} // namespace

machine load_machine(std::string const& name_or_file) {
    if (!is_file(name_or_file)) {
        return find_machine(name_or_file);
    }
    json object = read_json<json>(name_or_file, max_bytes);
    machine m = find_machine(base_of(object, "sofa_28nm"));
    set_fields(m, object, "hardware: ");
    return m;
}

chosen_workload load_workload(std::string const& name_or_file) {
    if (!is_file(name_or_file)) {
        named_workload const named = find_workload(name_or_file);
        return {named.name, named.of};
    }
    json object = read_json<json>(name_or_file, max_bytes);
    workload w = find_workload(base_of(object, "llama_7b_layer")).of;
    set_fields(w, object, "workload: ");
    return {std::filesystem::path(name_or_file).stem().string(), w};
}

void assign(std::string const& assignment, machine& m, workload& w) {
    auto const [path, text] = split(assignment);
    if (has_field(explain(w), path)) {
        set_fields(w, nested(path, value_of(text)), "workload: ");
    } else if (has_field(explain(m), path)) {
        set_fields(m, nested(path, value_of(text)), "hardware: ");
    } else {
        throw error("assignment to", io::quoted(path), "a field that `sofattn-hw explain` lists");
    }
}

variation parse_variation(std::string const& text) {
    auto const [path, list] = split(text);
    variation v{path, {}};
    for (std::size_t at = 0; at <= list.size();) {
        std::size_t const end = std::min(list.find(',', at), list.size());
        if (end == at) {
            throw error("variation", io::quoted(text), "FIELD=VALUE,VALUE,... without gaps");
        }
        v.values.push_back(list.substr(at, end - at));
        at = end + 1;
    }
    return v;
}

} // namespace sofattn::hw
