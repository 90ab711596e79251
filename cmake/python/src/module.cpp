// SPDX-License-Identifier: MIT
// sofattn._core: the C interface for Python. What users see, and its documentation, is sofattn/__init__.py.
#include "arguments.hpp"
#include "arrays.hpp"
#include "cache.hpp"
#include "call.hpp"
#include "errors.hpp"
#include <sofattn/sofattn.h>

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace sofattn::python {
namespace {

/// A pool for keys and values of arrays.
std::shared_ptr<pool> pool_for(std::int32_t type, rows const& k, std::int64_t v_dim) {
    sofattn_layout l;
    sofattn_layout_init(&l);
    l.type = type;
    l.kv_heads = k.heads();
    l.qk_dim = k.dim();
    l.v_dim = v_dim;
    l.pages = k.tokens() / l.page_tokens + 1;
    l.coded_from = std::clamp<std::int64_t>(k.tokens(), 1, l.coded_from);
    return std::make_shared<pool>(l);
}

/// Keys in int8 as the floats that they stand for, [head, token, channel] of `count` tokens from `first` on.
py::array_t<float> widened(rows const& k, std::int64_t first, std::int64_t count) {
    py::array_t<float> made({k.heads(), count, k.dim()});
    auto to = made.mutable_unchecked<3>();
    auto const scales = py::reinterpret_borrow<py::array>(k.scale_array);
    for (std::int64_t h = 0; h < k.heads(); ++h) {
        for (std::int64_t t = 0; t < count; ++t) {
            auto const* const codes = static_cast<std::int8_t const*>(k.array.data(h, first + t));
            float const scale = *static_cast<float const*>(scales.data(h, first + t));
            for (std::int64_t d = 0; d < k.dim(); ++d) {
                to(h, t, d) = scale * static_cast<float>(codes[d]);
            }
        }
    }
    return made;
}

/// Keys of arrays have no codes: they are copied into a cache of their own. One of int8 would round what it is
/// given once more, so that keys in int8 are read where they lie, and the cache has their codes alone.
py::object attend_best_keys(call& c, rows const& q, rows const& k, rows const& v) {
    if (k.operand.type != SOFATTN_INT8) {
        sequence s(pool_for(k.operand.type, k, v.dim()));
        s.write(0, k, v, true);
        return s.attend(0, q, c);
    }
    sequence s(pool_for(SOFATTN_F32, k, 1));
    constexpr std::int64_t at_once = 1024; // tokens; bounds the floats beside those in the cache
    for (std::int64_t first = 0; first < k.tokens(); first += at_once) {
        std::int64_t const count = std::min(at_once, k.tokens() - first);
        py::array_t<float> no_values({k.heads(), count, std::int64_t{1}});
        std::fill_n(no_values.mutable_data(), no_values.size(), 0.0f);
        s.write(0, read_rows("k", widened(k, first, count), false),
                read_rows("v", no_values, false), true);
    }
    c.a.codes = s.codes(0);
    return c.run();
}

py::object attention(py::dict const& given) {
    arguments const from(given);
    bool const bfloat16 = is_bfloat16(from.object("dtype"), false);
    rows const q = read_rows("q", from.object("q"), bfloat16);
    rows const k = read_stored("k", from.object("k"), from.object("k_scales"), bfloat16);
    rows const v = read_stored("v", from.object("v"), from.object("v_scales"), bfloat16);
    call c(from);
    c.set_query(q);
    c.set_keys(k, v);
    std::unique_ptr<prefill_codes> own;
    if (from.given("codes") && !is_coded_prefill(c.a.method)) {
        refuse("codes", "given", "left out but with method=\"budget\" or \"pages\"",
               SOFATTN_UNSUPPORTED);
    }
    if (c.a.keys >= c.a.dense_below) {
        if (c.a.method == SOFATTN_BEST_KEYS) {
            return attend_best_keys(c, q, k, v);
        }
        if (c.a.method == SOFATTN_BUDGET) {
            prefill_codes::refuse_int8(k);
        }
        if (is_coded_prefill(c.a.method) && !from.given("codes")) {
            own = std::make_unique<prefill_codes>(k, v, c.a.method, c.a.products);
            c.a.prefill = own->handle();
        }
    }
    if (from.given("codes")) {
        py::handle const codes = from.object("codes");
        if (!py::isinstance<prefill_codes>(codes)) {
            refuse_type("codes", codes, "what sofattn.prefill_codes returns");
        }
        auto const& made = py::cast<prefill_codes const&>(codes);
        made.require_of(k, v, c.a);
        c.a.prefill = made.handle();
    }
    return c.run();
}

std::shared_ptr<pool> make_pool(py::dict const& given) {
    arguments const from(given);
    sofattn_layout l;
    sofattn_layout_init(&l);
    from.take("dtype", l.type, storage_types);
    from.take("layers", l.layers);
    from.take("kv_heads", l.kv_heads);
    from.take("qk_dim", l.qk_dim);
    l.v_dim = l.qk_dim;
    from.take("v_dim", l.v_dim);
    from.take("page_tokens", l.page_tokens);
    from.take("pages", l.pages);
    from.take("coded_from", l.coded_from);
    from.take("page_codes", l.page_codes, kept_page_codes);
    return std::make_shared<pool>(l);
}

bool holds_bfloat16(sequence const& s, py::handle dtype) {
    return is_bfloat16(dtype, s.of()->layout().type == SOFATTN_BF16);
}
void write(sequence& s, py::handle layer, py::handle k, py::handle v, py::handle dtype,
           bool extends) {
    bool const bfloat16 = holds_bfloat16(s, dtype);
    s.write(as_integer("layer", layer), read_rows("k", k, bfloat16), read_rows("v", v, bfloat16),
            extends);
}
py::object attend(sequence const& s, py::handle layer, py::handle q, py::dict const& given) {
    arguments const from(given);
    rows const query = read_rows("q", q, holds_bfloat16(s, from.object("dtype")));
    call c(from);
    return s.attend(as_integer("layer", layer), query, c);
}

py::list attend_batch(py::handle sequences, py::handle layer, py::handle queries,
                      py::dict const& given) {
    arguments const from(given);
    auto const items = [](char const* name, py::handle object) {
        auto list = py::reinterpret_steal<py::list>(PySequence_List(object.ptr()));
        if (!list) {
            PyErr_Clear();
            refuse_type(name, object, "a list");
        }
        return list;
    };
    py::list const caches = items("sequences", sequences);
    py::list const arrays = items("queries", queries);
    if (arrays.size() != caches.size()) {
        refuse("len(queries)", std::to_string(arrays.size()), "that of sequences",
               SOFATTN_MISMATCH);
    }
    std::vector<sequence const*> all;
    std::vector<rows> q;
    for (std::size_t i = 0; i < caches.size(); ++i) {
        py::object const one = caches[i];
        std::string const at = "[" + std::to_string(i) + "]";
        if (!py::isinstance<sequence>(one)) {
            refuse_type("sequences" + at, one, "a sofattn.Sequence");
        }
        all.push_back(&py::cast<sequence const&>(one));
        q.push_back(read_rows("queries" + at, arrays[i],
                              holds_bfloat16(*all.back(), from.object("dtype"))));
    }
    return sequence::attend(all, as_integer("layer", layer), q, from);
}
/// Of any object that has its bytes in a row: bytes, an array, a mapped file.
void import_from(sequence& s, py::handle data) {
    Py_buffer view{};
    if (PyObject_GetBuffer(data.ptr(), &view, PyBUF_SIMPLE) != 0) {
        PyErr_Clear();
        refuse_type("data", data, "bytes, or an object whose bytes lie in a row");
    }
    struct release {
        void operator()(Py_buffer* v) const noexcept { PyBuffer_Release(v); }
    };
    std::unique_ptr<Py_buffer, release> const held(&view);
    s.import(view.buf, static_cast<std::size_t>(view.len));
}

std::string version_text() {
    std::uint32_t const v = sofattn_version();
    return std::to_string(v / 10000) + "." + std::to_string(v / 100 % 100) + "." +
           std::to_string(v % 100);
}

void define_cache(py::module_& m) {
    auto const layout = [](std::int64_t sofattn_layout::*field) {
        return [field](pool const& p) { return p.layout().*field; };
    };
    py::class_<pool, std::shared_ptr<pool>>(m, "Pool")
        .def(py::init(&make_pool))
        .def_property_readonly("free_pages",
                               [](pool const& p) { return sofattn_pool_free_pages(p.handle()); })
        .def_property_readonly(
            "bytes_per_token",
            [](pool const& p) { return sofattn_pool_bytes_per_token(p.handle()); })
        .def_property_readonly(
            "dtype", [](pool const& p) { return name_in(storage_types, p.layout().type); })
        .def_property_readonly("layers", layout(&sofattn_layout::layers))
        .def_property_readonly("kv_heads", layout(&sofattn_layout::kv_heads))
        .def_property_readonly("qk_dim", layout(&sofattn_layout::qk_dim))
        .def_property_readonly("v_dim", layout(&sofattn_layout::v_dim))
        .def_property_readonly("page_tokens", layout(&sofattn_layout::page_tokens))
        .def_property_readonly("pages", layout(&sofattn_layout::pages))
        .def_property_readonly("coded_from", layout(&sofattn_layout::coded_from))
        .def_property_readonly("page_codes", [](pool const& p) -> py::object {
            std::int32_t const kept = p.layout().page_codes;
            return kept == SOFATTN_NO_PAGE_CODES ? py::object(py::none())
                                                 : py::cast(name_in(kept_page_codes, kept));
        });

    py::class_<sequence>(m, "Sequence")
        .def(py::init<std::shared_ptr<pool>>(), py::arg("pool").none(false))
        .def_property_readonly("length", &sequence::length)
        .def_property_readonly("code_bytes", &sequence::code_bytes)
        .def("written", [](sequence const& s,
                           py::handle layer) { return s.written(as_integer("layer", layer)); })
        .def("extend",
             [](sequence& s, py::handle tokens) { s.extend(as_integer("tokens", tokens)); })
        .def("write", [](sequence& s, py::handle layer, py::handle k, py::handle v,
                         py::handle dtype) { write(s, layer, k, v, dtype, false); })
        .def("append", [](sequence& s, py::handle layer, py::handle k, py::handle v,
                          py::handle dtype) { write(s, layer, k, v, dtype, true); })
        .def("truncate",
             [](sequence& s, py::handle tokens) { s.truncate(as_integer("tokens", tokens)); })
        .def("fork", &sequence::fork)
        .def("export_bytes", &sequence::exported)
        .def("import_bytes", &import_from)
        .def("attend", &attend);
}

} // namespace
} // namespace sofattn::python

PYBIND11_MODULE(_core, m) {
    namespace py = pybind11;
    using namespace sofattn::python;

    pool_full() = PyErr_NewExceptionWithDoc(
        "sofattn.PoolFull", "A KV pool has fewer free pages than were needed; nothing was changed.",
        PyExc_MemoryError, nullptr);
    if (pool_full() == nullptr) {
        throw py::error_already_set();
    }
    m.attr("PoolFull") = py::handle(pool_full());
    m.attr("__version__") = version_text();
    m.def("instruction_set", &sofattn_instruction_set,
          "What the library computes with: \"base\", \"avx2\", \"avx512\" or \"avx512_dot\" (VNNI "
          "and "
          "BF16).\n\nThe environment variable SOFATTN_ISA, read once, asks for a lower one.");

    py::class_<attended>(m, "Attended",
                         "Output of attention and what was asked for beside it; None what was not.")
        .def_readonly("output", &attended::output,
                      "[head, query, channel of v] of the type asked for")
        .def_readonly("row_max", &attended::row_max, "[head, query] largest logit")
        .def_readonly("row_sum", &attended::row_sum, "[head, query] sum of exp(logit - row_max)")
        .def_readonly("selected", &attended::selected,
                      "[kv_head or head, query, slot] keys, ascending, then -1")
        .def_readonly("selected_counts", &attended::selected_counts,
                      "[kv_head or head, query] how many")
        .def_readonly("dropped_mass", &attended::dropped_mass,
                      "[head, query] estimated share of the softmax on keys not attended to");
    py::class_<prefill_codes>(m, "PrefillCodes",
                              "What method=\"budget\" or \"pages\" knows of keys and values; "
                              "holds both arrays.")
        .def_property_readonly("tokens", &prefill_codes::tokens);
    m.def("prefill_codes", [](py::handle k, py::handle v, py::handle k_scales, py::handle v_scales,
                              py::handle method, py::handle products, py::handle dtype) {
        bool const bfloat16 = is_bfloat16(dtype, false);
        std::int32_t const of = as_choice("method", method, coded_methods);
        if (of != SOFATTN_PAGES && !products.is_none()) {
            refuse("products", shown(products), "left out but with method=\"pages\"",
                   SOFATTN_UNSUPPORTED);
        }
        std::int32_t const multiplied = products.is_none()
                                            ? SOFATTN_PRODUCTS_F32
                                            : as_choice("products", products, all_products);
        rows const keys = read_stored("k", k, k_scales, bfloat16);
        if (of == SOFATTN_BUDGET) {
            prefill_codes::refuse_int8(keys);
        }
        return std::make_unique<prefill_codes>(keys, read_stored("v", v, v_scales, bfloat16), of,
                                               multiplied);
    });
    m.def("attention", &attention);
    m.def("attend_batch", &attend_batch);
    define_cache(m);
}
