// SPDX-License-Identifier: MIT
#include "attend/runner.hpp"

#include "attend/compose.hpp"
#include <sofattn/attention/presets.hpp>
#include <sofattn/core/error.hpp>
#include <sofattn/io/file.hpp>

#include <boost/hana/for_each.hpp>

#include <array>
#include <cstddef>
#include <tuple>
#include <utility>
#include <vector>

namespace sofattn::attend {

namespace {

constexpr std::array<std::pair<std::string_view, runner (*)(std::string_view, std::string_view)>, 4>
    attenders{{{"sufa", detail::find_sufa},
               {"sufa_ascending", detail::find_sufa_ascending},
               {"flash_attention_2", detail::find_flash_attention_2},
               {"two_pass", detail::find_two_pass}}};

template <class Names>
std::string joined(Names const& types) {
    std::string text;
    boost::hana::for_each(types, [&](auto const& type) {
        using policy = typename std::decay_t<decltype(type)>::type;
        text += (text.empty() ? "" : ", ") + std::string(policy::name);
    });
    return text;
}

constexpr std::array<std::pair<std::string_view, runner (*)(std::string_view, std::string_view)>, 4>
    tails{{{sufa::no_tail::name, detail::find_no_tail},
           {sufa::mean_tail::name, detail::find_mean_tail},
           {sufa::segment_tail::name, detail::find_segment_tail},
           {sufa::int8_tail::name, detail::find_int8_tail}}};

std::string const reusing = sufa::sorted_updating<sufa::descending, sufa::reused>::name;
std::string const whole_row = sads::adaptive<sads::whole_row>::name;
std::string const tile_by_tile = sads::adaptive<sads::tile_by_tile>::name;

template <class Preset>
named_policy preset_policy() {
    return {Preset::name,
            Preset::predictor::name,
            Preset::selector::name,
            Preset::attender::name,
            Preset::tail::name,
            Preset::options(),
            nullptr};
}

std::vector<std::string> split(std::string const& name) {
    std::vector<std::string> parts(1);
    for (char const c : name) {
        if (c == '/' && parts.size() < 4) {
            parts.emplace_back();
        } else {
            parts.back() += c;
        }
    }
    return parts;
}

named_policy parse(std::string const& name) {
    if (name == presets::paper::name) {
        return preset_policy<presets::paper>();
    }
    if (name == presets::recommended::name) {
        return preset_policy<presets::recommended>();
    }
    if (name == "dense") {
        return {name,
                dlzs::unpredicted::name,
                sads::keep_all::name,
                "flash_attention_2",
                sufa::no_tail::name,
                {},
                nullptr};
    }
    auto const parts = split(name);
    if (parts.size() < 3) {
        throw error("policy", io::quoted(name),
                    "paper, recommended, dense or PREDICTOR/SELECTOR/ATTENDER[/TAIL]");
    }
    named_policy policy;
    policy.name = name;
    policy.predictor = parts[0];
    policy.selector = parts[1];
    policy.attender = parts[2];
    policy.tail = parts.size() > 3 ? parts[3] : sufa::no_tail::name;
    policy.options.budget = policy.reads_weights() ? presets::recommended::options().budget
                                                   : sads::budget::of_ratio(0.10);
    return policy;
}

/// The pipeline of these names, if it is among those that were compiled.
runner find_runner(named_policy const& policy) {
    if (policy.attender == reusing) {
        return detail::find_reusing(policy.predictor, policy.selector, policy.tail);
    }
    if (policy.tail != sufa::no_tail::name || policy.reads_weights()) {
        if (policy.attender == attenders.front().first) { // sufa
            for (auto const& [tail, find] : tails) {
                if (policy.tail == tail) {
                    return find(policy.predictor, policy.selector);
                }
            }
        }
        return nullptr;
    }
    for (auto const& [attender, find] : attenders) {
        if (policy.attender == attender) {
            return find(policy.predictor, policy.selector);
        }
    }
    return nullptr;
}

} // namespace

bool named_policy::reads_weights() const {
    return selector == whole_row || selector == tile_by_tile;
}
bool named_policy::reads_count() const {
    return !reads_weights() && selector != sads::keep_all::name &&
           selector != sads::threshold::name;
}

policy_names list_policies() {
    policy_names names{joined(detail::predictors), joined(detail::selectors), {}, {}};
    names.selectors += ", " + whole_row + ", " + tile_by_tile;
    for (auto const& [name, find] : attenders) {
        names.attenders += std::string(name) + ", ";
    }
    names.attenders += reusing;
    for (auto const& [name, find] : tails) {
        names.tails += (names.tails.empty() ? "" : ", ") + std::string(name);
    }
    return names;
}

named_policy find_policy(std::string const& name) {
    named_policy policy = parse(name);
    policy.run = find_runner(policy);
    if (policy.run == nullptr) {
        auto const names = list_policies();
        for (auto const& [what, value, known] :
             {std::tuple("tail", policy.tail, names.tails),
              std::tuple("attender", policy.attender, names.attenders),
              std::tuple("selector", policy.selector, names.selectors),
              std::tuple("predictor", policy.predictor, names.predictors)}) {
            bool const listed =
                value.find(',') == std::string::npos &&
                (", " + known + ", ").find(", " + value + ", ") != std::string::npos;
            if (!listed) {
                throw error("policy " + io::quoted(name) + ": " + what, io::quoted(value),
                            "one of " + known);
            }
        }
        // All names are known, but tails and adaptive selectors are not offered with everything.
        bool const reuses = policy.attender == reusing;
        throw error("policy " + io::quoted(name), "a combination that is not built",
                    (reuses ? "with reused scores: one of " + joined(detail::reusable_predictors)
                            : "with a tail or an adaptive selector: one of " +
                                  joined(detail::weighing_predictors)) +
                        " / one of " + joined(detail::weighing_selectors) +
                        (reuses ? " / " + reusing + ", and no tail or segment_means" : " / sufa"));
    }
    return policy;
}

} // namespace sofattn::attend
