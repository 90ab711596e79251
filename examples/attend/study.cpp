// SPDX-License-Identifier: MIT
#include "attend/study.hpp"

#include "attend/runner.hpp"
#include <sofattn/attention/attention.hpp>
#include <sofattn/core/error.hpp>
#include <sofattn/dlzs/predict_keys.hpp>
#include <sofattn/exec/executor.hpp>
#include <sofattn/io/table.hpp>
#include <sofattn/rass/schedule.hpp>
#include <sofattn/sads/row_selectors.hpp>
#include <sofattn/sufa/sorted_updating.hpp>

#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdio>
#include <fstream>
#include <map>

namespace sofattn::attend {

namespace {

constexpr std::array ratios{0.05, 0.10, 0.20};

named_policy policy_at(std::string const& ranking, double ratio) {
    named_policy policy = find_policy(ranking + "/full_topk/sufa");
    policy.options.budget = sads::budget::of_ratio(ratio);
    return policy;
}

/// Layers of one model, in order.
std::map<std::string, std::vector<std::size_t>> by_model(dataset const& data,
                                                         std::vector<std::size_t> const& layers) {
    std::map<std::string, std::vector<std::size_t>> models;
    for (std::size_t const at : layers) {
        models[data.layers()[at].model].push_back(at);
    }
    return models;
}

std::string numbers_of(dataset const& data, std::vector<std::size_t> const& layers) {
    std::string text;
    for (std::size_t const at : layers) {
        text += text.empty() ? "" : ",";
        text += std::to_string(data.layers()[at].layer);
    }
    return text;
}

/// Rows before the first are judged only where all rows see all keys.
index_t judged_from(layer_info const& info, index_t first_row) {
    return info.causal ? first_row : 0;
}

void add(mean_quality& sum, mean_quality const& q, double weight) {
    sum.kept_share += weight * q.kept_share;
    sum.recall += weight * q.recall;
    sum.mass += weight * q.mass;
    sum.output_error_relative += weight * q.output_error_relative;
}

/// The paper's whole flow on one layer: K^ from X and Wk, exact top-k of the predicted scores,
/// exact K and V of the kept tokens only.
template <class Predictor, class KeyPrediction>
mean_quality on_demand_quality(layer const& given, double ratio, index_t first_row,
                               on_progress const& progress) {
    projections const& p = *given.projected;
    attention_options options;
    options.budget = sads::budget::of_ratio(ratio);
    sofattn::attention<Predictor, sads::full_topk, sufa::sorted_updating<>, exec::reference,
                       rass::reuse_aware, KeyPrediction> const attend(options);
    auto const run = [&](index_t kv, problem<float> const& group,
                         view<float, axis::head, axis::query, axis::value_dim> output) {
        projected_problem<float> from;
        from.queries = group.queries;
        from.tokens = p.x.view();
        from.key_weights = p.wk.view().template range<axis::kv_head>(kv, 1);
        from.value_weights = p.wv.view().template range<axis::kv_head>(kv, 1);
        if (p.bk.template extent<axis::dim>() > 0) {
            from.key_bias = p.bk.view().template range<axis::kv_head>(kv, 1);
        }
        if (p.bv.template extent<axis::value_dim>() > 0) {
            from.value_bias = p.bv.view().template range<axis::kv_head>(kv, 1);
        }
        from.rotation = p.rotation ? &*p.rotation : nullptr;
        from.causal = group.causal;
        from.scale = group.scale;
        run_output result;
        index_t const queries = given.info.queries;
        result.kept_keys.resize(
            static_cast<std::size_t>(group.queries.template extent<axis::head>() * queries));
        exec::reference x;
        attend(x, from, output, [&](index_t head, index_t query, auto kept) {
            for (auto const& entry : kept) {
                result.kept_keys[static_cast<std::size_t>(head * queries + query)].push_back(
                    entry.key);
            }
        });
        return result;
    };
    return quality_of(layer_views::of(given), run, first_row, progress);
}

std::string number(char const* format, double value) {
    std::array<char, 64> text{};
    std::snprintf(text.data(), text.size(), format, value);
    return text.data();
}

} // namespace

std::vector<study_row> study_ranking(dataset const& data, std::vector<std::size_t> const& layers,
                                     index_t first_row, study_progress const& progress) {
    std::vector<named_policy> policies;
    for (char const* ranking :
         {"exact", "dlzs8", "dlzs16", "lz_keys", "two_sided", "int8", "centred_int4"}) {
        for (double const ratio : ratios) {
            policies.push_back(policy_at(ranking, ratio));
        }
    }
    std::vector<study_row> rows;
    double done = 0;
    for (auto const& entry : by_model(data, layers)) {
        auto const& model = entry.first; // Clang 14 lets no lambda capture a structured binding
        auto const& of_model = entry.second;
        std::vector<std::vector<mean_quality>> by_layer; // [layer][policy]
        for (std::size_t const at : of_model) {
            layer const given = data.load(at);
            auto const outcomes =
                evaluate(layer_views::of(given), policies, policies.size(),
                         judged_from(given.info, first_row), [&](double share) {
                             progress((done + share) / static_cast<double>(layers.size()),
                                      model + ", layer " + std::to_string(given.info.layer));
                         });
            by_layer.emplace_back();
            for (auto const& outcome : outcomes) {
                by_layer.back().push_back(mean_quality::of(outcome.heads));
            }
            done += 1;
        }
        auto const add_means = [&](std::size_t first) {
            auto const count = static_cast<double>(of_model.size() - first);
            for (std::size_t p = 0; p < policies.size(); ++p) {
                study_row row{"ranking",
                              model,
                              numbers_of(data, {of_model.begin() + static_cast<index_t>(first),
                                                of_model.end()}),
                              policies[p].predictor,
                              policies[p].options.budget.ratio,
                              {}};
                for (std::size_t l = first; l < by_layer.size(); ++l) {
                    add(row.quality, by_layer[l][p], 1 / count);
                }
                rows.push_back(std::move(row));
            }
        };
        add_means(0);
        // A decoder's first layers attend to nearly everything; the others are the ones a fixed
        // budget is made for.
        constexpr int diffuse_layers = 3;
        std::size_t sparse = 0;
        while (sparse < of_model.size() && data.layers()[of_model[sparse]].causal &&
               data.layers()[of_model[sparse]].layer < diffuse_layers) {
            ++sparse;
        }
        if (sparse > 0 && sparse < of_model.size()) {
            add_means(sparse);
        }
    }
    return rows;
}

std::vector<study_row> study_keys(dataset const& data, std::vector<std::size_t> const& layers,
                                  index_t first_row, study_progress const& progress) {
    std::vector<study_row> rows;
    double done = 0;
    for (std::size_t const at : layers) {
        layer_info const& info = data.layers()[at];
        done += 1;
        if (!info.has_projections()) {
            continue;
        }
        layer const given = data.load(at, parts::with_projections);
        constexpr double ratio = 0.10;
        constexpr double flows = 4;
        double flow = 0;
        auto const study = [&](std::string const& ranking, auto quality_by) {
            auto const tell = [&](double share) {
                progress((done - 1 + (flow + share) / flows) / static_cast<double>(layers.size()),
                         info.model + ", layer " + std::to_string(info.layer) + ", " + ranking);
            };
            rows.push_back(
                {"keys", info.model, std::to_string(info.layer), ranking, ratio, quality_by(tell)});
            flow += 1;
        };
        index_t const from = judged_from(info, first_row);
        study("K int8, Q int8", [&](auto const& tell) {
            std::vector const policies{policy_at("int8", ratio)};
            return mean_quality::of(
                evaluate(layer_views::of(given), policies, 1, from, tell).front().heads);
        });
        study("X Wk (int8), Q int8", [&](auto const& tell) {
            return on_demand_quality<dlzs::int8, dlzs::integer_weights>(given, ratio, from, tell);
        });
        study("X LZ(Wk), Q int8", [&](auto const& tell) {
            return on_demand_quality<dlzs::int8, dlzs::coded_weights>(given, ratio, from, tell);
        });
        study("X LZ(Wk), LZ(Q)", [&](auto const& tell) {
            return on_demand_quality<dlzs::dlzs8, dlzs::coded_weights>(given, ratio, from, tell);
        });
    }
    return rows;
}

std::string to_text(std::vector<study_row> const& rows) {
    std::string text;
    std::string shown;
    for (std::size_t at = 0; at < rows.size();) {
        std::string const title = rows[at].model + ", layers " + rows[at].layers;
        io::table table({"ranked by", "kept", "recall", "mass", "error"});
        for (; at < rows.size() && rows[at].model + ", layers " + rows[at].layers == title; ++at) {
            auto const& q = rows[at].quality;
            table.add({rows[at].ranking, number("%.0f %%", 100 * rows[at].keep_ratio),
                       number("%.3f", q.recall), number("%.3f", q.mass),
                       number("%.3f", q.output_error_relative)});
        }
        text += title + "\n" + table.markdown() + "\n";
    }
    return text;
}

study_check check_study(std::vector<study_row> const& rows, std::filesystem::path const& expected) {
    std::ifstream file(expected);
    auto const golden = nlohmann::json::parse(file, nullptr, false);
    if (!file.is_open() || golden.is_discarded() || !golden.contains("rows")) {
        throw error(expected.string() + ": expected figures",
                    file.is_open() ? "not what a study writes" : "not readable",
                    "a JSON object with rows");
    }
    study_check check;
    for (auto const& want : golden.at("rows")) {
        auto const found = std::ranges::find_if(rows, [&](study_row const& row) {
            return row.study == want.at("study") && row.layers == want.at("layers") &&
                   row.model.starts_with(want.at("model").get<std::string>()) &&
                   row.ranking == want.at("ranking") && row.keep_ratio == want.at("keep_ratio");
        });
        if (found == rows.end()) {
            continue;
        }
        auto const compare = [&](char const* what, double value) {
            if (!want.contains(what)) {
                return;
            }
            ++check.compared;
            double const target = want.at(what).get<double>();
            double const tolerance =
                golden.at(std::string("tolerance_") + what).get<double>() + 1e-9;
            if (std::abs(value - target) > tolerance) {
                check.deviations.push_back(
                    found->model + " layers " + found->layers + " " + found->ranking +
                    number(" at %g: ", found->keep_ratio) + what + number(" is %.4f", value) +
                    number(", must be %.4f", target) + number(" +- %g", tolerance));
            }
        };
        compare("recall", found->quality.recall);
        compare("mass", found->quality.mass);
        compare("error", found->quality.output_error_relative);
    }
    if (check.compared == 0) {
        throw error(expected.string() + ": rows that this study has too", "0", "at least 1");
    }
    return check;
}

} // namespace sofattn::attend
