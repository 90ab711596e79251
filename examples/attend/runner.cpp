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

template <class Preset>
named_policy preset_policy() {
    return {Preset::name,           Preset::predictor::name, Preset::selector::name,
            Preset::attender::name, Preset::options(),       nullptr};
}

named_policy parse(std::string const& name) {
    if (name == presets::paper::name) {
        return preset_policy<presets::paper>();
    }
    if (name == presets::recommended::name) {
        return preset_policy<presets::recommended>();
    }
    if (name == "dense") {
        return {name,   dlzs::unpredicted::name, sads::keep_all::name, "flash_attention_2", {},
                nullptr};
    }
    auto const first = name.find('/');
    auto const second = first == std::string::npos ? first : name.find('/', first + 1);
    if (second == std::string::npos) {
        throw error("policy", io::quoted(name),
                    "paper, recommended, dense or PREDICTOR/SELECTOR/ATTENDER");
    }
    named_policy policy;
    policy.name = name;
    policy.predictor = name.substr(0, first);
    policy.selector = name.substr(first + 1, second - first - 1);
    policy.attender = name.substr(second + 1);
    policy.options.budget = sads::budget::of_ratio(0.10);
    return policy;
}

} // namespace

policy_names list_policies() {
    policy_names names{joined(detail::predictors), joined(detail::selectors), {}};
    for (auto const& [name, find] : attenders) {
        names.attenders += (names.attenders.empty() ? "" : ", ") + std::string(name);
    }
    return names;
}

named_policy find_policy(std::string const& name) {
    named_policy policy = parse(name);
    for (auto const& [attender, find] : attenders) {
        if (policy.attender == attender) {
            policy.run = find(policy.predictor, policy.selector);
        }
    }
    if (policy.run == nullptr) {
        auto const names = list_policies();
        for (auto const& [what, value, known] :
             {std::tuple("attender", policy.attender, names.attenders),
              std::tuple("selector", policy.selector, names.selectors),
              std::tuple("predictor", policy.predictor, names.predictors)}) {
            bool const listed =
                value.find(',') == std::string::npos &&
                (", " + known + ", ").find(", " + value + ", ") != std::string::npos;
            if (!listed) { // holds for one of the three, as all combinations of names exist
                throw error("policy " + io::quoted(name) + ": " + what, io::quoted(value),
                            "one of " + known);
            }
        }
    }
    return policy;
}

} // namespace sofattn::attend
