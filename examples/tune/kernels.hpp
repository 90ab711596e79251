// SPDX-License-Identifier: MIT
// The library's kernels as things whose sizes can be tuned.
#pragma once

#include "tune/sizes.hpp"
#include "tune/tuner.hpp"
#include <sofattn/core/types.hpp>

#include <functional>
#include <vector>

namespace sofattn::tune {

/// A kernel: what is searched, and where what was found belongs.
struct kernel {
    tunable of;
    std::function<void(dse::point const&, sizes&)> set;
};

/// One kernel after the other: dense prefill with each kind of products that the target has, dense
/// decode. On made-up data with heads of this size, one thread, the same memory whatever the sizes.
/// Decode is cut into parts short enough for this many threads. Data are made when a kernel first runs
/// and stay for as long as it lives.
[[nodiscard]] std::vector<kernel> kernels(index_t dim, index_t threads);

} // namespace sofattn::tune
