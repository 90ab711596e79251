// SPDX-License-Identifier: MIT
#include "dlzs/oracle.hpp"
#include <sofattn/core/hadamard.hpp>
#include <sofattn/dlzs/operands.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <type_traits>
#include <utility>
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

// --- rotated -------------------------------------------------------------------------------------

namespace {

/// What rotated_int8 is of rows that are rotated already.
struct centred_int8 : dlzs::int8_per_query {
    static constexpr bool centred_keys = true;
};

constexpr index_t rotated_dims[] = {1, 2, 7, 24, 64, 80, 96, 256};

/// Rows of the last axis, rotated in double, and each element rounded to float.
template <class T, class... Axes>
tensor<float, Axes...> turned(view<T const, Axes...> rows) {
    auto result = test::converted<float>(rows);
    index_t const dims = rows.extents().back();
    test::for_each_index(rows.extents(), [&](auto i) {
        if (i.back() == 0) {
            std::vector<double> row;
            for (; i.back() < dims; ++i.back()) {
                row.push_back(static_cast<double>(to_float(test::at(rows, i))));
            }
            hadamard_rotate(row);
            for (; i.back()-- > 0;) {
                test::at(result.view(), i) =
                    static_cast<float>(row[static_cast<std::size_t>(i.back())]);
            }
        }
    });
    return result;
}

/// Keys [key, dim] and queries [1, query, dim], and q.k by the definition and by the index.
template <class P>
struct product_case {
    product_case(tensor<float, key, dim> keys, tensor<float, head, query, dim> queries)
        : k(std::move(keys)), q(std::move(queries)), index(k.cview()), codes(q.cview(), index),
          turned_q(turned(q.cview())) {}

    [[nodiscard]] index_t dims() const { return k.template extent<dim>(); }
    [[nodiscard]] double exact(index_t r, index_t at) const {
        double sum = 0;
        for (index_t d = 0; d < dims(); ++d) {
            sum += static_cast<double>(q(0, r, d)) * static_cast<double>(k(at, d));
        }
        return sum;
    }
    /// The centre's part, the same for all keys of a row, included.
    [[nodiscard]] double predicted(index_t r, index_t at) const {
        int score = 0;
        double offset = 0;
        for (index_t d = 0; d < dims(); ++d) {
            score += codes.row(0, r)(d) * index.codes()(at, d);
            if (P::centred_keys) {
                float const x = P::rotated ? turned_q(0, r, d) : q(0, r, d);
                offset += static_cast<double>(x) *
                          static_cast<double>(index.centre()[static_cast<std::size_t>(d)]);
            }
        }
        double const block = P::rotated ? static_cast<double>(hadamard_block(dims())) : 1.0;
        return codes.product_step(r) * static_cast<double>(score) + block * offset;
    }

    tensor<float, key, dim> k;
    tensor<float, head, query, dim> q;
    dlzs::key_index<P> index;
    dlzs::query_codes<P> codes;
    tensor<float, head, query, dim> turned_q;
};

} // namespace

TEST_CASE_TEMPLATE("dlzs.operands: rotated_int8 is centred int8 of rotated rows", T, float, half,
                   bfloat16) {
    SOFATTN_GENERATOR(random);
    for (index_t const dims : rotated_dims) {
        for (auto const kind : test::all_spreads) {
            CAPTURE(dims);
            auto const k = test::random_matrix<T, key, dim>(random, {33, dims}, kind);
            auto const q = test::random_matrix<T, head, query, dim>(random, {2, 5, dims}, kind);
            auto const strided_k = test::strided(random, k.view(), test::layout::mixed);
            auto const strided_q = test::strided(random, q.view(), test::layout::mixed);
            dlzs::key_index<dlzs::rotated_int8> const index(strided_k.cview());
            dlzs::query_codes<dlzs::rotated_int8> const codes(strided_q.cview(), index);
            dlzs::key_index<centred_int8> const plain(turned(k.cview()).cview());
            dlzs::query_codes<centred_int8> const plain_codes(turned(q.cview()).cview(), plain);
            CHECK(same(index.codes(), plain.codes()));
            CHECK(index.centre() == plain.centre()); // of the rotated keys
            CHECK(index.step(0) == plain.step(0));
            for (index_t r = 0; r < 5; ++r) {
                CHECK(codes.product_step(r) ==
                      plain_codes.product_step(r) * static_cast<double>(hadamard_block(dims)));
                for (index_t h = 0; h < 2; ++h) {
                    CHECK(same(codes.row(h, r), plain_codes.row(h, r)));
                }
            }
        }
    }
}

TEST_CASE("dlzs.operands: the centre of rotated keys is the rotated mean of the keys") {
    SOFATTN_GENERATOR(random);
    auto k = test::random_matrix<float, key, dim>(random, {40, 24});
    for (index_t r = 0; r < 40; ++r) {
        k(r, 5) += 100.0f;
    }
    dlzs::key_index<dlzs::rotated_int8> const index(k.cview());
    std::vector<double> means;
    for (float const mean : column_means(k.cview())) {
        means.push_back(static_cast<double>(mean));
    }
    hadamard_rotate(means);
    for (std::size_t d = 0; d < means.size(); ++d) {
        CHECK(std::abs(static_cast<double>(index.centre()[d]) - means[d]) <= 1e-5);
    }
}

TEST_CASE("dlzs.operands: rotated scores and the centre give q.k within the quantisers' bounds") {
    SOFATTN_GENERATOR(random);
    using policy = dlzs::rotated_int8;
    for (index_t const dims : rotated_dims) {
        for (auto const kind : test::all_spreads) {
            CAPTURE(dims);
            product_case<policy> const c(
                test::random_matrix<float, key, dim>(random, {40, dims}, kind),
                test::random_matrix<float, head, query, dim>(random, {1, 6, dims}, kind));
            auto const turned_k = turned(c.k.cview());
            auto const block = static_cast<double>(hadamard_block(dims));
            auto const key_step = static_cast<double>(c.index.step(0));
            for (index_t r = 0; r < 6; ++r) {
                double const query_step = c.codes.product_step(r) / (key_step * block);
                for (index_t at = 0; at < 40; ++at) {
                    double bound = 0;
                    for (index_t d = 0; d < dims; ++d) {
                        auto const q = static_cast<double>(c.turned_q(0, r, d));
                        auto const k = static_cast<double>(turned_k(at, d));
                        auto const mean =
                            static_cast<double>(c.index.centre()[static_cast<std::size_t>(d)]);
                        double const key_error =
                            test::operand_error(policy::key, 8, key_step, k - mean);
                        double const query_error =
                            test::operand_error(policy::query, 8, query_step, q);
                        bound += std::abs(q) * key_error +
                                 query_error * (std::abs(k - mean) + key_error) +
                                 // float: the two rotated numbers, and the key less the mean
                                 0x1p-22 * std::abs(q) * (std::abs(k) + std::abs(mean));
                    }
                    if (!(std::abs(c.predicted(r, at) - c.exact(r, at)) <= block * bound)) {
                        FAIL_CHECK("query ", r, ", key ", at, ": ", c.predicted(r, at), " for ",
                                   c.exact(r, at), ", bound ", block * bound);
                    }
                }
            }
        }
    }
}

TEST_CASE("dlzs.operands: where one channel is huge, rotated int8 errs a third of int8 or less") {
    SOFATTN_GENERATOR(random);
    for (index_t const dims : {64, 96, 128}) {
        auto k = test::random_matrix<float, key, dim>(random, {200, dims});
        auto const q = test::random_matrix<float, head, query, dim>(random, {1, 50, dims});
        for (index_t r = 0; r < 200; ++r) {
            k(r, 3) *= 60.0f;
        }
        auto const rms = [&]<class P>(P) {
            product_case<P> const c(k, q);
            double sum = 0;
            for (index_t r = 0; r < 50; ++r) {
                for (index_t at = 0; at < 200; ++at) {
                    double const off = c.predicted(r, at) - c.exact(r, at);
                    sum += off * off / (50.0 * 200.0);
                }
            }
            return std::sqrt(sum);
        };
        CAPTURE(dims);
        double const plain = rms(dlzs::int8_per_query{});
        double const rotated = rms(dlzs::rotated_int8{});
        CHECK(rotated * 3.0 <= plain);
    }
}

TEST_CASE("dlzs.operands: rotated rows of zeros, no keys, and the largest floats") {
    using policy = dlzs::rotated_int8;
    tensor<float, head, query, dim> queries({1, 1, 12});
    dlzs::key_index<policy> const none(tensor<float, key, dim>({0, 12}).cview());
    CHECK(none.codes().template extent<key>() == 0);
    dlzs::query_codes<policy> const zeros(queries.cview(), none);
    CHECK(zeros.product_step(0) == 4.0); // the block
    CHECK(zeros.row(0, 0)(11) == 0);
    test::for_each_index(queries.view().extents(), [&](auto const& i) {
        test::at(queries.view(), i) = std::numeric_limits<float>::max();
    });
    dlzs::query_codes<policy> const largest(queries.cview(), none);
    for (index_t d = 0; d < 12; ++d) {
        CHECK(largest.row(0, 0)(d) == (d % 4 == 0 ? 127 : 0));
    }
}
