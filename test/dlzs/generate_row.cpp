// SPDX-License-Identifier: MIT
#include "core/aborts.hpp"
#include "dlzs/oracle.hpp"
#include "support/watched.hpp"
#include <sofattn/dlzs/generate_row.hpp>

#include <doctest/doctest.h>

#include <cstddef>
#include <span>
#include <vector>

using namespace sofattn;
using axis::channel;
using axis::dim;
using axis::key;
using axis::value_dim;
using dlzs::generate_row;
using probe::event;
using probe::stage;

namespace {

constexpr index_t tokens = 6;
constexpr index_t channels = 40;
constexpr index_t dims = 12;

template <class T, class Dim, class X>
std::vector<float> generated(X& x, view<T const, key, channel> from,
                             dlzs::projection<T, Dim> const& by, index_t token) {
    std::vector<float> row(static_cast<std::size_t>(by.dims()));
    generate_row{}(x, from, by, token, std::span(row));
    return row;
}

/// The dense projection in double, rounded to float once, [token][dim].
template <class T, class Dim>
std::vector<std::vector<float>> dense(view<T const, key, channel> from,
                                      dlzs::projection<T, Dim> const& by) {
    std::vector<std::vector<float>> rows;
    for (index_t t = 0; t < from.template extent<key>(); ++t) {
        rows.emplace_back();
        for (index_t d = 0; d < by.dims(); ++d) {
            double sum = 0;
            for (index_t c = 0; c < by.channels(); ++c) {
                sum += static_cast<double>(static_cast<float>(from(t, c))) *
                       static_cast<double>(static_cast<float>(by.weights(c, d)));
            }
            rows.back().push_back(static_cast<float>(
                sum + (by.has_bias() ? static_cast<double>(static_cast<float>(by.bias(d))) : 0.0)));
        }
    }
    return rows;
}

} // namespace

TEST_CASE_TEMPLATE("dlzs.generate_row: a row is the dense projection in double, rounded once", T,
                   float, half, bfloat16) {
    SOFATTN_GENERATOR(random);
    auto const x = test::random_matrix<T, key, channel>(random, {tokens, channels});
    auto const w = test::random_matrix<T, channel, value_dim>(random, {channels, dims});
    auto const b = test::random_matrix<T, value_dim>(random, {dims});
    dlzs::projection<T, value_dim> const plain{w.cview()};
    dlzs::projection<T, value_dim> const biased{w.cview(), b.cview()};
    auto const expected = dense(x.cview(), plain);
    auto const expected_biased = dense(x.cview(), biased);
    exec::reference reference;
    test::counted<8> wide;
    for (index_t t = 0; t < tokens; ++t) {
        auto const at = static_cast<std::size_t>(t);
        CHECK(generated(reference, x.cview(), plain, t) == expected[at]);
        CHECK(generated(reference, x.cview(), biased, t) == expected_biased[at]);
        CHECK(generated(wide, x.cview(), biased, t) == expected_biased[at]);
    }
}

TEST_CASE("dlzs.generate_row: the same bits whichever other rows are generated") {
    SOFATTN_GENERATOR(random);
    auto const x = test::random_matrix<float, key, channel>(random, {tokens, channels});
    auto const w = test::random_matrix<float, channel, dim>(random, {channels, dims});
    dlzs::rope const turn(dims, dlzs::rope_layout::halves);
    dlzs::projection<float, dim> const by{w.cview(), {}, &turn};
    exec::reference all;
    std::vector<std::vector<float>> rows;
    for (index_t t = 0; t < tokens; ++t) {
        rows.push_back(generated(all, x.cview(), by, t));
    }
    exec::reference some;
    for (index_t const t : {4, 1, 4}) {
        CHECK(generated(some, x.cview(), by, t) == rows[static_cast<std::size_t>(t)]);
    }
    // Nor does it matter what the other tokens are.
    tensor<float, key, channel> alone({tokens, channels});
    for (index_t c = 0; c < channels; ++c) {
        alone(4, c) = x(4, c);
    }
    CHECK(generated(some, alone.cview(), by, 4) == rows[4]);
}

TEST_CASE("dlzs.generate_row: RoPE turns a row by its own position, after the bias") {
    SOFATTN_GENERATOR(random);
    auto const x = test::random_matrix<float, key, channel>(random, {tokens, channels});
    auto const w = test::random_matrix<float, channel, dim>(random, {channels, dims});
    auto const b = test::random_matrix<float, dim>(random, {dims});
    for (auto const layout : {dlzs::rope_layout::interleaved, dlzs::rope_layout::halves}) {
        dlzs::rope const turn(dims, layout);
        dlzs::projection<float, dim> const flat{w.cview(), b.cview()};
        dlzs::projection<float, dim> const turned{w.cview(), b.cview(), &turn};
        auto const rows = dense(x.cview(), flat);
        exec::reference reference;
        for (index_t t = 0; t < tokens; ++t) {
            auto expected = rows[static_cast<std::size_t>(t)];
            turn(std::span(expected), t);
            CHECK(generated(reference, x.cview(), turned, t) == expected);
        }
    }
}

TEST_CASE("dlzs.generate_row: strides of tokens and weights do not matter") {
    SOFATTN_GENERATOR(random);
    auto const x = test::random_matrix<bfloat16, key, channel>(random, {tokens, channels});
    auto const w = test::random_matrix<bfloat16, channel, dim>(random, {channels, dims});
    dlzs::projection<bfloat16, dim> const by{w.cview()};
    auto const rows = dense(x.cview(), by);
    exec::reference reference;
    for (auto const kind : test::all_layouts) {
        auto const other_x = test::strided(random, x.view(), kind);
        auto const other_w =
            test::strided(random, w.view(), kind); // transposed: W stored [dim, channel]
        dlzs::projection<bfloat16, dim> const other{other_w.cview()};
        CHECK(generated(reference, other_x.cview(), other, 5) == rows[5]);
    }
}

TEST_CASE("dlzs.generate_row: one row by hand, with its counts") {
    // x = (1, 2, -1), W = (1 0; 0.5 3; 2 -1), b = (10, 20):
    // (1 + 1 - 2 + 10, 0 + 6 + 1 + 20) = (10, 27)
    float const x[] = {9.0f, 9.0f, 9.0f, 1.0f, 2.0f, -1.0f};
    float const w[] = {1.0f, 0.0f, 0.5f, 3.0f, 2.0f, -1.0f};
    float const b[] = {10.0f, 20.0f};
    view<float const, key, channel> const from(x, {2, 3});
    view<float const, channel, dim> const weights(w, {3, 2});
    view<float const, dim> const bias(b, {2});

    exec::counting plain;
    CHECK(generated(plain, from, dlzs::projection<float, dim>{weights}, 1) ==
          std::vector{0.0f, 7.0f});
    CHECK(plain.probe.count(stage::kv_generation, event::multiply) == 6);
    CHECK(plain.probe.count(stage::kv_generation, event::add) == 6);

    exec::counting biased;
    CHECK(generated(biased, from, dlzs::projection<float, dim>{weights, bias}, 1) ==
          std::vector{10.0f, 27.0f});
    CHECK(biased.probe.count(stage::kv_generation, event::multiply) == 6);
    CHECK(biased.probe.count(stage::kv_generation, event::add) == 8);

    exec::counting turned;
    dlzs::rope const turn(2, dlzs::rope_layout::halves);
    dlzs::projection<float, dim> const by{weights, bias, &turn};
    CHECK(generated(turned, from, by, 1)[0] ==
          doctest::Approx(10 * 0.5403023059 - 27 * 0.8414709848));
    CHECK(turned.probe.count(stage::kv_generation, event::multiply) == 6 + 4);
    CHECK(turned.probe.count(stage::kv_generation, event::add) == 8 + 2);
}

TEST_CASE("dlzs.generate_row: counts ignore lane width") {
    SOFATTN_GENERATOR(random);
    auto const x = test::random_matrix<float, key, channel>(random, {tokens, channels});
    auto const w = test::random_matrix<float, channel, dim>(random, {channels, dims});
    dlzs::projection<float, dim> const by{w.cview()};
    exec::counting narrow;
    auto const row = generated(narrow, x.cview(), by, 3);
    test::for_each_width([&]<index_t Width>() {
        test::counted<Width> wide;
        CHECK(generated(wide, x.cview(), by, 3) == row);
        CHECK(wide.probe == narrow.probe);
    });
}

TEST_CASE("dlzs.generate_row: shapes and tokens that do not fit are refused") {
    tensor<float, key, channel> const x({2, 3});
    tensor<float, channel, dim> const w({3, 4});
    dlzs::projection<float, dim> const by{w.cview()};
    exec::reference reference;
    std::vector<float> row(4);
    generate_row{}(reference, x.cview(), by, 1, std::span(row));
    SOFATTN_CHECK_ABORTS("key >= 0", generate_row{}(reference, x.cview(), by, -1, std::span(row)));
    SOFATTN_CHECK_ABORTS("key < tokens",
                         generate_row{}(reference, x.cview(), by, 2, std::span(row)));
    row.resize(5);
    SOFATTN_CHECK_ABORTS("std::ssize(row) == dims",
                         generate_row{}(reference, x.cview(), by, 1, std::span(row)));
    tensor<float, key, channel> const narrow({2, 2});
    SOFATTN_CHECK_ABORTS("extent<axis::channel>() == channels",
                         generate_row{}(reference, narrow.cview(), by, 1, std::span(row)));
}

TEST_CASE("dlzs.generate_row: a watched number does what is declared") {
    SOFATTN_GENERATOR(random);
    auto const x = test::random_matrix<float, axis::key, axis::channel>(random, {2, 21});
    auto const w = test::random_matrix<float, axis::channel, axis::dim>(random, {21, 6});
    auto const b = test::random_matrix<float, axis::dim>(random, {6});
    for (bool const biased : {false, true}) {
        dlzs::projection<float, axis::dim> by;
        by.weights = w.view();
        if (biased) {
            by.bias = b.view();
        }
        std::vector<float> row(6);
        test::watched_executor watching;
        auto const seen =
            test::watch([&] { dlzs::generate_row{}(watching, x.cview(), by, 1, std::span(row)); });
        CHECK(seen.multiplies == watching.probe.count(probe::event::multiply));
        CHECK(seen.adds == watching.probe.count(probe::event::add));
        std::vector<float> plain(6);
        exec::reference reference;
        dlzs::generate_row{}(reference, x.cview(), by, 1, std::span(plain));
        CHECK(row == plain);
    }
}
