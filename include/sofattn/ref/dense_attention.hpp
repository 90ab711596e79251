// SPDX-License-Identifier: MIT
// The textbook in double precision: logits, softmax and output of one row, nothing clever.
#pragma once

#include <sofattn/core/assert.hpp>
#include <sofattn/core/element.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/core/view.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <span>

namespace sofattn::ref {

/// logits[k] = scale * q.k for the first `logits.size()` keys; query [dim], keys [key, dim].
template <storage_float Q, storage_float K>
void row_logits(view<Q const, axis::dim> query, key_view<K const> keys, double scale,
                std::span<double> logits) {
    SOFATTN_ASSERT(std::ssize(logits) <= keys.template extent<axis::key>());
    index_t const dims = query.template extent<axis::dim>();
    for (std::size_t k = 0; k < logits.size(); ++k) {
        double sum = 0;
        for (index_t d = 0; d < dims; ++d) {
            sum += static_cast<double>(to_float(query(d))) *
                   static_cast<double>(to_float(keys(static_cast<index_t>(k), d)));
        }
        logits[k] = scale * sum;
    }
}

/// Softmax in place; nothing for an empty row.
inline void softmax(std::span<double> row) {
    if (row.empty()) {
        return;
    }
    double const top = *std::ranges::max_element(row);
    double sum = 0;
    for (double& x : row) {
        x = std::exp(x - top);
        sum += x;
    }
    for (double& x : row) {
        x /= sum;
    }
}

/// output[d] = sum over keys of weights[k] * values(k, d); values [key, value_dim].
template <storage_float V>
void weighted_sum(std::span<double const> weights, value_view<V const> values,
                  std::span<double> output) {
    std::ranges::fill(output, 0.0);
    for (std::size_t k = 0; k < weights.size(); ++k) {
        for (std::size_t d = 0; d < output.size(); ++d) {
            output[d] += weights[k] * static_cast<double>(to_float(values(
                                          static_cast<index_t>(k), static_cast<index_t>(d))));
        }
    }
}

} // namespace sofattn::ref
