// SPDX-License-Identifier: MIT
// Symmetric quantisers: per tensor, per row, per channel, and centred per channel.
#pragma once

#include <sofattn/core/element.hpp>
#include <sofattn/core/tensor.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/core/view.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>
#include <utility>
#include <vector>

namespace sofattn {

/// Smallest signed integer that stores `Bits`-wide codes.
template <int Bits>
    requires(Bits >= 2 && Bits <= 16)
using code_storage = std::conditional_t<Bits <= 8, std::int8_t, std::int16_t>;

/// Largest magnitude of a `Bits`-wide code. The most negative integer is never produced, so that
/// every code has a negation and a bit length below `Bits`.
template <int Bits>
inline constexpr int code_limit = (1 << (Bits - 1)) - 1;

/// What shares one step: the whole array, a row (token), or a column (channel of the head).
enum class granularity { per_tensor, per_row, per_channel };

/// real = step * code.
struct quantiser_step {
    float step = 1.0f;    ///< real units per code
    float inverse = 0.0f; ///< codes per real unit

    /// The step that maps `magnitude` to `limit`. All zeros keep step 1, and so does a magnitude
    /// whose inverse step is no float (below 2^-113): the error stays under half a step.
    [[nodiscard]] static quantiser_step covering(float magnitude, int limit) noexcept {
        auto const codes = static_cast<float>(limit);
        if (!(magnitude > 0.0f) || !(codes / magnitude <= std::numeric_limits<float>::max())) {
            return {};
        }
        return {magnitude / codes, codes / magnitude};
    }

    /// Nearest code, ties to even, clipped to +-limit. Two IEEE operations: the same bits
    /// everywhere.
    [[nodiscard]] int code(float value, int limit) const noexcept {
        float const scaled = std::nearbyint(value * inverse);
        auto const bound = static_cast<float>(limit);
        return static_cast<int>(std::clamp(scaled, -bound, bound));
    }
};

/// Codes with their steps, and the centre that was taken off before (empty when not centred).
template <int Bits, class Row, class Column>
struct quantised {
    using storage = code_storage<Bits>;

    granularity shared = granularity::per_tensor;
    tensor<storage, Row, Column> codes;
    std::vector<quantiser_step> steps; ///< 1, rows or columns of them
    std::vector<float> centre;         ///< [columns], or empty

    [[nodiscard]] quantiser_step step(index_t row, index_t column) const noexcept {
        switch (shared) {
        case granularity::per_row: return steps[static_cast<std::size_t>(row)];
        case granularity::per_channel: return steps[static_cast<std::size_t>(column)];
        case granularity::per_tensor: break;
        }
        return steps.front();
    }

    /// What the code stands for, centre included.
    [[nodiscard]] float value(index_t row, index_t column) const noexcept {
        float const centred = step(row, column).step * static_cast<float>(codes(row, column));
        return centre.empty() ? centred : centred + centre[static_cast<std::size_t>(column)];
    }
};

/// Mean of every column in float, summed in double in row order.
template <storage_float T, class Row, class Column>
[[nodiscard]] std::vector<float> column_means(view<T const, Row, Column> values) {
    index_t const rows = values.template extent<Row>();
    index_t const columns = values.template extent<Column>();
    std::vector<float> means(static_cast<std::size_t>(columns), 0.0f);
    for (index_t c = 0; c < columns && rows > 0; ++c) {
        double sum = 0;
        for (index_t r = 0; r < rows; ++r) {
            sum += static_cast<double>(to_float(values(r, c)));
        }
        means[static_cast<std::size_t>(c)] = static_cast<float>(sum / static_cast<double>(rows));
    }
    return means;
}

/// Quantises `values` [Row, Column] to `Bits`-wide codes. With `centred`, the mean of each column
/// is taken off first: for keys that changes no softmax, since q.mean is the same for every key.
template <int Bits, storage_float T, class Row, class Column>
[[nodiscard]] quantised<Bits, Row, Column> quantise(view<T const, Row, Column> values,
                                                    granularity shared, bool centred = false) {
    index_t const rows = values.template extent<Row>();
    index_t const columns = values.template extent<Column>();
    quantised<Bits, Row, Column> result;
    result.shared = shared;
    result.codes = tensor<code_storage<Bits>, Row, Column>({rows, columns});
    if (centred) {
        result.centre = column_means(values);
    }
    auto const value = [&](index_t r, index_t c) {
        float const v = to_float(values(r, c));
        return centred ? v - result.centre[static_cast<std::size_t>(c)] : v;
    };
    auto const group = [&](index_t r, index_t c) {
        return static_cast<std::size_t>(shared == granularity::per_row       ? r
                                        : shared == granularity::per_channel ? c
                                                                             : 0);
    };
    auto const groups = static_cast<std::size_t>(shared == granularity::per_row       ? rows
                                                 : shared == granularity::per_channel ? columns
                                                                                      : 1);
    std::vector<float> magnitude(groups, 0.0f);
    for (index_t r = 0; r < rows; ++r) {
        for (index_t c = 0; c < columns; ++c) {
            float& most = magnitude[group(r, c)];
            most = std::max(most, std::abs(value(r, c)));
        }
    }
    for (float most : magnitude) {
        result.steps.push_back(quantiser_step::covering(most, code_limit<Bits>));
    }
    for (index_t r = 0; r < rows; ++r) {
        for (index_t c = 0; c < columns; ++c) {
            int const code = result.steps[group(r, c)].code(value(r, c), code_limit<Bits>);
            result.codes(r, c) = static_cast<code_storage<Bits>>(code);
        }
    }
    return result;
}

} // namespace sofattn
