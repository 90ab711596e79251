// SPDX-License-Identifier: MIT
#include "attend/certify.hpp"

#include "attend/evaluate.hpp"
#include "attend/json.hpp"
#include <sofattn/attention/presets.hpp>
#include <sofattn/exec/executor.hpp>
#include <sofattn/io/table.hpp>
#include <sofattn/ref/quality.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdio>
#include <mutex>
#include <span>
#include <utility>

namespace sofattn::attend {

namespace {

std::string number(char const* format, double value) {
    std::array<char, 64> text{};
    std::snprintf(text.data(), text.size(), format, value);
    return text.data();
}

/// What is added up over rows, from any thread.
struct row_sums {
    std::uint64_t rows = 0;
    double kept = 0;
    double visible = 0;
    double mass = 0;
    std::uint64_t reached = 0;
    std::uint64_t mass_violations = 0;
    std::uint64_t error_violations = 0;
    std::vector<double> mass_estimate;
    std::vector<double> mass_bound;
    std::vector<double> error_estimate;
    std::vector<double> error_bound;

    /// `dropped` and `error`: the truth about the row.
    void add(row_certificate const& row, double dropped, double error) {
        mass_violations += dropped > row.dropped_mass_bound ? 1 : 0;
        error_violations += error > row.error_bound ? 1 : 0;
        // Below, rounding of the truth itself decides.
        constexpr double least = 1e-9;
        if (dropped > least) {
            mass_estimate.push_back(row.dropped_mass / dropped);
            mass_bound.push_back(row.dropped_mass_bound / dropped);
        }
        if (dropped > least && row.error > 0 && error > 0) {
            error_estimate.push_back(error / row.error);
            error_bound.push_back(row.error_bound / error);
        }
    }
    void add(row_sums const& other) {
        rows += other.rows;
        kept += other.kept;
        visible += other.visible;
        mass += other.mass;
        reached += other.reached;
        mass_violations += other.mass_violations;
        error_violations += other.error_violations;
        for (auto const& [into, from] : {std::pair(&mass_estimate, &other.mass_estimate),
                                         std::pair(&mass_bound, &other.mass_bound),
                                         std::pair(&error_estimate, &other.error_estimate),
                                         std::pair(&error_bound, &other.error_bound)}) {
            into->insert(into->end(), from->begin(), from->end());
        }
    }
};

/// Runs a head group and judges all its rows from `first_row` on.
template <class Attention>
row_sums certify_group(attention_options const& options, problem<float> const& given,
                       index_t first_row) {
    problem_shape const shape = given.shape();
    auto const rows = static_cast<std::size_t>(shape.heads * shape.queries);
    std::vector<row_certificate> certificates(rows);
    std::vector<std::vector<key_id>> kept(rows);
    tensor<float, axis::head, axis::query, axis::value_dim> output(
        {shape.heads, shape.queries, shape.value_dim});
    auto const at = [&](index_t head, index_t query) {
        return static_cast<std::size_t>(head * shape.queries + query);
    };
    exec::reference x;
    Attention const attend(options);
    attend(
        x, given, output.view(),
        [&](index_t head, index_t query, auto const& of_run) {
            for (auto const& entry : of_run) {
                kept[at(head, query)].push_back(entry.key);
            }
        },
        [&](index_t head, index_t query, row_certificate const& row) {
            certificates[at(head, query)] = row;
        });
    row_sums sums;
    auto const keys = given.keys.template slice<axis::kv_head>(0);
    auto const values = given.values.template slice<axis::kv_head>(0);
    for (index_t h = 0; h < shape.heads; ++h) {
        for (index_t q = first_row; q < shape.queries; ++q) {
            ref::row_truth const truth(
                given.queries.template slice<axis::head>(h).template slice<axis::query>(q), keys,
                values, shape.visible(q), shape.scale);
            auto const quality =
                truth.judge(kept[at(h, q)],
                            std::span(&output(h, q, 0), static_cast<std::size_t>(shape.value_dim)));
            // Not 1 - mass, which would cancel where little is dropped.
            double dropped = 0;
            std::ranges::sort(kept[at(h, q)]);
            for (index_t k = 0; k < shape.visible(q); ++k) {
                if (!std::ranges::binary_search(kept[at(h, q)], static_cast<key_id>(k))) {
                    dropped += truth.weights()[static_cast<std::size_t>(k)];
                }
            }
            sums.rows += 1;
            sums.kept += quality.kept;
            sums.visible += quality.visible;
            sums.mass += quality.mass_sum;
            sums.reached += quality.mass_sum >= options.budget.mass.value_or(0.0) - 0.01 ? 1 : 0;
            sums.add(certificates[at(h, q)], dropped, std::sqrt(quality.error_square));
        }
    }
    return sums;
}

using group_certifier = row_sums (*)(attention_options const&, problem<float> const&, index_t);

/// A policy with what certifies it.
struct certified_policy {
    std::string name;
    attention_options options;
    group_certifier run;
};

template <class Attender, class Tail>
certified_policy policy_of(attention_options options) {
    using predictor = presets::recommended::predictor;
    using selector = presets::recommended::selector;
    using pipeline_type = sofattn::attention<predictor, selector, Attender, exec::reference,
                                             rass::reuse_aware, dlzs::coded_weights, Tail>;
    return {std::string(predictor::name) + "/" + selector::name + "/" + Attender::name +
                (Tail::by == sufa::stand_in::nobody ? "" : "/" + std::string(Tail::name)),
            std::move(options), certify_group<pipeline_type>};
}

std::vector<certified_policy> certified_policies() {
    using computing = sufa::sorted_updating<sufa::descending, sufa::recomputed>;
    using reusing = sufa::sorted_updating<sufa::descending, sufa::reused>;
    std::vector<certified_policy> policies;
    for (double const mass : {0.80, 0.90, 0.95, 0.98, 0.99}) {
        attention_options options;
        options.budget = sads::budget::of_mass(mass);
        policies.push_back(policy_of<computing, sufa::no_tail>(std::move(options)));
    }
    policies.push_back(policy_of<computing, sufa::segment_tail>(presets::recommended::options()));
    policies.push_back(policy_of<reusing, sufa::segment_tail>(presets::recommended::options()));
    return policies;
}

certified_layer summary(layer_info const& info, certified_policy const& policy,
                        row_sums const& sums) {
    certified_layer result;
    result.model = info.model;
    result.layer = info.layer;
    result.policy = policy.name;
    result.mass = policy.options.budget.mass.value_or(0.0);
    result.rows_count = sums.rows;
    auto const rows = static_cast<double>(sums.rows);
    result.kept_share = sums.kept / sums.visible;
    result.kept_mass = sums.mass / rows;
    result.kept_mass_reached = static_cast<double>(sums.reached) / rows;
    result.mass_estimate = spread_of_ratios::of(sums.mass_estimate);
    result.mass_bound = spread_of_ratios::of(sums.mass_bound);
    result.mass_bound_violations_count = sums.mass_violations;
    result.error_estimate = spread_of_ratios::of(sums.error_estimate);
    auto const within = std::ranges::count_if(
        sums.error_estimate, [](double ratio) { return 0.5 <= ratio && ratio <= 2.0; });
    result.error_within_2x =
        sums.error_estimate.empty()
            ? 1.0
            : static_cast<double>(within) / static_cast<double>(sums.error_estimate.size());
    result.error_bound = spread_of_ratios::of(sums.error_bound);
    result.error_bound_violations_count = sums.error_violations;
    return result;
}

} // namespace

spread_of_ratios spread_of_ratios::of(std::vector<double> ratios) {
    if (ratios.empty()) {
        return {};
    }
    std::ranges::sort(ratios);
    auto const at = [&](double share) {
        return ratios[static_cast<std::size_t>(share * static_cast<double>(ratios.size() - 1))];
    };
    return {at(0.025), at(0.5), at(0.975)};
}

std::vector<certified_layer> study_certificates(dataset const& data,
                                                std::vector<std::size_t> const& layers,
                                                index_t first_row, study_progress const& progress) {
    auto const policies = certified_policies();
    std::vector<certified_layer> result;
    double done = 0;
    for (std::size_t const at : layers) {
        layer const given = data.load(at);
        layer_info const& info = given.info;
        index_t const from = info.causal ? std::min(first_row, info.queries - 1) : 0;
        auto const groups = static_cast<std::size_t>(info.kv_heads);
        std::vector<std::vector<row_sums>> by_group(groups, std::vector<row_sums>(policies.size()));
        std::mutex telling;
        for_each_head_group(layer_views::of(given), [&](index_t kv, problem<float> const& group) {
            for (std::size_t p = 0; p < policies.size(); ++p) {
                by_group[static_cast<std::size_t>(kv)][p] =
                    policies[p].run(policies[p].options, group, from);
                std::scoped_lock const lock(telling);
                done += 1 / static_cast<double>(groups * policies.size());
                progress(done / static_cast<double>(layers.size()),
                         info.model + ", layer " + std::to_string(info.layer));
            }
        });
        for (std::size_t p = 0; p < policies.size(); ++p) {
            row_sums sums;
            for (auto const& group : by_group) {
                sums.add(group[p]);
            }
            result.push_back(summary(info, policies[p], sums));
        }
    }
    return result;
}

std::string to_text(std::vector<certified_layer> const& layers) {
    std::string text =
        "Keys kept by mass: " + policy_of<sufa::sorted_updating<>, sufa::no_tail>({}).name +
        "; by error: the same with segment_means,\n"
        "reused: and with sufa_reusing. Ratios over rows: from the 2.5th to the 97.5th percentile, "
        "or "
        "the\nmedian (and the 97.5th); over: rows whose truth is beyond the bound.\n\n";
    auto const range = [](spread_of_ratios const& s) {
        return number("%.2f", s.low) + " to " + number("%.2f", s.high);
    };
    auto const typical = [](spread_of_ratios const& s) {
        return number("%.2f", s.median) + " (" + number("%.3g", s.high) + ")";
    };
    for (std::size_t at = 0; at < layers.size();) {
        auto const& first = layers[at];
        io::table table({"by", "kept", "mass", "reached", "estimate / dropped", "bound / dropped",
                         "over", "error / estimate", "in 2x", "bound / error", "over"});
        for (; at < layers.size() && layers[at].model == first.model &&
               layers[at].layer == first.layer;
             ++at) {
            auto const& one = layers[at];
            bool const by_mass = one.mass > 0;
            bool const reuses = one.policy.find("reusing") != std::string::npos;
            table.add({by_mass  ? "mass " + number("%.2f", one.mass)
                       : reuses ? "error, reused"
                                : "error",
                       number("%.1f %%", 100 * one.kept_share), number("%.3f", one.kept_mass),
                       by_mass ? number("%.1f %%", 100 * one.kept_mass_reached) : "",
                       range(one.mass_estimate), typical(one.mass_bound),
                       std::to_string(one.mass_bound_violations_count), range(one.error_estimate),
                       number("%.1f %%", 100 * one.error_within_2x), typical(one.error_bound),
                       std::to_string(one.error_bound_violations_count)});
        }
        text += first.model + ", layer " + std::to_string(first.layer) + ", " +
                std::to_string(first.rows_count) + " rows\n" + table.text() + "\n";
    }
    return text;
}

nlohmann::ordered_json to_json(std::vector<certified_layer> const& layers) {
    return {{"certificates", detail::value_to_json(layers)}};
}

} // namespace sofattn::attend
