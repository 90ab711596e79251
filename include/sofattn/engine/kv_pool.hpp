// SPDX-License-Identifier: MIT
// Memory for the keys and values of many sequences: pages that are lent out, shared and counted.
#pragma once

#include <sofattn/core/assert.hpp>
#include <sofattn/core/scaled_view.hpp>
#include <sofattn/core/tensor.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/core/view.hpp>
#include <sofattn/engine/check.hpp>
#include <sofattn/engine/verdict.hpp>

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <new>
#include <span>
#include <utility>
#include <vector>

namespace sofattn::engine {

/// The products that a sequence keeps page codes for (page_codes.hpp), if any.
enum class kept_page_codes : std::int32_t { none = 0, f32 = 1, bf16 = 2 };

/// Sizes of a pool; all layers share one numbering of pages.
struct kv_layout {
    std::int64_t layers = 1;
    std::int64_t kv_heads = 1;
    std::int64_t qk_dim = 0;       ///< 1 to 256
    std::int64_t v_dim = 0;        ///< 1 to 256
    std::int64_t page_tokens = 64; ///< tokens per page
    std::int64_t pages = 0;        ///< all of them are allocated at once
    /// Sequences have codes for method::best_keys from so many tokens on; 0: never.
    std::int64_t coded_from = 1024;
    /// Sequences have codes for method::pages, of any length: copies of keys and values, of a KV head and token
    /// qk_dim + v_dim floats (or bf16 numbers, where the target multiplies those) and 3 qk_dim / 16 + v_dim / 16
    /// bytes more.
    kept_page_codes page_codes = kept_page_codes::none;
};

namespace detail {

/// Work that may run out of memory, and must not have changed anything by then.
template <class F>
verdict guarded(F work) noexcept {
#ifdef __cpp_exceptions
    try {
        work();
        return {};
    } catch (std::bad_alloc const&) {
        return {status::out_of_memory, "memory", 0, "enough for what was asked"};
    } catch (...) {
        SOFATTN_ASSERT(false); // sizes were checked before: nothing else is thrown
    }
#else
    work(); // new ends the program
    return {};
#endif
}

} // namespace detail

/// Keys and values, [layer][kv_head, row, qk_dim + v_dim]: those of a token lie side by side, so that
/// a kept key is one place in memory. Sequences take pages and give them back; any of them, from any
/// thread. In int8 they are codes; the scales of a token's key and value lie side by side, too,
/// [layer][kv_head, row, 2], apart from the codes, whose rows then stay whole registers.
template <storage_element T>
class kv_pool {
public:
    /// Whether there are scales.
    static constexpr bool is_scaled = std::same_as<T, std::int8_t>;

    kv_pool() noexcept = default;
    kv_pool(kv_pool const&) = delete; // sequences point to it
    kv_pool& operator=(kv_pool const&) = delete;

    /// Allocates; of a pool that no sequence uses.
    [[nodiscard]] verdict open(kv_layout const& layout) noexcept {
        verdict const good = check(layout);
        if (!good.ok()) {
            return good;
        }
        return detail::guarded([&] {
            std::vector<rows_tensor> layers;
            std::vector<scales_tensor> scales;
            for (std::int64_t l = 0; l < layout.layers; ++l) {
                if constexpr (is_scaled) {
                    scales.push_back(scales_tensor::for_overwrite(
                        {layout.kv_heads, 2 * layout.pages * layout.page_tokens}));
                }
                layers.push_back(
                    rows_tensor::for_overwrite({layout.kv_heads, layout.pages * layout.page_tokens,
                                                layout.qk_dim + layout.v_dim}));
            }
            std::vector<std::int32_t> users(static_cast<std::size_t>(layout.pages), 0);
            layers_ = std::move(layers);
            scales_ = std::move(scales);
            users_ = std::move(users);
            layout_ = layout;
            free_ = layout.pages;
        });
    }
    [[nodiscard]] static verdict check(kv_layout const& l) noexcept {
        detail::checker c;
        c.in_range("layers", l.layers, 1, 65536, "from 1 to 65536");
        c.in_range("kv_heads", l.kv_heads, 1, detail::most_heads, "from 1 to 65536");
        c.in_range("qk_dim", l.qk_dim, 1, max_head_dim, "from 1 to 256");
        c.in_range("v_dim", l.v_dim, 1, max_head_dim, "from 1 to 256");
        c.in_range("page_tokens", l.page_tokens, 1, 1 << 20, "from 1 to 2^20");
        c.in_range("pages", l.pages, 1, detail::most_tokens, "from 1 to 2^31 - 1");
        c.in_range("coded_from", l.coded_from, 0, detail::most_tokens, "from 0 to 2^31 - 1");
        c.in_range("page_codes", static_cast<std::int64_t>(l.page_codes), 0, 2,
                   "none, f32 or bf16");
        c.require(!c.ok() || l.pages <= detail::most_tokens / l.page_tokens, status::out_of_range,
                  "pages", static_cast<double>(l.pages),
                  "so few that the pool has at most 2^31 - 1 rows");
        return c.found();
    }

    [[nodiscard]] kv_layout const& layout() const noexcept { return layout_; }
    /// Of a token in all layers, without codes.
    [[nodiscard]] std::int64_t bytes_per_token() const noexcept {
        constexpr auto element = static_cast<std::int64_t>(sizeof(T));
        constexpr auto scales = static_cast<std::int64_t>(is_scaled ? 2 * sizeof(float) : 0);
        return layout_.layers * layout_.kv_heads *
               ((layout_.qk_dim + layout_.v_dim) * element + scales);
    }
    [[nodiscard]] std::int64_t free_pages() const noexcept {
        std::lock_guard const lock(mutex_);
        return free_;
    }

    /// Keys of a layer, [kv_head, row, qk_dim], and values.
    [[nodiscard]] view<T, axis::kv_head, axis::key, axis::dim> keys(std::int64_t layer) noexcept {
        return rows(layer).template range<axis::dim>(0, layout_.qk_dim);
    }
    [[nodiscard]] view<T, axis::kv_head, axis::key, axis::value_dim>
    values(std::int64_t layer) noexcept {
        return rows(layer)
            .template range<axis::dim>(layout_.qk_dim, layout_.v_dim)
            .template renamed<axis::kv_head, axis::key, axis::value_dim>();
    }
    /// Of codes, [kv_head, row].
    [[nodiscard]] view<float, axis::kv_head, axis::key> key_scales(std::int64_t layer) noexcept
        requires(is_scaled) {
        return scales(layer, 0);
    }
    [[nodiscard]] view<float, axis::kv_head, axis::key> value_scales(std::int64_t layer) noexcept
        requires(is_scaled) {
        return scales(layer, 1);
    }

    // --- for sequences ---

    /// Takes `count` pages that nobody uses, those after `near` first, so that a sequence's rows follow
    /// each other where they can; none if there are not as many.
    [[nodiscard]] bool take(std::int64_t count, std::int32_t near, std::int32_t* into) noexcept {
        std::lock_guard const lock(mutex_);
        if (count > free_) {
            return false;
        }
        auto const pages = static_cast<std::int32_t>(layout_.pages);
        std::int32_t at = near + 1 < pages ? near + 1 : 0;
        for (std::int64_t taken = 0; taken < count; at = at + 1 < pages ? at + 1 : 0) {
            std::int32_t& users = users_[static_cast<std::size_t>(at)];
            if (users == 0) {
                users = 1;
                into[taken++] = at;
            }
        }
        free_ -= count;
        return true;
    }
    void share(std::span<std::int32_t const> pages) noexcept {
        std::lock_guard const lock(mutex_);
        for (std::int32_t const p : pages) {
            ++users_[static_cast<std::size_t>(p)];
        }
    }
    void give_back(std::span<std::int32_t const> pages) noexcept {
        std::lock_guard const lock(mutex_);
        for (std::int32_t const p : pages) {
            std::int32_t& users = users_[static_cast<std::size_t>(p)];
            SOFATTN_ASSERT(users > 0);
            users -= 1;
            free_ += users == 0 ? 1 : 0;
        }
    }
    [[nodiscard]] bool is_shared(std::int32_t page) const noexcept {
        std::lock_guard const lock(mutex_);
        return users_[static_cast<std::size_t>(page)] > 1;
    }
    /// All layers of the first `tokens` rows.
    void copy_page(std::int32_t from, std::int32_t to, std::int64_t tokens) noexcept {
        for (std::int64_t l = 0; l < layout_.layers; ++l) {
            auto const all = rows(l);
            for (std::int64_t h = 0; h < layout_.kv_heads; ++h) {
                for (std::int64_t t = 0; t < tokens; ++t) {
                    std::copy_n(&all(h, from * layout_.page_tokens + t, 0),
                                layout_.qk_dim + layout_.v_dim,
                                &all(h, to * layout_.page_tokens + t, 0));
                }
                if constexpr (is_scaled) {
                    auto const of = scales_[static_cast<std::size_t>(l)].view();
                    std::copy_n(&of(h, 2 * from * layout_.page_tokens), 2 * tokens,
                                &of(h, 2 * to * layout_.page_tokens));
                }
            }
        }
    }

private:
    using rows_tensor = tensor<T, axis::kv_head, axis::key, axis::dim>;
    using scales_tensor = tensor<float, axis::kv_head, axis::key>; ///< of a row's key, value, ...

    [[nodiscard]] view<T, axis::kv_head, axis::key, axis::dim> rows(std::int64_t layer) noexcept {
        SOFATTN_DASSERT(layer >= 0 && layer < layout_.layers);
        return layers_[static_cast<std::size_t>(layer)].view();
    }

    [[nodiscard]] view<float, axis::kv_head, axis::key> scales(std::int64_t layer,
                                                               std::int64_t which) noexcept {
        auto const both = scales_[static_cast<std::size_t>(layer)].view();
        return {both.data() + which,
                {layout_.kv_heads, both.template extent<axis::key>() / 2},
                {both.template stride<axis::kv_head>(), 2}};
    }

    kv_layout layout_{};
    std::vector<rows_tensor> layers_;
    std::vector<scales_tensor> scales_; ///< [layer], or none
    std::vector<std::int32_t> users_;   ///< [page]
    std::int64_t free_ = 0;
    mutable std::mutex mutex_; ///< of users_ and free_
};

} // namespace sofattn::engine
