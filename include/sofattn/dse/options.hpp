// SPDX-License-Identifier: MIT
// What a search is told before it begins.
#pragma once

#include <sofattn/core/error.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/dse/space.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace sofattn::dse {

/// `bayesian` is the paper's Algorithm 1 with what it leaves open filled in; the others are what it
/// has to beat.
enum class method { bayesian, one_plus_one, random };

inline constexpr std::array<std::string_view, 3> method_names{"bayesian", "one_plus_one", "random"};

[[nodiscard]] constexpr std::string_view name_of(method m) noexcept {
    return method_names[static_cast<std::size_t>(m)];
}

/// Together with the space and the trials so far they decide the next point: nothing else does.
struct search_options {
    method by = method::bayesian;
    std::uint64_t seed = 1;
    std::size_t objectives_count = 1;
    std::size_t violations_count = 0;
    /// Points of the first design, spread evenly over every dimension; 0: one per dimension, from 8
    /// to 40. Twice as many cost `sofa_like` 0.01 of gap at 100 evaluations.
    index_t first_points_count = 0;
    /// Asked before all others: settings that are known to work.
    std::vector<point> suggested{};

    [[nodiscard]] index_t first_points(search_space const& of) const noexcept {
        auto const dims = static_cast<index_t>(of.size());
        return first_points_count > 0 ? first_points_count : std::clamp<index_t>(dims, 8, 40);
    }
    friend bool operator==(search_options const&, search_options const&) = default;
};

/// Throws `error` for options that do not fit the space.
inline void validate(search_options const& o, search_space const& of) {
    if (o.objectives_count < 1 || o.objectives_count > 16) {
        throw error("search: objectives_count", std::to_string(o.objectives_count), "from 1 to 16");
    }
    if (o.violations_count > 16) {
        throw error("search: violations_count", std::to_string(o.violations_count), "at most 16");
    }
    if (o.first_points_count < 0 || o.first_points_count > 100000) {
        throw error("search: first_points_count", std::to_string(o.first_points_count),
                    "from 0 to 100000");
    }
    if (o.by == method::one_plus_one && o.objectives_count > 1) {
        throw error("search: objectives_count", std::to_string(o.objectives_count),
                    "1 for one_plus_one, which has one current point");
    }
    for (std::size_t s = 0; s < o.suggested.size(); ++s) {
        if (!of.contains(o.suggested[s])) {
            throw error("search: suggested point " + std::to_string(s), "not in the space",
                        "canonical and within its ranges");
        }
    }
}

/// Constraints known beforehand: only points for which it returns true are ever asked. Empty: all.
using allowed_points = std::function<bool(point const&)>;

} // namespace sofattn::dse
