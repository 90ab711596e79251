// SPDX-License-Identifier: MIT
// What some models put between the products and the softmax.
#pragma once

#include <sofattn/core/types.hpp>
#include <sofattn/sufa/logit_map.hpp>

#include <algorithm>
#include <cmath>
#include <numbers>

namespace sofattn {

/// Soft caps, ALiBi and learned sinks. A query at position i (problem_shape::place) and a key at j have
/// the logit
///
///     x = scale q.k;  x = softcap tanh(x / softcap);  x = x - slope |i - j|
///
/// and a sink takes part in the softmax as a key of that logit without a value.
///
/// paper  not in the paper. Caps as in Gemma 2 (arXiv 2408.00118), slopes as in ALiBi (arXiv 2108.12409;
///        of keys after the query, as where attention is bidirectional, the same distance), sinks as in
///        gpt-oss
struct logit_terms {
    static constexpr float most = 1e20f; ///< of each number's magnitude: logits stay below 1e30

    float softcap = 0;                   ///< 0: none
    float const* alibi_slopes = nullptr; ///< [head]; null: none
    float const* sink_logits = nullptr;  ///< [head]; null: none

    [[nodiscard]] bool any() const noexcept {
        return softcap != 0 || alibi_slopes != nullptr || sink_logits != nullptr;
    }
    /// Softmax over keys is not what predicted scores say of it.
    [[nodiscard]] bool changes_logits() const noexcept {
        return softcap != 0 || alibi_slopes != nullptr;
    }
    /// Of so many heads.
    [[nodiscard]] bool are_valid(index_t heads) const noexcept {
        auto const fit = [heads](float const* numbers) {
            return numbers == nullptr || std::all_of(numbers, numbers + heads,
                                                     [](float x) { return std::abs(x) <= most; });
        };
        return softcap >= 0 && softcap <= most && fit(alibi_slopes) && fit(sink_logits);
    }

    [[nodiscard]] sufa::logit_map map() const noexcept {
        return {softcap * std::numbers::log2e_v<float>, alibi_slopes != nullptr};
    }
    [[nodiscard]] sufa::row_terms of(index_t head, index_t position) const noexcept {
        constexpr auto octaves = std::numbers::log2e_v<float>;
        sufa::row_terms row;
        row.position = position;
        if (alibi_slopes != nullptr) {
            row.slope = alibi_slopes[head] * octaves;
        }
        if (sink_logits != nullptr) {
            row.sink = sink_logits[head] * octaves;
        }
        return row;
    }
};

} // namespace sofattn
