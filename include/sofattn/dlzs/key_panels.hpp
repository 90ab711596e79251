// SPDX-License-Identifier: MIT
// A key index as byte dot products read it, and one query's codes beside it.
#pragma once

#include <sofattn/core/assert.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/core/view.hpp>
#include <sofattn/dlzs/calibration.hpp>
#include <sofattn/dlzs/operands.hpp>
#include <sofattn/dlzs/policy.hpp>
#include <sofattn/exec/int8_dot.hpp>
#include <sofattn/exec/int8_tile.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

namespace sofattn::dlzs {

/// Predictors whose products are those of bytes: a power of two times an 8-bit integer is one, so
/// shift-and-add has the same bits (design: leading-zero codes of 8 bits reach 64).
template <class P>
concept byte_policy = policy<P> && P::key != operand::real&& P::query_bits <= 8 && P::key_bits <= 8;

/// Steps of dot products that cover `dim` channels.
[[nodiscard]] constexpr index_t dot_steps(index_t dim) noexcept {
    return ceil_div(dim, exec::dot_depth);
}

/// The keys of one KV head, exec::tile_width of them side by side:
/// [panel, step, lane, dot_depth] bytes; places without a key or channel hold code 0.
class key_panels {
public:
    key_panels() noexcept = default;

    template <byte_policy Policy>
    explicit key_panels(key_index<Policy> const& index)
        : keys_(index.codes().template extent<axis::key>()),
          steps_(dot_steps(index.codes().template extent<axis::dim>())),
          bytes_(static_cast<std::size_t>(ceil_div(keys_, exec::tile_width) * panel_bytes()),
                 exec::panel_byte(0)) {
        auto const codes = index.codes();
        index_t const dims = codes.template extent<axis::dim>();
        for (index_t k = 0; k < keys_; ++k) {
            std::uint8_t* const panel = bytes_.data() + k / exec::tile_width * panel_bytes();
            index_t const lane = k % exec::tile_width;
            for (index_t d = 0; d < dims; ++d) {
                auto const code = static_cast<int>(
                    detail::code_value<Policy::key, Policy::key_bits>(codes(k, d)));
                panel[((d / exec::dot_depth) * exec::tile_width + lane) * exec::dot_depth +
                      d % exec::dot_depth] = exec::panel_byte(code);
            }
        }
    }

    [[nodiscard]] index_t keys() const noexcept { return keys_; }
    [[nodiscard]] index_t steps() const noexcept { return steps_; }
    /// The panel of keys p * tile_width and on.
    [[nodiscard]] std::uint8_t const* panel(index_t p) const noexcept {
        return bytes_.data() + p * panel_bytes();
    }

private:
    [[nodiscard]] index_t panel_bytes() const noexcept {
        return steps_ * exec::tile_width * exec::dot_depth;
    }

    index_t keys_ = 0;
    index_t steps_ = 0;
    std::vector<std::uint8_t> bytes_;
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
        for (index_t d = 0; d < dims; ++d) {
            real[static_cast<std::size_t>(d)] = to_float(query(d)) * keys.carried_step(d);
        }
        if constexpr (Policy::rotated) {
            detail::rotate_row(real, wide.first(count));
        }
        float most = 0.0f;
        for (float const x : real) {
            most = std::max(most, std::abs(x));
        }
        constexpr int limit = code_limit<Policy::query_bits>;
        auto const step = quantiser_step::covering(most, limit);
        std::ranges::fill(packed, 0);
        auto* const bytes = reinterpret_cast<std::int8_t*>(packed.data());
        std::int32_t sum = 0;
        for (std::size_t d = 0; d < count; ++d) {
            codes[d] = detail::store_operand<Policy::query, Policy::query_bits, Policy::rounding>(
                step.code(real[d], limit));
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
