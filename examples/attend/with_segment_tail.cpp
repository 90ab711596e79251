// SPDX-License-Identifier: MIT
// Pipelines with segments' means of dropped values.
#include "attend/compose.hpp"

namespace sofattn::attend::detail {

runner find_segment_tail(std::string_view predictor, std::string_view selector) {
    return find_with_tail<sufa::segment_tail>(predictor, selector);
}

} // namespace sofattn::attend::detail
