// SPDX-License-Identifier: MIT
// Rotary position embedding: between key prediction and scoring, and after exact projections.
#pragma once

#include <sofattn/core/assert.hpp>
#include <sofattn/core/error.hpp>
#include <sofattn/core/types.hpp>

#include <cmath>
#include <span>
#include <string>
#include <vector>

namespace sofattn::dlzs {

/// Which two elements of a head turn together.
enum class rope_layout {
    interleaved, ///< (2i, 2i + 1), as in the RoPE paper and Llama's original weights
    halves       ///< (i, i + dim / 2), as in GPT-NeoX and most converted checkpoints
};

/// Rotates rows by position: pair i turns by position * theta^(-2i / dim). Not in the paper, which
/// scores unrotated K^ and so treats no model with RoPE; two multiplies per element are charged.
/// Products of floats are exact in double, so the result is one rounding away from the true
/// rotation by the stored angle and has the same bits whether or not a compiler fuses.
class rope {
public:
    /// dim even, theta > 1. Throws `error`.
    explicit rope(index_t dim, rope_layout layout, double theta = 10000.0)
        : layout_(layout), frequency_(static_cast<std::size_t>(dim > 0 ? dim / 2 : 0)) {
        if (dim <= 0 || dim % 2 != 0) {
            throw error("rope: head dimension", std::to_string(dim), "positive and even");
        }
        if (!(theta > 1.0)) {
            throw error("rope: theta", std::to_string(theta), "greater than 1");
        }
        for (std::size_t i = 0; i < frequency_.size(); ++i) {
            frequency_[i] =
                std::pow(theta, -2.0 * static_cast<double>(i) / static_cast<double>(dim));
        }
    }

    [[nodiscard]] index_t dim() const noexcept {
        return 2 * static_cast<index_t>(frequency_.size());
    }

    /// row [dim] in place; another size is refused (SOFATTN_ASSERT).
    void operator()(std::span<float> row, index_t position) const noexcept {
        SOFATTN_ASSERT(std::ssize(row) == dim());
        std::size_t const pairs = frequency_.size();
        for (std::size_t i = 0; i < pairs; ++i) {
            float& a = row[layout_ == rope_layout::interleaved ? 2 * i : i];
            float& b = row[layout_ == rope_layout::interleaved ? 2 * i + 1 : i + pairs];
            double const angle = static_cast<double>(position) * frequency_[i];
            auto const cosine = static_cast<double>(static_cast<float>(std::cos(angle)));
            auto const sine = static_cast<double>(static_cast<float>(std::sin(angle)));
            auto const x = static_cast<double>(a);
            auto const y = static_cast<double>(b);
            a = static_cast<float>(x * cosine - y * sine);
            b = static_cast<float>(x * sine + y * cosine);
        }
    }

private:
    rope_layout layout_;
    std::vector<double> frequency_; ///< radians per position, [dim / 2]
};

} // namespace sofattn::dlzs
