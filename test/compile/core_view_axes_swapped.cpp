// SPDX-License-Identifier: MIT
// A [dim, key] view is not a [key, dim] view.
// expect: error: .*axis::dim, (sofattn::)?axis::key>.* to .*(key_view<|axis::key, (sofattn::)?axis::dim>)

#include <sofattn/core/view.hpp>

using namespace sofattn;

void read_keys(key_view<float const> keys);

void use(float const* data) {
#ifdef SOFATTN_OK
    read_keys(view<float const, axis::key, axis::dim>(data, {16, 64}));
#else
    read_keys(view<float const, axis::dim, axis::key>(data, {64, 16}));
#endif
}
