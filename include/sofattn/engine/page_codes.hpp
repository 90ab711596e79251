// SPDX-License-Identifier: MIT
// What method::pages knows of a sequence's keys and values, for either kind of products.
#pragma once

#include <sofattn/attention/dense.hpp>
#include <sofattn/attention/page_prefill.hpp>
#include <sofattn/core/assert.hpp>
#include <sofattn/core/types.hpp>

#include <span>
#include <utility>
#include <vector>

namespace sofattn::engine {

/// The page indexes of all KV heads, and the products that they are for: copies of keys and values, rounded
/// to bf16 for those products where the target multiplies them. Only read once they are made.
class page_codes {
public:
    template <dense_products Products>
    using index_type = typename page_prefill<Products>::index_type;

    page_codes() = default; ///< of no KV head
    /// indexes [kv_head] of the same sizes
    template <dense_products Products>
    [[nodiscard]] static page_codes of(std::vector<index_type<Products>> indexes) {
        page_codes made;
        made.products_ = Products;
        if (!indexes.empty()) {
            auto const& first = indexes.front();
            made.keys_ = first.keys();
            made.dim_ = first.dim();
            made.value_dim_ = first.value_dim();
        }
        kept<Products>(made) = std::move(indexes);
        return made;
    }

    /// As they were asked for, on every target.
    [[nodiscard]] dense_products products() const noexcept { return products_; }
    [[nodiscard]] index_t kv_heads() const noexcept {
        return std::ssize(in_floats_) + std::ssize(in_bf16_);
    }
    [[nodiscard]] index_t keys() const noexcept { return keys_; }
    [[nodiscard]] index_t dim() const noexcept { return dim_; }
    [[nodiscard]] index_t value_dim() const noexcept { return value_dim_; }

    /// [kv_head]. pre: they are for these products
    template <dense_products Products>
    [[nodiscard]] std::span<index_type<Products> const> indexes() const noexcept {
        SOFATTN_ASSERT(products_ == Products);
        return kept<Products>(*this);
    }

private:
    template <dense_products Products, class Self>
    [[nodiscard]] static auto& kept(Self& self) noexcept {
        if constexpr (Products == dense_products::bf16) {
            return self.in_bf16_;
        } else {
            return self.in_floats_;
        }
    }

    dense_products products_ = dense_products::f32;
    index_t keys_ = 0;
    index_t dim_ = 0;
    index_t value_dim_ = 0;
    // One of them has something. Elsewhere than on targets that multiply bf16 they are of one type.
    std::vector<index_type<dense_products::f32>> in_floats_;
    std::vector<index_type<dense_products::bf16>> in_bf16_;
};

} // namespace sofattn::engine
