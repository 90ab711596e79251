// SPDX-License-Identifier: MIT
// Keys and queries in the predictor's number forms, with the step that turns scores into logits.
#pragma once

#include <sofattn/core/element.hpp>
#include <sofattn/core/hadamard.hpp>
#include <sofattn/core/quantise.hpp>
#include <sofattn/core/tensor.hpp>
#include <sofattn/core/view.hpp>
#include <sofattn/dlzs/policy.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

namespace sofattn::dlzs {

/// Stored element: a float for the oracle, a code's bit length with sign, or the integer.
template <operand Form, int Bits>
using stored_operand = std::conditional_t<
    Form == operand::real, float,
    std::conditional_t<Form == operand::leading_zero, std::int8_t, code_storage<Bits>>>;

namespace detail {

template <operand Form, int Bits, lz_rounding Rounding>
[[nodiscard]] stored_operand<Form, Bits> store_operand(int code) noexcept {
    if constexpr (Form == operand::leading_zero) {
        return lz_code::encode<Bits, Rounding>(code).stored();
    } else {
        return static_cast<code_storage<Bits>>(code);
    }
}

/// Turns a row in place, through `wide` of the same length.
inline void rotate_row(std::span<float> row, std::span<double> wide) noexcept {
    std::ranges::copy(row, wide.begin());
    hadamard_rotate(wide);
    std::ranges::transform(wide, row.begin(), [](double x) { return static_cast<float>(x); });
}

/// Row `at` of an array, turned, through `wide` [dim].
template <storage_float T, class Row, class Column>
void rotated_row(view<T const, Row, Column> rows, index_t at, std::span<double> wide,
                 float* to) noexcept {
    for_each_float(rows, at, [wide = wide.data()](index_t d, float value) {
        wide[d] = static_cast<double>(value);
    });
    hadamard_rotate(wide);
    std::ranges::transform(wide, to, [](double x) { return static_cast<float>(x); });
}

} // namespace detail

/// The keys of one KV head in the predictor's form. Stored one element per integer; a packed
/// layout holds `bits_per_key()` bits, which is what the probe is told.
template <policy Policy>
class key_index {
public:
    using element = stored_operand<Policy::key, Policy::key_bits>;

    key_index() noexcept = default;

    /// keys [key, dim], real units.
    template <storage_float T>
    explicit key_index(key_view<T const> keys) {
        index_t const count = keys.template extent<axis::key>();
        index_t const dims = keys.template extent<axis::dim>();
        if constexpr (Policy::key == operand::real) {
            codes_ = tensor<element, axis::key, axis::dim>::for_overwrite({count, dims});
            auto const codes = codes_.view();
            for (index_t k = 0; k < count; ++k) {
                element* const to = codes.data() + k * codes.template stride<axis::key>();
                for_each_float(keys, k, [to](index_t d, float value) { to[d] = value; });
            }
        } else if constexpr (Policy::rotated) {
            // Rows are turned twice: that takes less time than storing them.
            tensor<double, axis::dim> aligned({dims});
            std::span const wide(aligned.view().data(), static_cast<std::size_t>(dims));
            take(quantise_rows<Policy::key_bits, axis::key, axis::dim>(
                count, dims, Policy::key_step, Policy::centred_keys,
                [&](index_t k, float* buffer) -> float const* {
                    detail::rotated_row(keys, k, wide, buffer);
                    return buffer;
                }));
        } else {
            take(quantise<Policy::key_bits>(keys, Policy::key_step, Policy::centred_keys));
        }
    }

    [[nodiscard]] view<element const, axis::key, axis::dim> codes() const noexcept {
        return codes_.view();
    }
    /// Real units per code of a channel; 1 for the oracle.
    [[nodiscard]] float step(index_t dim) const noexcept {
        if (steps_.empty()) {
            return 1.0f;
        }
        return steps_[steps_.size() == 1 ? 0u : static_cast<std::size_t>(dim)].step;
    }
    /// Steps differ between channels, so queries must carry them.
    [[nodiscard]] bool has_channel_steps() const noexcept {
        return Policy::key_step == granularity::per_channel;
    }
    /// What queries are multiplied by in a channel. 0 where all keys are equal: such a channel
    /// tells no keys apart and must not use up the queries' range.
    [[nodiscard]] float carried_step(index_t dim) const noexcept {
        if (steps_.empty() || !has_channel_steps()) {
            return 1.0f;
        }
        quantiser_step const of_channel = steps_[static_cast<std::size_t>(dim)];
        return of_channel.inverse > 0.0f ? of_channel.step : 0.0f;
    }
    /// Channel means that were taken off, or empty; of rotated keys, if the policy rotates. Logits
    /// of the original keys are larger by q.centre, the same for all keys of a row.
    [[nodiscard]] std::vector<float> const& centre() const noexcept { return centre_; }

    /// In the packed layout the accelerator reads, count of bits.
    [[nodiscard]] index_t bits_per_key() const noexcept {
        return codes_.template extent<axis::dim>() * stored_key_bits<Policy>();
    }

private:
    void take(quantised<Policy::key_bits, axis::key, axis::dim> coded) {
        steps_ = std::move(coded.steps);
        centre_ = std::move(coded.centre);
        if constexpr (Policy::key == operand::integer) {
            codes_ = std::move(coded.codes);
        } else {
            auto const from = coded.codes.cview();
            codes_ = tensor<element, axis::key, axis::dim>::for_overwrite(from.extents());
            for (index_t k = 0; k < from.template extent<axis::key>(); ++k) {
                for (index_t d = 0; d < from.template extent<axis::dim>(); ++d) {
                    codes_(k, d) =
                        detail::store_operand<Policy::key, Policy::key_bits, Policy::rounding>(
                            from(k, d));
                }
            }
        }
    }

    tensor<element, axis::key, axis::dim> codes_;
    std::vector<quantiser_step> steps_;
    std::vector<float> centre_;
};

/// The queries of one head, or of all heads that share a selection, in the predictor's form.
template <policy Policy>
class query_codes {
public:
    using element = stored_operand<Policy::query, Policy::query_bits>;

    query_codes() noexcept = default;

    /// queries [head, query, dim]: heads given together share their steps, so that their scores
    /// may be compared. Channel steps of the keys are multiplied into the queries first; where the
    /// policy rotates, queries are rotated as keys were.
    template <storage_float T>
    query_codes(view<T const, axis::head, axis::query, axis::dim> queries,
                key_index<Policy> const& keys)
        : codes_(queries.extents()) {
        index_t const heads = queries.template extent<axis::head>();
        index_t const rows = queries.template extent<axis::query>();
        index_t const dims = queries.template extent<axis::dim>();
        auto const carried = [&](index_t h, index_t r, index_t d) {
            return to_float(queries(h, r, d)) * keys.carried_step(d);
        };
        if constexpr (Policy::query == operand::real) {
            for (index_t h = 0; h < heads; ++h) {
                for (index_t r = 0; r < rows; ++r) {
                    for (index_t d = 0; d < dims; ++d) {
                        codes_(h, r, d) = carried(h, r, d);
                    }
                }
            }
        } else {
            tensor<float, axis::head, axis::query, axis::dim> real(queries.extents());
            std::vector<double> wide(static_cast<std::size_t>(dims));
            constexpr bool by_row = Policy::query_step == granularity::per_row;
            std::vector<float> magnitude(static_cast<std::size_t>(by_row ? rows : 1), 0.0f);
            for (index_t h = 0; h < heads; ++h) {
                for (index_t r = 0; r < rows; ++r) {
                    for (index_t d = 0; d < dims; ++d) {
                        real(h, r, d) = carried(h, r, d);
                    }
                    auto const row = std::span(&real(h, r, 0), wide.size());
                    if constexpr (Policy::rotated) {
                        detail::rotate_row(row, wide);
                    }
                    float& most = magnitude[by_row ? static_cast<std::size_t>(r) : 0u];
                    for (float const x : row) {
                        most = std::max(most, std::abs(x));
                    }
                }
            }
            constexpr int limit = code_limit<Policy::query_bits>;
            for (float most : magnitude) {
                steps_.push_back(quantiser_step::covering(most, limit));
            }
            key_step_ = keys.has_channel_steps() ? 1.0f : keys.step(0);
            for (index_t h = 0; h < heads; ++h) {
                for (index_t r = 0; r < rows; ++r) {
                    for (index_t d = 0; d < dims; ++d) {
                        codes_(h, r, d) = detail::store_operand<Policy::query, Policy::query_bits,
                                                                Policy::rounding>(
                            row_step(r).code(real(h, r, d), limit));
                    }
                }
            }
        }
    }

    /// One query's codes.
    [[nodiscard]] view<element const, axis::dim> row(index_t head, index_t query) const noexcept {
        return codes_.view().template slice<axis::head>(head).template slice<axis::query>(query);
    }

    /// Real units per code of this row; of rotated queries, where the policy rotates.
    [[nodiscard]] double step(index_t query) const noexcept {
        return Policy::query == operand::real ? 1.0 : static_cast<double>(row_step(query).step);
    }

    /// Real units of q.k per unit of score, for this row.
    [[nodiscard]] double product_step(index_t query) const noexcept {
        if constexpr (Policy::query == operand::real) {
            return 1.0;
        } else {
            double const step =
                static_cast<double>(row_step(query).step) * static_cast<double>(key_step_);
            // The rotation is one up to a factor, which each side has lost once.
            index_t const dims = codes_.template extent<axis::dim>();
            return Policy::rotated ? step * static_cast<double>(hadamard_block(dims)) : step;
        }
    }

private:
    [[nodiscard]] quantiser_step row_step(index_t query) const noexcept {
        return steps_[steps_.size() == 1 ? 0u : static_cast<std::size_t>(query)];
    }

    tensor<element, axis::head, axis::query, axis::dim> codes_;
    std::vector<quantiser_step> steps_; ///< 1, or one per query
    float key_step_ = 1.0f;
};

} // namespace sofattn::dlzs
