// SPDX-License-Identifier: MIT
// Axes of one view differ, or a name would not say which.
// expect: error: .*view: an axis is named twice

#include <sofattn/core/view.hpp>

using namespace sofattn;

#ifdef SOFATTN_OK
view<float, axis::key, axis::dim> const example;
#else
view<float, axis::key, axis::key> const example;
#endif
