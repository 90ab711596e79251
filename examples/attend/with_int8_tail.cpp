// SPDX-License-Identifier: MIT
// Pipelines with 8-bit values of dropped keys.
#include "attend/compose.hpp"

namespace sofattn::attend::detail {

runner find_int8_tail(std::string_view predictor, std::string_view selector) {
    return find_with_tail<sufa::int8_tail>(predictor, selector);
}

} // namespace sofattn::attend::detail
