// SPDX-License-Identifier: MIT
// Pipelines that end in sufa.
#include "attend/compose.hpp"
#include <sofattn/sufa/sorted_updating.hpp>

namespace sofattn::attend::detail {

runner find_sufa(std::string_view predictor, std::string_view selector) {
    return find<sufa::sorted_updating<sufa::descending>>(predictor, selector);
}

} // namespace sofattn::attend::detail
