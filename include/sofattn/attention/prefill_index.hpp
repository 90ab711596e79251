// SPDX-License-Identifier: MIT
// What sparse prefill knows of one KV head's keys and values before it meets a query.
#pragma once

#include <sofattn/attention/segment_sums.hpp>
#include <sofattn/core/element.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/core/view.hpp>
#include <sofattn/dlzs/calibration.hpp>
#include <sofattn/dlzs/key_panels.hpp>
#include <sofattn/dlzs/operands.hpp>
#include <sofattn/dlzs/page_sketch.hpp>

namespace sofattn {

/// Codes of the keys, twice (as the pipeline reads them and in panels), their means, sketches of
/// their pages, and sums of the values of each segment. Built once per KV head, and only read from then on; allocates.
template <dlzs::byte_policy Predictor>
class prefill_index {
public:
    prefill_index() = default;

    /// keys [key, dim], values [key, value_dim]
    template <storage_float K, storage_float V>
    prefill_index(key_view<K const> keys, value_view<V const> values)
        : dim_(keys.template extent<axis::dim>()), codes_(keys), panels_(codes_),
          means_(keys, codes_), sketches_(keys), value_sums_(values) {}

    [[nodiscard]] dlzs::key_index<Predictor> const& codes() const noexcept { return codes_; }
    [[nodiscard]] dlzs::key_panels const& panels() const noexcept { return panels_; }
    [[nodiscard]] dlzs::key_means<Predictor> const& means() const noexcept { return means_; }
    [[nodiscard]] dlzs::page_sketches const& sketches() const noexcept { return sketches_; }
    [[nodiscard]] index_t dim() const noexcept { return dim_; }
    [[nodiscard]] index_t value_dim() const noexcept { return value_sums_.value_dim(); }
    [[nodiscard]] segment_sums const& value_sums() const noexcept { return value_sums_; }

private:
    index_t dim_ = 0; ///< of the keys; rotated codes may have more
    dlzs::key_index<Predictor> codes_;
    dlzs::key_panels panels_;
    dlzs::key_means<Predictor> means_;
    dlzs::page_sketches sketches_;
    segment_sums value_sums_;
};

} // namespace sofattn
