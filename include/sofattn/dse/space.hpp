// SPDX-License-Identifier: MIT
// The integer lattice that is searched: named dimensions with ranges and steps, some conditional.
#pragma once

#include <sofattn/core/error.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/dse/random.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace sofattn::dse {

/// A dimension counts only where another one, before it, has a value in [least, most].
struct condition {
    std::size_t on = 0; ///< index of a dimension before this one
    index_t least = 0;
    index_t most = 0;

    friend constexpr bool operator==(condition const&, condition const&) noexcept = default;
};

/// lowest, lowest + step, ..., highest.
struct dimension {
    std::string name;
    index_t lowest = 0;
    index_t highest = 0;
    index_t step = 1;
    std::optional<condition> active_where{};

    [[nodiscard]] constexpr index_t levels() const noexcept {
        return (highest - lowest) / step + 1;
    }
    [[nodiscard]] constexpr index_t value(index_t level) const noexcept {
        return lowest + level * step;
    }
    friend bool operator==(dimension const&, dimension const&) = default;
};

/// A level for every dimension, from 0; 0 where a dimension does not count.
using point = std::vector<index_t>;

/// Dimensions in order. Points that differ only in dimensions that do not count are one point, and
/// written as `canonical` does.
class search_space {
public:
    /// error  no dimension, a name that is empty or there twice, a step below 1, a range that is not
    ///        a whole number of steps or has more than 2^31 levels, a condition on itself or later
    explicit search_space(std::vector<dimension> dimensions) : dimensions_(std::move(dimensions)) {
        if (dimensions_.empty()) {
            throw error("space: number of dimensions", "0", "at least 1");
        }
        for (std::size_t d = 0; d < dimensions_.size(); ++d) {
            check(d);
        }
    }

    [[nodiscard]] std::size_t size() const noexcept { return dimensions_.size(); }
    [[nodiscard]] dimension const& operator[](std::size_t d) const noexcept {
        return dimensions_[d];
    }
    [[nodiscard]] std::vector<dimension> const& dimensions() const noexcept { return dimensions_; }
    friend bool operator==(search_space const&, search_space const&) = default;

    /// Points, were all dimensions to count everywhere; more than 2^53 are not exact.
    [[nodiscard]] double most_points() const noexcept {
        double product = 1.0;
        for (dimension const& d : dimensions_) {
            product *= static_cast<double>(d.levels());
        }
        return product;
    }

    /// Whether dimension d counts at p. pre: p has a level for every dimension
    [[nodiscard]] bool is_active(point const& p, std::size_t d) const noexcept {
        auto const& where = dimensions_[d].active_where;
        if (!where) {
            return true;
        }
        index_t const value = dimensions_[where->on].value(p[where->on]);
        return value >= where->least && value <= where->most && is_active(p, where->on);
    }
    /// The same point with level 0 wherever a dimension does not count.
    [[nodiscard]] point canonical(point p) const {
        for (std::size_t d = 0; d < size(); ++d) { // conditions look back, at canonical levels
            p[d] = is_active(p, d) ? p[d] : 0;
        }
        return p;
    }
    [[nodiscard]] bool contains(point const& p) const {
        if (p.size() != size()) {
            return false;
        }
        for (std::size_t d = 0; d < size(); ++d) {
            if (p[d] < 0 || p[d] >= dimensions_[d].levels()) {
                return false;
            }
        }
        return canonical(p) == p;
    }
    [[nodiscard]] index_t value(point const& p, std::size_t d) const noexcept {
        return dimensions_[d].value(p[d]);
    }

    /// Where p lies in the unit cube: the level over the highest one, and the middle for a dimension
    /// that does not count, since nothing is known of it there.
    void place(point const& p, std::span<double> at) const noexcept {
        for (std::size_t d = 0; d < size(); ++d) {
            index_t const last = dimensions_[d].levels() - 1;
            at[d] = last == 0 || !is_active(p, d)
                        ? 0.5
                        : static_cast<double>(p[d]) / static_cast<double>(last);
        }
    }

    [[nodiscard]] point random_point(random_stream& random) const {
        point p(size());
        for (std::size_t d = 0; d < size(); ++d) {
            p[d] = random.below(dimensions_[d].levels());
        }
        return canonical(std::move(p));
    }

    /// The first point in lexicographic order after `p`, empty after the last; begins with all 0.
    [[nodiscard]] std::optional<point> after(point p) const {
        for (std::size_t d = size(); d-- > 0;) {
            if (is_active(p, d) && p[d] + 1 < dimensions_[d].levels()) {
                ++p[d];
                std::fill(p.begin() + static_cast<index_t>(d) + 1, p.end(), 0);
                return p; // zeros are canonical whatever counts
            }
        }
        return std::nullopt;
    }

private:
    void check(std::size_t d) const {
        dimension const& one = dimensions_[d];
        std::string const where = "space: dimension " + std::to_string(d) + " (" + one.name + ")";
        if (one.name.empty()) {
            throw error(where + ": name", "empty", "a name");
        }
        for (std::size_t before = 0; before < d; ++before) {
            if (dimensions_[before].name == one.name) {
                throw error(where + ": name", "there twice", "another one");
            }
        }
        if (one.step < 1) {
            throw error(where + ": step", std::to_string(one.step), "at least 1");
        }
        constexpr index_t limit = std::numeric_limits<std::int32_t>::max();
        if (one.lowest < -limit || one.highest > limit || one.highest < one.lowest) {
            throw error(where + ": range",
                        std::to_string(one.lowest) + " to " + std::to_string(one.highest),
                        "not empty and within 31 bits");
        }
        if ((one.highest - one.lowest) % one.step != 0) {
            throw error(where + ": range",
                        std::to_string(one.lowest) + " to " + std::to_string(one.highest),
                        "a multiple of its step, " + std::to_string(one.step));
        }
        if (one.active_where && one.active_where->on >= d) {
            throw error(where + ": condition on dimension", std::to_string(one.active_where->on),
                        "one before it");
        }
    }

    std::vector<dimension> dimensions_;
};

} // namespace sofattn::dse
