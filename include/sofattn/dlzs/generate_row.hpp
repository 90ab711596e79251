// SPDX-License-Identifier: MIT
// On-demand K and V: exact projections of selected tokens only, paper section III-A.
#pragma once

#include <sofattn/core/assert.hpp>
#include <sofattn/core/element.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/core/view.hpp>
#include <sofattn/dlzs/projection.hpp>
#include <sofattn/exec/executor.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace sofattn::dlzs {

/// Generates one token's row of K or V.
///
/// in     tokens [key, channel]  X, real units
///        by     [channel, dim]  the projection, with bias and RoPE if any
///        key                    which token, its position for RoPE
/// out    row    [dim]           x W + b, rotated
/// pre    equal channels, row has dim places, 0 <= key < tokens (SOFATTN_ASSERT)
/// error  none
/// events multiply and add per (channel, dim), multiply 2 and add 1 per rotated element
/// exact  the same bits for a token, whichever others are generated: products of floats are exact
///        in double, summed in channel order, rounded to float once
/// paper  on-demand K/V, section III-A; KV generation engine, section IV-A
struct generate_row {
    template <exec::executor_like X, storage_float T, class Dim>
    void operator()(X& x, view<T const, axis::key, axis::channel> tokens,
                    projection<T, Dim> const& by, index_t key,
                    std::span<float> row) const noexcept {
        using number = typename X::template number<double>;
        index_t const channels = by.channels();
        index_t const dims = by.dims();
        SOFATTN_ASSERT(tokens.template extent<axis::channel>() == channels);
        SOFATTN_ASSERT(std::ssize(row) == dims);
        SOFATTN_ASSERT(key >= 0 && key < tokens.template extent<axis::key>());
        // Several outputs side by side: weights of a channel are neighbours.
        for (index_t first = 0; first < dims; first += together) {
            index_t const count = std::min(together, dims - first);
            std::array<number, static_cast<std::size_t>(together)> sums;
            sums.fill(number(0.0));
            if (count == together && by.weights.template stride<Dim>() == 1) {
                add_products<together, 1>(tokens, by.weights, key, first, count, sums.data());
            } else {
                add_products<0, 0>(tokens, by.weights, key, first, count, sums.data());
            }
            for (index_t i = 0; i < count; ++i) {
                number sum = sums[static_cast<std::size_t>(i)];
                if (by.has_bias()) {
                    sum = sum + number(static_cast<double>(by.bias_at(first + i)));
                }
                row[static_cast<std::size_t>(first + i)] =
                    static_cast<float>(static_cast<double>(sum));
            }
        }
        if (by.rotation != nullptr) {
            (*by.rotation)(row, key);
        }
        if constexpr (X::probe_type::enabled) {
            auto const at = probe::stage::kv_generation;
            auto const products = static_cast<std::uint64_t>(channels * dims);
            auto const turned = static_cast<std::uint64_t>(by.rotation != nullptr ? dims : 0);
            x.probe(at, probe::event::multiply, products + 2 * turned);
            x.probe(at, probe::event::add,
                    products + turned + static_cast<std::uint64_t>(by.has_bias() ? dims : 0));
        }
    }

private:
    static constexpr index_t together = 16;

    /// Count and stride are constants where they are not 0: then the loop becomes vectors.
    template <index_t Count, index_t Stride, class Number, storage_float T, class Dim>
    static void add_products(view<T const, axis::key, axis::channel> tokens,
                             view<T const, axis::channel, Dim> weights, index_t key, index_t first,
                             index_t count, Number* sums) noexcept {
        index_t const stride = Stride == 0 ? weights.template stride<Dim>() : Stride;
        index_t const end = Count == 0 ? count : Count;
        T const* row = weights.data() + first * stride;
        for (index_t c = 0; c < weights.template extent<axis::channel>(); ++c) {
            Number const token(static_cast<double>(to_float(tokens(key, c))));
            for (index_t i = 0; i < end; ++i) {
                sums[i] = sums[i] + token * Number(static_cast<double>(to_float(row[i * stride])));
            }
            row += weights.template stride<axis::channel>();
        }
    }
};

} // namespace sofattn::dlzs
