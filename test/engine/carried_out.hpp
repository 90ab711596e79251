// SPDX-License-Identifier: MIT
// What carries descriptors out, compiled once for all tests of this folder: the kernels of every type and
// method take a compiler a minute.
#pragma once

#include <sofattn/attention/paged_problem.hpp>
#include <sofattn/attention/problem.hpp>
#include <sofattn/core/bfloat16.hpp>
#include <sofattn/core/half.hpp>
#include <sofattn/engine/descriptor.hpp>
#include <sofattn/engine/run.hpp>
#include <sofattn/engine/share.hpp>

#include <cstddef>
#include <cstdint>
#include <span>

namespace sofattn::test {

/// engine::detail::perform for one problem's types.
template <class Given>
using performer = void(Given const&, engine::attention_desc const&, std::span<std::byte>,
                       engine::detail::share const&) noexcept;

} // namespace sofattn::test

namespace sofattn::engine::detail {

extern template test::performer<problem<float, float>> perform;
extern template test::performer<problem<float, half>> perform;
extern template test::performer<problem<half, half>> perform;
extern template test::performer<problem<float, bfloat16>> perform;
extern template test::performer<problem<bfloat16, bfloat16>> perform;
extern template test::performer<problem<float, std::int8_t>> perform;
extern template test::performer<problem<half, std::int8_t>> perform;
extern template test::performer<problem<bfloat16, std::int8_t>> perform;
extern template test::performer<paged_problem<float, float>> perform;
extern template test::performer<paged_problem<float, half>> perform;
extern template test::performer<paged_problem<half, half>> perform;
extern template test::performer<paged_problem<float, bfloat16>> perform;
extern template test::performer<paged_problem<bfloat16, bfloat16>> perform;
extern template test::performer<paged_problem<float, std::int8_t>> perform;
extern template test::performer<paged_problem<half, std::int8_t>> perform;
extern template test::performer<paged_problem<bfloat16, std::int8_t>> perform;

} // namespace sofattn::engine::detail
