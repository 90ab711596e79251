// SPDX-License-Identifier: MIT
// exec::simd against exec::reference: predictors, selectors, attenders, tails and schedules.
#include "attention/layer_case.hpp"
#include "attention/projected_case.hpp"
#include "attention/rounded_outputs.hpp"
#include "attention/simd_case.hpp"
#include "support/generators.hpp"
#include "support/own_threads.hpp"
#include "support/same_bits.hpp"
#include <sofattn/attention/attention.hpp>
#include <sofattn/attention/presets.hpp>
#include <sofattn/core/bfloat16.hpp>
#include <sofattn/core/half.hpp>
#include <sofattn/core/output_array.hpp>
#include <sofattn/sads/adaptive.hpp>
#include <sofattn/sads/row_selectors.hpp>
#include <sofattn/sufa/rivals.hpp>

#include <boost/hana/for_each.hpp>
#include <boost/hana/tuple.hpp>
#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <vector>

using namespace sofattn;
using namespace sofattn::test;

namespace {

namespace hana = boost::hana;

constexpr auto tails =
    hana::tuple_t<sufa::no_tail, sufa::mean_tail, sufa::segment_tail, sufa::int8_tail>;

} // namespace

TEST_CASE("attention.simd: every attender with every tail") {
    SOFATTN_GENERATOR(random);
    hana::for_each(attenders, [&](auto attender) {
        using a = typename decltype(attender)::type;
        hana::for_each(tails, [&](auto tail) {
            using t = typename decltype(tail)::type;
            check_some<dlzs::rotated_int8, sads::adaptive<sads::grain_by_grain>, a, t>(random, 8);
        });
    });
}

TEST_CASE("attention.simd: every tail, tile by tile") {
    SOFATTN_GENERATOR(random);
    hana::for_each(tails, [&](auto tail) {
        using t = typename decltype(tail)::type;
        check_some<dlzs::dlzs16, sads::segment_topk<>,
                   sufa::sorted_updating<sufa::descending, sufa::reused>, t>(random, 12);
    });
}

TEST_CASE("attention.simd: without a predictor all keys are attended") {
    SOFATTN_GENERATOR(random);
    check_some<dlzs::unpredicted, sads::keep_all, sufa::flash_attention_2>(random, 12);
    check_some<dlzs::unpredicted, sads::keep_all, sufa::two_pass>(random, 6);
}

TEST_CASE("attention.simd: loads of a schedule that loads a key more than once") {
    SOFATTN_GENERATOR(random);
    for (int round = 0; round < 6; ++round) {
        layer_case const layer = some_layer(random);
        on_both<dlzs::dlzs8, sads::segment_topk<>, sufa::sorted_updating<>, sufa::no_tail,
                rass::left_to_right<>>::check(layer.given(),
                                              some_options<sads::segment_topk<>>(random));
    }
}

TEST_CASE_TEMPLATE("attention.simd: every storage type and stride", T, float, half, bfloat16) {
    SOFATTN_GENERATOR(random);
    layer_case const layer(random, {4, 2, 40, 150, 48, 33}, true);
    auto const q = converted<T>(layer.q.cview());
    auto const k = converted<T>(layer.k.cview());
    auto const v = converted<T>(layer.v.cview());
    for (layout const kind : all_layouts) {
        auto const sq = strided(random, q.cview(), kind);
        auto const sk = strided(random, k.cview(), kind);
        auto const sv = strided(random, v.cview(), kind);
        problem<T> const given{sq.cview(), sk.cview(), sv.cview(), true, 0};
        on_both<dlzs::dlzs8, sads::segment_topk<>, sufa::sorted_updating<>,
                sufa::segment_tail>::check(given, with(sads::budget::of_ratio(0.2)));
    }
}

TEST_CASE(
    "attention.simd: 16-bit outputs are those in f32, rounded to nearest, as the reference's") {
    SOFATTN_GENERATOR(random);
    using both =
        on_both<dlzs::dlzs8, sads::segment_topk<>, sufa::sorted_updating<>, sufa::segment_tail>;
    layer_case const layer(random, {4, 2, 40, 30, 48, 33}, true);
    problem<float> const given{layer.q.cview(), layer.k.cview(), layer.v.cview(), true, 0};
    auto const check = [&](auto const& attend) {
        check_rounded_outputs(random, given.shape(), [&](output_array const& to) {
            (void)scored_run(attend, given, exec::serial{}, &to);
        });
    };
    auto const options = with(sads::budget::of_ratio(0.2));
    check(both::pipeline<exec::simd>(options));
    check(both::pipeline<exec::reference>(options));
}

TEST_CASE("attention.simd: the presets, every length up to some registers and a long one") {
    SOFATTN_GENERATOR(random);
    using paper = on_both<presets::paper::predictor, presets::paper::selector,
                          presets::paper::attender, presets::paper::tail>;
    using recommended = on_both<presets::recommended::predictor, presets::recommended::selector,
                                presets::recommended::attender, presets::recommended::tail>;
    for (index_t const keys : {1, 2, 7, 15, 16, 17, 63, 64, 65, 130, 700}) {
        layer_case layer(random, {2, 1, keys, keys, 64, 64}, true);
        layer.make_values_positive();
        CAPTURE(keys);
        paper::check(layer.given(), presets::paper::options());
        recommended::check(layer.given(), presets::recommended::options());
    }
}

TEST_CASE("attention.simd: causal rows before the first key are zero") {
    SOFATTN_GENERATOR(random);
    layer_case const layer(random, {2, 1, 30, 10, 16, 24}, true);
    auto const record = scored_run(
        presets::attention<presets::recommended, exec::simd>(presets::recommended::options()),
        layer.given());
    for (index_t r = 0; r < 30; ++r) {
        CHECK(record.kept[static_cast<std::size_t>(r)].empty() == (r < 20));
        CHECK((record.output(0, r, 0) == 0.0f) == (r < 20));
    }
}

TEST_CASE("attention.simd: keys and values on demand") {
    SOFATTN_GENERATOR(random);
    for (bool const biased : {false, true}) {
        projected_case const from(random, biased);
        auto const options = with(sads::budget::of_ratio(0.1));
        on_both<dlzs::dlzs16, sads::segment_topk<>, sufa::sorted_updating<>>::check(from.given(),
                                                                                    options);
        on_both<dlzs::rotated_int8, sads::full_topk, sufa::two_pass>::check(from.given(), options);
    }
}

namespace {

/// One thread, several, and a pool that is not ours: the same bits, keys and totals.
template <class A, class Problem>
void check_threads(Problem const& given, attention_options const& options) {
    A const attend(options);
    auto const alone = scored_run(attend, given);
    auto const check = [&](auto const& run) {
        auto const found = scored_run(attend, given, run);
        CHECK(same_bits(found.output, alone.output));
        CHECK(found.kept == alone.kept);
        CHECK(found.result.visible_pairs == alone.result.visible_pairs);
        CHECK(found.result.kept_pairs == alone.result.kept_pairs);
        CHECK(found.result.key_loads == alone.result.key_loads);
        CHECK(found.result.value_loads == alone.result.value_loads);
        CHECK(found.result.generated == alone.result.generated);
    };
    for (index_t const threads : {1, 2, 5}) {
        check(exec::openmp(threads));
    }
    check(own_threads{});
}

} // namespace

TEST_CASE_TEMPLATE("attention.simd: the same bits for any number of threads, as of the reference",
                   X, exec::simd, exec::reference) {
    SOFATTN_GENERATOR(random);
    for (auto const scope : {selection_scope::per_query_head, selection_scope::per_group}) {
        layer_case const layer(random, {6, 2, 300, 310, 24, 40}, true);
        auto options = with(sads::budget::of_ratio(0.1), 32, scope);
        check_threads<attention<dlzs::dlzs16, sads::segment_topk<>, sufa::sorted_updating<>, X>>(
            layer.given(), options);
        options.budget = sads::budget::of_mass(0.9);
        check_threads<presets::attention<presets::recommended, X>>(layer.given(), options);
    }
    projected_case const from(random, true);
    check_threads<attention<dlzs::dlzs16, sads::segment_topk<>, sufa::sorted_updating<>, X>>(
        from.given(), with(sads::budget::of_ratio(0.1)));
}

TEST_CASE("attention.simd: certificates do not depend on threads") {
    SOFATTN_GENERATOR(random);
    layer_case const layer(random, {6, 3, 40, 150, 24, 40}, true);
    presets::attention<presets::recommended, exec::simd> const attend(
        with(sads::budget::of_mass(0.9)));
    auto const certified = [&](auto const& run) {
        tensor<float, axis::head, axis::query, axis::value_dim> output({6, 40, 40});
        std::vector<double> bounds(6 * 40);
        exec::simd x;
        attend(x, run, layer.given(), output.view(), ignore_kept{},
               [&](index_t h, index_t q, row_certificate const& c) {
                   bounds[static_cast<std::size_t>(h * 40 + q)] = c.error_bound;
               });
        return bounds;
    };
    auto const alone = certified(exec::serial{});
    CHECK(*std::ranges::max_element(alone) > 0);
    CHECK(certified(exec::openmp(2)) == alone);
    CHECK(certified(own_threads{}) == alone);
}
