// SPDX-License-Identifier: MIT
// Described structs as JSON, either way, from the same table of fields that explains them.
#pragma once

#include <sofattn/core/error.hpp>
#include <sofattn/hw/field.hpp>
#include <sofattn/io/file.hpp>

#include <nlohmann/json.hpp>

#include <concepts>
#include <cstdint>
#include <limits>
#include <string>
#include <type_traits>

namespace sofattn::hw {

using json = nlohmann::ordered_json;

template <described T>
[[nodiscard]] json to_json_value(T const& of) {
    json object = json::object();
    for_each_field(of, [&]<class Value>(field const& f, Value const& value) {
        if constexpr (described<Value>) {
            object[std::string(f.name)] = to_json_value(value);
        } else {
            object[std::string(f.name)] = value;
        }
    });
    return object;
}

namespace detail {

/// What was found, short and in one line.
[[nodiscard]] inline std::string found_text(json const& value) {
    if (value.is_object()) {
        return "an object";
    }
    if (value.is_array()) {
        return "a list";
    }
    if (value.is_string()) {
        return io::quoted(value.get<std::string>());
    }
    return value.dump();
}

template <class Value>
void set_value(field const& f, Value& value, json const& from, std::string const& name) {
    auto const refuse = [&] { throw error(name, found_text(from), limit_of(f, value)); };
    if constexpr (std::same_as<Value, bool>) {
        if (!from.is_boolean()) {
            refuse();
        }
        value = from.get<bool>();
    } else if constexpr (std::same_as<Value, std::string>) {
        if (!from.is_string()) {
            refuse();
        }
        value = from.get<std::string>();
    } else if constexpr (std::is_integral_v<Value>) {
        bool const fits = from.is_number_unsigned()
                              ? from.get<std::uint64_t>() <=
                                    static_cast<std::uint64_t>(std::numeric_limits<Value>::max())
                              : from.is_number_integer();
        if (!fits) {
            refuse();
        }
        value = from.get<Value>();
    } else {
        if (!from.is_number()) {
            refuse();
        }
        value = from.get<Value>();
    }
}

} // namespace detail

/// Sets the fields that `from` names; the others keep their values. `path` stands before names in
/// messages. Throws `error` for a field that is not there and for a value of another kind; ranges
/// are for `validate`.
template <described T>
void set_fields(T& of, json const& from, std::string const& path) {
    if (!from.is_object()) {
        throw error(path.empty() ? "content" : path.substr(0, path.find_last_not_of(".: ") + 1),
                    detail::found_text(from), "an object of fields");
    }
    for (auto const& entry : from.items()) {
        std::string const& key = entry.key();
        json const& value = entry.value();
        bool is_known = false;
        for_each_field(of, [&]<class Value>(field const& f, Value& member) {
            if (f.name != key) {
                return;
            }
            is_known = true;
            std::string const name = path + std::string(f.name);
            if constexpr (described<Value>) {
                set_fields(member, value, name + ".");
            } else {
                detail::set_value(f, member, value, name);
            }
        });
        if (!is_known) {
            std::string names;
            for (field const& f : T::fields) {
                names += (names.empty() ? "" : ", ") + std::string(f.name);
            }
            throw error(path + "field", io::quoted(key), "one of " + names);
        }
    }
}

} // namespace sofattn::hw
