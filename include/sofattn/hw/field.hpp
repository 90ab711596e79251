// SPDX-License-Identifier: MIT
// What a field of a description means, said once: for explanations, messages and files.
#pragma once

#include <sofattn/core/error.hpp>
#include <sofattn/core/types.hpp>

#include <boost/hana/accessors.hpp>
#include <boost/hana/concept/struct.hpp>
#include <boost/hana/core/to.hpp>
#include <boost/hana/first.hpp>
#include <boost/hana/for_each.hpp>
#include <boost/hana/second.hpp>
#include <boost/hana/string.hpp>
#include <boost/hana/tuple.hpp>

#include <algorithm>
#include <array>
#include <charconv>
#include <concepts>
#include <cstddef>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace sofattn::hw {

/// The last words of a field's name are its unit.
inline constexpr std::array<std::string_view, 16> unit_names{
    "count",      "bytes",       "bytes_per_cycle",
    "cycles",     "bits",        "share",
    "megahertz",  "nanometres",  "volts",
    "picojoules", "celsius",     "milliwatts",
    "name",       "picoseconds", "picojoules_per_bit",
    "percent"};

/// One field: its member's name, what it means, where its preset value comes from, what it may be.
struct field {
    std::string_view name;
    std::string_view doc;
    std::string_view source{};
    double least = 0;           ///< of a number
    double most = 0;            ///< of a number
    std::string_view choices{}; ///< of a text, separated by "|"

    /// Empty for truth values and for parts that have fields of their own.
    [[nodiscard]] constexpr std::string_view unit() const noexcept {
        std::string_view longest;
        for (std::string_view const u : unit_names) {
            if (name.ends_with(u) && name.size() > u.size() &&
                name[name.size() - u.size() - 1] == '_' && u.size() > longest.size()) {
                longest = u;
            }
        }
        return longest;
    }
};

namespace detail {

template <class T>
inline constexpr bool is_number =
    std::is_arithmetic_v<std::remove_cvref_t<T>> && !std::same_as<std::remove_cvref_t<T>, bool>;

/// Shortest text that reads back as the same number.
template <class T>
[[nodiscard]] std::string number_text(T value) {
    std::array<char, 32> text{};
    auto const end = std::to_chars(text.data(), text.data() + text.size(), value).ptr;
    return {text.data(), end};
}

} // namespace detail

/// A struct that BOOST_HANA_ADAPT_STRUCT has told the names of, and whose static `fields` say what
/// they mean, in the same order.
template <class T>
concept described = boost::hana::Struct<T>::value && requires {
    { T::fields[0] } -> std::convertible_to<field>;
};

namespace detail {

template <class T, class Accessor>
using member_of = std::remove_cvref_t<decltype(boost::hana::second(std::declval<Accessor>())(
    std::declval<T&>()))>;

template <class T, class Accessor>
consteval bool field_fits(field const& f) {
    using member = member_of<T, Accessor>;
    bool fits =
        f.name == boost::hana::to<char const*>(boost::hana::first(Accessor{})) && !f.doc.empty();
    if constexpr (is_number<member>) {
        fits = fits && !f.unit().empty() && f.least <= f.most;
    } else if constexpr (std::same_as<member, std::string>) {
        fits = fits && f.unit() == "name" && !f.choices.empty();
    }
    return fits;
}
template <class T, class... Accessors>
consteval bool all_fields_fit(boost::hana::tuple<Accessors...>) {
    if (sizeof...(Accessors) != T::fields.size()) {
        return false;
    }
    std::size_t at = 0;
    return (field_fits<T, Accessors>(T::fields[at++]) && ...);
}

/// The table belongs to the struct, and each number and text names its unit.
template <described T>
inline constexpr bool fields_fit = all_fields_fit<T>(boost::hana::accessors<T>());

} // namespace detail

/// Calls f(field, value) for every field of `of`, in order; values of a non-const `of` can be set.
template <class T, class F>
    requires described<std::remove_const_t<T>>
constexpr void for_each_field(T& of, F f) {
    using plain = std::remove_const_t<T>;
    static_assert(
        detail::fields_fit<plain>,
        "hw::described: `fields` must list the adapted members in their order, with a doc "
        "sentence each; a number's name ends in its unit, a text's in `name`");
    std::size_t at = 0;
    boost::hana::for_each(boost::hana::accessors<plain>(), [&](auto const& accessor) {
        f(plain::fields[at++], boost::hana::second(accessor)(of));
    });
}

namespace detail {

[[nodiscard]] inline std::string choices_text(std::string_view choices) {
    std::string text(choices);
    for (std::size_t at = text.find('|'); at != std::string::npos; at = text.find('|')) {
        text.replace(at, 1, " or ");
    }
    return text;
}

[[nodiscard]] inline bool is_choice(std::string_view choices, std::string_view value) {
    while (!choices.empty()) {
        std::size_t const end = std::min(choices.find('|'), choices.size());
        if (choices.substr(0, end) == value) {
            return true;
        }
        choices.remove_prefix(std::min(choices.size(), end + 1));
    }
    return false;
}

} // namespace detail

/// What a field may be, as text: "from 1 to 1024", "tile_ready or row_ready".
template <class Value>
[[nodiscard]] std::string limit_of(field const& f, Value const&) {
    if constexpr (std::same_as<Value, bool>) {
        return "true or false";
    } else if constexpr (detail::is_number<Value>) {
        return std::string(std::is_integral_v<Value> ? "a whole number " : "") + "from " +
               detail::number_text(f.least) + " to " + detail::number_text(f.most);
    } else {
        return detail::choices_text(f.choices);
    }
}

/// Throws `error` naming field, value and limit for the first field out of range. `path` is what
/// stands before the names, e.g. "hardware: ".
template <described T>
void check_fields(T const& of, std::string const& path) {
    for_each_field(of, [&]<class Value>(field const& f, Value const& value) {
        std::string const name = path + std::string(f.name);
        if constexpr (described<Value>) {
            check_fields(value, name + ".");
        } else if constexpr (std::same_as<Value, std::string>) {
            if (!detail::is_choice(f.choices, value)) {
                throw error(name, "\"" + value + "\"", limit_of(f, value));
            }
        } else if constexpr (detail::is_number<Value>) {
            auto const number = static_cast<double>(value);
            if (!(number >= f.least && number <= f.most)) { // NaN is neither
                throw error(name, detail::number_text(value), limit_of(f, value));
            }
        }
    });
}

/// One line of an explanation.
struct explained_field {
    std::string name; ///< with the parts it lies in: "prediction.array_rows_count"
    std::string value;
    std::string unit;
    std::string limit;
    std::string doc;
    std::string source;
};

/// Every field of `of` and of its parts, in order; a part comes before its fields, without a value.
template <described T>
[[nodiscard]] std::vector<explained_field> explain(T const& of, std::string const& path = {}) {
    std::vector<explained_field> lines;
    for_each_field(of, [&]<class Value>(field const& f, Value const& value) {
        std::string const name = path + std::string(f.name);
        explained_field line{
            name, "", std::string(f.unit()), "", std::string(f.doc), std::string(f.source)};
        if constexpr (described<Value>) {
            lines.push_back(line);
            auto const inner = explain(value, name + ".");
            lines.insert(lines.end(), inner.begin(), inner.end());
            return;
        } else if constexpr (std::same_as<Value, std::string>) {
            line.value = value;
        } else if constexpr (std::same_as<Value, bool>) {
            line.value = value ? "true" : "false";
        } else {
            line.value = detail::number_text(value);
        }
        line.limit = limit_of(f, value);
        lines.push_back(line);
    });
    return lines;
}

} // namespace sofattn::hw
