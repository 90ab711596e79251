// SPDX-License-Identifier: MIT
// Pipelines that ignore dropped keys, for adaptive selectors.
#include "attend/compose.hpp"

namespace sofattn::attend::detail {

runner find_no_tail(std::string_view predictor, std::string_view selector) {
    return find_with_tail<sufa::no_tail>(predictor, selector);
}

} // namespace sofattn::attend::detail
