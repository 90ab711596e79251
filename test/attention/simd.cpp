// SPDX-License-Identifier: MIT
// exec::simd against exec::reference: predictors, selectors, attenders, tails and schedules.
#include "attention/layer_case.hpp"
#include "attention/simd_case.hpp"
#include "support/generators.hpp"
#include <sofattn/attention/attention.hpp>
#include <sofattn/attention/presets.hpp>
#include <sofattn/core/bfloat16.hpp>
#include <sofattn/core/half.hpp>
#include <sofattn/sads/adaptive.hpp>
#include <sofattn/sads/row_selectors.hpp>
#include <sofattn/sufa/rivals.hpp>

#include <boost/hana/at.hpp>
#include <boost/hana/for_each.hpp>
#include <boost/hana/integral_constant.hpp>
#include <boost/hana/range.hpp>
#include <boost/hana/size.hpp>
#include <boost/hana/tuple.hpp>
#include <boost/hana/type.hpp>
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <string>
#include <type_traits>
#include <utility>

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
constexpr auto attenders =
    hana::tuple_t<sufa::sorted_updating<>, sufa::sorted_updating<sufa::ascending>,
                  sufa::flash_attention_2, sufa::two_pass,
                  sufa::sorted_updating<sufa::descending, sufa::reused>,
                  sufa::sorted_updating<sufa::ascending, sufa::reused>>;
constexpr auto tails =
    hana::tuple_t<sufa::no_tail, sufa::mean_tail, sufa::segment_tail, sufa::int8_tail>;

layer_shape some_shape(generator& random) {
    layer_shape s;
    s.kv_heads = random.integer<index_t>(1, 2);
    s.heads = s.kv_heads * random.integer<index_t>(1, 3);
    s.queries =
        random.chance(0.2) ? random.integer<index_t>(120, 150) : random.integer<index_t>(1, 40);
    s.keys = random.chance(0.2) ? random.integer<index_t>(1, 8) : random.integer<index_t>(8, 260);
    s.dim = random.chance(0.3) ? 64 : random.integer<index_t>(1, 70);
    s.value_dim = random.chance(0.3) ? 64 : random.integer<index_t>(1, 70);
    return s;
}

/// Logits of different spreads; outputs that are not near 0 by chance.
layer_case some_layer(generator& random) {
    layer_case layer(random, some_shape(random), random.chance(0.6));
    layer.make_values_positive();
    auto const sharp = static_cast<float>(random.uniform(0.3, 3.0));
    for_each_index(layer.q.view().extents(),
                   [&](auto const& i) { at(layer.q.view(), i) *= sharp; });
    return layer;
}

/// A budget that means something to the selector.
template <class S>
attention_options some_options(generator& random) {
    attention_options options;
    auto& b = options.budget;
    if (weighs_scores<S>) {
        b = random.chance(0.5) ? sads::budget::of_mass(random.uniform(0.3, 1.0))
                               : sads::budget::of_output_error(std::exp2(random.uniform(-9, -1)));
        if (random.chance(0.2)) {
            b.at_most = random.integer<index_t>(4, 60);
        }
    } else {
        b = sads::budget::of_ratio(random.uniform(0.02, 0.6));
    }
    b.radius = std::is_same_v<S, sads::threshold> || random.chance(0.3)
                   ? random.uniform(0.5, 8.0)
                   : std::numeric_limits<double>::infinity();
    b.at_least = random.integer<index_t>(0, 4);
    if (random.chance(0.5)) {
        b.sinks = random.integer<index_t>(0, 3);
        b.window = random.integer<index_t>(0, 9);
    }
    options.tile_keys = random.chance(0.3) ? 128 : random.integer<index_t>(1, 90);
    options.scope =
        random.chance(0.4) ? selection_scope::per_group : selection_scope::per_query_head;
    return options;
}

template <class P, class S, class A, class Tail = sufa::no_tail>
void check_some(generator& random, int rounds) {
    for (int round = 0; round < rounds; ++round) {
        layer_case const layer = some_layer(random);
        auto const options = some_options<S>(random);
        CAPTURE(layer.shape.heads);
        CAPTURE(layer.shape.kv_heads);
        CAPTURE(layer.shape.queries);
        CAPTURE(layer.shape.keys);
        CAPTURE(layer.shape.dim);
        CAPTURE(layer.shape.value_dim);
        CAPTURE(layer.causal);
        CAPTURE(options.tile_keys);
        on_both<P, S, A, Tail>::check(layer.given(), options);
    }
}

} // namespace

TEST_CASE("attention.simd: every predictor with every selector, each with some attender") {
    SOFATTN_GENERATOR(random);
    constexpr std::size_t count = decltype(hana::size(attenders))::value;
    hana::for_each(
        hana::range_c<std::size_t, 0, decltype(hana::size(predictors))::value>, [&](auto i) {
            using p = typename decltype(+predictors[i])::type;
            hana::for_each(
                hana::range_c<std::size_t, 0, decltype(hana::size(selectors))::value>, [&](auto j) {
                    constexpr std::size_t at = (decltype(i)::value + decltype(j)::value) % count;
                    using s = typename decltype(+selectors[j])::type;
                    using a = typename decltype(+attenders[hana::size_c<at>])::type;
                    check_some<p, s, a>(random, 6);
                });
        });
}

TEST_CASE("attention.simd: every attender with every tail") {
    SOFATTN_GENERATOR(random);
    hana::for_each(attenders, [&](auto attender) {
        using a = typename decltype(attender)::type;
        hana::for_each(tails, [&](auto tail) {
            using t = typename decltype(tail)::type;
            check_some<dlzs::rotated_int8, sads::adaptive<sads::grain_by_grain>, a, t>(random, 6);
            check_some<dlzs::dlzs16, sads::segment_topk<>, a, t>(random, 6);
        });
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
