// SPDX-License-Identifier: MIT
// What a point promises: logarithm of expected improvement, times the chance that it is feasible.
#pragma once

#include <sofattn/dse/candidates.hpp>
#include <sofattn/dse/elementary.hpp>
#include <sofattn/dse/gaussian_process.hpp>
#include <sofattn/dse/space.hpp>

#include <algorithm>
#include <cstddef>
#include <limits>
#include <optional>
#include <span>
#include <utility>
#include <vector>

namespace sofattn::dse {

/// Expected improvement over the best feasible value, in logarithms, since far from it the product
/// itself is 0 in double precision and gives no direction (Ament et al. 2023, "Unexpected
/// improvements to expected improvement"). Constraints multiply (Gardner et al. 2014). Where nothing
/// feasible is known yet, the chance of feasibility alone.
class promise {
public:
    /// Processes of the objective (to be minimised) and of every constraint (feasible below 0);
    /// `best` in the objective process's units.
    promise(gaussian_process& objective, std::span<gaussian_process> constraints,
            std::optional<double> best)
        : objective_(objective), constraints_(constraints), best_(best) {}

    [[nodiscard]] double operator()(std::span<double const> place) const {
        double score = 0.0;
        if (best_) {
            prediction const p = objective_.predict(place);
            score = logarithm(p.deviation) + log_expected_gain((*best_ - p.mean) / p.deviation);
        }
        for (gaussian_process& c : constraints_) {
            prediction const p = c.predict(place);
            score += log_normal_share(-p.mean / p.deviation);
        }
        return score;
    }

private:
    gaussian_process& objective_;
    std::span<gaussian_process> constraints_;
    std::optional<double> best_;
};

/// How much of a local search is done; a climb takes some hundred evaluations in 13 dimensions.
struct climb_options {
    std::size_t random_points = 100; ///< looked at first
    std::size_t random_starts = 2;   ///< the best of them
    int passes = 8;                  ///< over all dimensions, at most, per start
};

namespace detail {

/// A point and what it promises.
struct scored_point {
    point at{};
    double score = -std::numeric_limits<double>::infinity();
};

/// Coordinate ascent on the lattice: in random order, every dimension that counts is moved a step
/// either way and to one random level; the first improvement is taken, until a pass finds none.
/// A start that is not open has the score of -infinity, so any open neighbour is taken.
template <class Score>
void climb(scored_point& from, open_points const& open, Score const& score, int passes,
           random_stream& random) {
    search_space const& in = open.space();
    std::vector<std::size_t> order(in.size());
    for (std::size_t d = 0; d < order.size(); ++d) {
        order[d] = d;
    }
    std::size_t since = 0; // dimensions without an improvement
    for (int pass = 0; pass < passes; ++pass) {
        for (std::size_t d = order.size(); d-- > 1;) {
            std::swap(order[d],
                      order[static_cast<std::size_t>(random.below(static_cast<index_t>(d) + 1))]);
        }
        for (std::size_t const d : order) {
            if (since > in.size()) {
                return;
            }
            ++since;
            index_t const last = in[d].levels() - 1;
            index_t const any = random.below(last + 1);
            if (!in.is_active(from.at, d)) {
                continue;
            }
            for (index_t const step : {index_t{1}, index_t{-1}, any - from.at[d]}) {
                index_t const level = from.at[d] + step;
                if (step == 0 || level < 0 || level > last) {
                    continue;
                }
                point p = from.at;
                p[d] = level;
                p = in.canonical(std::move(p));
                if (!open(p)) {
                    continue;
                }
                double const s = score(p);
                if (s > from.score) {
                    from = {std::move(p), s};
                    since = 0;
                    break;
                }
            }
        }
    }
}

} // namespace detail

/// The open point that promises most, as far as climbs from `starts` (which need not be open) and
/// from the best of some random points find it; nothing if no open point was met.
[[nodiscard]] inline std::optional<point>
most_promising(promise const& of, std::span<point const> starts, open_points const& open,
               climb_options const& options, random_stream& random) {
    std::vector<double> place(open.space().size());
    auto const score = [&](point const& p) {
        open.space().place(p, place);
        return of(place);
    };
    std::vector<detail::scored_point> from;
    for (std::size_t n = 0; n < options.random_points; ++n) {
        point p = open.space().random_point(random);
        if (open(p)) {
            double const s = score(p);
            from.push_back({std::move(p), s});
        }
    }
    std::stable_sort(from.begin(), from.end(),
                     [](auto const& a, auto const& b) { return a.score > b.score; });
    from.resize(std::min(from.size(), options.random_starts));
    for (point const& p : starts) {
        from.push_back({p});
        if (open(p)) {
            from.back().score = score(p);
        }
    }
    detail::scored_point best;
    for (auto& start : from) {
        detail::climb(start, open, score, options.passes, random);
        if (start.score > best.score) {
            best = start;
        }
    }
    if (best.at.empty()) {
        return open.random(random);
    }
    return best.at;
}

} // namespace sofattn::dse
