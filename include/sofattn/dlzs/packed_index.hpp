// SPDX-License-Identifier: MIT
// The keys of one KV head as codes that are scanned a register of keys at a time, and that grow token
// by token: the index of decode.
#pragma once

#include <sofattn/core/assert.hpp>
#include <sofattn/core/element.hpp>
#include <sofattn/core/error.hpp>
#include <sofattn/core/quantise.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/core/view.hpp>
#include <sofattn/dlzs/code_panels.hpp>
#include <sofattn/dlzs/operands.hpp>
#include <sofattn/dlzs/policy.hpp>

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace sofattn::dlzs {

/// Centre and steps of keys, fixed before the first is coded: a later token must not change the codes
/// of an earlier one. Taken from the keys that are there, such as a prompt's.
template <packed_policy Policy>
struct key_calibration {
    std::vector<float> centre;         ///< [dim], or empty
    std::vector<quantiser_step> steps; ///< 1, or [dim]
    index_t dim = 0;

    /// The steps that key_index has for the same keys, times `headroom` for larger ones to come.
    template <storage_float T>
    [[nodiscard]] static key_calibration of(key_view<T const> keys, float headroom = 1.0f) {
        auto const coded = quantise<Policy::key_bits>(keys, Policy::key_step, Policy::centred_keys);
        key_calibration c;
        c.centre = coded.centre;
        c.dim = keys.template extent<axis::dim>();
        for (quantiser_step const s : coded.steps) {
            bool const scaled = headroom != 1.0f && s.inverse > 0.0f;
            c.steps.push_back(scaled ? quantiser_step{s.step * headroom, s.inverse / headroom} : s);
        }
        return c;
    }
    [[nodiscard]] quantiser_step step(index_t d) const noexcept {
        return steps[steps.size() == 1 ? 0u : static_cast<std::size_t>(d)];
    }
};

/// The keys of one KV head as packed codes; scanned without allocation, built with.
///
/// in     key        [dim], real units; append(key), or all at once: the same bytes
///        queries    scan_queries of `query_codes`
///        pages      for the scores of some: numbers of groups of `page` keys, ascending
/// out    scores     [row, key], or [key] the largest of the rows; int32, as predict_scores gives.
///                   Of pages: their keys, one page after the other
/// pre    dim as calibrated; scores have `padded(count)` places per row (SOFATTN_ASSERT)
/// error  construction throws `error` on a calibration that fits no head; what throws for want of memory has
///        changed nothing
/// events none: this is no circuit
/// exact  scores are bit-identical to predict_scores on key_index's codes, if calibrated on its keys
/// paper  DLZS phase 1.2, section III-A; the packing is not in the paper
template <packed_policy Policy>
class packed_index {
public:
    static constexpr index_t block_keys = code_panels<Policy>::block_rows;

    /// Scores of so many keys take so many places.
    [[nodiscard]] static constexpr index_t padded(index_t keys) noexcept {
        return ceil_div(keys, block_keys) * block_keys;
    }

    packed_index() = default;
    explicit packed_index(key_calibration<Policy> calibration)
        : calibration_(std::move(calibration)) {
        index_t const dim = calibration_.dim;
        if (dim < 1 || dim > max_head_dim) {
            throw error("packed_index: head dimension", std::to_string(dim),
                        "from 1 to " + std::to_string(max_head_dim));
        }
        bool const steps_fit = std::ssize(calibration_.steps) ==
                               (Policy::key_step == granularity::per_channel ? dim : index_t{1});
        bool const centre_fits =
            std::ssize(calibration_.centre) == (Policy::centred_keys ? dim : index_t{0});
        if (!steps_fit || !centre_fits) {
            throw error("packed_index: calibration", "other steps or centre than the policy has",
                        "key_calibration<Policy>::of(keys)");
        }
        codes_ = code_panels<Policy>(dim);
    }

    /// Room for so many keys, so that appending up to there allocates nothing.
    void reserve(index_t keys) { codes_.reserve(keys); }
    /// Room for one more key.
    void make_room() { codes_.make_room(); }

    template <storage_float T>
    void append(view<T const, axis::dim> key) {
        SOFATTN_ASSERT(key.template extent<axis::dim>() == calibration_.dim);
        codes_.append();
        for (index_t d = 0; d < calibration_.dim; ++d) {
            codes_.set(size() - 1, d, code_of(to_float(key(d)), d));
        }
    }
    template <storage_float T>
    void append(key_view<T const> keys) {
        reserve(size() + keys.template extent<axis::key>());
        for (index_t k = 0; k < keys.template extent<axis::key>(); ++k) {
            append(keys.template slice<axis::key>(k));
        }
    }

    /// The next key's codes as they were, code(d) as `code` gives them; counts no clipping.
    template <std::invocable<index_t> Code>
    void append_coded(Code code) {
        codes_.append();
        for (index_t d = 0; d < calibration_.dim; ++d) {
            codes_.set(size() - 1, d, code(d));
        }
    }

    /// Forgets all keys but the first `keys`; those to come are coded as if the others had never been.
    void truncate(index_t keys) noexcept { codes_.truncate(keys); }

    [[nodiscard]] index_t size() const noexcept { return codes_.size(); }
    [[nodiscard]] index_t dim() const noexcept { return calibration_.dim; }
    [[nodiscard]] key_calibration<Policy> const& calibration() const noexcept {
        return calibration_;
    }
    /// Elements that lay beyond the calibrated range and were clipped to it, of all keys so far,
    /// forgotten ones included.
    [[nodiscard]] index_t clipped() const noexcept { return clipped_; }
    [[nodiscard]] std::span<std::uint8_t const> bytes() const noexcept { return codes_.bytes(); }
    /// As stored, detail::store_operand.
    [[nodiscard]] int code(index_t key, index_t d) const noexcept { return codes_.code(key, d); }

    /// Codes of queries that share a step, as query_codes gives them with a step per tensor: the
    /// steps of channels are multiplied in first. query(row) gives [dim].
    template <class Query>
    void encode(index_t rows, Query query, scan_queries& into) const noexcept {
        encode_with(magnitude_step(rows, query), 0, rows, query, into);
    }
    /// The step of `rows` queries together, for those that are more than one scan takes.
    template <class Query>
    [[nodiscard]] quantiser_step magnitude_step(index_t rows, Query query) const noexcept {
        float most = 0.0f;
        for (index_t r = 0; r < rows; ++r) {
            auto const row = query(r);
            for (index_t d = 0; d < calibration_.dim; ++d) {
                most = std::max(most, std::abs(to_float(row(d)) * carried_step(d)));
            }
        }
        return quantiser_step::covering(most, code_limit<Policy::query_bits>);
    }
    /// Rows [first, first + rows) of queries with that step.
    template <class Query>
    void encode_with(quantiser_step step, index_t first, index_t rows, Query query,
                     scan_queries& into) const noexcept {
        constexpr int limit = code_limit<Policy::query_bits>;
        into.rows = rows;
        for (index_t r = 0; r < rows; ++r) {
            auto const row = query(first + r);
            into.set(r, calibration_.dim, [&](index_t d) {
                int const code = step.code(to_float(row(d)) * carried_step(d), limit);
                if constexpr (Policy::query == operand::leading_zero) {
                    return static_cast<int>(
                        lz_code::encode<Policy::query_bits, Policy::rounding>(code).value());
                } else {
                    return code;
                }
            });
        }
    }

    /// Scores of the first `count` keys, row by row, `stride` apart.
    void scores(scan_queries const& queries, index_t count, std::int32_t* to,
                index_t stride) const noexcept {
        codes_.scan(queries, count, into_rows(to, stride));
    }
    /// The largest score of the rows, or of them and what is there already.
    void largest_scores(scan_queries const& queries, index_t count, std::int32_t* to,
                        bool and_old) const noexcept {
        codes_.scan(queries, count, into_largest(to, and_old));
    }
    /// The same of the keys of some pages.
    void largest_scores_of_pages(scan_queries const& queries, std::span<key_id const> pages,
                                 index_t page, std::int32_t* to, bool and_old) const noexcept {
        codes_.scan_pages(queries, pages, page, into_largest(to, and_old));
    }

private:
    [[nodiscard]] float carried_step(index_t d) const noexcept {
        if (Policy::key_step != granularity::per_channel) {
            return 1.0f;
        }
        return calibration_.step(d).inverse > 0.0f ? calibration_.step(d).step : 0.0f;
    }
    [[nodiscard]] int code_of(float value, index_t d) noexcept {
        constexpr int limit = code_limit<Policy::key_bits>;
        quantiser_step const step = calibration_.step(d);
        float const centred =
            Policy::centred_keys ? value - calibration_.centre[static_cast<std::size_t>(d)] : value;
        clipped_ += std::abs(std::nearbyint(centred * step.inverse)) > float{limit} ? 1 : 0;
        int const code = step.code(centred, limit);
        return detail::store_operand<Policy::key, Policy::key_bits, Policy::rounding>(code);
    }
    key_calibration<Policy> calibration_;
    code_panels<Policy> codes_;
    index_t clipped_ = 0;
};

} // namespace sofattn::dlzs
