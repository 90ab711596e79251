// SPDX-License-Identifier: MIT
// Keys and values of the tokens that a model has seen, one block of memory per layer, and codes of their pages.
#pragma once

#include "lm/config.hpp"
#include <sofattn/attention/dense.hpp>
#include <sofattn/core/assert.hpp>
#include <sofattn/core/tensor.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/core/view.hpp>
#include <sofattn/engine/kv_pool.hpp>
#include <sofattn/engine/page_codes.hpp>

#include <cstddef>
#include <vector>

namespace sofattn::lm {

/// f32 and contiguous: [kv_head, capacity, dim] per layer, rotated keys.
class kv_cache {
public:
    kv_cache(model_config const& model, index_t capacity)
        : kv_heads_(model.kv_heads), head_dim_(model.head_dim), capacity_(capacity) {
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

    /// Page codes from now on, in the place of what there was; none: forgets them.
    void keep_page_codes(engine::kept_page_codes which) {
        codes_.clear();
        for (std::size_t layer = 0; layer < keys_.size() && which != engine::kept_page_codes::none;
             ++layer) {
            codes_.push_back(which == engine::kept_page_codes::bf16
                                 ? no_codes<dense_products::bf16>()
                                 : no_codes<dense_products::f32>());
        }
    }
    /// Of the first `count` tokens, which may be more than size() while a layer attends: takes those that are new.
    /// Null where none are kept. Valid until the cache changes.
    [[nodiscard]] engine::page_codes const* page_codes_of(index_t layer, index_t count) {
        if (codes_.empty()) {
            return nullptr;
        }
        engine::page_codes& codes = codes_[static_cast<std::size_t>(layer)];
        auto const keys_by_head = [&](index_t tokens) {
            return [this, layer, tokens](index_t head) {
                return keys_of(layer, tokens).template slice<axis::kv_head>(head);
            };
        };
        if (codes.keys() > size_) { // truncated since, or of tokens that came to nothing
            codes.truncate(size_, codes.recalibrated(keys_by_head(size_)));
        }
        codes.grow(count, keys_by_head(count), [&](index_t head) {
            return values_of(layer, count).template slice<axis::kv_head>(head);
        });
        return &codes;
    }

private:
    using keys = tensor<float, axis::kv_head, axis::key, axis::dim>;
    using values = tensor<float, axis::kv_head, axis::key, axis::value_dim>;

    template <dense_products Products>
    [[nodiscard]] engine::page_codes no_codes() const {
        return engine::page_codes::growing<Products>(kv_heads_, head_dim_, head_dim_);
    }

    index_t kv_heads_;
    index_t head_dim_;
    index_t capacity_;
    index_t size_ = 0;
    std::vector<keys> keys_;                ///< [layer]
    std::vector<values> values_;            ///< [layer]
    std::vector<engine::page_codes> codes_; ///< [layer], or empty
};

} // namespace sofattn::lm
