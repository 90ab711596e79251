// SPDX-License-Identifier: MIT
#include "core/aborts.hpp"
#include "support/generators.hpp"
#include <sofattn/dlzs/predict_scores.hpp>
#include <sofattn/dlzs/register_scores.hpp>
#include <sofattn/exec/executor.hpp>

#include <doctest/doctest.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

using namespace sofattn;
using axis::dim;
using axis::head;
using axis::key;
using axis::query;

namespace {

struct int16 : dlzs::int8 {
    static constexpr int query_bits = 16;
    static constexpr int key_bits = 16;
};
struct two_sided16 : dlzs::dlzs16 {
    static constexpr dlzs::operand key = dlzs::operand::leading_zero;
};
struct int12 : dlzs::int8 { // as wide as 32-bit sums allow
    static constexpr int query_bits = 12;
    static constexpr int key_bits = 12;
};
struct wide_queries : dlzs::int8 {
    static constexpr int query_bits = 16;
};
struct wide_keys : dlzs::centred_int4 {
    static constexpr int key_bits = 16;
};
struct dlzs16_nearest : dlzs::dlzs16 {
    static constexpr dlzs::lz_rounding rounding = dlzs::lz_rounding::nearest;
};

/// Matrices whose elements all have the largest magnitude: no sums are larger.
template <class... Axes>
tensor<float, Axes...> of_signs(test::generator& random,
                                std::array<index_t, sizeof...(Axes)> extents, bool alike) {
    tensor<float, Axes...> result(extents);
    test::for_each_index(extents, [&](auto const& i) {
        test::at(result.view(), i) = alike || random.chance(0.5) ? 1.0f : -1.0f;
    });
    return result;
}

/// The scores of every choice of rows and keys are those of the definition.
template <class P>
void check(test::generator& random, tensor<float, head, query, dim> const& q,
           tensor<float, key, dim> const& k) {
    index_t const heads = q.cview().template extent<head>();
    index_t const queries = q.cview().template extent<query>();
    index_t const dims = q.cview().template extent<dim>();
    index_t const keys = k.cview().template extent<key>();
    CAPTURE(P::name);
    CAPTURE(keys);
    CAPTURE(dims);
    dlzs::key_index<P> const index(k.cview());
    dlzs::query_codes<P> const codes(q.cview(), index);
    dlzs::register_keys<P> const columns(index);
    dlzs::register_queries<P> const rows(codes, heads, queries, dims);
    exec::reference x;
    for (int trial = 0; trial < 6; ++trial) {
        bool const by_head = random.chance(0.3);
        index_t const most = std::min(dlzs::rows_together, by_head ? heads : queries);
        index_t const count = random.integer<index_t>(1, most);
        index_t const h = random.integer<index_t>(0, by_head ? heads - count : heads - 1);
        index_t const r = random.integer<index_t>(0, by_head ? queries - 1 : queries - count);
        index_t const from = random.chance(0.5) ? 0 : random.integer<index_t>(0, keys);
        index_t const to = random.chance(0.5) ? keys : random.integer<index_t>(from, keys);
        index_t const stride = to - from + random.integer<index_t>(0, 3);
        constexpr dlzs::score_type<P> untouched = -77;
        std::vector<dlzs::score_type<P>> scores(static_cast<std::size_t>(count * stride),
                                                untouched);
        dlzs::predict_rows<P>{}(rows, {h * queries + r, by_head ? queries : 1, count}, columns,
                                {from, to}, scores.data(), stride);
        index_t wrong = 0;
        for (index_t i = 0; i < count; ++i) {
            std::vector<dlzs::score_type<P>> wanted(static_cast<std::size_t>(to - from));
            dlzs::predict_scores<P>{}(x, by_head ? codes.row(h + i, r) : codes.row(h, r + i),
                                      index.codes().template range<key>(from, to - from),
                                      std::span(wanted));
            wanted.resize(static_cast<std::size_t>(stride), untouched);
            for (index_t n = 0; n < stride; ++n) {
                wrong += scores[static_cast<std::size_t>(i * stride + n)] !=
                                 wanted[static_cast<std::size_t>(n)]
                             ? 1
                             : 0;
            }
        }
        CHECK(wrong == 0);
    }
}

} // namespace

TEST_CASE_TEMPLATE("dlzs.register_scores: the scores of the definition, whatever rows and keys", P,
                   dlzs::dlzs8, dlzs::dlzs16, dlzs::two_sided, dlzs::lz_keys, dlzs::int8,
                   dlzs::int8_per_query, dlzs::centred_int4, dlzs::rotated_int8, dlzs::int4,
                   dlzs::exact, int16, two_sided16, int12, wide_queries, wide_keys,
                   dlzs16_nearest) {
    SOFATTN_GENERATOR(random);
    for (test::spread const kind : test::all_spreads) {
        for (index_t const dims : {1, 2, 3, 64, 65, 256}) {
            for (index_t const keys : {1, 15, 16, 17, 63, 64, 65, 200}) {
                auto const queries = random.integer<index_t>(1, 9);
                check<P>(random,
                         test::random_matrix<float, head, query, dim>(
                             random, {random.integer<index_t>(1, 7), queries, dims}, kind),
                         test::random_matrix<float, key, dim>(random, {keys, dims}, kind));
            }
        }
    }
}

TEST_CASE_TEMPLATE("dlzs.register_scores: no sum is too large", P, dlzs::dlzs8, dlzs::dlzs16,
                   dlzs::rotated_int8, dlzs::int8, int16, two_sided16, int12, wide_queries,
                   wide_keys, dlzs16_nearest) {
    SOFATTN_GENERATOR(random);
    for (bool const alike : {false, true}) {
        check<P>(random, of_signs<head, query, dim>(random, {2, 6, max_head_dim}, alike),
                 of_signs<key, dim>(random, {70, max_head_dim}, alike));
    }
}

TEST_CASE("dlzs.register_scores: no more rows than there are registers for") {
    SOFATTN_GENERATOR(random);
    dlzs::key_index<dlzs::int8> const index(
        test::random_matrix<float, key, dim>(random, {16, 8}).cview());
    dlzs::query_codes<dlzs::int8> const codes(
        test::random_matrix<float, head, query, dim>(random, {1, 9, 8}).cview(), index);
    dlzs::register_keys<dlzs::int8> const keys(index);
    dlzs::register_queries<dlzs::int8> const queries(codes, 1, 9, 8);
    std::vector<std::int32_t> scores(9 * 16);
    SOFATTN_CHECK_ABORTS("rows.count <= rows_together",
                         dlzs::predict_rows<dlzs::int8>{}(queries, {0, 1, dlzs::rows_together + 1},
                                                          keys, {0, 16}, scores.data(), 16));
    SOFATTN_CHECK_ABORTS("<= stride", dlzs::predict_rows<dlzs::int8>{}(queries, {0, 1, 2}, keys,
                                                                       {0, 16}, scores.data(), 15));
}
