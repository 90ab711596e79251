// SPDX-License-Identifier: MIT
#include "engine/carried_out.hpp"

namespace sofattn::engine::detail {

template test::performer<problem<float, float>> perform;
template test::performer<problem<float, half>> perform;
template test::performer<problem<half, half>> perform;
template test::performer<problem<float, bfloat16>> perform;
template test::performer<problem<bfloat16, bfloat16>> perform;
template test::performer<problem<float, std::int8_t>> perform;
template test::performer<problem<half, std::int8_t>> perform;
template test::performer<problem<bfloat16, std::int8_t>> perform;

} // namespace sofattn::engine::detail
