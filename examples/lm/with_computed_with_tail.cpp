// SPDX-License-Identifier: MIT
// Kept keys' logits are computed; dropped keys are stood in for.
#include "lm/sparse_method.hpp"

namespace sofattn::lm::detail {

pair_counts attend_computed_with_tail(method_call const& call, attention_options const& options,
                                      index_t dense_below) {
    return attend_sparsely<sufa::recomputed, true>(call, options, dense_below);
}

} // namespace sofattn::lm::detail
