// SPDX-License-Identifier: MIT
#include "dse/layers.hpp"

#include "attend/evaluate.hpp"
#include <sofattn/core/error.hpp>
#include <sofattn/io/file.hpp>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <utility>

namespace sofattn::dse {

namespace {

char const* goal_name(layer_goal goal) {
    return goal == layer_goal::printed    ? "printed"
           : goal == layer_goal::balanced ? "balanced"
                                          : "operations";
}

search_space space_of(std::size_t layers, bool one_ratio, index_t kept_percent_most) {
    if (kept_percent_most < least_kept_percent || kept_percent_most > 100 ||
        (kept_percent_most - least_kept_percent) % kept_percent_step != 0) {
        throw error("largest k in percent", std::to_string(kept_percent_most),
                    "from " + std::to_string(least_kept_percent) + " to 100 in steps of " +
                        std::to_string(kept_percent_step));
    }
    std::vector<dimension> all;
    for (std::size_t l = 0; l < layers; ++l) {
        all.push_back({"tiles_" + std::to_string(l), least_tiles, most_tiles, tiles_step, {}});
    }
    for (std::size_t l = 0; l < (one_ratio ? 1 : layers); ++l) {
        all.push_back({"kept_percent_" + (one_ratio ? "all" : std::to_string(l)),
                       least_kept_percent,
                       kept_percent_most,
                       kept_percent_step,
                       {}});
    }
    return search_space(std::move(all));
}

constexpr std::size_t most_partials = 200000;

/// [[stage, event, count], ...], without zeros.
json to_json(probe::ledger const& counts) {
    json list = json::array();
    for (std::size_t s = 0; s < probe::stage_count; ++s) {
        for (std::size_t e = 0; e < probe::event_count; ++e) {
            auto const n = counts.count(static_cast<probe::stage>(s), static_cast<probe::event>(e));
            if (n > 0) {
                list.push_back({s, e, n});
            }
        }
    }
    return list;
}
probe::ledger ledger_from(json const& list) {
    probe::ledger counts;
    for (json const& one : list) {
        counts(static_cast<probe::stage>(one.at(0).get<int>()),
               static_cast<probe::event>(one.at(1).get<int>()), one.at(2).get<std::uint64_t>());
    }
    return counts;
}

} // namespace

layer_problem::layer_problem(std::vector<attend::layer> layers, layer_options options)
    : layers_(std::move(layers)), options_(std::move(options)),
      policy_(attend::find_policy(options_.policy)),
      space_(space_of(std::max<std::size_t>(layers_.size(), 1), options_.one_ratio,
                      options_.kept_percent_most)) {
    if (layers_.empty()) {
        throw error("number of layers", "0", "at least 1");
    }
    if (!policy_.reads_count()) {
        throw error("policy", io::quoted(options_.policy), "one that keeps a ratio of the keys");
    }
}

json layer_problem::purpose() const {
    json layers = json::array();
    for (attend::layer const& l : layers_) {
        layers.push_back({{"model", l.info.model},
                          {"layer", l.info.layer},
                          {"heads", l.info.heads},
                          {"queries", l.info.queries},
                          {"keys", l.info.keys}});
    }
    return {{"command", "layers"},
            {"layers", layers},
            {"policy", options_.policy},
            {"queries", options_.queries},
            {"weights", options_.weights.name},
            {"objective", goal_name(options_.goal)},
            {"alpha", options_.eq2.alpha},
            {"beta", options_.eq2.beta},
            {"most_error", options_.most_error ? json(*options_.most_error) : json()}};
}

std::vector<layer_setting> layer_problem::settings_of(point const& p) const {
    std::vector<layer_setting> all;
    for (std::size_t l = 0; l < layers_.size(); ++l) {
        all.push_back(
            {space_.value(p, l), space_.value(p, layers_.size() + (options_.one_ratio ? 0 : l))});
    }
    return all;
}

point layer_problem::uniform(layer_setting const& s) const {
    point p(space_.size());
    for (std::size_t d = 0; d < p.size(); ++d) {
        p[d] = d < layers_.size() ? (s.tiles - least_tiles) / tiles_step
                                  : (s.kept_percent - least_kept_percent) / kept_percent_step;
    }
    return p;
}

std::vector<layer_setting> layer_problem::all_settings() const {
    std::vector<layer_setting> all;
    for (index_t t = least_tiles; t <= most_tiles; t += tiles_step) {
        for (index_t k = least_kept_percent; k <= options_.kept_percent_most;
             k += kept_percent_step) {
            all.push_back({t, k});
        }
    }
    return all;
}

layer_problem::part layer_problem::part::of(point const& numbers) {
    return {static_cast<std::size_t>(numbers[0]), {numbers[1], numbers[2]}, numbers[3], numbers[4]};
}
point layer_problem::part::numbers() const {
    return {static_cast<index_t>(layer), setting.tiles, setting.kept_percent, first_kv_head,
            kv_heads};
}

std::vector<layer_problem::part> layer_problem::parts_of(std::size_t layer, layer_setting const& s,
                                                         bool by_group) const {
    index_t const all = layers_[layer].k.view().extent<axis::kv_head>();
    if (!by_group) {
        return {{layer, s, 0, all}};
    }
    std::vector<part> groups;
    for (index_t kv = 0; kv < all; ++kv) {
        groups.push_back({layer, s, kv, 1});
    }
    return groups;
}

layer_problem::part_figures layer_problem::run(part const& p) const {
    attend::layer const& l = layers_[p.layer];
    layer_setting const& s = p.setting;
    attend::layer_views views = attend::layer_views::of(l);
    index_t const group = views.queries.extent<axis::head>() / views.keys.extent<axis::kv_head>();
    views.queries = views.queries.range<axis::head>(p.first_kv_head * group, p.kv_heads * group);
    views.keys = views.keys.range<axis::kv_head>(p.first_kv_head, p.kv_heads);
    views.values = views.values.range<axis::kv_head>(p.first_kv_head, p.kv_heads);
    index_t const rows =
        options_.queries == 0 ? l.info.queries : std::min(options_.queries, l.info.queries);
    // The last query stays at the last key, so the mask is that of the whole layer.
    views.queries = views.queries.range<axis::query>(l.info.queries - rows, rows);
    attend::named_policy policy = policy_;
    policy.options.budget.ratio = static_cast<double>(s.kept_percent) / 100.0;
    policy.options.tile_keys = ceil_div(l.info.keys, s.tiles);
    auto const outcomes = attend::evaluate(views, std::span(&policy, 1), 1, 0, [](double) {});
    part_figures found;
    for (ref::quality const& head : outcomes[0].heads) {
        found.errors.push_back(head.error());
    }
    found.counts = outcomes[0].counts;
    return found;
}

layer_figures layer_problem::of(std::vector<part_figures> const& parts) const {
    std::size_t heads = 0;
    probe::ledger counts; // whole numbers: their sum is the layer's, however it was cut
    for (part_figures const& p : parts) {
        heads += p.errors.size();
        counts += p.counts;
    }
    layer_figures all{0, probe::complexity(counts, options_.weights)};
    for (part_figures const& p : parts) {
        for (double const e : p.errors) { // head by head, as attend::mean_quality adds
            all.error += e / static_cast<double>(heads);
        }
    }
    return all;
}

void layer_problem::keep(part const& p, part_figures figures, bool by_group) {
    parts_[p] = std::move(figures);
    auto const wanted = parts_of(p.layer, p.setting, by_group);
    std::vector<part_figures> all;
    for (part const& one : wanted) {
        auto const found = parts_.find(one);
        if (found == parts_.end()) {
            return;
        }
        all.push_back(found->second);
    }
    known_[{p.layer, p.setting}] = of(all);
    for (part const& one : wanted) {
        parts_.erase(one);
    }
}

parted_objective layer_problem::in_parts(bool by_group) {
    auto const missing = [this, by_group](point const& p) {
        std::vector<point> numbers;
        auto const settings = settings_of(p);
        for (std::size_t l = 0; l < settings.size(); ++l) {
            if (known(l, settings[l])) {
                continue;
            }
            for (part const& one : parts_of(l, settings[l], by_group)) {
                if (!parts_.contains(one)) { // else it waits for another that failed
                    numbers.push_back(one.numbers());
                }
            }
        }
        return numbers;
    };
    return {
        missing,
        [this](point const& numbers) {
            auto const found = run(part::of(numbers));
            return evaluation{{trial_status::done, found.errors, {}, {}}, to_json(found.counts)};
        },
        [this, by_group](point const& numbers, evaluation const& e) {
            keep(part::of(numbers), {e.result.objectives, ledger_from(e.details)}, by_group);
        },
        [this](point const& p) { return evaluate(p); }};
}

layer_figures layer_problem::of(std::vector<layer_figures> const& each) const {
    layer_figures all;
    for (layer_figures const& f : each) {
        all.error += f.error / static_cast<double>(each.size());
        all.operations += f.operations;
    }
    return all;
}

evaluation layer_problem::evaluate(point const& p) const {
    auto const settings = settings_of(p);
    std::vector<layer_figures> each;
    std::vector<index_t> tiles;
    double kept_share = 0;
    json layers = json::array();
    for (std::size_t l = 0; l < layers_.size(); ++l) {
        auto const before = known(l, settings[l]);
        each.push_back(before ? *before : of({run(parts_of(l, settings[l], false).front())}));
        tiles.push_back(settings[l].tiles);
        kept_share += static_cast<double>(settings[l].kept_percent) / 100.0 /
                      static_cast<double>(layers_.size());
        layers.push_back({{"tiles", settings[l].tiles},
                          {"kept_percent", settings[l].kept_percent},
                          {"error", each[l].error},
                          {"operations", each[l].operations}});
    }
    layer_figures const all = of(each);
    evaluation e;
    e.details = {{"error", all.error}, {"operations", all.operations}, {"layers", layers}};
    // The keep ratio cancels from Eq. 2, so a mean of several does no harm.
    auto const keys = static_cast<double>(layers_.front().info.keys);
    switch (options_.goal) {
    case layer_goal::printed:
        e.result.objectives = {paper_objective(all.error, tiles, keys, kept_share, options_.eq2)};
        break;
    case layer_goal::balanced:
        e.result.objectives = {
            balanced_objective(all.error, tiles, keys, kept_share, options_.eq2)};
        break;
    case layer_goal::operations:
        // Sums over layers, as they are: what the kernel's additive part learns soonest.
        e.result.objectives = {all.operations};
        e.result.violations = {all.error / options_.most_error.value_or(1.0) - 1.0};
        break;
    }
    return e;
}

void layer_problem::remember(json const& details) { remember(details, known_); }

void layer_problem::remember(json const& details, figures_of_settings& in) {
    if (!details.is_object() || !details.contains("layers")) {
        return; // of a failed trial
    }
    std::size_t l = 0;
    for (json const& one : details.at("layers")) {
        in[{l++, {one.at("tiles").get<index_t>(), one.at("kept_percent").get<index_t>()}}] = {
            one.at("error").get<double>(), one.at("operations").get<double>()};
    }
}

std::optional<layer_figures> layer_problem::known(std::size_t layer, layer_setting const& s) const {
    auto const found = known_.find({layer, s});
    return found == known_.end() ? std::nullopt : std::optional(found->second);
}
std::optional<layer_figures>
layer_problem::known(std::vector<layer_setting> const& settings) const {
    std::vector<layer_figures> each;
    for (std::size_t l = 0; l < settings.size(); ++l) {
        auto const one = known(l, settings[l]);
        if (!one) {
            return std::nullopt;
        }
        each.push_back(*one);
    }
    return of(each);
}

std::optional<std::vector<layer_setting>> layer_problem::best_known(double most_error) const {
    auto const settings = all_settings();
    for (std::size_t l = 0; l < layers_.size(); ++l) {
        for (layer_setting const& s : settings) {
            if (!known(l, s)) {
                return std::nullopt;
            }
        }
    }
    return best_of(known_, most_error);
}

std::optional<std::vector<layer_setting>>
layer_problem::recombined(std::vector<json> const& details, double most_error) const {
    figures_of_settings measured;
    for (json const& one : details) {
        remember(one, measured);
    }
    return best_of(measured, most_error);
}

std::optional<std::vector<layer_setting>> layer_problem::best_of(figures_of_settings const& known,
                                                                 double most_error) const {
    // Choices for the layers so far that no other beats in both error and operations.
    struct partial {
        layer_figures sum{};
        std::vector<std::uint16_t> chosen{}; ///< [layer], of all_settings
    };
    auto const settings = all_settings();
    auto const layers = static_cast<double>(layers_.size());
    std::vector<partial> front(1);
    for (std::size_t l = 0; l < layers_.size(); ++l) {
        std::vector<partial> next;
        for (std::size_t s = 0; s < settings.size(); ++s) {
            auto const f = known.find({l, settings[s]});
            if (f == known.end()) {
                continue;
            }
            for (partial const& before : front) {
                partial p = before;
                p.sum.error += f->second.error / layers; // as `of` adds
                p.sum.operations += f->second.operations;
                if (p.sum.error <= most_error) {
                    p.chosen.push_back(static_cast<std::uint16_t>(s));
                    next.push_back(std::move(p));
                }
            }
        }
        std::sort(next.begin(), next.end(), [](partial const& a, partial const& b) {
            return std::pair(a.sum.operations, a.sum.error) <
                   std::pair(b.sum.operations, b.sum.error);
        });
        front.clear();
        double least_error = std::numeric_limits<double>::infinity();
        for (partial& p : next) {
            // Errors closer than a 20000th of the target count as equal once there are many.
            double const gain = next.size() > most_partials ? most_error / 20000 : 0.0;
            if (p.sum.error < least_error - gain) {
                least_error = p.sum.error;
                front.push_back(std::move(p));
            }
        }
        if (front.empty()) {
            return std::nullopt;
        }
    }
    std::vector<layer_setting> best;
    for (std::uint16_t const s : front.front().chosen) { // the fewest operations come first
        best.push_back(settings[s]);
    }
    return best;
}

} // namespace sofattn::dse
