// SPDX-License-Identifier: MIT
// Symmetric quantisers: per tensor, per row, per channel, and centred per channel.
#pragma once

#include <sofattn/core/element.hpp>
#include <sofattn/core/tensor.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/core/view.hpp>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
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
    /// everywhere. Without calls and branches, so that loops over rows become vectors.
    /// pre: limit < 2^23
    [[nodiscard]] int code(float value, int limit) const noexcept {
        float const scaled = value * inverse;
        // From 2^23 to 2^24 floats are the integers: the addition rounds, and the sum's lowest bits
        // are the code. Larger floats have larger bits, which the limit cuts off; of the magnitude,
        // since that also keeps compilers from fusing the addition with the product.
        constexpr float integers = 0x1p23f;
        std::int32_t const nearest = std::bit_cast<std::int32_t>(std::abs(scaled) + integers) -
                                     std::bit_cast<std::int32_t>(integers);
        std::int32_t const magnitude = nearest < limit ? nearest : limit;
        std::int32_t const sign = std::bit_cast<std::int32_t>(scaled) >> 31; // -1 or 0
        return (magnitude ^ sign) - sign;
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
    auto const columns = static_cast<std::size_t>(values.template extent<Column>());
    std::vector<double> sums(columns, 0.0);
    for (index_t r = 0; r < rows; ++r) {
        add_row(values, r, sums.data());
    }
    std::vector<float> means(columns, 0.0f);
    for (std::size_t c = 0; c < columns && rows > 0; ++c) {
        means[c] = static_cast<float>(sums[c] / static_cast<double>(rows));
    }
    return means;
}

/// Largest magnitude of a row. As integers, since floats without a sign are ordered as their bits
/// are, and compilers vectorise no maximum of floats. pre: no NaN
[[nodiscard]] inline float largest_magnitude(std::span<float const> row) noexcept {
    std::int32_t most = 0;
    for (float const x : row) {
        std::int32_t const bits = std::bit_cast<std::int32_t>(x) & 0x7fffffff;
        most = bits > most ? bits : most;
    }
    return std::bit_cast<float>(most);
}

namespace detail {

/// What steps and centres are made of.
template <class Column>
struct column_ranges {
    explicit column_ranges(index_t columns) : sums({columns}), least({columns}), most({columns}) {
        for (index_t c = 0; c < columns; ++c) {
            least(c) = std::numeric_limits<float>::infinity();
            most(c) = -std::numeric_limits<float>::infinity();
        }
    }

    void add(float const* row) noexcept {
        index_t const columns = sums.template extent<Column>();
        double* const sum = sums.view().data();
        float* const low = least.view().data();
        float* const high = most.view().data();
        for (index_t c = 0; c < columns; ++c) {
            sum[c] += static_cast<double>(row[c]);
        }
        for (index_t c = 0; c < columns; ++c) {
            low[c] = row[c] < low[c] ? row[c] : low[c];
            high[c] = row[c] > high[c] ? row[c] : high[c];
        }
    }
    /// Largest |x - centre| as rounded: differences are rounded in the order of the x.
    [[nodiscard]] float magnitude(index_t column, float centre) const noexcept {
        return std::max(std::abs(least(column) - centre), std::abs(most(column) - centre));
    }

    tensor<double, Column> sums;
    tensor<float, Column> least;
    tensor<float, Column> most;
};

} // namespace detail

/// Quantises rows that `row(r, buffer)` makes: it returns `columns` floats, in the buffer of that
/// length or elsewhere, and is called up to twice for each row, so that rows need not be stored.
/// pre: no NaN
template <int Bits, class Row, class Column, class Make>
[[nodiscard]] quantised<Bits, Row, Column>
quantise_rows(index_t rows, index_t columns, granularity shared, bool centred, Make row) {
    constexpr int limit = code_limit<Bits>;
    auto const count = static_cast<std::size_t>(columns);
    quantised<Bits, Row, Column> result;
    result.shared = shared;
    result.codes = tensor<code_storage<Bits>, Row, Column>::for_overwrite({rows, columns});
    tensor<float, Column> aligned({columns});
    float* const buffer = aligned.view().data();
    std::vector<float> magnitudes(count, 0.0f);
    if (centred) {
        result.centre.assign(count, 0.0f);
    }
    if ((centred || shared != granularity::per_row) && rows > 0) {
        detail::column_ranges<Column> ranges(columns);
        for (index_t r = 0; r < rows; ++r) {
            ranges.add(row(r, buffer));
        }
        for (index_t c = 0; c < columns; ++c) {
            auto const at = static_cast<std::size_t>(c);
            if (centred) {
                result.centre[at] = static_cast<float>(ranges.sums(c) / static_cast<double>(rows));
            }
            magnitudes[at] = ranges.magnitude(c, centred ? result.centre[at] : 0.0f);
        }
    }
    if (shared == granularity::per_channel) {
        for (float const most : magnitudes) {
            result.steps.push_back(quantiser_step::covering(most, limit));
        }
    } else if (shared == granularity::per_tensor) {
        result.steps.push_back(quantiser_step::covering(largest_magnitude(magnitudes), limit));
    } else {
        result.steps.reserve(static_cast<std::size_t>(rows));
    }
    auto const codes = result.codes.view();
    for (index_t r = 0; r < rows; ++r) {
        float const* values = row(r, buffer);
        if (centred) {
            float const* const centre = result.centre.data();
            for (std::size_t c = 0; c < count; ++c) {
                buffer[c] = values[c] - centre[c];
            }
            values = buffer;
        }
        auto* const to = codes.data() + r * codes.template stride<Row>();
        if (shared == granularity::per_channel) {
            quantiser_step const* const steps = result.steps.data();
            for (std::size_t c = 0; c < count; ++c) {
                to[c] = static_cast<code_storage<Bits>>(steps[c].code(values[c], limit));
            }
            continue;
        }
        if (shared == granularity::per_row) {
            result.steps.push_back(
                quantiser_step::covering(largest_magnitude({values, count}), limit));
        }
        quantiser_step const step = result.steps.back();
        for (std::size_t c = 0; c < count; ++c) {
            to[c] = static_cast<code_storage<Bits>>(step.code(values[c], limit));
        }
    }
    return result;
}

/// Quantises `values` [Row, Column] to `Bits`-wide codes. With `centred`, the mean of each column
/// is taken off first: for keys that changes no softmax, since q.mean is the same for every key.
template <int Bits, storage_float T, class Row, class Column>
[[nodiscard]] quantised<Bits, Row, Column> quantise(view<T const, Row, Column> values,
                                                    granularity shared, bool centred = false) {
    return quantise_rows<Bits, Row, Column>(
        values.template extent<Row>(), values.template extent<Column>(), shared, centred,
        [&](index_t r, float* buffer) -> float const* {
            if constexpr (std::is_same_v<T, float>) {
                if (values.template stride<Column>() == 1) {
                    return values.data() + r * values.template stride<Row>();
                }
            }
            for_each_float(values, r, [buffer](index_t c, float value) { buffer[c] = value; });
            return buffer;
        });
}

} // namespace sofattn
