// SPDX-License-Identifier: MIT
// Pipelines that end in flash_attention_2.
#include "attend/compose.hpp"
#include <sofattn/sufa/rivals.hpp>

namespace sofattn::attend::detail {

runner find_flash_attention_2(std::string_view predictor, std::string_view selector) {
    return find<sufa::flash_attention_2>(predictor, selector);
}

} // namespace sofattn::attend::detail
