// SPDX-License-Identifier: MIT
// Finished rows of floats into outputs of any storage type.
#pragma once

#include <sofattn/core/bfloat16.hpp>
#include <sofattn/core/half.hpp>
#include <sofattn/core/output_array.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/core/view.hpp>
#include <sofattn/exec/xsimd_lanes.hpp>

namespace sofattn::exec {

namespace detail {

template <output_float T>
inline void store_elements(view<T, axis::value_dim> to, float const* row) noexcept {
    index_t const count = to.size();
    index_t const stride = to.template stride<axis::value_dim>();
    index_t d = 0;
    if (stride == 1) {
        for (; d + vector_width <= count; d += vector_width) {
            store(to.data() + d, load(row + d));
        }
    }
    for (; d < count; ++d) {
        to.data()[d * stride] = T(row[d]);
    }
}

} // namespace detail

/// Writes a row of `to.size()` floats, each rounded to nearest, ties to even: the bits of half(x) or
/// bfloat16(x), the same on every target. `row` is no part of `to`.
inline void store_row(output_row const& to, float const* row) noexcept {
    switch (to.type()) {
    case storage_type::f32: detail::store_elements(to.as<float>(), row); return;
    case storage_type::f16: detail::store_elements(to.as<half>(), row); return;
    case storage_type::bf16: detail::store_elements(to.as<bfloat16>(), row); return;
    }
}

} // namespace sofattn::exec
