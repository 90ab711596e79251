// SPDX-License-Identifier: MIT
// Pipelines that attend with the predictor's logits.
#include "attend/compose.hpp"

namespace sofattn::attend::detail {

runner find_reusing(std::string_view predictor, std::string_view selector, std::string_view tail) {
    using attender = sufa::sorted_updating<sufa::descending, sufa::reused>;
    if (tail == sufa::no_tail::name) {
        return find_weighing<attender, sufa::no_tail>(reusable_predictors, predictor, selector);
    }
    if (tail == sufa::segment_tail::name) {
        return find_weighing<attender, sufa::segment_tail>(reusable_predictors, predictor,
                                                           selector);
    }
    return nullptr;
}

} // namespace sofattn::attend::detail
