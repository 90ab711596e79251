// SPDX-License-Identifier: MIT
// A key index as byte dot products read it, and one query's codes beside it.
#pragma once

#include <sofattn/core/assert.hpp>
#include <sofattn/core/element.hpp>
#include <sofattn/core/quantise.hpp>
#include <sofattn/core/tensor.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/core/view.hpp>
#include <sofattn/dlzs/calibration.hpp>
#include <sofattn/dlzs/operands.hpp>
#include <sofattn/dlzs/policy.hpp>
#include <sofattn/exec/int8_dot.hpp>
#include <sofattn/exec/int8_tile.hpp>

#include <algorithm>
#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <utility>

namespace sofattn::dlzs {

/// Predictors whose products are those of bytes: a power of two times an 8-bit integer is one, so
/// shift-and-add has the same bits (design: leading-zero codes of 8 bits reach 64).
template <class P>
concept byte_policy = policy<P> && P::key != operand::real&& P::query_bits <= 8 && P::key_bits <= 8;

/// Steps of dot products that cover `dim` channels.
[[nodiscard]] constexpr index_t dot_steps(index_t dim) noexcept {
    return ceil_div(dim, exec::dot_depth);
}

/// The keys of one KV head in pages of exec::page_keys, which lie side by side:
/// [page, step, lane, dot_depth] bytes; places without a key or channel hold code 0.
class key_panels {
public:
    key_panels() noexcept = default;

    template <byte_policy Policy>
    explicit key_panels(key_index<Policy> const& index)
        : key_panels(index.codes(), [](std::uint8_t* step) { as_factors<Policy>(step); }) {}
    /// Of codes that are what they stand for; rows as a tensor has them.
    explicit key_panels(key_view<std::int8_t const> codes)
        : key_panels(codes, [](std::uint8_t* step) { as_factors<plain_codes>(step); }) {}

    /// Of no key yet, with codes that are what they stand for; grows.
    [[nodiscard]] static key_panels growing(index_t dim) {
        key_panels made;
        made.steps_ = dot_steps(dim);
        return made;
    }
    /// Room for so many keys. Doubles what there is at least, so that growing costs O(1) per key.
    void reserve(index_t keys) {
        index_t const needed = ceil_div(keys, exec::page_keys) * page_bytes();
        index_t const room = bytes_.extent<axis::key>();
        if (needed <= room) {
            return;
        }
        auto larger = tensor<std::uint8_t, axis::key>::for_overwrite({std::max(needed, 2 * room)});
        std::copy_n(bytes_.cview().data(), pages() * page_bytes(), larger.view().data());
        bytes_ = std::move(larger);
    }
    /// codes [dim] of the next key. pre: there is room
    void append(std::span<std::int8_t const> codes) noexcept {
        index_t const lane = keys_ % exec::page_keys;
        ++keys_;
        SOFATTN_ASSERT(dot_steps(std::ssize(codes)) == steps_ &&
                       pages() * page_bytes() <= bytes_.extent<axis::key>());
        std::uint8_t* const to = bytes_.view().data() + (pages() - 1) * page_bytes();
        if (lane == 0) {
            std::fill_n(to, page_bytes(), exec::panel_byte(0));
        }
        for (index_t d = 0; d < std::ssize(codes); ++d) {
            to[place(lane, d)] = exec::panel_byte(codes[static_cast<std::size_t>(d)]);
        }
    }
    /// Every key's code c of a channel becomes change(c), in [-127, 127].
    template <std::invocable<int> Change>
    void recode(index_t d, Change change) noexcept {
        for (index_t k = 0; k < keys_; ++k) {
            std::uint8_t& byte =
                bytes_(k / exec::page_keys * page_bytes() + place(k % exec::page_keys, d));
            byte = exec::panel_byte(change(
                static_cast<std::int8_t>(static_cast<std::uint8_t>(byte - exec::panel_byte(0)))));
        }
    }
    /// Forgets all keys but the first `keys`.
    void truncate(index_t keys) noexcept {
        SOFATTN_ASSERT(keys >= 0 && keys <= keys_);
        keys_ = keys;
        index_t const lane = keys % exec::page_keys;
        for (index_t d = 0; lane > 0 && d < steps_ * exec::dot_depth; ++d) {
            for (index_t gone = lane; gone < exec::page_keys; ++gone) {
                bytes_(keys / exec::page_keys * page_bytes() + place(gone, d)) =
                    exec::panel_byte(0);
            }
        }
    }

    [[nodiscard]] index_t keys() const noexcept { return keys_; }
    [[nodiscard]] index_t pages() const noexcept { return ceil_div(keys_, exec::page_keys); }
    [[nodiscard]] index_t steps() const noexcept { return steps_; }
    [[nodiscard]] index_t page_bytes() const noexcept { return steps_ * exec::page_step_bytes; }
    /// Of keys p * page_keys and on.
    [[nodiscard]] std::uint8_t const* page(index_t p) const noexcept {
        return bytes_.cview().data() + p * page_bytes();
    }
    /// A tile of pages from `p` on; behind the last one it is repeated.
    [[nodiscard]] std::array<std::uint8_t const*, static_cast<std::size_t>(exec::tile_pages)>
    tile_from(index_t p) const noexcept {
        std::array<std::uint8_t const*, static_cast<std::size_t>(exec::tile_pages)> tile;
        for (index_t i = 0; i < exec::tile_pages; ++i) {
            tile[static_cast<std::size_t>(i)] = page(std::min(p + i, pages() - 1));
        }
        return tile;
    }

private:
    struct plain_codes {
        static constexpr operand key = operand::integer;
        static constexpr int key_bits = 8;
    };

    template <class AsFactors>
    key_panels(key_view<std::int8_t const> codes, AsFactors as_factors)
        : keys_(codes.template extent<axis::key>()),
          steps_(dot_steps(codes.template extent<axis::dim>())),
          bytes_(tensor<std::uint8_t, axis::key>::for_overwrite({pages() * page_bytes()})) {
        index_t const stride = codes.template stride<axis::key>();
        // A step of a key is a word: rows of a tensor end in zeros that may be read.
        static_assert(tensor<std::int8_t, axis::key>::alignment % exec::dot_depth == 0);
        SOFATTN_ASSERT(stride % exec::dot_depth == 0);
        std::uint8_t* to = bytes_.view().data();
        for (index_t first = 0; first < keys_; first += exec::page_keys) {
            index_t const lanes = std::min(exec::page_keys, keys_ - first);
            for (index_t step = 0; step < steps_; ++step) {
                std::int8_t const* from = codes.data() + first * stride + step * exec::dot_depth;
                for (index_t lane = 0; lane < lanes; ++lane) {
                    std::memcpy(to + lane * exec::dot_depth, from + lane * stride, word_bytes);
                }
                std::memset(to + lanes * exec::dot_depth, 0,
                            static_cast<std::size_t>((exec::page_keys - lanes) * exec::dot_depth));
                as_factors(to);
                to += exec::page_step_bytes;
            }
        }
    }

    /// Of a key's code in its page.
    [[nodiscard]] static constexpr index_t place(index_t lane, index_t d) noexcept {
        return d / exec::dot_depth * exec::page_step_bytes + lane * exec::dot_depth +
               d % exec::dot_depth;
    }

    static constexpr auto word_bytes = static_cast<std::size_t>(exec::dot_depth);

    /// A step of stored codes, as dot products read them.
    template <class Policy>
    static void as_factors(std::uint8_t* step) noexcept {
        if constexpr (Policy::key == operand::integer && exec::dot_bias == 0) {
            return; // bytes are what they stand for
        }
        for (index_t i = 0; i < exec::page_step_bytes; ++i) {
            auto const stored = static_cast<std::int8_t>(step[i]);
            step[i] = exec::panel_byte(
                static_cast<int>(detail::code_value<Policy::key, Policy::key_bits>(stored)));
        }
    }

    index_t keys_ = 0;
    index_t steps_ = 0;
    tensor<std::uint8_t, axis::key> bytes_; ///< aligned: no register of them crosses a cache line
};

/// Queries coded one by one, without allocating: the codes of query_codes<Policy>, as dot products
/// read them. For policies whose queries have a step of their own, so that a row depends on no other.
template <byte_policy Policy>
    requires(Policy::query_step == granularity::per_row)
struct query_coder {
    /// query [dim]
    /// out: codes [dim]; packed [dot_steps(dim)], zero beyond dim; start for panels of keys
    /// scratch: real [dim], wide [dim]
    /// Returns real units of q.k per unit of score.
    template <storage_float T>
    double operator()(view<T const, axis::dim> query, key_index<Policy> const& keys,
                      std::span<typename query_codes<Policy>::element> codes,
                      std::span<std::int32_t> packed, std::int32_t& start, std::span<float> real,
                      std::span<double> wide) const noexcept {
        index_t const dims = query.template extent<axis::dim>();
        SOFATTN_DASSERT(std::ssize(real) >= dims && std::ssize(wide) >= dims);
        auto const count = static_cast<std::size_t>(dims);
        real = real.first(count);
        for_each_float(query.data(), dims, query.template stride<axis::dim>(),
                       [to = real.data()](index_t d, float value) { to[d] = value; });
        if constexpr (Policy::key_step == granularity::per_channel) {
            for (index_t d = 0; d < dims; ++d) {
                real[static_cast<std::size_t>(d)] *= keys.carried_step(d);
            }
        }
        if constexpr (Policy::rotated) {
            detail::rotate_row(real, wide.first(count));
        }
        constexpr int limit = code_limit<Policy::query_bits>;
        auto const step = quantiser_step::covering(largest_magnitude(real), limit);
        for (std::size_t d = 0; d < count; ++d) {
            codes[d] = detail::store_operand<Policy::query, Policy::query_bits, Policy::rounding>(
                step.code(real[d], limit));
        }
        std::ranges::fill(packed.subspan(count / exec::dot_depth), 0);
        auto* const bytes = reinterpret_cast<std::int8_t*>(packed.data());
        std::int32_t sum = 0;
        for (std::size_t d = 0; d < count; ++d) {
            auto const value = static_cast<std::int8_t>(
                detail::code_value<Policy::query, Policy::query_bits>(codes[d]));
            bytes[d] = value;
            sum += value;
        }
        start = exec::dot_start(sum);
        double const key_step = keys.has_channel_steps() ? 1.0 : static_cast<double>(keys.step(0));
        double const product = static_cast<double>(step.step) * key_step;
        return Policy::rotated ? product * static_cast<double>(hadamard_block(dims)) : product;
    }
};

} // namespace sofattn::dlzs
