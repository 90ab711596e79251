// SPDX-License-Identifier: MIT
#include "engine/carried_out.hpp"

namespace sofattn::engine::detail {

template verdict carry_out(attention_desc const&, void*, std::size_t, exec::serial const&) noexcept;

} // namespace sofattn::engine::detail
