// SPDX-License-Identifier: MIT
#include "engine/carried_out.hpp"

namespace sofattn::engine::detail {

template test::performer<paged_problem<float, float>> perform;
template test::performer<paged_problem<float, half>> perform;
template test::performer<paged_problem<half, half>> perform;
template test::performer<paged_problem<float, bfloat16>> perform;
template test::performer<paged_problem<bfloat16, bfloat16>> perform;
template test::performer<paged_problem<float, std::int8_t>> perform;
template test::performer<paged_problem<half, std::int8_t>> perform;
template test::performer<paged_problem<bfloat16, std::int8_t>> perform;

} // namespace sofattn::engine::detail
