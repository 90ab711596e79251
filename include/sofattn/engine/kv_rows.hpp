// SPDX-License-Identifier: MIT
// A sequence's keys and values of a layer in their pool: written as they come, read as they are attended to.
#pragma once

#include <sofattn/core/bfloat16.hpp>
#include <sofattn/core/element.hpp>
#include <sofattn/core/half.hpp>
#include <sofattn/core/page_table.hpp>
#include <sofattn/core/quantise.hpp>
#include <sofattn/core/scaled_view.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/core/view.hpp>
#include <sofattn/engine/check.hpp>
#include <sofattn/engine/descriptor.hpp>
#include <sofattn/engine/kv_pool.hpp>
#include <sofattn/engine/verdict.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace sofattn::engine::detail {

/// Refers to pool and page table.
template <storage_element T>
class kv_rows {
public:
    static constexpr bool is_scaled = kv_pool<T>::is_scaled;
    /// A key as it is attended to.
    using read_as = std::conditional_t<is_scaled, float, T>;

    kv_rows(kv_pool<T>& pool, std::int64_t layer, page_table places) noexcept
        : pool_(pool), layer_(layer), places_(places) {}

    /// Whether so many tokens, [kv_head, token, channel], can be stored.
    [[nodiscard]] verdict check(std::int64_t tokens, operand const& key,
                                operand const& value) const noexcept {
        kv_layout const& l = pool_.layout();
        checker c;
        check_operand(c, key, {"key.data", "key.type", "key.head_stride", "key.token_stride"},
                      tokens);
        check_operand(c, value,
                      {"value.data", "value.type", "value.head_stride", "value.token_stride"},
                      tokens);
        if (!c.ok()) {
            return c.found();
        }
        verdict const found = finite(key, tokens, l.qk_dim, "key.data[]");
        return found.ok() ? finite(value, tokens, l.v_dim, "value.data[]") : found;
    }
    /// pre: they have passed `check`
    void store(std::int64_t first, std::int64_t tokens, operand const& key,
               operand const& value) const noexcept {
        kv_layout const& l = pool_.layout();
        if constexpr (is_scaled) {
            store(key, first, tokens, l.qk_dim, pool_.keys(layer_), pool_.key_scales(layer_));
            store(value, first, tokens, l.v_dim, pool_.values(layer_), pool_.value_scales(layer_));
        } else {
            store(key, first, tokens, l.qk_dim, pool_.keys(layer_));
            store(value, first, tokens, l.v_dim, pool_.values(layer_));
        }
    }

    /// to [qk_dim]
    void read_key(index_t head, std::int64_t token, read_as* to) const noexcept {
        auto const keys = pool_.keys(layer_);
        std::int64_t const place = places_.row(token);
        T const* const row = &keys(head, place, 0);
        if constexpr (is_scaled) {
            float const scale = pool_.key_scales(layer_)(head, place);
            std::transform(row, row + keys.template extent<axis::dim>(), to,
                           [=](T code) { return scale * static_cast<float>(code); });
        } else {
            std::copy_n(row, keys.template extent<axis::dim>(), to);
        }
    }
    /// keys(tokens)(head) are [key, dim], of the first `tokens`.
    [[nodiscard]] auto keys(std::int64_t tokens) const noexcept {
        return [at = *this, tokens](index_t head) {
            auto const rows = at.pool_.keys(at.layer_).template slice<axis::kv_head>(head);
            if constexpr (is_scaled) {
                return at.template scaled<axis::dim>(rows, at.pool_.key_scales(at.layer_), head,
                                                     tokens);
            } else {
                return paged_view(rows, at.places_, 0, tokens);
            }
        };
    }
    /// As keys: [key, value_dim].
    [[nodiscard]] auto values(std::int64_t tokens) const noexcept {
        return [at = *this, tokens](index_t head) {
            auto const rows = at.pool_.values(at.layer_).template slice<axis::kv_head>(head);
            if constexpr (is_scaled) {
                return at.template scaled<axis::value_dim>(rows, at.pool_.value_scales(at.layer_),
                                                           head, tokens);
            } else {
                return paged_view(rows, at.places_, 0, tokens);
            }
        };
    }

private:
    using scales_type = view<float, axis::kv_head, axis::key>;

    struct fields {
        char const* data;
        char const* type;
        char const* head_stride;
        char const* token_stride;
    };
    void check_operand(checker& c, operand const& of, fields const& names,
                       std::int64_t tokens) const noexcept {
        c.given(names.data, of.data, "the first element of an array");
        c.in_range(names.type, static_cast<std::int64_t>(of.type), 0, 2, "f32, f16 or bf16");
        if (c.ok()) {
            std::int64_t const bytes = bytes_of(of.type);
            c.aligned(names.data, of.data, bytes);
            c.stride(names.head_stride, of.head_stride, pool_.layout().kv_heads, bytes);
            c.stride(names.token_stride, of.token_stride, tokens, bytes);
        }
    }

    /// f(head, token, row as a pointer) of all, until a verdict is not ok.
    template <class F>
    verdict for_each_row(operand const& of, std::int64_t tokens, F f) const noexcept {
        auto const each = [&]<class From>(From const*) -> verdict {
            for (std::int64_t h = 0; h < pool_.layout().kv_heads; ++h) {
                for (std::int64_t t = 0; t < tokens; ++t) {
                    auto const* row =
                        reinterpret_cast<From const*>(static_cast<std::byte const*>(of.data) +
                                                      h * of.head_stride + t * of.token_stride);
                    verdict const v = f(h, t, row);
                    if (!v.ok()) {
                        return v;
                    }
                }
            }
            return {};
        };
        switch (of.type) {
        case dtype::f32: return each(static_cast<float const*>(nullptr));
        case dtype::f16: return each(static_cast<half const*>(nullptr));
        case dtype::bf16: return each(static_cast<bfloat16 const*>(nullptr));
        case dtype::int8: break; // `check_operand` refuses it
        }
        return {};
    }
    /// As stored: a float may round to infinity. Scales never do.
    [[nodiscard]] verdict finite(operand const& of, std::int64_t tokens, std::int64_t dim,
                                 char const* field) const noexcept {
        return for_each_row(of, tokens, [&](std::int64_t, std::int64_t, auto const* row) {
            for (std::int64_t d = 0; d < dim; ++d) {
                float const x = to_float(read_as(to_float(row[d])));
                if (!std::isfinite(x)) {
                    return verdict{status::not_finite, field, static_cast<double>(to_float(row[d])),
                                   "finite in the pool's type"};
                }
            }
            return verdict{};
        });
    }

    template <class Rows>
    void store(operand const& of, std::int64_t first, std::int64_t tokens, std::int64_t dim,
               Rows into) const noexcept {
        (void)for_each_row(of, tokens, [&](std::int64_t h, std::int64_t t, auto const* row) {
            T* const to = &into(h, places_.row(first + t), 0);
            for (std::int64_t d = 0; d < dim; ++d) {
                to[d] = T(to_float(row[d]));
            }
            return verdict{};
        });
    }
    template <class Rows>
    void store(operand const& of, std::int64_t first, std::int64_t tokens, std::int64_t dim,
               Rows into, scales_type scales) const noexcept {
        std::array<float, max_head_dim> wide;
        (void)for_each_row(of, tokens, [&](std::int64_t h, std::int64_t t, auto const* row) {
            for_each_float(row, dim, 1,
                           [&](index_t d, float x) { wide[static_cast<std::size_t>(d)] = x; });
            auto const step = quantiser_step::covering(
                largest_magnitude({wide.data(), static_cast<std::size_t>(dim)}), code_limit<8>);
            auto const place = places_.row(first + t);
            scales(h, place) = step.inverse > 0.0f ? step.step : 0.0f;
            T* const to = &into(h, place, 0);
            for (std::int64_t d = 0; d < dim; ++d) {
                to[d] = static_cast<T>(step.code(wide[static_cast<std::size_t>(d)], code_limit<8>));
            }
            return verdict{};
        });
    }

    template <class Column>
    [[nodiscard]] auto scaled(view<T const, axis::key, Column> rows, scales_type scales,
                              index_t head, std::int64_t tokens) const noexcept {
        view<float const, axis::key> const of_head = scales.template slice<axis::kv_head>(head);
        return paged_view(scaled_view<axis::key, Column>(rows, of_head), places_, 0, tokens);
    }

    kv_pool<T>& pool_;
    std::int64_t layer_;
    page_table places_;
};

} // namespace sofattn::engine::detail
