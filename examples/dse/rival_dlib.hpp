// SPDX-License-Identifier: MIT
// dlib's global_function_search on a lattice, where dlib is installed: a rival of our search.
#pragma once

#include <sofattn/core/types.hpp>
#include <sofattn/dse/space.hpp>

#include <cstdint>
#include <functional>
#include <vector>

namespace sofattn::dse {

[[nodiscard]] bool has_dlib() noexcept;

/// The least value after 1, 2, ... evaluations (MaxLIPO and a trust region; King 2009). It may ask
/// for a point twice. pre: has_dlib(), no conditional dimension
[[nodiscard]] std::vector<double> dlib_best(search_space const& space,
                                            std::function<double(point const&)> const& objective,
                                            index_t evaluations, std::uint64_t seed);

} // namespace sofattn::dse
