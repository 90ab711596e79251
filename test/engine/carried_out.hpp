// SPDX-License-Identifier: MIT
// Carrying descriptors out, compiled once for all tests of this folder: the kernels of every type and method
// take a compiler a minute.
#pragma once

#include "support/own_threads.hpp"
#include <sofattn/engine/descriptor.hpp>
#include <sofattn/engine/run.hpp>
#include <sofattn/engine/verdict.hpp>
#include <sofattn/exec/parallel.hpp>

#include <cstddef>

namespace sofattn::engine::detail {

extern template verdict carry_out(attention_desc const&, void*, std::size_t,
                                  exec::serial const&) noexcept;
extern template verdict carry_out(attention_desc const&, void*, std::size_t,
                                  test::own_threads const&) noexcept;
extern template verdict carry_out(attention_desc const&, void*, std::size_t, share const&) noexcept;

} // namespace sofattn::engine::detail
