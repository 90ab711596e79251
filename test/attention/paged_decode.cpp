// SPDX-License-Identifier: MIT
// Keys and values in pages of a pool: the same bits as in a row.
#include "attention/decode_case.hpp"
#include "support/generators.hpp"
#include "support/own_threads.hpp"
#include <sofattn/attention/decode.hpp>
#include <sofattn/attention/dense.hpp>
#include <sofattn/attention/paged_problem.hpp>
#include <sofattn/attention/sparse_decode.hpp>
#include <sofattn/core/bfloat16.hpp>
#include <sofattn/core/error.hpp>
#include <sofattn/core/half.hpp>
#include <sofattn/core/page_table.hpp>
#include <sofattn/dlzs/page_ranges.hpp>
#include <sofattn/dlzs/policy.hpp>
#include <sofattn/exec/parallel.hpp>

#include <doctest/doctest.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <numeric>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

using namespace sofattn;
using namespace sofattn::test;

namespace {

/// A layer's keys and values spread over the pages of a pool that has more.
template <class T>
struct paged_layer {
    paged_layer(generator& random, decode_case<T> const& of, index_t page_tokens, bool in_order)
        : layer(of), page(page_tokens) {
        problem_shape const s = of.given().shape();
        index_t const used = ceil_div(s.keys, page);
        index_t const pages = used + 3;
        numbers.resize(static_cast<std::size_t>(pages));
        std::iota(numbers.begin(), numbers.end(), 0);
        if (!in_order) {
            random.shuffle(numbers);
        }
        numbers.resize(static_cast<std::size_t>(used));
        rows = random_matrix<T, axis::kv_head, axis::key, axis::dim>(
            random, {s.kv_heads, pages * page, s.dim + s.value_dim});
        page_table const table{numbers, page};
        for (index_t h = 0; h < s.kv_heads; ++h) {
            for (index_t k = 0; k < s.keys; ++k) {
                for (index_t d = 0; d < s.dim; ++d) {
                    rows(h, table.row(k), d) = of.k(h, k, d);
                }
                for (index_t d = 0; d < s.value_dim; ++d) {
                    rows(h, table.row(k), s.dim + d) = of.v(h, k, d);
                }
            }
        }
    }
    /// K and V of a token side by side.
    [[nodiscard]] paged_problem<T> given() const {
        problem_shape const s = layer.given().shape();
        auto const all = rows.cview();
        paged_problem<T> p;
        p.queries = layer.q.view();
        p.keys = all.template range<axis::dim>(0, s.dim);
        p.values = all.template range<axis::dim>(s.dim, s.value_dim)
                       .template renamed<axis::kv_head, axis::key, axis::value_dim>();
        p.table = {numbers, page};
        p.tokens = s.keys;
        p.causal = layer.causal;
        return p;
    }

    decode_case<T> const& layer;
    index_t page;
    std::vector<std::int32_t> numbers;
    tensor<T, axis::kv_head, axis::key, axis::dim> rows;
};

template <class Given, class Run = exec::serial>
decode_output attend(Given const& given, Run const& run = {}) {
    problem_shape const s = given.shape();
    decode_output output({s.heads, s.queries, s.value_dim});
    guarded_workspace workspace(decode_workspace_bytes(s, run.threads()));
    dense_decode(given, output.view(), workspace.span(), run);
    CHECK(workspace.kept_outside());
    return output;
}

} // namespace

TEST_CASE_TEMPLATE("attention.paged: dense decode has the bits of keys in a row", T, float, half,
                   bfloat16) {
    SOFATTN_GENERATOR(random);
    for (index_t const keys : {1, 63, 65, 200, 1025, 2300}) {
        for (index_t const page : {1, 3, 16, 64, 100, 4096}) {
            for (bool const in_order : {true, false}) {
                CAPTURE(keys);
                CAPTURE(page);
                index_t const dim = random.chance(0.5) ? 32 : 27; // read as they lie, or copied
                decode_case<T> const layer(
                    random, {random.integer<index_t>(1, 2), random.integer<index_t>(1, 5),
                             random.integer<index_t>(1, 3), keys, dim, 16, random.chance(0.5)});
                paged_layer<T> const paged(random, layer, page, in_order);
                paged.given().require_pages();
                decode_output const expected = attend(layer.given());
                CHECK(same_bits(attend(paged.given()), expected));
                CHECK(same_bits(attend(paged.given(), own_threads{}), expected));
            }
        }
    }
}

TEST_CASE_TEMPLATE("attention.paged: dense prefill has the bits of keys in a row, every mask", T,
                   float, half, bfloat16) {
    SOFATTN_GENERATOR(random);
    for (index_t const keys : {1, 70, 400}) {
        for (index_t const page : {1, 16, 100}) {
            for (int mask = 0; mask < 4; ++mask) {
                CAPTURE(keys);
                CAPTURE(page);
                CAPTURE(mask);
                index_t const dim = random.chance(0.5) ? 16 : 11;
                decode_case<T> const layer(
                    random, {2, 2, random.integer<index_t>(1, 90), keys, dim, 16, mask > 0});
                paged_layer<T> const paged(random, layer, page, random.chance(0.3));
                auto const attends = [&](auto given, auto products) {
                    given.window = mask == 2 ? 37 : 0;
                    given.prefix = mask == 3 ? 29 : 0;
                    problem_shape const s = given.shape();
                    decode_output output({s.heads, s.queries, s.value_dim});
                    guarded_workspace workspace(dense_workspace_bytes(s, 1));
                    dense_attention<products>(given, output.view(), workspace.span(),
                                              exec::serial{});
                    CHECK(workspace.kept_outside());
                    return output;
                };
                auto const compare = [&](auto products) {
                    CHECK(same_bits(attends(paged.given(), products),
                                    attends(layer.given(), products)));
                };
                compare(std::integral_constant<dense_products, dense_products::f32>{});
                compare(std::integral_constant<dense_products, dense_products::bf16>{});
            }
        }
    }
}

TEST_CASE("attention.decode: a window, for one query") {
    SOFATTN_GENERATOR(random);
    for (index_t const keys : {1, 100, 3000}) {
        for (index_t const window : {1, 64, 1500, 5000}) {
            decode_case<> layer(random, {2, 3, 1, keys, 16, 16, true});
            layer.window = window;
            paged_layer<float> const paged(random, layer, 16, false);
            paged_problem<float> in_pages = paged.given();
            in_pages.window = window;
            decode_output const output = attend(layer.given());
            CHECK(deviation(layer.given(), output, [&](index_t, index_t, index_t key) {
                      return key >= keys - window;
                  }) <= 2e-5);
            CHECK(same_bits(attend(in_pages), output));
        }
    }
}

TEST_CASE_TEMPLATE("attention.paged: sparse decode keeps the same keys and has the same bits", T,
                   float, half) {
    SOFATTN_GENERATOR(random);
    using policy = dlzs::centred_int4;
    using index = dlzs::paged_index<policy>;
    for (selection_scope const scope :
         {selection_scope::per_group, selection_scope::per_query_head}) {
        for (index_t const page : {1, 16, 50}) {
            decode_case<T> const layer(random, {2, 3, 2, 1500, 32, 32, true});
            std::vector<index> indices;
            for (index_t h = 0; h < 2; ++h) {
                auto const keys = layer.k.cview().template slice<axis::kv_head>(h);
                indices.emplace_back(dlzs::key_calibration<policy>::of(keys));
                indices.back().append(keys);
            }
            sparse_decode_options options;
            options.count = 100;
            options.window = 10;
            options.scope = scope;
            using selections = std::map<std::pair<index_t, index_t>, std::vector<key_id>>;
            auto const run = [&](auto const& given, selections& kept) {
                problem_shape const s = given.shape();
                decode_output output({s.heads, s.queries, s.value_dim});
                guarded_workspace workspace(sparse_decode_workspace_bytes(given, options, 2));
                std::mutex lock;
                sparse_decode(given, std::span<index const>(indices), options, output.view(),
                              workspace.span(), exec::openmp(2),
                              [&](index_t head, index_t query, std::span<key_id const> keys) {
                                  std::lock_guard const guard(lock);
                                  kept[{head, query}].assign(keys.begin(), keys.end());
                              });
                CHECK(workspace.kept_outside());
                return output;
            };
            selections in_row;
            selections in_pages;
            decode_output const expected = run(layer.given(), in_row);
            CHECK(same_bits(run(paged_layer<T>(random, layer, page, false).given(), in_pages),
                            expected));
            CHECK(in_row == in_pages);
            CHECK(!in_row.empty());
        }
    }
}

TEST_CASE("attention.paged: what does not fit is refused") {
    SOFATTN_GENERATOR(random);
    decode_case<> const layer(random, {1, 2, 1, 40, 8, 8, true});
    paged_layer<float> paged(random, layer, 16, true);
    paged_problem<float> given = paged.given();
    given.tokens = 49;
    CHECK_THROWS_WITH_AS((void)given.shape(),
                         "attention: tokens of the sequence is 49, must be at least 1 and at most "
                         "those of its pages, 48",
                         error);
    given = paged.given();
    given.table.page_tokens = 0;
    CHECK_THROWS_WITH_AS((void)given.shape(), "attention: tokens per page is 0, must be at least 1",
                         error);
    paged.numbers[1] = 6;
    CHECK_THROWS_WITH_AS(paged.given().require_pages(),
                         "attention: page of the pool is 6, must be at least 0 and less than 6",
                         error);
}
