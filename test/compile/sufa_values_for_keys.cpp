// SPDX-License-Identifier: MIT
// Values handed over where keys belong: their axes have other names, so the views do not convert.
// expect: error: .*value_dim
#include <sofattn/core/view.hpp>
#include <sofattn/sufa/row_arithmetic.hpp>

using namespace sofattn;

view<float const, axis::dim> query;
key_view<float const> keys;
value_view<float const> values;

#ifndef SOFATTN_OK
sufa::attend_inputs<float, float, float> const in{query, values, keys, 1.0};
#else
sufa::attend_inputs<float, float, float> const in{query, keys, values, 1.0};
#endif
