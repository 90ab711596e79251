// SPDX-License-Identifier: MIT
// Reports as JSON: same names, units and order as the structs' fields.
#pragma once

#include <sofattn/io/fields.hpp>
#include <sofattn/probe/event.hpp>
#include <sofattn/probe/ledger.hpp>

#include <nlohmann/json.hpp>

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace sofattn::attend::detail {

using json = nlohmann::ordered_json;

template <class T>
json value_to_json(T const& value) {
    return value;
}
inline json value_to_json(probe::ledger const& counts) {
    json by_stage = json::object();
    for (std::size_t s = 0; s < probe::stage_count; ++s) {
        for (std::size_t e = 0; e < probe::event_count; ++e) {
            auto const stage = static_cast<probe::stage>(s);
            auto const event = static_cast<probe::event>(e);
            if (counts.count(stage, event) > 0) {
                // Traffic carries its unit in its name already.
                auto const name =
                    std::string(probe::name(event)) + (probe::is_bytes(event) ? "" : "_count");
                by_stage[std::string(probe::name(stage))][name] = counts.count(stage, event);
            }
        }
    }
    return by_stage;
}
template <class T>
json value_to_json(std::optional<T> const& value) {
    return value ? json(*value) : json(nullptr);
}
inline json value_to_json(std::vector<std::pair<std::string, double>> const& named) {
    json object = json::object();
    for (auto const& [name, value] : named) {
        object[name] = value;
    }
    return object;
}
template <io::report T>
json value_to_json(T const& value);
template <io::report T>
json value_to_json(std::vector<T> const& values) {
    json list = json::array();
    for (auto const& value : values) {
        list.push_back(value_to_json(value));
    }
    return list;
}
template <io::report T>
json value_to_json(T const& value) {
    json object = json::object();
    io::for_each_field(value, [&](std::string_view name, auto const& field) {
        object[std::string(name)] = value_to_json(field);
    });
    return object;
}

} // namespace sofattn::attend::detail
