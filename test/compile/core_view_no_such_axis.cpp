// SPDX-License-Identifier: MIT
// Only axes that a view has can be asked for.
// expect: error: .*view: this view has no such axis; see its type for the axes
// expect: axis::query

#include <sofattn/core/view.hpp>

using namespace sofattn;

index_t count(key_view<float const> keys) {
#ifdef SOFATTN_OK
    return keys.extent<axis::key>();
#else
    return keys.extent<axis::query>();
#endif
}
