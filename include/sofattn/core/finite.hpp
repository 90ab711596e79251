// SPDX-License-Identifier: MIT
// NaN and infinity are refused at the boundary: scores are compared, so none may be one.
#pragma once

#include <sofattn/core/element.hpp>
#include <sofattn/core/error.hpp>
#include <sofattn/core/rows.hpp>
#include <sofattn/core/scaled_view.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/core/view.hpp>

#include <cmath>
#include <string>
#include <string_view>

namespace sofattn {

/// Numbers with NaN or infinity are no input for a selection.
/// in     name   how messages call the array, e.g. the file
///        array  any rank, any strides
/// error  the first element, in C order, that is not finite: "NAME: element [1, 20, 3] is nan, ..."
template <class T, class... Axes>
    requires storage_float<T>
void require_finite(std::string_view name, view<T, Axes...> array) {
    index_t const length = array.extents().back();
    index_t const step = array.strides().back();
    for_each_row(array, [&](auto at, T* row) {
        for (index_t i = 0; i < length; ++i) {
            float const value = to_float(row[i * step]);
            if (std::isfinite(value)) {
                continue;
            }
            at.back() = i;
            std::string place;
            for (index_t index : at) {
                place += (place.empty() ? "[" : ", ") + std::to_string(index);
            }
            throw error(std::string(name) + ": element " + place + "]",
                        std::isnan(value) ? "nan"
                        : value > 0       ? "inf"
                                          : "-inf",
                        "finite");
        }
    });
}

/// Of codes, their scales.
template <class... Axes>
void require_finite(std::string_view name, scaled_view<Axes...> rows) {
    require_finite(std::string(name) + ", scales", rows.scales());
}

} // namespace sofattn
