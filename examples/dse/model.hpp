// SPDX-License-Identifier: MIT
// A language model's loss under budgets of its heads: windows of text, their dense passes, and what
// is measured on them.
#pragma once

#include "dse/head_curves.hpp"
#include "dse/model_options.hpp"
#include "dse/state.hpp"
#include "lm/decoder.hpp"
#include "lm/method.hpp"
#include "lm/perplexity.hpp"
#include <sofattn/core/types.hpp>
#include <sofattn/exec/parallel.hpp>

#include <array>
#include <cstddef>
#include <functional>
#include <span>
#include <string>
#include <vector>

namespace sofattn::dse {

/// One way to attend on one or several windows, means over their judged tokens.
struct model_figures {
    double kept_share = 0; ///< mean over layers
    double kl = 0;         ///< from dense, nats
    double loss = 0;       ///< nats
    double same_top_share = 0;
};

[[nodiscard]] json to_json(model_figures const& f);
[[nodiscard]] model_figures model_figures_from(json const& object);
/// pre: at least one
[[nodiscard]] model_figures mean_of(std::vector<model_figures> const& windows);

/// Windows of all parts, spread evenly over a text, so that each part is like the text; and the
/// model's dense pass over each. Everything that runs layers may be called from several threads or
/// forked processes.
class model_problem {
public:
    /// Cuts the text. The model must outlive this.
    /// error  as lm::windows_of; a text of fewer windows than the parts take
    model_problem(lm::decoder const& model, std::span<lm::token_id const> text,
                  model_options const& options);

    /// The dense passes, `at_once` windows at a time, each on a thread of its own.
    /// error  a token that the model does not have
    void run_dense(index_t at_once, std::function<void(double share)> const& progress);

    [[nodiscard]] lm::model_config const& model() const noexcept { return model_->config(); }
    [[nodiscard]] model_options const& options() const noexcept { return options_; }
    /// What figures depend on: model, windows, and that the dense model predicts them so well.
    /// pre: run_dense
    [[nodiscard]] json purpose() const;
    /// Of the dense model, mean over the part's windows. pre: run_dense
    [[nodiscard]] double dense_loss(part p) const;

    /// One window of a part with every layer attending so. pre: run_dense
    [[nodiscard]] model_figures run(part p, index_t window, lm::attention_method const& method,
                                    exec::openmp const& on) const;

    /// One head with each of these budgets and all others dense, mean over the search windows. Runs
    /// the layers from the head's own on. pre: run_dense
    [[nodiscard]] std::vector<head_sample> measure_head(index_t layer, index_t head,
                                                        std::span<double const> spreads,
                                                        exec::openmp const& on) const;

private:
    struct dense_window {
        std::vector<lm::token_id> tokens;
        /// What every layer is given, [layer][token, hidden]; of search windows only.
        std::vector<std::vector<float>> layer_states;
        std::vector<float> states; ///< of the last layer, normalised
        double loss = 0;
    };
    void pass(part p, dense_window& w) const;
    [[nodiscard]] std::vector<dense_window> const& windows(part p) const noexcept {
        return windows_[static_cast<std::size_t>(p)];
    }

    lm::decoder const* model_;
    model_options options_;
    std::array<std::vector<dense_window>, 3> windows_; ///< [part]
    std::string text_hash_;                            ///< of all windows' tokens
    index_t windows_in_text_ = 0;
};

} // namespace sofattn::dse
