// SPDX-License-Identifier: MIT
// JSON from outside: nothing in it is believed, and no key may come twice.
#pragma once

#include <sofattn/core/error.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/io/file.hpp>

#include <nlohmann/json.hpp>

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <string>
#include <string_view>

namespace sofattn::lm {

using json = nlohmann::json;

/// An object. `name` is the file's, for messages.
/// error  no JSON (the byte where that shows), no object, a key twice in one object
[[nodiscard]] json parsed_object(std::string_view text, std::string const& name);

/// A whole file as text.
/// error  as io::input_file; more than `most_bytes`
[[nodiscard]] std::string read_text(std::filesystem::path const& path, std::uintmax_t most_bytes);

/// A value as messages show it: short, and on one line.
[[nodiscard]] inline std::string shown_value(json const& value) {
    if (value.is_object() || value.is_array()) {
        return std::string(value.type_name()) + " of " + std::to_string(value.size());
    }
    std::string const text = value.is_string() ? value.get_ref<std::string const&>() : value.dump();
    return value.is_string() ? io::quoted(text) : text;
}

/// A field of `object`, or null where it has none.
[[nodiscard]] inline json const& field_or_null(json const& object, char const* key) {
    static json const null;
    auto const at = object.find(key);
    return at == object.end() ? null : *at;
}

/// A field that must be there. `where` names file and object.
[[nodiscard]] inline json const& field(json const& object, char const* key,
                                       std::string const& where, char const* limit) {
    json const& value = field_or_null(object, key);
    if (value.is_null()) {
        throw error(where + ": " + key, object.contains(key) ? "null" : "missing", limit);
    }
    return value;
}

/// A whole number from `least` to `most`; `what` names it.
[[nodiscard]] inline index_t whole_number(json const& value, std::string const& what, index_t least,
                                          index_t most) {
    bool const fits = value.is_number_unsigned()
                          ? value.get<std::uint64_t>() <= static_cast<std::uint64_t>(most) &&
                                value.get<index_t>() >= least
                          : value.is_number_integer() && value.get<std::int64_t>() >= least &&
                                value.get<std::int64_t>() <= most;
    if (!fits) {
        throw error(what, shown_value(value),
                    "a whole number from " + std::to_string(least) +
                        (most == std::numeric_limits<index_t>::max()
                             ? std::string(" on")
                             : " to " + std::to_string(most)));
    }
    return value.get<index_t>();
}

} // namespace sofattn::lm
