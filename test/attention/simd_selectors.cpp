// SPDX-License-Identifier: MIT
// exec::simd against exec::reference: every predictor with every selector.
#include "attention/simd_case.hpp"
#include "support/generators.hpp"
#include "support/sanitized.hpp"
#include <sofattn/attention/attention.hpp>
#include <sofattn/sads/adaptive.hpp>
#include <sofattn/sads/row_selectors.hpp>

#include <boost/hana/at.hpp>
#include <boost/hana/for_each.hpp>
#include <boost/hana/integral_constant.hpp>
#include <boost/hana/range.hpp>
#include <boost/hana/size.hpp>
#include <boost/hana/tuple.hpp>
#include <doctest/doctest.h>

#include <cstddef>

using namespace sofattn;
using namespace sofattn::test;

namespace {

namespace hana = boost::hana;

struct int16 : dlzs::int8 {
    static constexpr char const* name = "int16";
    static constexpr int query_bits = 16;
    static constexpr int key_bits = 16;
};

constexpr auto predictors = hana::tuple_t<dlzs::dlzs8, dlzs::dlzs16, dlzs::two_sided, dlzs::lz_keys,
                                          dlzs::int8, dlzs::int8_per_query, dlzs::centred_int4,
                                          dlzs::rotated_int8, dlzs::int4, int16, dlzs::exact>;
constexpr auto selectors =
    hana::tuple_t<sads::segment_topk<sads::contiguous>, sads::segment_topk<sads::strided>,
                  sads::full_topk, sads::threshold, sads::keep_all, sads::adaptive<sads::whole_row>,
                  sads::adaptive<sads::tile_by_tile>, sads::adaptive<sads::grain_by_grain>>;
constexpr std::size_t predictor_count = decltype(hana::size(predictors))::value;
constexpr std::size_t selector_count = decltype(hana::size(selectors))::value;
constexpr std::size_t attender_count = decltype(hana::size(attenders))::value;

/// With some attender. Under sanitizers each predictor in one pair, which has each selector once or twice: all
/// pairs take minutes to compile.
template <std::size_t Predictor, std::size_t Selector>
void check_pair(generator& random) {
    if constexpr (!is_sanitized || Selector == Predictor % selector_count) {
        constexpr std::size_t attender = (Predictor + Selector) % attender_count;
        using p = typename decltype(+predictors[hana::size_c<Predictor>])::type;
        using s = typename decltype(+selectors[hana::size_c<Selector>])::type;
        using a = typename decltype(+attenders[hana::size_c<attender>])::type;
        check_some<p, s, a>(random, 6);
    }
}

} // namespace

TEST_CASE("attention.simd: every predictor with every selector, each with some attender") {
    SOFATTN_GENERATOR(random);
    hana::for_each(hana::range_c<std::size_t, 0, predictor_count>, [&](auto i) {
        hana::for_each(hana::range_c<std::size_t, 0, selector_count>,
                       [&](auto j) { check_pair<decltype(i)::value, decltype(j)::value>(random); });
    });
}
