// SPDX-License-Identifier: MIT
// Keys and values of the tokens that a model has seen, one block of memory per layer.
#pragma once

#include "lm/config.hpp"
#include <sofattn/core/assert.hpp>
#include <sofattn/core/tensor.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/core/view.hpp>

#include <cstddef>
#include <vector>

namespace sofattn::lm {

/// f32 and contiguous: [kv_head, capacity, dim] per layer, rotated keys.
class kv_cache {
public:
    kv_cache(model_config const& model, index_t capacity) : capacity_(capacity) {
        for (index_t layer = 0; layer < model.layers; ++layer) {
            keys_.push_back(keys::for_overwrite({model.kv_heads, capacity, model.head_dim}));
            values_.push_back(values::for_overwrite({model.kv_heads, capacity, model.head_dim}));
        }
    }

    /// Tokens in all layers.
    [[nodiscard]] index_t size() const noexcept { return size_; }
    [[nodiscard]] index_t capacity() const noexcept { return capacity_; }
    /// Those of the next `count` tokens, to be written by every layer before `advance`.
    void advance(index_t count) noexcept {
        SOFATTN_ASSERT(count >= 0 && size_ + count <= capacity_);
        size_ += count;
    }
    /// Forgets all tokens but the first `count`.
    void truncate(index_t count) noexcept {
        SOFATTN_ASSERT(count >= 0 && count <= size_);
        size_ = count;
    }

    /// Of the first `count` tokens, which may be more than size() while a layer writes.
    [[nodiscard]] view<float, axis::kv_head, axis::key, axis::dim> keys_of(index_t layer,
                                                                           index_t count) noexcept {
        SOFATTN_ASSERT(count <= capacity_);
        return keys_[static_cast<std::size_t>(layer)].view().range<axis::key>(0, count);
    }
    [[nodiscard]] view<float, axis::kv_head, axis::key, axis::value_dim>
    values_of(index_t layer, index_t count) noexcept {
        SOFATTN_ASSERT(count <= capacity_);
        return values_[static_cast<std::size_t>(layer)].view().range<axis::key>(0, count);
    }

private:
    using keys = tensor<float, axis::kv_head, axis::key, axis::dim>;
    using values = tensor<float, axis::kv_head, axis::key, axis::value_dim>;

    index_t capacity_;
    index_t size_ = 0;
    std::vector<keys> keys_;     ///< [layer]
    std::vector<values> values_; ///< [layer]
};

} // namespace sofattn::lm
