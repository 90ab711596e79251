// SPDX-License-Identifier: MIT
// Pipelines that end in sufa_ascending.
#include "attend/compose.hpp"
#include <sofattn/sufa/sorted_updating.hpp>

namespace sofattn::attend::detail {

runner find_sufa_ascending(std::string_view predictor, std::string_view selector) {
    return find<sufa::sorted_updating<sufa::ascending>>(predictor, selector);
}

} // namespace sofattn::attend::detail
