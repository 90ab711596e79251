// SPDX-License-Identifier: MIT
// Refusals of the C interface, and of the module itself, as Python exceptions.
#pragma once

#include <sofattn/sofattn.h>

#include <pybind11/pybind11.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace sofattn::python {

namespace py = pybind11;

/// sofattn.PoolFull, made by the module's initialisation and never freed: extensions stay loaded.
[[nodiscard]] inline PyObject*& pool_full() noexcept {
    static PyObject* type = nullptr;
    return type;
}

[[noreturn]] inline void raise(PyObject* type, std::string const& text) {
    PyErr_SetString(type, text.c_str());
    throw py::error_already_set();
}

/// What a message shows of an argument: its ascii(), in 60 characters of one line.
[[nodiscard]] inline std::string shown(py::handle object) {
    auto const text = py::reinterpret_steal<py::object>(PyObject_ASCII(object.ptr()));
    if (!text) {
        throw py::error_already_set();
    }
    auto found = py::cast<std::string>(text);
    std::replace(found.begin(), found.end(), '\n', ' ');
    constexpr std::size_t most = 60;
    return found.size() <= most ? found : found.substr(0, most - 3) + "...";
}

/// The library's sentence: "sofattn: FIELD is VALUE, must be LIMIT (STATUS)".
[[nodiscard]] inline std::string sentence(std::string_view field, std::string_view value,
                                          std::string_view limit, std::int32_t status) {
    std::string text = "sofattn: ";
    text.append(field).append(" is ").append(value).append(", must be ").append(limit);
    return text.append(" (").append(sofattn_status_name(status)).append(")");
}
[[noreturn]] inline void refuse(std::string_view field, std::string_view value,
                                std::string_view limit,
                                std::int32_t status = SOFATTN_OUT_OF_RANGE) {
    raise(PyExc_ValueError, sentence(field, value, limit, status));
}
[[noreturn]] inline void refuse_type(std::string_view field, py::handle object,
                                     std::string_view limit) {
    raise(PyExc_TypeError, sentence(field, "a " + std::string(Py_TYPE(object.ptr())->tp_name),
                                    limit, SOFATTN_UNSUPPORTED));
}

/// ValueError, MemoryError or PoolFull, unless the verdict is ok. Takes the GIL to be held.
inline void require_ok(sofattn_verdict const& v) {
    if (v.status == SOFATTN_OK) {
        return;
    }
    std::array<char, 512> text{}; // texts of the library are constants, far below
    sofattn_sentence(&v, text.data(), text.size());
    raise(v.status == SOFATTN_NO_FREE_PAGE    ? pool_full()
          : v.status == SOFATTN_OUT_OF_MEMORY ? PyExc_MemoryError
                                              : PyExc_ValueError,
          text.data());
}

/// Of one of several: its field is named with `where` before it.
inline void require_ok(sofattn_verdict v, std::string const& where) {
    std::string const field = where + v.field;
    v.field = field.c_str();
    require_ok(v);
}

} // namespace sofattn::python
