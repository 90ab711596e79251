// SPDX-License-Identifier: MIT
#include "support/generators.hpp"
#include <sofattn/core/error.hpp>
#include <sofattn/core/half.hpp>
#include <sofattn/core/tensor.hpp>
#include <sofattn/dlzs/operands.hpp>
#include <sofattn/dlzs/packed_index.hpp>
#include <sofattn/dlzs/policy.hpp>
#include <sofattn/dlzs/predict_scores.hpp>
#include <sofattn/exec/executor.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

using namespace sofattn;
using namespace sofattn::test;

namespace {

template <class Policy>
struct index_case {
    index_case(generator& random, index_t keys, index_t dim, index_t rows, spread kind)
        : k(random_matrix<half, axis::key, axis::dim>(random, {keys, dim}, kind)),
          q(random_matrix<half, axis::head, axis::query, axis::dim>(random, {rows, 1, dim}, kind)),
          index(dlzs::key_calibration<Policy>::of(k.cview())) {
        index.append(k.cview());
    }
    [[nodiscard]] auto query() const {
        return [this](index_t r) {
            return q.view().template slice<axis::head>(r).template slice<axis::query>(0);
        };
    }
    tensor<half, axis::key, axis::dim> k;
    tensor<half, axis::head, axis::query, axis::dim> q;
    dlzs::packed_index<Policy> index;
};

static_assert(dlzs::packed_policy<dlzs::int8> && dlzs::packed_policy<dlzs::centred_int4> &&
              dlzs::packed_policy<dlzs::lz_keys> && dlzs::packed_policy<dlzs::dlzs8>);
static_assert(!dlzs::packed_policy<dlzs::exact> && !dlzs::packed_policy<dlzs::rotated_int8> &&
              !dlzs::packed_policy<dlzs::dlzs16>);

} // namespace

TEST_CASE_TEMPLATE("dlzs.packed_index: scores are those of predict_scores, to the bit", P,
                   dlzs::int8, dlzs::centred_int4, dlzs::lz_keys, dlzs::dlzs8, dlzs::two_sided) {
    SOFATTN_GENERATOR(random);
    for (index_t const keys : {1, 3, 4, 5, 15, 16, 17, 31, 33, 100}) {
        for (index_t const dim : {1, 3, 4, 5, 8, 9, 12, 13, 16, 31, 64, 127, 128, 256}) {
            index_t const rows = random.integer<index_t>(1, 4);
            spread const kind = all_spreads[random.integer<std::size_t>(0, 3)];
            CAPTURE(keys);
            CAPTURE(dim);
            index_case<P> const c(random, keys, dim, rows, kind);
            dlzs::key_index<P> const reference_index(c.k.cview());
            dlzs::query_codes<P> const codes(c.q.cview(), reference_index);
            dlzs::scan_queries queries;
            c.index.encode(rows, c.query(), queries);
            index_t const stride = c.index.padded(keys);
            std::vector<std::int32_t> scores(static_cast<std::size_t>(rows * stride));
            c.index.scores(queries, keys, scores.data(), stride);
            std::vector<std::int32_t> largest(static_cast<std::size_t>(stride));
            c.index.largest_scores(queries, keys, largest.data(), false);
            c.index.largest_scores(queries, keys, largest.data(), true);
            std::vector<std::int32_t> right_largest;
            for (index_t r = 0; r < rows; ++r) {
                exec::reference x;
                std::vector<std::int32_t> right(static_cast<std::size_t>(keys));
                dlzs::predict_scores<P>{}(x, codes.row(r, 0), reference_index.codes(), right);
                CHECK(std::ranges::equal(
                    right, std::span(scores).subspan(static_cast<std::size_t>(r * stride),
                                                     static_cast<std::size_t>(keys))));
                right_largest.resize(right.size(), right.front());
                for (std::size_t i = 0; i < right.size(); ++i) {
                    right_largest[i] = r == 0 ? right[i] : std::max(right_largest[i], right[i]);
                }
            }
            CHECK(std::ranges::equal(right_largest,
                                     std::span(largest).first(static_cast<std::size_t>(keys))));
        }
    }
}

TEST_CASE_TEMPLATE("dlzs.packed_index: keys one by one and all at once give the same bytes", P,
                   dlzs::int8, dlzs::centred_int4, dlzs::lz_keys) {
    SOFATTN_GENERATOR(random);
    for (index_t const keys : {1, 16, 17, 50}) {
        index_case<P> const c(random, keys, 21, 1, spread::normal);
        dlzs::packed_index<P> grown(dlzs::key_calibration<P>::of(c.k.cview()));
        for (index_t k = 0; k < keys; ++k) {
            std::vector<std::uint8_t> const before(grown.bytes().begin(), grown.bytes().end());
            grown.append(c.k.cview().template slice<axis::key>(k));
            CHECK(grown.size() == k + 1);
        }
        CHECK(std::ranges::equal(grown.bytes(), c.index.bytes()));
        CHECK(grown.clipped() == 0);
    }
}

TEST_CASE(
    "dlzs.packed_index: later tokens leave earlier scores alone, what is clipped is counted") {
    SOFATTN_GENERATOR(random);
    index_case<dlzs::centred_int4> c(random, 20, 8, 2, spread::normal);
    dlzs::scan_queries queries;
    c.index.encode(2, c.query(), queries);
    std::vector<std::int32_t> before(2 * 64);
    std::vector<std::int32_t> after(2 * 64);
    c.index.scores(queries, 20, before.data(), 64);
    tensor<half, axis::key, axis::dim> far({1, 8});
    for (index_t d = 0; d < 8; ++d) {
        far(0, d) = half(d < 3 ? 1000.0f : 0.0f);
    }
    c.index.append(far.cview());
    CHECK(c.index.clipped() == 3);
    c.index.scores(queries, 20, after.data(), 64);
    CHECK(std::equal(before.begin(), before.begin() + 20, after.begin()));
    CHECK(std::equal(before.begin() + 64, before.begin() + 84, after.begin() + 64));
}

TEST_CASE("dlzs.packed_index: 4-bit codes take half a byte per channel") {
    SOFATTN_GENERATOR(random);
    index_case<dlzs::int8> const bytes(random, 160, 128, 1, spread::normal);
    index_case<dlzs::centred_int4> const halves(random, 160, 128, 1, spread::normal);
    CHECK(bytes.index.bytes().size() == 160 * 128);
    CHECK(halves.index.bytes().size() == 160 * 64);
}

TEST_CASE("dlzs.packed_index: a calibration that does not fit is named") {
    CHECK_THROWS_AS(dlzs::packed_index<dlzs::int8>(dlzs::key_calibration<dlzs::int8>{}), error);
    dlzs::key_calibration<dlzs::centred_int4> c;
    c.dim = 4;
    c.steps.resize(1);
    CHECK_THROWS_AS(dlzs::packed_index<dlzs::centred_int4>{c}, error);
}
