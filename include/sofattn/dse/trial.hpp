// SPDX-License-Identifier: MIT
// What a search knows: points, what came of them, and which of them are best.
#pragma once

#include <sofattn/core/types.hpp>
#include <sofattn/dse/space.hpp>

#include <algorithm>
#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace sofattn::dse {

/// `failed`: the objective threw, crashed or was not finite. Such a point is never asked again, and
/// the search learns where failures lie.
enum class trial_status { pending, done, failed, timed_out };

[[nodiscard]] constexpr std::string_view name_of(trial_status s) noexcept {
    switch (s) {
    case trial_status::pending: return "pending";
    case trial_status::done: return "done";
    case trial_status::failed: return "failed";
    case trial_status::timed_out: break;
    }
    return "timed_out";
}

/// What came of an evaluation. All objectives are minimised.
struct outcome {
    trial_status status = trial_status::done;
    std::vector<double> objectives{};
    std::vector<double> violations{}; ///< of constraints known only afterwards; > 0: violated
    std::string note{};               ///< why it failed

    [[nodiscard]] static outcome failure(std::string why, trial_status s = trial_status::failed) {
        return {s, {}, {}, std::move(why)};
    }
    friend bool operator==(outcome const&, outcome const&) = default;
};

/// One point that was asked for; ids count from 0 in the order of asking.
struct trial {
    index_t id = 0;
    point at{};
    outcome result{trial_status::pending};

    [[nodiscard]] bool is_done() const noexcept { return result.status == trial_status::done; }
    [[nodiscard]] bool is_feasible() const noexcept {
        return is_done() && std::all_of(result.violations.begin(), result.violations.end(),
                                        [](double v) { return v <= 0.0; });
    }
    friend bool operator==(trial const&, trial const&) = default;
};

/// a is nowhere worse than b and better somewhere. pre: equal sizes
[[nodiscard]] inline bool dominates(std::span<double const> a, std::span<double const> b) noexcept {
    bool better = false;
    for (std::size_t j = 0; j < a.size(); ++j) {
        if (a[j] > b[j]) {
            return false;
        }
        better = better || a[j] < b[j];
    }
    return better;
}

/// Indices of the feasible trials that no other feasible one dominates, by id; of trials with equal
/// objectives the first. With one objective: the best trial.
[[nodiscard]] inline std::vector<std::size_t> pareto_front(std::span<trial const> trials) {
    std::vector<std::size_t> front;
    for (std::size_t i = 0; i < trials.size(); ++i) {
        if (!trials[i].is_feasible()) {
            continue;
        }
        auto const& mine = trials[i].result.objectives;
        bool const beaten = std::any_of(front.begin(), front.end(), [&](std::size_t f) {
            auto const& other = trials[f].result.objectives;
            return other == mine || dominates(other, mine);
        });
        if (!beaten) {
            std::erase_if(
                front, [&](std::size_t f) { return dominates(mine, trials[f].result.objectives); });
            front.push_back(i);
        }
    }
    return front;
}

} // namespace sofattn::dse
