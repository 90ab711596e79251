// SPDX-License-Identifier: MIT
// Keyword arguments by name: None is "not given", everything else is of the kind asked for.
#pragma once

#include "errors.hpp"
#include <sofattn/sofattn.h>

#include <pybind11/pybind11.h>

#include <array>
#include <cmath>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

namespace sofattn::python {

[[nodiscard]] inline std::int64_t as_integer(std::string const& name, py::handle object) {
    auto const number = py::reinterpret_steal<py::object>(PyNumber_Index(object.ptr()));
    if (!number) {
        PyErr_Clear();
        refuse_type(name, object, "an integer");
    }
    int overflow = 0;
    long long const value = PyLong_AsLongLongAndOverflow(number.ptr(), &overflow);
    if (overflow != 0) {
        refuse(name, shown(object), "an integer of 64 bits");
    }
    return value;
}
[[nodiscard]] inline double as_real(std::string const& name, py::handle object) {
    double const value = PyFloat_AsDouble(object.ptr());
    if (PyErr_Occurred() != nullptr) {
        PyErr_Clear();
        refuse_type(name, object, "a number");
    }
    return value;
}
[[nodiscard]] inline bool as_truth(std::string const& name, py::handle object) {
    if (!PyBool_Check(object.ptr())) {
        refuse_type(name, object, "True or False");
    }
    return object.ptr() == Py_True;
}

template <std::size_t N>
using choices = std::array<std::pair<std::string_view, std::int32_t>, N>;

inline constexpr choices<4> masks{{{"none", SOFATTN_MASK_NONE},
                                   {"causal", SOFATTN_MASK_CAUSAL},
                                   {"window", SOFATTN_MASK_WINDOW},
                                   {"prefix", SOFATTN_MASK_PREFIX}}};
inline constexpr choices<5> methods{{{"dense", SOFATTN_DENSE},
                                     {"best_keys", SOFATTN_BEST_KEYS},
                                     {"budget", SOFATTN_BUDGET},
                                     {"listed", SOFATTN_LISTED},
                                     {"pages", SOFATTN_PAGES}}};
/// Those of prefill over codes.
inline constexpr choices<2> coded_methods{{{"budget", SOFATTN_BUDGET}, {"pages", SOFATTN_PAGES}}};
[[nodiscard]] constexpr bool is_coded_prefill(std::int32_t method) noexcept {
    return method == SOFATTN_BUDGET || method == SOFATTN_PAGES;
}
inline constexpr choices<3> all_products{{{"float32", SOFATTN_PRODUCTS_F32},
                                          {"bfloat16", SOFATTN_PRODUCTS_BF16},
                                          {"int8", SOFATTN_PRODUCTS_INT8}}};
/// Those that a pool's sequences keep page codes for.
inline constexpr choices<2> kept_page_codes{
    {{"float32", SOFATTN_PAGE_CODES_F32}, {"bfloat16", SOFATTN_PAGE_CODES_BF16}}};
inline constexpr choices<4> storage_types{{{"float32", SOFATTN_F32},
                                           {"float16", SOFATTN_F16},
                                           {"bfloat16", SOFATTN_BF16},
                                           {"int8", SOFATTN_INT8}}};

/// Those of outputs.
inline constexpr choices<3> float_types{
    {{"float32", SOFATTN_F32}, {"float16", SOFATTN_F16}, {"bfloat16", SOFATTN_BF16}}};

template <std::size_t N>
[[nodiscard]] std::int32_t as_choice(std::string const& name, py::handle object,
                                     choices<N> const& among) {
    if (!py::isinstance<py::str>(object)) {
        refuse_type(name, object, "a string");
    }
    std::string names;
    for (auto const& [text, value] : among) {
        if (PyUnicode_CompareWithASCIIString(object.ptr(), text.data()) == 0) {
            return value;
        }
        names.append(names.empty() ? "" : ", ").append(text);
    }
    refuse(name, shown(object), "one of " + names);
}
template <std::size_t N>
[[nodiscard]] std::string_view name_in(choices<N> const& among, std::int32_t value) {
    for (auto const& [text, number] : among) {
        if (number == value) {
            return text;
        }
    }
    return "unknown";
}

/// The dtype argument: what the bits of uint16 arrays are.
[[nodiscard]] inline bool is_bfloat16(py::handle dtype, bool otherwise) {
    if (dtype.is_none()) {
        return otherwise;
    }
    if (!py::isinstance<py::str>(dtype)) {
        refuse_type("dtype", dtype, "None or \"bfloat16\"");
    }
    if (PyUnicode_CompareWithASCIIString(dtype.ptr(), "bfloat16") != 0) {
        refuse("dtype", shown(dtype),
               "None or \"bfloat16\": arrays of float32 and float16 say what they are");
    }
    return true;
}

/// Arguments by name; every one has to be asked for.
class arguments {
public:
    explicit arguments(py::dict given) : given_(std::move(given)) {}

    /// Borrowed, as long as these arguments are there.
    [[nodiscard]] py::handle object(char const* name) const {
        PyObject* const found = PyDict_GetItemString(given_.ptr(), name);
        if (found == nullptr) {
            throw py::key_error(name);
        }
        return found;
    }
    [[nodiscard]] bool given(char const* name) const { return !object(name).is_none(); }

    void take(char const* name, std::int64_t& into) const {
        if (py::handle const found = object(name); !found.is_none()) {
            into = as_integer(name, found);
        }
    }
    void take(char const* name, double& into) const {
        if (py::handle const found = object(name); !found.is_none()) {
            into = as_real(name, found);
        }
    }
    template <std::size_t N>
    void take(char const* name, std::int32_t& into, choices<N> const& among) const {
        if (py::handle const found = object(name); !found.is_none()) {
            into = as_choice(name, found, among);
        }
    }
    [[nodiscard]] bool truth(char const* name, bool otherwise) const {
        py::handle const found = object(name);
        return found.is_none() ? otherwise : as_truth(name, found);
    }
    /// What says something of another method would be ignored by this one.
    template <class... Names>
    void only_with(bool is_method, char const* method, Names... names) const {
        for (char const* const name : {names...}) {
            if (!is_method && given(name)) {
                refuse(name, shown(object(name)),
                       std::string("left out but with method=\"") + method + "\"",
                       SOFATTN_UNSUPPORTED);
            }
        }
    }

private:
    py::dict given_;
};

} // namespace sofattn::python
