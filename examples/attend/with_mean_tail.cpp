// SPDX-License-Identifier: MIT
// Pipelines with the mean of dropped values.
#include "attend/compose.hpp"

namespace sofattn::attend::detail {

runner find_mean_tail(std::string_view predictor, std::string_view selector) {
    return find_with_tail<sufa::mean_tail>(predictor, selector);
}

} // namespace sofattn::attend::detail
