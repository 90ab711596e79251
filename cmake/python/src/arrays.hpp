// SPDX-License-Identifier: MIT
// numpy arrays as operands of the C interface, without copies.
#pragma once

#include "errors.hpp"
#include <sofattn/sofattn.h>

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

namespace sofattn::python {

/// An array [head, token, channel] and what the library is told of it. Holds the array, and the scales of codes.
struct rows {
    py::array array;
    sofattn_operand operand{};
    py::object scale_array = py::none(); ///< [head, token], of codes
    sofattn_scales scales{};

    [[nodiscard]] std::int64_t heads() const { return array.shape(0); }
    [[nodiscard]] std::int64_t tokens() const { return array.shape(1); }
    [[nodiscard]] std::int64_t dim() const { return array.shape(2); }
};

/// Any numpy array, but masked ones: what they hide would be read.
[[nodiscard]] inline py::array any_array(std::string const& name, py::handle object) {
    if (!py::isinstance<py::array>(object) || py::hasattr(object, "mask")) {
        refuse_type(name, object, "a numpy array without a mask");
    }
    return py::reinterpret_borrow<py::array>(object);
}

[[nodiscard]] inline std::string shape_text(py::array const& a) {
    std::string text = "(";
    for (py::ssize_t axis = 0; axis < a.ndim(); ++axis) {
        text.append(axis == 0 ? "" : ", ").append(std::to_string(a.shape(axis)));
    }
    return text + ")";
}
inline void require_shape(std::string const& name, py::array const& a,
                          std::initializer_list<std::int64_t> wanted, char const* axes) {
    bool same = a.ndim() == static_cast<py::ssize_t>(wanted.size());
    py::ssize_t axis = 0;
    std::string text = "(";
    for (std::int64_t const extent : wanted) {
        same = same && a.shape(axis) == extent;
        text.append(axis == 0 ? "" : ", ").append(std::to_string(extent));
        ++axis;
    }
    if (!same) {
        refuse(name + ".shape", shape_text(a), text + "), that is " + axes, SOFATTN_MISMATCH);
    }
}
/// In this machine's byte order.
[[nodiscard]] inline bool holds(py::array const& a, char kind, py::ssize_t bytes) {
    py::dtype const d = a.dtype();
    char const order = d.byteorder();
    return d.kind() == kind && d.itemsize() == bytes && (order == '=' || order == '|');
}
[[nodiscard]] inline std::string type_text(py::array const& a) {
    return py::cast<std::string>(py::str(a.dtype()));
}
inline void require_channels_together(std::string const& name, py::array const& a) {
    py::ssize_t const last = a.ndim() - 1;
    if (a.shape(last) > 1 && a.strides(last) != a.itemsize()) {
        refuse(name + ".strides[-1]", std::to_string(a.strides(last)),
               "the bytes of an element: channels of a token are neighbours "
               "(numpy.ascontiguousarray copies)",
               SOFATTN_UNSUPPORTED);
    }
}

/// An input, of float32, float16, or of bfloat16 in the bits of uint16 where the caller says so.
[[nodiscard]] inline rows read_rows(std::string const& name, py::handle object, bool bfloat16) {
    rows r{any_array(name, object)};
    py::array const& a = r.array;
    if (a.ndim() != 3) {
        refuse(name + ".ndim", std::to_string(a.ndim()), "3: [head, token, channel]");
    }
    if (holds(a, 'f', 4)) {
        r.operand.type = SOFATTN_F32;
    } else if (holds(a, 'f', 2)) {
        r.operand.type = SOFATTN_F16;
    } else if (bfloat16 && holds(a, 'u', 2)) {
        r.operand.type = SOFATTN_BF16;
    } else {
        refuse(name + ".dtype", type_text(a),
               "float32, float16, or uint16 with dtype=\"bfloat16\", in native byte order",
               SOFATTN_UNSUPPORTED);
    }
    require_channels_together(name, a);
    r.operand.data = a.data();
    r.operand.head_stride = a.strides(0);
    r.operand.token_stride = a.strides(1);
    return r;
}

/// Keys or values: as above, or int8 with float32 scales [kv_head, token] of any strides.
[[nodiscard]] inline rows read_stored(std::string const& name, py::handle object, py::handle scales,
                                      bool bfloat16) {
    std::string const of_scales = name + "_scales";
    py::array const a = any_array(name, object);
    bool const is_coded = holds(a, 'i', 1);
    if (is_coded == scales.is_none()) {
        refuse(of_scales, is_coded ? "None" : "given",
               is_coded ? "float32 [kv_head, token] where " + name + " is int8"
                        : "None but where " + name + " is int8",
               is_coded ? SOFATTN_NULL_POINTER : SOFATTN_UNSUPPORTED);
    }
    if (!is_coded) {
        return read_rows(name, object, bfloat16);
    }
    if (a.ndim() != 3) {
        refuse(name + ".ndim", std::to_string(a.ndim()), "3: [head, token, channel]");
    }
    require_channels_together(name, a);
    py::array const s = any_array(of_scales, scales);
    if (!holds(s, 'f', 4)) {
        refuse(of_scales + ".dtype", type_text(s), "float32, in native byte order",
               SOFATTN_UNSUPPORTED);
    }
    require_shape(of_scales, s, {a.shape(0), a.shape(1)}, "[kv_head, token]");
    rows r{a};
    r.operand = {a.data(), SOFATTN_INT8, a.strides(0), a.strides(1)};
    r.scale_array = s;
    r.scales = {static_cast<float const*>(s.data()), s.strides(0), s.strides(1)};
    return r;
}

/// [first, last) byte of an array's elements.
[[nodiscard]] inline std::pair<std::uintptr_t, std::uintptr_t> extent_of(py::array const& a) {
    auto first = reinterpret_cast<std::uintptr_t>(a.data());
    auto last = first;
    if (a.size() == 0) {
        return {first, first};
    }
    for (py::ssize_t axis = 0; axis < a.ndim(); ++axis) {
        py::ssize_t const step = (a.shape(axis) - 1) * a.strides(axis);
        (step < 0 ? first : last) += static_cast<std::uintptr_t>(step); // modulo 2^64: subtracts
    }
    return {first, last + static_cast<std::uintptr_t>(a.itemsize())};
}
/// An output that lies on an input would be read half written.
inline void require_apart(py::array const& output, py::array const& input,
                          std::string const& name) {
    auto const [a, b] = extent_of(output);
    auto const [c, d] = extent_of(input);
    if (a >= d || c >= b) {
        return;
    }
    // Interleaved arrays may be apart within the same bytes. numpy decides; it gives up where that would
    // take long.
    bool apart = false;
    try {
        constexpr int most_work = 10000;
        apart = !py::cast<bool>(py::module_::import("numpy").attr("shares_memory")(
            output, input, py::arg("max_work") = most_work));
    } catch (py::error_already_set const& e) {
        if (!e.matches(PyExc_RuntimeError)) { // numpy's TooHardError is one
            throw;
        }
    }
    if (!apart) {
        refuse("out", "in memory of " + name, "in memory of its own", SOFATTN_OVERLAPPING);
    }
}

/// How elements of this type are held: bfloat16 in the bits of uint16, numpy has none. pre: no int8
[[nodiscard]] inline py::dtype numpy_type(std::int32_t type) {
    return py::dtype(type == SOFATTN_F32 ? "float32" : type == SOFATTN_F16 ? "float16" : "uint16");
}

/// [head, query, channel] of the type that may be written.
[[nodiscard]] inline py::array read_output(py::handle object, std::int32_t type, std::int64_t heads,
                                           std::int64_t queries, std::int64_t dim) {
    py::array a = any_array("out", object);
    if (!holds(a, type == SOFATTN_BF16 ? 'u' : 'f', type == SOFATTN_F32 ? 4 : 2)) {
        refuse("out.dtype", type_text(a),
               py::cast<std::string>(py::str(numpy_type(type))) + ", in native byte order",
               SOFATTN_UNSUPPORTED);
    }
    require_shape("out", a, {heads, queries, dim}, "[head, query, channel of v]");
    if (!a.writeable()) {
        refuse("out", "read-only", "an array that may be written");
    }
    require_channels_together("out", a);
    return a;
}

/// Numbers of 4 bytes in C order, of so many axes; kind and type as numpy names them.
[[nodiscard]] inline py::array read_numbers(std::string const& name, py::handle object,
                                            py::ssize_t axes, char kind, std::string const& type) {
    py::array a = any_array(name, object);
    if (a.ndim() != axes) {
        refuse(name + ".ndim", std::to_string(a.ndim()), std::to_string(axes));
    }
    if (!holds(a, kind, 4)) {
        refuse(name + ".dtype", type_text(a), type + ", in native byte order", SOFATTN_UNSUPPORTED);
    }
    if ((a.flags() & py::array::c_style) == 0) {
        refuse(name, "not in C order", "contiguous (numpy.ascontiguousarray copies)",
               SOFATTN_UNSUPPORTED);
    }
    return a;
}
[[nodiscard]] inline py::array read_integers(std::string const& name, py::handle object,
                                             py::ssize_t axes) {
    return read_numbers(name, object, axes, 'i', "int32");
}

} // namespace sofattn::python
