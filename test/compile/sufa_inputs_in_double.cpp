// SPDX-License-Identifier: MIT
// Queries, keys and values are stored as float, half or bfloat16.
// expect: error: .*constraint
// expect: storage_float
#include <sofattn/sufa/row_arithmetic.hpp>

#ifndef SOFATTN_OK
sofattn::sufa::attend_inputs<float, double, float> const in{};
#else
sofattn::sufa::attend_inputs<float, sofattn::half, float> const in{};
#endif
