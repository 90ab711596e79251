// SPDX-License-Identifier: MIT
// Caps and biases of a register of logits.
#pragma once

#include <sofattn/exec/xsimd_lanes.hpp>
#include <sofattn/sufa/logit_map.hpp>

#include <numbers>

namespace sofattn::sufa {

/// `logits` in octaves, once `map` has done its part.
///
/// in     slope     of each lane's row
///        distance  of its query from its key, of either sign
/// exact  within 2e-7 of the cap, which is the error of tanh; a bias is rounded like any float of its size
/// paper  not in the paper. Caps: Gemma 2 (arXiv 2408.00118); slopes: ALiBi (arXiv 2108.12409)
[[nodiscard]] inline exec::vector_float mapped(logit_map const& map, exec::vector_float logits,
                                               exec::vector_float slope,
                                               exec::vector_float distance) noexcept {
    using exec::vector_float;
    vector_float const none(0.0f);
    if (map.cap != 0) {
        // tanh x = (1 - e) / (1 + e), e = exp(-2 |x|), with the sign of x.
        vector_float const one(1.0f);
        vector_float const size = exec::larger(logits, none - logits);
        vector_float const e = exec::exp2_of_negative(
            size * vector_float(-2.0f * std::numbers::log2e_v<float> / map.cap));
        vector_float const capped = vector_float(map.cap) * ((one - e) / (one + e));
        logits = exec::if_below(logits, none, none - capped, capped);
    }
    if (map.is_biased) {
        logits = logits - slope * exec::larger(distance, none - distance);
    }
    return logits;
}

} // namespace sofattn::sufa
