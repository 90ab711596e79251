// SPDX-License-Identifier: MIT
// Cycles and picojoules do not add.
// expect: error: .*operator ?[+]
// expect: unit::picojoule

#include <sofattn/core/units.hpp>

using namespace sofattn;

auto sum(cycles time, picojoules energy) {
#ifdef SOFATTN_OK
    return time + cycles(static_cast<std::uint64_t>(energy.count()));
#else
    return time + energy;
#endif
}
