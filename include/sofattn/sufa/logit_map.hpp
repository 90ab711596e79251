// SPDX-License-Identifier: MIT
// What a model does to logits between the product and the softmax: caps, distance, learned sinks.
#pragma once

#include <sofattn/core/types.hpp>

#include <algorithm>
#include <cmath>
#include <limits>

namespace sofattn::sufa {

/// One row's part, in octaves.
struct row_terms {
    static constexpr float no_sink = -std::numeric_limits<float>::infinity();

    float slope = 0;      ///< taken off per token of distance
    index_t position = 0; ///< of the query, in keys
    float sink = no_sink; ///< logit of a key without a value
};

/// Nothing special about any row.
struct plain_rows {
    row_terms operator()(index_t) const noexcept { return {}; }
};

/// What all rows have in common, in octaves: logits are capped first, biased then.
struct logit_map {
    float cap = 0;          ///< c: logits become c tanh(logit / c); 0: none
    bool is_biased = false; ///< slopes are not all 0

    [[nodiscard]] bool is_plain() const noexcept { return cap == 0 && !is_biased; }
};

/// (m, l) of a row once its sink has joined, and what its output's sums are multiplied by.
struct row_end {
    float max;     ///< octaves
    float sum;     ///< 0: no key and no sink
    float inverse; ///< 0: no key, or all weight is the sink's

    /// max in octaves and sum of the keys; sum 0: no key. `sink` in octaves, row_terms::no_sink: none.
    [[nodiscard]] static row_end of(float max, float sum, float sink) noexcept {
        bool const has_keys = sum > 0.0f;
        if (sink == row_terms::no_sink) {
            return {max, sum, has_keys ? 1.0f / sum : 0.0f};
        }
        float const top = has_keys ? std::max(max, sink) : sink;
        float const by = has_keys ? std::exp2(max - top) : 0.0f;
        float const total = sum * by + std::exp2(sink - top);
        return {top, total, by / total};
    }
};

} // namespace sofattn::sufa
