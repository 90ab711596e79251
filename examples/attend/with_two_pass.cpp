// SPDX-License-Identifier: MIT
// Pipelines that end in two_pass.
#include "attend/compose.hpp"
#include <sofattn/sufa/rivals.hpp>

namespace sofattn::attend::detail {

runner find_two_pass(std::string_view predictor, std::string_view selector) {
    return find<sufa::two_pass>(predictor, selector);
}

} // namespace sofattn::attend::detail
