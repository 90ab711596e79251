// SPDX-License-Identifier: MIT
// All predictors times all selectors for one attender.
#pragma once

#include "attend/runner.hpp"
#include <sofattn/attention/attention.hpp>
#include <sofattn/dlzs/policy.hpp>
#include <sofattn/dlzs/predict_keys.hpp>
#include <sofattn/exec/executor.hpp>
#include <sofattn/rass/schedule.hpp>
#include <sofattn/sads/adaptive.hpp>
#include <sofattn/sads/row_selectors.hpp>
#include <sofattn/sads/segment_topk.hpp>
#include <sofattn/sufa/logit_source.hpp>
#include <sofattn/sufa/sorted_updating.hpp>
#include <sofattn/sufa/tail.hpp>

#include <boost/hana/at.hpp>
#include <boost/hana/cartesian_product.hpp>
#include <boost/hana/for_each.hpp>
#include <boost/hana/tuple.hpp>
#include <boost/hana/type.hpp>

#include <concepts>
#include <cstddef>
#include <span>
#include <string_view>
#include <type_traits>

namespace sofattn::attend::detail {

inline constexpr auto predictors =
    boost::hana::tuple_t<dlzs::dlzs8, dlzs::dlzs16, dlzs::two_sided, dlzs::lz_keys, dlzs::int8,
                         dlzs::int8_per_query, dlzs::rotated_int8, dlzs::int4, dlzs::centred_int4,
                         dlzs::exact>;
inline constexpr auto selectors =
    boost::hana::tuple_t<sads::segment_topk<sads::contiguous>, sads::segment_topk<sads::strided>,
                         sads::full_topk, sads::threshold>;

/// The oracle is no circuit and refuses to be counted.
template <class Predictor>
using counted_unless_exact =
    std::conditional_t<std::same_as<Predictor, dlzs::exact>, exec::reference, exec::counting>;

template <class Predictor, class Selector, class Attender, class Tail = sufa::no_tail,
          class Execution = counted_unless_exact<Predictor>>
run_output run(problem<float> const& given, attention_options const& options,
               view<float, axis::head, axis::query, axis::value_dim> output) {
    using execution = Execution;
    sofattn::attention<Predictor, Selector, Attender, execution, rass::reuse_aware,
                       dlzs::coded_weights, Tail> const attend(options);
    execution x;
    run_output result;
    index_t const queries = given.queries.template extent<axis::query>();
    result.kept_keys.resize(
        static_cast<std::size_t>(given.queries.template extent<axis::head>() * queries));
    auto const counts = attend(x, given, output, [&](index_t head, index_t query, auto kept) {
        auto& row = result.kept_keys[static_cast<std::size_t>(head * queries + query)];
        for (auto const& entry : kept) {
            row.push_back(entry.key);
        }
    });
    result.key_loads = counts.key_loads;
    if constexpr (execution::probe_type::enabled) {
        result.counts = x.probe;
    }
    return result;
}

/// What tails and adaptive budgets are offered for: a choice that compiles in reasonable time.
inline constexpr auto weighing_predictors =
    boost::hana::tuple_t<dlzs::dlzs8, dlzs::dlzs16, dlzs::int8_per_query, dlzs::rotated_int8,
                         dlzs::centred_int4, dlzs::exact>;
/// What scores are reused of: the others' errors would go straight into the output.
inline constexpr auto reusable_predictors =
    boost::hana::tuple_t<dlzs::int8_per_query, dlzs::rotated_int8>;
inline constexpr auto weighing_selectors =
    boost::hana::tuple_t<sads::full_topk, sads::adaptive<sads::whole_row>,
                         sads::adaptive<sads::tile_by_tile>>;

/// The pipeline of one of `predictors` and one of the weighing selectors.
template <class Attender, class Tail, class Predictors>
[[nodiscard]] runner find_weighing(Predictors const& predictors_offered, std::string_view predictor,
                                   std::string_view selector) {
    namespace hana = boost::hana;
    runner found = nullptr;
    hana::for_each(
        hana::cartesian_product(hana::make_tuple(predictors_offered, weighing_selectors)),
        [&](auto const& pair) {
            using p = typename std::decay_t<decltype(pair[hana::size_c<0>])>::type;
            using s = typename std::decay_t<decltype(pair[hana::size_c<1>])>::type;
            if (predictor == p::name && selector == s::name) {
                found = &run<p, s, Attender, Tail>;
            }
        });
    return found;
}

template <class Tail>
[[nodiscard]] runner find_with_tail(std::string_view predictor, std::string_view selector) {
    return find_weighing<sufa::sorted_updating<>, Tail>(weighing_predictors, predictor, selector);
}

template <class Attender>
[[nodiscard]] runner find(std::string_view predictor, std::string_view selector) {
    namespace hana = boost::hana;
    if (predictor == dlzs::unpredicted::name && selector == sads::keep_all::name) {
        return &run<dlzs::unpredicted, sads::keep_all, Attender>;
    }
    runner found = nullptr;
    hana::for_each(hana::cartesian_product(hana::make_tuple(predictors, selectors)),
                   [&](auto const& pair) {
                       using p = typename std::decay_t<decltype(pair[hana::size_c<0>])>::type;
                       using s = typename std::decay_t<decltype(pair[hana::size_c<1>])>::type;
                       if (predictor == p::name && selector == s::name) {
                           found = &run<p, s, Attender>;
                       }
                   });
    return found;
}

} // namespace sofattn::attend::detail
