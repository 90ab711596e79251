// SPDX-License-Identifier: MIT
// Kernels on vector registers that somebody counts.
// expect: error: .*executor: kernels on vector registers are no circuit and cannot be counted
// expect: exec::counting
#include <sofattn/exec/executor.hpp>

using namespace sofattn;

#ifndef SOFATTN_OK
using listener = probe::ledger;
#else
using listener = probe::silent;
#endif

exec::executor<exec::register_lanes, listener, float> const x{};
