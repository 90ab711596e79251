// SPDX-License-Identifier: MIT
#include "dlzs/oracle.hpp"
#include <sofattn/core/bfloat16.hpp>
#include <sofattn/core/half.hpp>
#include <sofattn/dlzs/key_panels.hpp>

#include <doctest/doctest.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

using namespace sofattn;
using axis::dim;
using axis::head;
using axis::key;
using axis::query;

namespace {

struct coded_query : dlzs::dlzs8 {
    static constexpr granularity query_step = granularity::per_row;
};
struct channel_steps : dlzs::int8_per_query {
    static constexpr granularity key_step = granularity::per_channel;
    static constexpr bool centred_keys = true;
};

} // namespace

TEST_CASE("dlzs.key_panels: key by key, and after truncation, as made at once") {
    SOFATTN_GENERATOR(random);
    for (int round = 0; round < 40; ++round) {
        index_t const dims = random.integer<index_t>(1, 70);
        tensor<std::int8_t, key, dim> codes({100, dims});
        test::for_each_index(codes.view().extents(), [&](auto const& i) {
            test::at(codes.view(), i) = static_cast<std::int8_t>(random.integer(-127, 127));
        });
        auto panels = dlzs::key_panels::growing(dims);
        panels.reserve(random.integer<index_t>(0, 50));
        for (index_t keys = 0; keys < 100;) {
            keys = random.chance(0.3) ? random.integer<index_t>(0, keys) : keys;
            panels.truncate(keys);
            index_t const end = random.integer<index_t>(keys, 100);
            for (panels.reserve(end); keys < end; ++keys) {
                panels.append({&codes(keys, 0), static_cast<std::size_t>(dims)});
            }
            dlzs::key_panels const expected(codes.cview().range<key>(0, keys));
            REQUIRE(panels.keys() == keys);
            REQUIRE(panels.pages() == expected.pages());
            bool same = true;
            for (index_t p = 0; p < panels.pages(); ++p) {
                same = same && std::memcmp(panels.page(p), expected.page(p),
                                           static_cast<std::size_t>(panels.page_bytes())) == 0;
            }
            CHECK(same);
        }
    }
}

TEST_CASE_TEMPLATE("dlzs.key_panels: every code is in its lane, and nothing else but zeros", P,
                   dlzs::rotated_int8, dlzs::two_sided, dlzs::int4, dlzs::centred_int4) {
    SOFATTN_GENERATOR(random);
    constexpr index_t width = exec::page_keys;
    for (index_t dims = 1; dims <= 130; ++dims) {
        index_t const keys = random.integer<index_t>(0, 3 * width + 1);
        dlzs::key_index<P> const index(
            test::random_matrix<float, key, dim>(random, {keys, dims}).cview());
        dlzs::key_panels const panels(index);
        CHECK(panels.keys() == keys);
        CHECK(panels.pages() == ceil_div(keys, width));
        CHECK(panels.steps() == (dims + 3) / 4);
        index_t wrong = 0;
        for (index_t k = 0; k < ceil_div(keys, width) * width; ++k) {
            for (index_t d = 0; d < panels.steps() * 4; ++d) {
                int const code = k < keys && d < dims
                                     ? static_cast<int>(test::decoded(P::key, index.codes()(k, d)))
                                     : 0;
                std::uint8_t const byte =
                    panels.page(k / width)[(d / 4 * width + k % width) * 4 + d % 4];
                wrong += byte != exec::panel_byte(code) ? 1 : 0;
            }
        }
        CHECK(wrong == 0);
    }
    CHECK(dlzs::key_panels().keys() == 0);
}

TEST_CASE_TEMPLATE("dlzs.query_coder: a query at a time has the codes of all at once", P,
                   dlzs::rotated_int8, dlzs::int8_per_query, coded_query, channel_steps) {
    SOFATTN_GENERATOR(random);
    auto const check = [&]<class T>(T, index_t dims) {
        dlzs::key_index<P> const index(
            test::random_matrix<T, key, dim>(random, {20, dims}, test::spread::outlier_channels)
                .cview());
        auto const queries = test::random_matrix<T, head, query, dim>(random, {1, 3, dims});
        dlzs::query_codes<P> const expected(queries.cview(), index);
        auto const kind =
            test::all_layouts[static_cast<std::size_t>(dims) % test::all_layouts.size()];
        auto const copy = test::strided(random, queries.view(), kind);
        auto const size = static_cast<std::size_t>(dims);
        std::vector<std::int8_t> codes(size);
        std::vector<float> real(size);
        std::vector<double> wide(size);
        for (index_t r = 0; r < 3; ++r) {
            std::vector<std::int32_t> packed(static_cast<std::size_t>(dlzs::dot_steps(dims)), -1);
            std::int32_t start = 0;
            double const step = dlzs::query_coder<P>{}(
                copy.cview().template slice<head>(0).template slice<query>(r), index, codes, packed,
                start, real, wide);
            CHECK(step == expected.product_step(r));
            std::vector<std::int8_t> bytes(packed.size() * 4);
            std::memcpy(bytes.data(), packed.data(), bytes.size());
            std::int32_t sum = 0;
            bool same = true;
            for (std::size_t d = 0; d < bytes.size(); ++d) {
                int value = 0;
                if (d < size) {
                    auto const stored = expected.row(0, r)(static_cast<index_t>(d));
                    same = same && codes[d] == stored;
                    value = static_cast<int>(test::decoded(P::query, stored));
                }
                same = same && bytes[d] == value;
                sum += value;
            }
            CHECK(same);
            CHECK(start == exec::dot_start(sum));
        }
    };
    for (index_t dims = 1; dims <= 130; ++dims) {
        check(0.0f, dims);
        check(half{}, dims);
        check(bfloat16{}, dims);
    }
}
