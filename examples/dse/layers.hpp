// SPDX-License-Identifier: MIT
// Recorded layers as points: tile count and keep ratio of each, and what a run of them says.
#pragma once

#include "attend/dataset.hpp"
#include "attend/runner.hpp"
#include "dse/parts.hpp"
#include "dse/state.hpp"
#include "dse/workers.hpp"
#include <sofattn/core/types.hpp>
#include <sofattn/dse/paper_objective.hpp>
#include <sofattn/dse/space.hpp>
#include <sofattn/probe/complexity.hpp>
#include <sofattn/probe/ledger.hpp>

#include <cstddef>
#include <map>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

namespace sofattn::dse {

/// Tc = S / Bc, and k.
struct layer_setting {
    index_t tiles = 16;
    index_t kept_percent = 10;

    friend constexpr auto operator<=>(layer_setting const&, layer_setting const&) = default;
};

/// One layer at one setting, or means and sums over layers.
struct layer_figures {
    double error = 0;      ///< relative output error, mean over heads
    double operations = 0; ///< counted events of all stages, weighted
};

/// What is made small: Eq. 2 as printed, Eq. 2 with its third term as a share, or counted operations
/// where the error is at most a target.
enum class layer_goal { printed, balanced, operations };

struct layer_options {
    std::string policy = "paper";
    index_t queries = 256; ///< the last ones of every layer; 0: all
    probe::complexity_weights weights = probe::sofa_weights;
    layer_goal goal = layer_goal::operations;
    paper_weights eq2 = find_paper_weights("llama_7b");
    bool one_ratio = false; ///< k is the same in all layers, as in Algorithm 1
    /// k goes up to this. Algorithm 1 stops at 50 %, which is too little where a layer errs by as much as
    /// its output then: the first one of TinyLlama.
    index_t kept_percent_most = most_kept_percent;
    std::optional<double> most_error; ///< of `operations`; nothing: that of Bc = 128, k = 10 %
};

/// The objective of a search over layers. Each (layer, setting) is run once: what a worker found is
/// told to `remember`, and workers forked later know it.
class layer_problem {
public:
    /// error  no layers, a policy that reads no keep ratio, or a most k that is no step of Algorithm 1's
    ///        up to 100 %
    layer_problem(std::vector<attend::layer> layers, layer_options options);

    [[nodiscard]] search_space const& space() const noexcept { return space_; }
    [[nodiscard]] layer_options const& options() const noexcept { return options_; }
    [[nodiscard]] std::vector<attend::layer> const& layers() const noexcept { return layers_; }
    [[nodiscard]] std::size_t violations_count() const noexcept {
        return options_.goal == layer_goal::operations ? 1 : 0;
    }
    [[nodiscard]] json purpose() const;

    [[nodiscard]] std::vector<layer_setting> settings_of(point const& p) const;
    /// All layers alike. pre: a layer may have the setting
    [[nodiscard]] point uniform(layer_setting const& s) const;
    /// That a layer may have.
    [[nodiscard]] std::vector<layer_setting> all_settings() const;

    /// Runs whatever layer is not remembered at its setting.
    [[nodiscard]] evaluation evaluate(point const& p) const;
    /// `evaluate` in parts, which are remembered: layers at a setting, or head groups of them. The figures are
    /// the same to the last bit. This must outlive it.
    [[nodiscard]] parted_objective in_parts(bool by_group);
    /// The details of an evaluation.
    void remember(json const& details);
    /// Nothing where a layer is not remembered.
    [[nodiscard]] std::optional<layer_figures> known(std::vector<layer_setting> const& s) const;
    [[nodiscard]] std::optional<layer_figures> known(std::size_t layer,
                                                     layer_setting const& s) const;

    /// The fewest operations with at most this error that any choice of a setting per layer has, from
    /// the fronts of the layers so far (exact up to some 1000 points of a front, beyond that to a
    /// 20000th of the error per layer). Nothing where some layer lacks a setting, or no choice
    /// reaches the target.
    [[nodiscard]] std::optional<std::vector<layer_setting>> best_known(double most_error) const;
    /// The same of the settings in these details of evaluations alone. A layer's figures do not depend on
    /// the other layers' settings, so what was measured together can be put together anew: never more
    /// operations than the best of the evaluations.
    [[nodiscard]] std::optional<std::vector<layer_setting>>
    recombined(std::vector<json> const& details, double most_error) const;

    void set_most_error(double error) { options_.most_error = error; }

private:
    using figures_of_settings = std::map<std::tuple<std::size_t, layer_setting>, layer_figures>;
    static void remember(json const& details, figures_of_settings& in);
    [[nodiscard]] std::optional<std::vector<layer_setting>>
    best_of(figures_of_settings const& known, double most_error) const;
    /// Some KV heads of a layer at a setting, with the queries that read them.
    struct part {
        std::size_t layer = 0;
        layer_setting setting{};
        index_t first_kv_head = 0;
        index_t kv_heads = 1;

        friend constexpr auto operator<=>(part const&, part const&) = default;
        [[nodiscard]] static part of(point const& numbers);
        [[nodiscard]] point numbers() const;
    };
    struct part_figures {
        std::vector<double> errors{}; ///< [head]
        probe::ledger counts{};
    };
    [[nodiscard]] std::vector<part> parts_of(std::size_t layer, layer_setting const& s,
                                             bool by_group) const;
    [[nodiscard]] part_figures run(part const& p) const;
    [[nodiscard]] layer_figures of(std::vector<part_figures> const& parts) const;
    void keep(part const& p, part_figures figures, bool by_group);
    [[nodiscard]] layer_figures of(std::vector<layer_figures> const& each) const;

    std::vector<attend::layer> layers_;
    layer_options options_;
    attend::named_policy policy_;
    search_space space_;
    figures_of_settings known_;
    std::map<part, part_figures> parts_; ///< of layers that are not known yet
};

} // namespace sofattn::dse
