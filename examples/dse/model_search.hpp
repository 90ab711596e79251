// SPDX-License-Identifier: MIT
// The search for a model's budgets: from uniform ones to measured heads to weights per layer.
#pragma once

#include "dse/head_curves.hpp"
#include "dse/model.hpp"
#include "dse/run_log.hpp"
#include "dse/workers.hpp"
#include <sofattn/core/types.hpp>
#include <sofattn/dse/space.hpp>

#include <optional>
#include <string>
#include <vector>

namespace sofattn::dse {

/// Budgets of one kind, as large as a KL allows, and what they come to.
struct model_level {
    std::string name; ///< of the method, as sofattn-lm takes it where it does
    model_figures figures;
    std::vector<model_figures> windows; ///< each
    head_allocation heads{};            ///< empty for uniform budgets
};

/// Rivals with one budget for all heads.
enum class uniform_budget { mass, output_error };

/// Measures through a log, so that nothing is run twice. A point is a weight per layer: 2^(w / 4)
/// times what its heads' measured KL counts when keys are shared out.
class model_search {
public:
    /// All must outlive this. `threads` of OpenMP per run; 0: its own choice.
    model_search(model_problem const& problem, run_log& log, run_options const& options,
                 index_t threads);

    [[nodiscard]] static search_space space_of(index_t layers);
    [[nodiscard]] search_space space() const { return space_of(problem_->model().layers); }
    /// Every layer's heads count as they were measured.
    [[nodiscard]] point even() const;
    [[nodiscard]] std::vector<double> weights_of(point const& p) const;

    /// The largest budget for all heads alike whose mean KL on the part's windows is at most so much,
    /// and no more than 1 % below.
    /// error  a KL that no budget reaches
    [[nodiscard]] model_level uniform(part p, uniform_budget kind, double most_kl);

    /// Each head alone, with a third of, once, three and nine times the uniform budget that makes
    /// `most_kl` on the search windows; then how far the sum of heads is from the model.
    /// error  as uniform
    void measure(double most_kl);

    /// The most frugal budgets with these weights at most so much KL on the part's windows, close
    /// to it. pre: measure
    /// error  a KL that is below that of the smallest budgets measured
    [[nodiscard]] model_level heads(part p, point const& weights, double most_kl);

    /// Budgets as they are, on the judge windows.
    [[nodiscard]] model_level judge(model_level const& settled);

    /// Kept share on the search windows at the KL of `measure`, between or near two runs. The details
    /// say what they were. pre: measure
    [[nodiscard]] evaluation evaluate(point const& p) const;

    /// What the KL on settle windows should be at most, so that the judge windows' mean exceeds
    /// `most_kl` in one case of twenty: by how much windows differ, and how many there are. Assumes
    /// that means are normal. pre: measure
    [[nodiscard]] double settle_kl(point const& weights, double most_kl);

private:
    [[nodiscard]] std::vector<model_figures> windows_of(part p, lm::attention_method const& method);
    [[nodiscard]] static lm::attention_method method_of(head_allocation const& a);
    [[nodiscard]] model_figures run_search(head_allocation const& a) const;

    model_problem const* problem_;
    run_log* log_;
    run_options options_;
    index_t threads_;
    std::optional<head_curves> curves_;
    double most_kl_ = 0;      ///< of `measure`
    double predicted_kl_ = 0; ///< sum of heads at which the model has it, weights even
};

} // namespace sofattn::dse
