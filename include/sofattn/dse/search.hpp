// SPDX-License-Identifier: MIT
// A search that is asked for points and told what came of them.
#pragma once

#include <sofattn/core/error.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/dse/bayesian.hpp>
#include <sofattn/dse/candidates.hpp>
#include <sofattn/dse/options.hpp>
#include <sofattn/dse/space.hpp>
#include <sofattn/dse/trial.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <iterator>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace sofattn::dse {

/// Design-space exploration after Algorithm 1 (section III-D), turned inside out: the caller evaluates,
/// one point at a time or a batch, here or elsewhere, and may stop at any time. The trials are the
/// whole state: a search made from another's space, options and trials goes on as that one would
/// have. A batch is asked before any of it is told, so its size, unlike the order in which its
/// outcomes arrive, is part of what decides the result.
class search {
public:
    /// `allowed`, if given, says which points may be asked; it must always say the same. `trials` of
    /// an earlier search.
    /// error  options or trials that do not fit the space
    explicit search(search_space of, search_options options = {}, allowed_points allowed = {},
                    std::vector<trial> trials = {})
        : space_(std::move(of)), options_(std::move(options)), allowed_(std::move(allowed)) {
        validate(options_, space_);
        for (std::size_t i = 0; i < trials.size(); ++i) {
            std::string const name = "search: trial " + std::to_string(i);
            if (trials[i].id != static_cast<index_t>(i)) {
                throw error(name + ": id", std::to_string(trials[i].id), std::to_string(i));
            }
            if (!space_.contains(trials[i].at)) {
                throw error(name, "not in the space", "canonical and within its ranges");
            }
            if (trials[i].result.status != trial_status::pending) {
                check(trials[i].result, name);
            }
        }
        trials_ = std::move(trials);
    }

    [[nodiscard]] search_space const& space() const noexcept { return space_; }
    [[nodiscard]] search_options const& options() const noexcept { return options_; }
    [[nodiscard]] std::vector<trial> const& trials() const noexcept { return trials_; }

    /// Up to `count` points, pending from now on; fewer, or none, where no open point is left.
    [[nodiscard]] std::vector<trial> ask(index_t count = 1) {
        std::vector<trial> batch;
        for (index_t n = 0; n < count; ++n) {
            auto next = next_point();
            if (!next) {
                break;
            }
            trials_.push_back({static_cast<index_t>(trials_.size()), std::move(*next), {}});
            trials_.back().result.status = trial_status::pending;
            batch.push_back(trials_.back());
        }
        return batch;
    }

    /// What came of a pending trial. A value that is not finite makes it a failed one.
    /// error  no such trial, told already, or a wrong number of values
    void tell(index_t id, outcome result) {
        std::string const name = "search: trial " + std::to_string(id);
        if (id < 0 || id >= static_cast<index_t>(trials_.size())) {
            throw error(name, "unknown", "one that was asked");
        }
        trial& t = trials_[static_cast<std::size_t>(id)];
        if (t.result.status != trial_status::pending) {
            throw error(name, std::string(name_of(t.result.status)), "pending");
        }
        if (result.status == trial_status::done) {
            auto const is_finite = [](double v) { return std::isfinite(v); };
            for (auto const* values : {&result.objectives, &result.violations}) {
                if (!std::all_of(values->begin(), values->end(), is_finite)) {
                    result = outcome::failure("a value is not finite");
                    break;
                }
            }
        }
        check(result, name);
        t.result = std::move(result);
    }

    /// Trials asked and not told.
    [[nodiscard]] std::vector<trial> pending() const {
        std::vector<trial> list;
        std::copy_if(trials_.begin(), trials_.end(), std::back_inserter(list),
                     [](trial const& t) { return t.result.status == trial_status::pending; });
        return list;
    }
    /// The feasible trials that no other dominates, by id; one or none where there is one objective.
    [[nodiscard]] std::vector<trial> front() const {
        std::vector<trial> list;
        for (std::size_t const i : pareto_front(trials_)) {
            list.push_back(trials_[i]);
        }
        return list;
    }

private:
    void check(outcome const& result, std::string const& name) const {
        if (result.status == trial_status::pending) {
            throw error(name + ": outcome", "pending", "done, failed or timed_out");
        }
        bool const done = result.status == trial_status::done;
        std::size_t const objectives = done ? options_.objectives_count : 0;
        std::size_t const violations = done ? options_.violations_count : 0;
        if (result.objectives.size() != objectives) {
            throw error(name + ": number of objectives", std::to_string(result.objectives.size()),
                        std::to_string(objectives));
        }
        if (result.violations.size() != violations) {
            throw error(name + ": number of violations", std::to_string(result.violations.size()),
                        std::to_string(violations));
        }
        for (auto const* values : {&result.objectives, &result.violations}) {
            for (double const v : *values) {
                if (!std::isfinite(v)) {
                    throw error(name + ": value", std::to_string(v), "finite");
                }
            }
        }
    }

    [[nodiscard]] std::optional<point> next_point() {
        auto const id = static_cast<index_t>(trials_.size());
        random_stream random(options_.seed, detail::stream_of(detail::purpose::point, id));
        open_points const open(space_, trials_, allowed_);
        if (auto first = detail::first_point(open, options_, id, random)) {
            return first;
        }
        bool const any_done =
            std::any_of(trials_.begin(), trials_.end(), [](trial const& t) { return t.is_done(); });
        if (options_.by == method::random || !any_done) {
            return open.random(random);
        }
        if (options_.by == method::one_plus_one) {
            return detail::mutated_best(open, trials_, random);
        }
        return bayesian_(open, options_, trials_, id, random);
    }

    search_space space_;
    search_options options_;
    allowed_points allowed_;
    std::vector<trial> trials_;
    bayesian_proposer bayesian_;
};

} // namespace sofattn::dse
