// SPDX-License-Identifier: MIT
// SU-FA that is not told in which order keys come; a number is no order.
// expect: error: .*constraint
// expect: P::order
#include <sofattn/sufa/sorted_updating.hpp>

#ifndef SOFATTN_OK
struct numbered {
    static constexpr int order = 0;
};
sofattn::sufa::sorted_updating<numbered> const attender;
#else
struct named {
    static constexpr auto order = sofattn::sufa::key_order::ascending;
};
sofattn::sufa::sorted_updating<named> const attender;
#endif
