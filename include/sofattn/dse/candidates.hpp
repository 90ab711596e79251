// SPDX-License-Identifier: MIT
// Points that may be asked next, and how the simple searches choose among them.
#pragma once

#include <sofattn/core/types.hpp>
#include <sofattn/dse/options.hpp>
#include <sofattn/dse/random.hpp>
#include <sofattn/dse/space.hpp>
#include <sofattn/dse/trial.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <set>
#include <span>
#include <utility>
#include <vector>

namespace sofattn::dse {

/// Which points are left: allowed, and not asked before (an objective gives the same value twice).
class open_points {
public:
    open_points(search_space const& of, std::span<trial const> trials,
                allowed_points const& allowed)
        : space_(of), allowed_(allowed) {
        for (trial const& t : trials) {
            tried_.insert(t.at);
        }
    }

    [[nodiscard]] search_space const& space() const noexcept { return space_; }
    /// pre: the space contains p
    [[nodiscard]] bool operator()(point const& p) const {
        return !tried_.contains(p) && (!allowed_ || allowed_(p));
    }
    /// A random one. Where a thousand draws find none, the first in lexicographic order, in spaces of
    /// up to 2^20 points; nothing if there is none, or none was found.
    [[nodiscard]] std::optional<point> random(random_stream& random) const {
        constexpr int draws = 1000;
        for (int n = 0; n < draws; ++n) {
            point p = space_.random_point(random);
            if ((*this)(p)) {
                return p;
            }
        }
        if (space_.most_points() <= 0x1p20) {
            std::optional<point> p = point(space_.size(), 0);
            while (p && !(*this)(*p)) {
                p = space_.after(std::move(*p));
            }
            return p;
        }
        return std::nullopt;
    }

private:
    search_space const& space_;
    allowed_points const& allowed_;
    std::set<point> tried_;
};

namespace detail {

/// Streams of a seed, so that no two purposes share numbers.
enum class purpose : std::uint64_t { design, point, weights, fit_weights };

[[nodiscard]] constexpr std::uint64_t stream_of(purpose p, index_t n) noexcept {
    return (static_cast<std::uint64_t>(p) << 48) + static_cast<std::uint64_t>(n);
}

/// Point `n` of a Latin hypercube of `count`: in every dimension, each count-th part of the range is
/// drawn once.
[[nodiscard]] inline point latin_point(search_space const& of, std::uint64_t seed, index_t n,
                                       index_t count) {
    point p(of.size());
    for (std::size_t d = 0; d < of.size(); ++d) {
        random_stream random(seed, stream_of(purpose::design, static_cast<index_t>(d)));
        std::vector<index_t> order(static_cast<std::size_t>(count));
        for (std::size_t i = 0; i < order.size(); ++i) { // inside-out shuffle
            auto const j = static_cast<std::size_t>(random.below(static_cast<index_t>(i) + 1));
            order[i] = order[j];
            order[j] = static_cast<index_t>(i);
        }
        double within = 0.0;
        for (index_t i = 0; i <= n; ++i) {
            within = random.unit();
        }
        double const at = (static_cast<double>(order[static_cast<std::size_t>(n)]) + within) /
                          static_cast<double>(count);
        auto const levels = of[d].levels();
        p[d] = std::min(levels - 1, static_cast<index_t>(at * static_cast<double>(levels)));
    }
    return of.canonical(std::move(p));
}

/// What every method asks first: suggestions, then the design, of which points that are not open
/// become random ones.
[[nodiscard]] inline std::optional<point> first_point(open_points const& open,
                                                      search_options const& options, index_t id,
                                                      random_stream& random) {
    auto const suggested = static_cast<index_t>(options.suggested.size());
    if (id < suggested) {
        point const& p = options.suggested[static_cast<std::size_t>(id)];
        return open(p) ? std::optional(p) : open.random(random);
    }
    index_t const count = options.first_points(open.space());
    if (id < suggested + count && options.by == method::bayesian) {
        point p = latin_point(open.space(), options.seed, id - suggested, count);
        return open(p) ? std::optional(std::move(p)) : open.random(random);
    }
    return std::nullopt;
}

/// (1+1) search on the lattice: the best trial so far with every dimension changed with probability
/// 1 / dimensions, at least one, by a step either way or, one time in four, to any level. After 40
/// random points, or a fifth of what the space has.
[[nodiscard]] inline std::optional<point>
mutated_best(open_points const& open, std::span<trial const> trials, random_stream& random) {
    search_space const& in = open.space();
    auto const front = pareto_front(trials);
    double const random_first = std::min(40.0, 0.2 * in.most_points());
    if (front.empty() || static_cast<double>(trials.size()) < random_first) {
        return open.random(random);
    }
    auto const dims = static_cast<index_t>(in.size());
    for (int attempt = 0; attempt < 1000; ++attempt) {
        point p = trials[front.front()].at;
        index_t const forced = random.below(dims);
        for (index_t d = 0; d < dims; ++d) {
            if (d != forced && random.below(dims) != 0) {
                continue;
            }
            auto const at = static_cast<std::size_t>(d);
            index_t const last = in[at].levels() - 1;
            index_t const kind = random.below(8);
            p[at] = kind < 2 ? random.below(last + 1)
                             : std::clamp<index_t>(p[at] + (kind % 2 == 0 ? 1 : -1), 0, last);
        }
        p = in.canonical(std::move(p));
        if (open(p)) {
            return p;
        }
    }
    return open.random(random);
}

} // namespace detail

} // namespace sofattn::dse
