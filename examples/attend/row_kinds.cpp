// SPDX-License-Identifier: MIT
#include "attend/row_kinds.hpp"

#include "attend/evaluate.hpp"
#include "attend/json.hpp"
#include <sofattn/core/assert.hpp>
#include <sofattn/io/svg.hpp>
#include <sofattn/io/table.hpp>
#include <sofattn/ref/quality.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <mutex>

namespace sofattn::attend {

namespace {

constexpr std::array masses{0.5, 0.8, 0.9};
using kind_counts = std::array<std::uint64_t, 3>;

/// Of a head group, under every mass.
std::array<kind_counts, masses.size()> count_kinds(problem<float> const& given, index_t first_row) {
    problem_shape const shape = given.shape();
    auto const keys = given.keys.template slice<axis::kv_head>(0);
    auto const values = given.values.template slice<axis::kv_head>(0);
    std::array<kind_counts, masses.size()> counts{};
    for (index_t h = 0; h < shape.heads; ++h) {
        for (index_t q = first_row; q < shape.queries; ++q) {
            ref::row_truth const truth(
                given.queries.template slice<axis::head>(h).template slice<axis::query>(q), keys,
                values, shape.visible(q), shape.scale);
            for (std::size_t m = 0; m < masses.size(); ++m) {
                row_rule rule;
                rule.mass = masses[m];
                auto const kind = kind_of(rule, truth.weights(), truth.best_first());
                ++counts[m][static_cast<std::size_t>(kind)];
            }
        }
    }
    return counts;
}

} // namespace

row_kind kind_of(row_rule const& rule, std::span<double const> weights,
                 std::span<key_id const> best_first) {
    SOFATTN_ASSERT(!weights.empty() && weights.size() == best_first.size());
    std::vector<index_t> in_region(static_cast<std::size_t>(rule.regions));
    index_t dominant = 0;
    double carried = 0;
    for (key_id const key : best_first) {
        if (carried >= rule.mass) {
            break;
        }
        carried += weights[static_cast<std::size_t>(key)];
        ++dominant;
        ++in_region[static_cast<std::size_t>(static_cast<index_t>(key) * rule.regions /
                                             std::ssize(weights))];
    }
    if (dominant <= rule.few_keys) {
        return row_kind::few;
    }
    auto const most = static_cast<double>(*std::ranges::max_element(in_region));
    return most >= rule.region_share * static_cast<double>(dominant) ? row_kind::concentrated
                                                                     : row_kind::spread;
}

std::vector<layer_row_kinds> study_row_kinds(dataset const& data,
                                             std::vector<std::size_t> const& layers,
                                             index_t first_row, study_progress const& progress) {
    std::vector<layer_row_kinds> result;
    double done = 0;
    for (std::size_t const at : layers) {
        layer const given = data.load(at);
        layer_info const& info = given.info;
        index_t const from = info.causal ? std::min(first_row, info.queries - 1) : 0;
        std::array<kind_counts, masses.size()> all{};
        std::mutex adding; // counts: their sum does not depend on the order
        for_each_head_group(layer_views::of(given), [&](index_t, problem<float> const& group) {
            auto const counts = count_kinds(group, from);
            std::scoped_lock const lock(adding);
            for (std::size_t m = 0; m < masses.size(); ++m) {
                for (std::size_t kind = 0; kind < all[m].size(); ++kind) {
                    all[m][kind] += counts[m][kind];
                }
            }
            done += 1 / static_cast<double>(info.kv_heads);
            progress(done / static_cast<double>(layers.size()),
                     info.model + ", layer " + std::to_string(info.layer));
        });
        for (std::size_t m = 0; m < masses.size(); ++m) {
            layer_row_kinds one{info.model,
                                info.layer,
                                info.causal,
                                masses[m],
                                all[m][0] + all[m][1] + all[m][2],
                                0,
                                0,
                                0};
            auto const share = [&](row_kind kind) {
                return static_cast<double>(all[m][static_cast<std::size_t>(kind)]) /
                       static_cast<double>(one.rows_count);
            };
            one.few_share = share(row_kind::few);
            one.spread_share = share(row_kind::spread);
            one.concentrated_share = share(row_kind::concentrated);
            result.push_back(std::move(one));
        }
    }
    return result;
}

std::string to_text(std::vector<layer_row_kinds> const& layers) {
    row_rule const rule;
    std::string text = "Kinds of rows by their dominant keys, the fewest that carry the mass: I up "
                       "to " +
                       std::to_string(rule.few_keys) + ",\nIII more, " +
                       io::formatted("%.0f %%", 100 * rule.region_share) + " of them in one of " +
                       std::to_string(rule.regions) +
                       " regions, II others. The paper (Fig. 8) gives no rule.\n\n";
    io::table table({"layer", "mass", "rows", "I few", "II spread", "III one region"});
    for (auto const& one : layers) {
        auto const percent = [](double share) { return io::formatted("%.1f %%", 100 * share); };
        table.add({one.model.substr(0, one.model.find(' ')) + " " + std::to_string(one.layer),
                   io::formatted("%.1f", one.mass), std::to_string(one.rows_count),
                   percent(one.few_share), percent(one.spread_share),
                   percent(one.concentrated_share)});
    }
    return text + table.text();
}

nlohmann::ordered_json to_json(std::vector<layer_row_kinds> const& layers) {
    return {{"row_kinds", detail::value_to_json(layers)}};
}

} // namespace sofattn::attend
