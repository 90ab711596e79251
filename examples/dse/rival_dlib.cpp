// SPDX-License-Identifier: MIT
#include "dse/rival_dlib.hpp"

#include <sofattn/core/assert.hpp>

#ifdef SOFATTN_HAS_DLIB
#include <dlib/global_optimization/global_function_search.h>
#endif

#include <algorithm>
#include <limits>

namespace sofattn::dse {

#ifdef SOFATTN_HAS_DLIB

bool has_dlib() noexcept { return true; }

std::vector<double> dlib_best(search_space const& space,
                              std::function<double(point const&)> const& objective,
                              index_t evaluations, std::uint64_t seed) {
    auto const dims = static_cast<long>(space.size());
    dlib::matrix<double, 0, 1> low(dims);
    dlib::matrix<double, 0, 1> high(dims);
    for (long d = 0; d < dims; ++d) {
        low(d) = 0;
        high(d) = static_cast<double>(space[static_cast<std::size_t>(d)].levels() - 1);
    }
    dlib::global_function_search search(
        dlib::function_spec(low, high, std::vector<bool>(static_cast<std::size_t>(dims), true)));
    search.set_seed(static_cast<time_t>(seed));
    std::vector<double> best;
    double least = std::numeric_limits<double>::infinity();
    for (index_t n = 0; n < evaluations; ++n) {
        auto next = search.get_next_x();
        point p;
        for (long d = 0; d < dims; ++d) {
            p.push_back(static_cast<index_t>(next.x()(d)));
        }
        double const value = objective(p);
        next.set(-value); // it maximises
        least = std::min(least, value);
        best.push_back(least);
    }
    return best;
}

#else

bool has_dlib() noexcept { return false; }

std::vector<double> dlib_best(search_space const&, std::function<double(point const&)> const&,
                              index_t, std::uint64_t) {
    SOFATTN_ASSERT(has_dlib());
    return {};
}

#endif

} // namespace sofattn::dse
