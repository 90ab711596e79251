// SPDX-License-Identifier: MIT
// What sparse prefill knows of one KV head's keys and values before it meets a query.
#pragma once

#include <sofattn/core/assert.hpp>
#include <sofattn/core/element.hpp>
#include <sofattn/core/tensor.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/core/view.hpp>
#include <sofattn/dlzs/calibration.hpp>
#include <sofattn/dlzs/key_panels.hpp>
#include <sofattn/dlzs/operands.hpp>
#include <sofattn/dlzs/page_sketch.hpp>
#include <sofattn/sads/kept_tile.hpp>
#include <sofattn/sufa/weighted_rows.hpp>

#include <algorithm>
#include <cstdint>
#include <vector>

namespace sofattn {

/// Codes of the keys, twice (as the pipeline reads them and in panels), their means, sketches of
/// their pages, and sums of the values of each segment. Built once per KV head, and only read from then on; allocates.
template <dlzs::byte_policy Predictor>
class prefill_index {
public:
    static constexpr index_t segment = sads::kept_tile::segment;

    prefill_index() = default;

    /// keys [key, dim], values [key, value_dim]
    template <storage_float K, storage_float V>
    prefill_index(key_view<K const> keys, value_view<V const> values)
        : dim_(keys.template extent<axis::dim>()), codes_(keys), panels_(codes_),
          means_(keys, codes_), sketches_(keys),
          value_sums_({ceil_div(values.template extent<axis::key>(), segment),
                       values.template extent<axis::value_dim>()}) {
        std::vector<double> sums(
            static_cast<std::size_t>(values.template extent<axis::value_dim>()));
        auto const to = value_sums_.view();
        for (index_t s = 0; s < to.template extent<axis::key>(); ++s) {
            std::ranges::fill(sums, 0.0);
            index_t const end = std::min((s + 1) * segment, values.template extent<axis::key>());
            for (index_t k = s * segment; k < end; ++k) {
                add_row(values, k, sums.data());
            }
            std::ranges::transform(sums, to.data() + s * to.template stride<axis::key>(),
                                   [](double x) { return static_cast<float>(x); });
        }
    }

    [[nodiscard]] dlzs::key_index<Predictor> const& codes() const noexcept { return codes_; }
    [[nodiscard]] dlzs::key_panels const& panels() const noexcept { return panels_; }
    [[nodiscard]] dlzs::key_means<Predictor> const& means() const noexcept { return means_; }
    [[nodiscard]] dlzs::page_sketches const& sketches() const noexcept { return sketches_; }
    [[nodiscard]] index_t dim() const noexcept { return dim_; }
    [[nodiscard]] index_t value_dim() const noexcept {
        return value_sums_.cview().template extent<axis::value_dim>();
    }
    /// Sum over the values of segment `s`, [value_dim].
    [[nodiscard]] float const* value_sum(index_t s) const noexcept { return &value_sums_(s, 0); }

    /// sum [width] += weights[i] times the sum of segment which[i]. width: value_dim in whole cache lines
    void add_value_sums(float* sum, index_t width, std::int32_t const* which, float const* weights,
                        index_t count) const noexcept {
        auto const rows = value_sums_.cview();
        SOFATTN_DASSERT(rows.template stride<axis::key>() == width);
        sufa::add_weighted_rows(sum, width, rows.data(), rows.template stride<axis::key>(), which,
                                weights, count);
    }

private:
    index_t dim_ = 0; ///< of the keys; rotated codes may have more
    dlzs::key_index<Predictor> codes_;
    dlzs::key_panels panels_;
    dlzs::key_means<Predictor> means_;
    dlzs::page_sketches sketches_;
    tensor<float, axis::key, axis::value_dim> value_sums_; // [segment, value_dim]
};

} // namespace sofattn
