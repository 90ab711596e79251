// SPDX-License-Identifier: MIT
// What a row's softmax was made of, for who merges outputs of parts of the keys.
#pragma once

#include <sofattn/core/types.hpp>
#include <sofattn/core/view.hpp>

#include <limits>
#include <numbers>

namespace sofattn {

/// The pair (m, l) of every row beside its output o: outputs over keys A and B are merged by
/// o = (e^(mA - m) lA oA + e^(mB - m) lB oB) / l, where m = max(mA, mB) and
/// l = e^(mA - m) lA + e^(mB - m) lB (Fig. 10b). Views without data are not written.
struct softmax_sums {
    view<float, axis::head, axis::query> max{}; ///< largest logit, or a little more; -inf: no key
    view<float, axis::head, axis::query> sum{}; ///< of exp(logit - max); 0: no key

    [[nodiscard]] bool wanted() const noexcept {
        return max.data() != nullptr || sum.data() != nullptr;
    }
    /// The kernels' logits are in octaves.
    void write(index_t head, index_t query, float max_octaves, float of_weights) const noexcept {
        if (max.data() != nullptr) {
            max(head, query) = of_weights > 0.0f ? max_octaves * std::numbers::ln2_v<float>
                                                 : -std::numeric_limits<float>::infinity();
        }
        if (sum.data() != nullptr) {
            sum(head, query) = of_weights;
        }
    }
};

} // namespace sofattn
