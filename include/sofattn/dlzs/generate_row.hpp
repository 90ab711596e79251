// SPDX-License-Identifier: MIT
// On-demand K and V: exact projections of selected tokens only, paper section III-A.
#pragma once

#include <sofattn/core/assert.hpp>
#include <sofattn/core/element.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/core/view.hpp>
#include <sofattn/dlzs/projection.hpp>
#include <sofattn/exec/executor.hpp>

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
        for (index_t d = 0; d < dims; ++d) {
            number sum(0.0);
            for (index_t c = 0; c < channels; ++c) {
                sum = sum + number(static_cast<double>(to_float(tokens(key, c)))) *
                                number(static_cast<double>(to_float(by.weights(c, d))));
            }
            if (by.has_bias()) {
                sum = sum + number(static_cast<double>(by.bias_at(d)));
            }
            row[static_cast<std::size_t>(d)] = static_cast<float>(static_cast<double>(sum));
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
};

} // namespace sofattn::dlzs
