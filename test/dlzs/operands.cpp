// SPDX-License-Identifier: MIT
#include "dlzs/oracle.hpp"
#include <sofattn/dlzs/operands.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <vector>

using namespace sofattn;
using axis::dim;
using axis::head;
using axis::key;
using axis::query;
using dlzs::operand;

namespace {

struct by_row : dlzs::dlzs8 {
    static constexpr granularity query_step = granularity::per_row;
};
struct nearest : dlzs::two_sided {
    static constexpr dlzs::lz_rounding rounding = dlzs::lz_rounding::nearest;
};

#define SOFATTN_CODED_POLICIES                                                                     \
    dlzs::dlzs8, dlzs::dlzs16, dlzs::two_sided, dlzs::lz_keys, dlzs::int8, dlzs::int4,             \
        dlzs::centred_int4, dlzs::int8_per_query, by_row

/// The nearest code of x, ties to even.
int code_of(float x, float most, int bits) {
    int const limit = (1 << (bits - 1)) - 1;
    if (most == 0.0f) {
        return 0;
    }
    // Scaled in float, as specified; the rounding is done here by hand.
    double const scaled = static_cast<double>(x * (static_cast<float>(limit) / most));
    double const below = std::floor(scaled);
    double const rest = scaled - below;
    bool const up = rest > 0.5 || (rest == 0.5 && std::fmod(below, 2.0) != 0.0);
    return std::clamp(static_cast<int>(below) + (up ? 1 : 0), -limit, limit);
}

template <class T, class U, class... Axes>
bool same(view<T, Axes...> a, view<U, Axes...> b) {
    bool equal = a.extents() == b.extents();
    test::for_each_index(a.extents(),
                         [&](auto const& i) { equal = equal && test::at(a, i) == test::at(b, i); });
    return equal;
}

template <class Policy>
bool same(dlzs::key_index<Policy> const& a, dlzs::key_index<Policy> const& b) {
    bool equal = same(a.codes(), b.codes()) && a.centre() == b.centre();
    for (index_t d = 0; d < a.codes().template extent<dim>(); ++d) {
        equal = equal && a.step(d) == b.step(d);
    }
    return equal;
}

} // namespace

TEST_CASE_TEMPLATE("dlzs.operands: keys are quantised with the policy's steps, then coded", P,
                   SOFATTN_CODED_POLICIES) {
    SOFATTN_GENERATOR(random);
    for (auto const kind : test::all_spreads) {
        index_t const keys = 37;
        index_t const dims = 20;
        auto const k = test::random_matrix<float, key, dim>(random, {keys, dims}, kind);
        dlzs::key_index<P> const index(k.cview());
        auto const means = column_means(k.cview());
        CHECK(index.centre() == (P::centred_keys ? means : std::vector<float>{}));
        CHECK(index.has_channel_steps() == (P::key_step == granularity::per_channel));
        auto const centred = [&](index_t r, index_t d) {
            return P::centred_keys ? k(r, d) - means[static_cast<std::size_t>(d)] : k(r, d);
        };
        for (index_t d = 0; d < dims; ++d) {
            float most = 0.0f;
            for (index_t r = 0; r < keys; ++r) {
                for (index_t c = 0; c < dims; ++c) {
                    if (P::key_step == granularity::per_tensor || c == d) {
                        most = std::max(most, std::abs(centred(r, c)));
                    }
                }
            }
            CHECK(index.step(d) == most / static_cast<float>(code_limit<P::key_bits>));
            for (index_t r = 0; r < keys; ++r) {
                int const code = code_of(centred(r, d), most, P::key_bits);
                if (index.codes()(r, d) != test::stored_form(P::key, P::key_bits, code)) {
                    FAIL_CHECK("key ", r, ", dim ", d);
                }
            }
        }
        CHECK(index.bits_per_key() == dims * dlzs::stored_key_bits<P>());
    }
}

TEST_CASE_TEMPLATE("dlzs.operands: queries carry the keys' channel steps and share one step", P,
                   SOFATTN_CODED_POLICIES) {
    SOFATTN_GENERATOR(random);
    for (auto const kind : test::all_spreads) {
        index_t const heads = 3;
        index_t const rows = 5;
        index_t const dims = 20;
        auto const k = test::random_matrix<float, key, dim>(random, {30, dims}, kind);
        auto const q = test::random_matrix<float, head, query, dim>(random, {heads, rows, dims});
        dlzs::key_index<P> const index(k.cview());
        dlzs::query_codes<P> const codes(q.cview(), index);
        bool const carries = P::key_step == granularity::per_channel;
        auto const carried = [&](index_t h, index_t r, index_t d) {
            return carries ? q(h, r, d) * index.step(d) : q(h, r, d);
        };
        for (index_t r = 0; r < rows; ++r) {
            float most = 0.0f;
            test::for_each_index(q.view().extents(), [&](auto const& i) {
                if (P::query_step == granularity::per_tensor || i[1] == r) {
                    most = std::max(most, std::abs(carried(i[0], i[1], i[2])));
                }
            });
            double const step =
                static_cast<double>(most / static_cast<float>(code_limit<P::query_bits>));
            double const key_step = carries ? 1.0 : static_cast<double>(index.step(0));
            CHECK(codes.product_step(r) == step * key_step);
            for (index_t h = 0; h < heads; ++h) {
                auto const row = codes.row(h, r);
                for (index_t d = 0; d < dims; ++d) {
                    int const code = code_of(carried(h, r, d), most, P::query_bits);
                    if (row(d) != test::stored_form(P::query, P::query_bits, code)) {
                        FAIL_CHECK("head ", h, ", query ", r, ", dim ", d);
                    }
                }
            }
        }
    }
}

TEST_CASE("dlzs.operands: the oracle keeps the numbers, with step 1") {
    SOFATTN_GENERATOR(random);
    auto const k = test::random_matrix<bfloat16, key, dim>(random, {7, 9});
    auto const q = test::random_matrix<half, head, query, dim>(random, {2, 3, 9});
    dlzs::key_index<dlzs::exact> const index(k.cview());
    dlzs::query_codes<dlzs::exact> const codes(q.cview(), index);
    static_assert(std::is_same_v<decltype(index)::element, float>);
    CHECK(same(index.codes(), test::converted<float>(k.cview()).cview()));
    CHECK(index.step(4) == 1.0f);
    CHECK(codes.product_step(2) == 1.0);
    CHECK(codes.row(1, 2)(8) == to_float(q(1, 2, 8)));
}

TEST_CASE("dlzs.operands: codes are stored in the smallest integer") {
    static_assert(std::is_same_v<dlzs::key_index<dlzs::dlzs8>::element, std::int8_t>);
    static_assert(std::is_same_v<dlzs::key_index<dlzs::dlzs16>::element, std::int16_t>);
    static_assert(std::is_same_v<dlzs::query_codes<dlzs::dlzs16>::element, std::int8_t>);
    static_assert(std::is_same_v<dlzs::key_index<dlzs::lz_keys>::element, std::int8_t>);
    CHECK(sizeof(dlzs::key_index<dlzs::int4>::element) == 1);
}

TEST_CASE("dlzs.operands: nearest rounding reaches both operands") {
    // Magnitude 127: the step is 1. 7 is nearer to 8 than to 4.
    float const k[] = {127.0f, 7.0f, -7.0f, 5.0f};
    float const q[] = {7.0f, 127.0f, 6.0f, -5.0f};
    dlzs::key_index<nearest> const index(view<float const, key, dim>(k, {1, 4}));
    dlzs::query_codes<nearest> const codes(view<float const, head, query, dim>(q, {1, 1, 4}),
                                           index);
    std::vector<int> stored_k;
    std::vector<int> stored_q;
    for (index_t d = 0; d < 4; ++d) {
        stored_k.push_back(index.codes()(0, d));
        stored_q.push_back(codes.row(0, 0)(d));
    }
    CHECK(stored_k == std::vector{7, 4, -4, 3});
    CHECK(stored_q == std::vector{4, 7, 4, -3});
}

TEST_CASE("dlzs.operands: a channel in which all keys are equal does not coarsen the queries") {
    // Centred, such a channel says nothing about any key, however large the query is in it.
    SOFATTN_GENERATOR(random);
    auto k = test::random_matrix<float, key, dim>(random, {20, 8});
    auto q = test::random_matrix<float, head, query, dim>(random, {1, 1, 8});
    using codes = dlzs::query_codes<dlzs::centred_int4>;
    for (index_t r = 0; r < 20; ++r) {
        k(r, 3) = 5.0f;
    }
    q(0, 0, 3) = 0.0f;
    dlzs::key_index<dlzs::centred_int4> const index(k.cview());
    double const fine = codes(q.cview(), index).product_step(0);
    q(0, 0, 3) = 1000.0f;
    CHECK(codes(q.cview(), index).product_step(0) == fine);
}

TEST_CASE_TEMPLATE("dlzs.operands: storage types and strides do not matter", T, float, half,
                   bfloat16) {
    SOFATTN_GENERATOR(random);
    auto const k = test::random_matrix<T, key, dim>(random, {11, 13});
    auto const q = test::random_matrix<T, head, query, dim>(random, {2, 5, 13});
    auto const dense_k = test::converted<float>(k.cview());
    auto const dense_q = test::converted<float>(q.cview());
    auto const check = [&]<class P>(P) {
        dlzs::key_index<P> const index(dense_k.cview());
        dlzs::query_codes<P> const codes(dense_q.cview(), index);
        for (auto const kind : test::all_layouts) {
            auto const strided_k = test::strided(random, k.view(), kind);
            auto const strided_q = test::strided(random, q.view(), kind);
            dlzs::key_index<P> const other(strided_k.cview());
            dlzs::query_codes<P> const other_codes(strided_q.cview(), other);
            CHECK(same(other, index));
            for (index_t h = 0; h < 2; ++h) {
                for (index_t r = 0; r < 5; ++r) {
                    CHECK(same(other_codes.row(h, r), codes.row(h, r)));
                    CHECK(other_codes.product_step(r) == codes.product_step(r));
                }
            }
        }
    };
    check(dlzs::dlzs8{});
    check(dlzs::dlzs16{});
    check(dlzs::centred_int4{});
    check(dlzs::exact{});
}

TEST_CASE("dlzs.operands: no keys, no queries, zeros") {
    dlzs::key_index<dlzs::dlzs8> const none;
    CHECK(none.codes().size() == 0);
    CHECK(none.bits_per_key() == 0);
    CHECK(none.step(0) == 1.0f);

    tensor<float, key, dim> const no_keys({0, 4});
    tensor<float, head, query, dim> const zeros({2, 3, 4});
    auto const check = [&]<class P>(P) {
        dlzs::key_index<P> const index(no_keys.cview());
        dlzs::query_codes<P> const codes(zeros.cview(), index);
        CHECK(index.codes().template extent<key>() == 0);
        CHECK(codes.product_step(2) == 1.0);
        CHECK(codes.row(1, 2)(3) == 0);
        tensor<float, head, query, dim> const no_rows({2, 0, 4});
        dlzs::query_codes<P> const no_codes(no_rows.cview(), index);
    };
    check(dlzs::dlzs8{});
    check(by_row{});
    check(dlzs::centred_int4{});
    check(dlzs::exact{});
}
