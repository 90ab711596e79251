// SPDX-License-Identifier: MIT
#include "dse/state.hpp"

#include "hw/json_file.hpp"
#include <sofattn/core/error.hpp>
#include <sofattn/io/file.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

namespace sofattn::dse {

namespace {

constexpr char const* format_name = "sofattn-dse search 1";
/// 100000 trials take about 30 MB; what is far beyond is something else.
constexpr std::uintmax_t max_bytes = std::uintmax_t{1} << 28;
constexpr std::array statuses{trial_status::pending, trial_status::done, trial_status::failed,
                              trial_status::timed_out};

std::string short_text(json const& value) {
    constexpr std::size_t most = 60;
    std::string text = value.dump();
    return text.size() > most ? text.substr(0, most) + "..." : text;
}

/// The field, of the kind that `is` accepts.
json const& field_of(json const& object, char const* name, bool (json::*is)() const noexcept,
                     char const* kind, std::string const& where) {
    auto const found = object.is_object() ? object.find(name) : object.end();
    if (!object.is_object() || found == object.end()) {
        throw error(where + ": " + name, "missing", kind);
    }
    if (!((*found).*is)()) {
        throw error(where + ": " + name, short_text(*found), kind);
    }
    return *found;
}

std::vector<double> numbers_from(json const& object, char const* name, std::string const& where) {
    std::vector<double> list;
    for (json const& one : field_of(object, name, &json::is_array, "a list of numbers", where)) {
        if (!one.is_number()) {
            throw error(where + ": " + name, short_text(one), "a list of numbers");
        }
        list.push_back(one.get<double>());
    }
    return list;
}

point point_from(json const& object, std::string const& where) {
    point p;
    for (json const& one :
         field_of(object, "levels", &json::is_array, "a list of whole numbers", where)) {
        if (!one.is_number_integer()) {
            throw error(where + ": levels", short_text(one), "a list of whole numbers");
        }
        p.push_back(one.get<index_t>());
    }
    return p;
}

/// "state.json: seed", "state.json: options.seed".
std::string inner_name(std::string const& where, std::string const& name) {
    return where + (where.ends_with(": ") ? "" : ".") + name;
}

} // namespace

void check_same(json const& found, json const& wanted, std::string const& where) {
    if (found == wanted) {
        return;
    }
    if (found.is_object() && wanted.is_object()) {
        for (auto const& [name, value] : wanted.items()) {
            auto const there = found.find(name);
            std::string const field = inner_name(where, name);
            if (there == found.end()) {
                throw error(field, "missing", short_text(value) + ", as in this run");
            }
            check_same(*there, value, field);
        }
        for (auto const& [name, value] : found.items()) {
            if (!wanted.contains(name)) {
                throw error(inner_name(where, name), short_text(value), "left out, as in this run");
            }
        }
        return;
    }
    throw error(where, short_text(found), short_text(wanted) + ", as in this run");
}

json to_json(outcome const& result) {
    json object = {{"status", name_of(result.status)}};
    if (result.status == trial_status::done) {
        object["objectives"] = result.objectives;
        object["violations"] = result.violations;
    } else if (!result.note.empty()) {
        object["note"] = result.note;
    }
    return object;
}

outcome outcome_from(json const& object, std::string const& where) {
    auto const text =
        field_of(object, "status", &json::is_string, "a text", where).get<std::string>();
    auto const status = std::find_if(statuses.begin(), statuses.end(),
                                     [&](trial_status s) { return name_of(s) == text; });
    if (status == statuses.end()) {
        throw error(where + ": status", io::quoted(text), "pending, done, failed or timed_out");
    }
    outcome result{*status, {}, {}, {}};
    if (result.status == trial_status::done) {
        result.objectives = numbers_from(object, "objectives", where);
        result.violations = numbers_from(object, "violations", where);
    } else if (object.contains("note")) {
        result.note =
            field_of(object, "note", &json::is_string, "a text", where).get<std::string>();
    }
    return result;
}

json values_of(search_space const& space, point const& at) {
    json values = json::object();
    for (std::size_t d = 0; d < space.size(); ++d) {
        if (space.is_active(at, d)) {
            values[space[d].name] = space.value(at, d);
        }
    }
    return values;
}

json to_json(search_identity const& identity) {
    json space = json::array();
    for (dimension const& d : identity.space.dimensions()) {
        json one = {
            {"name", d.name}, {"lowest", d.lowest}, {"highest", d.highest}, {"step", d.step}};
        if (d.active_where) {
            one["active_where"] = {{"on", d.active_where->on},
                                   {"least", d.active_where->least},
                                   {"most", d.active_where->most}};
        }
        space.push_back(std::move(one));
    }
    search_options const& o = identity.options;
    return {{"format", format_name},
            {"purpose", identity.purpose},
            {"space", std::move(space)},
            {"options",
             {{"method", name_of(o.by)},
              {"seed", o.seed},
              {"objectives_count", o.objectives_count},
              {"violations_count", o.violations_count},
              {"first_points_count", o.first_points_count},
              {"suggested", o.suggested},
              {"batch", identity.batch}}}};
}

json to_json(search_identity const& identity, search_state const& state) {
    json object = to_json(identity);
    json& trials = object["trials"] = json::array();
    for (std::size_t i = 0; i < state.trials.size(); ++i) {
        json one = {{"id", state.trials[i].id}, {"levels", state.trials[i].at}};
        one.update(to_json(state.trials[i].result));
        if (!state.details[i].is_null()) {
            one["details"] = state.details[i];
        }
        trials.push_back(std::move(one));
    }
    return object;
}

search_state state_from(json found, search_identity const& identity, std::string const& from) {
    std::string const where = from + ": ";
    auto const& format =
        field_of(found, "format", &json::is_string, "the name of a state file", from);
    if (format != format_name) {
        throw error(where + "format", short_text(format), json(format_name).dump());
    }
    search_state state;
    for (json const& one : field_of(found, "trials", &json::is_array, "a list of trials", from)) {
        std::string const name = where + "trial " + std::to_string(state.trials.size());
        trial t;
        t.id = field_of(one, "id", &json::is_number_integer, "a whole number", name).get<index_t>();
        t.at = point_from(one, name);
        t.result = outcome_from(one, name);
        state.trials.push_back(std::move(t));
        state.details.push_back(one.contains("details") ? one["details"] : json());
    }
    found.erase("trials");
    check_same(found, json::parse(to_json(identity).dump()), where);
    return state;
}

std::optional<search_state> read_state(std::filesystem::path const& file,
                                       search_identity const& identity) {
    std::error_code code;
    if (!std::filesystem::exists(std::filesystem::status(file, code))) {
        return std::nullopt;
    }
    return state_from(hw::read_json<json>(file, max_bytes), identity, io::shown(file));
}

void write_state(std::filesystem::path const& file, search_identity const& identity,
                 search_state const& state) {
    std::string const text = to_json(identity, state).dump() + "\n";
    io::atomic_file out(file);
    out.write(text);
    out.commit();
}

} // namespace sofattn::dse
