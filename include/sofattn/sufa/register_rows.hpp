// SPDX-License-Identifier: MIT
// Keys, values and queries as kernels read them: floats, in whole registers.
#pragma once

#include <sofattn/core/element.hpp>
#include <sofattn/core/tensor.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/core/view.hpp>
#include <sofattn/exec/xsimd_lanes.hpp>

#include <concepts>
#include <type_traits>

namespace sofattn::sufa {

/// Floats in whole registers, of which the last ones are 0 where the row ends before.
struct row_of_registers {
    float const* data = nullptr;
    index_t row = 0;   ///< floats from one to the next
    index_t width = 0; ///< floats of one, a multiple of exec::vector_width
};

/// Columns in whole registers.
[[nodiscard]] constexpr index_t register_width(index_t columns) noexcept {
    return ceil_div(columns, exec::vector_width) * exec::vector_width;
}

/// An array's rows for kernels: as they lie, where they are floats that fill whole registers; else a
/// copy. Views of what it was made from.
template <class Row, class Column>
class register_rows {
public:
    register_rows() noexcept = default;
    // A copy of the rows does not move with the object, so it may move, but not be copied.
    register_rows(register_rows&&) noexcept = default;
    register_rows& operator=(register_rows&&) noexcept = default;
    register_rows(register_rows const&) = delete;
    register_rows& operator=(register_rows const&) = delete;
    ~register_rows() = default;

    template <storage_float T>
    explicit register_rows(view<T const, Row, Column> from) {
        index_t const columns = from.template extent<Column>();
        rows_.width = register_width(columns);
        if constexpr (std::same_as<T, float>) {
            if (from.template stride<Column>() == 1 && columns == rows_.width) {
                rows_.data = from.data();
                rows_.row = from.template stride<Row>();
                return;
            }
        }
        copy_ = tensor<float, Row, Column>::for_overwrite(from.extents());
        for (index_t r = 0; r < from.template extent<Row>(); ++r) {
            for_each_float(from, r,
                           [to = copy_.view().data() + r * copy_.view().template stride<Row>()](
                               index_t c, float value) { to[c] = value; });
        }
        rows_.data = copy_.cview().data();
        rows_.row = copy_.cview().template stride<Row>();
    }
    /// A tensor's rows end in zeros; its elements may change as long as these do not.
    explicit register_rows(tensor<float, Row, Column> const& from) noexcept
        : rows_{from.cview().data(), from.cview().template stride<Row>(),
                register_width(from.template extent<Column>())} {}

    [[nodiscard]] row_of_registers rows() const noexcept { return rows_; }

private:
    tensor<float, Row, Column> copy_;
    row_of_registers rows_;
};

} // namespace sofattn::sufa
