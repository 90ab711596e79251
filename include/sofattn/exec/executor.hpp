// SPDX-License-Identifier: MIT
// Execution policies: lanes say how, a probe says what is seen.
#pragma once

#include <sofattn/exec/lanes.hpp>
#include <sofattn/probe/ledger.hpp>
#include <sofattn/probe/probe.hpp>
#include <sofattn/probe/trace.hpp>

#include <utility>

namespace sofattn::exec {

/// Stages that have a kernel for the machine's vector registers run it. The others run on plain
/// lanes, whose width changes no result.
struct register_lanes : scalar_lanes<8> {
    static constexpr bool on_registers = true;
};

/// `Real` is the type of formal accumulators and exponentials; results are rounded to float once.
template <lanes Lanes, probe::listener Probe, class Real>
struct executor {
    static_assert(
        !Probe::enabled || !requires { Lanes::on_registers; },
        "executor: kernels on vector registers are no circuit and cannot be counted; "
        "count with exec::counting or exec::hardware");

    using lanes_type = Lanes;
    using probe_type = Probe;
    using real_type = Real;
    template <class T>
    using number = typename Lanes::template number<T>;

    [[no_unique_address]] Probe probe{};
};

/// The definition: one lane, formal arithmetic in double, nobody listens.
using reference = executor<scalar_lanes<1>, probe::silent, double>;
/// The definition, counted.
using counting = executor<scalar_lanes<1>, probe::ledger, double>;
/// The definition with a trace per tile, for the hardware model to read.
using hardware = executor<scalar_lanes<1>, probe::trace, double>;
/// The target's vector registers, formal arithmetic in float, nobody listens: the same scores and
/// selections, outputs within float rounding.
using simd = executor<register_lanes, probe::silent, float>;

template <class X>
concept executor_like = requires(X x) {
    typename X::lanes_type;
    typename X::probe_type;
    typename X::real_type;
    requires lanes<typename X::lanes_type>;
    requires probe::listener<typename X::probe_type>;
    x.probe;
};

/// Executors whose stages run kernels on vector registers.
template <class X>
concept on_registers = executor_like<X> && requires {
    X::lanes_type::on_registers;
};

} // namespace sofattn::exec
