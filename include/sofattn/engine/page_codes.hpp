// SPDX-License-Identifier: MIT
// What method::pages knows of a sequence's keys and values, for either kind of products.
#pragma once

#include <sofattn/attention/dense.hpp>
#include <sofattn/attention/page_prefill.hpp>
#include <sofattn/core/assert.hpp>
#include <sofattn/core/types.hpp>

#include <concepts>
#include <cstddef>
#include <span>
#include <utility>
#include <vector>

namespace sofattn::engine {

/// The page indexes of all KV heads, and the products that they are for: copies of keys and values, rounded
/// to bf16 for those products where the target multiplies them. Made at once (prefill_codes.hpp), or growing with a
/// sequence of a KV cache.
class page_codes {
public:
    template <dense_products Products>
    using index_type = typename page_prefill<Products>::index_type;

    /// [kv_head], those that change.
    using new_sketches = std::vector<sketch_change>;

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

    /// Of no token yet, to grow with a sequence.
    template <dense_products Products>
    [[nodiscard]] static page_codes growing(index_t kv_heads, index_t dim, index_t value_dim) {
        using index = index_type<Products>;
        return of<Products>(
            std::vector<index>(static_cast<std::size_t>(kv_heads), index(dim, value_dim)));
    }

    /// As page_index's, for the steps of all heads. keys_of(head) [key, dim], of all tokens.
    template <std::invocable<index_t> KeysOf>
    [[nodiscard]] new_sketches recalibrated(KeysOf keys_of) const {
        new_sketches sketches;
        sketches.reserve(static_cast<std::size_t>(kv_heads()));
        for_each(*this, [&](index_t head, auto const& index) {
            sketches.push_back(index.recalibrated(keys_of(head)));
        });
        return sketches;
    }
    void reserve(index_t tokens) {
        for_each(*this, [&](index_t, auto& index) { index.reserve(tokens); });
    }
    /// pre: there is room, and sketches are recalibrated(keys_of)
    template <std::invocable<index_t> KeysOf, std::invocable<index_t> ValuesOf>
    void append(KeysOf keys_of, ValuesOf values_of, new_sketches sketches) noexcept {
        for_each(*this, [&](index_t head, auto& index) {
            index.append(keys_of(head), values_of(head),
                         std::move(sketches[static_cast<std::size_t>(head)]));
            keys_ = index.keys();
        });
    }
    /// pre: sketches are recalibrated(those of the first `tokens`)
    void truncate(index_t tokens, new_sketches sketches) noexcept {
        for_each(*this, [&](index_t head, auto& index) {
            index.truncate(tokens, std::move(sketches[static_cast<std::size_t>(head)]));
            keys_ = index.keys();
        });
    }

    /// Both steps of growing. If it throws nothing has changed.
    template <std::invocable<index_t> KeysOf, std::invocable<index_t> ValuesOf>
    void grow(index_t tokens, KeysOf keys_of, ValuesOf values_of) {
        new_sketches sketches = recalibrated(keys_of);
        reserve(tokens);
        append(keys_of, values_of, std::move(sketches));
    }

    /// Of all heads.
    [[nodiscard]] index_t bytes() const noexcept {
        index_t bytes = 0;
        for_each(*this, [&](index_t, auto const& index) { bytes += index.bytes(); });
        return bytes;
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
    /// f(head, its index)
    template <class Self, class F>
    static void for_each(Self& self, F f) {
        index_t head = 0;
        for (auto& index : self.in_floats_) {
            f(head++, index);
        }
        for (auto& index : self.in_bf16_) {
            f(head++, index);
        }
    }
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
