// SPDX-License-Identifier: MIT
#include "support/generators.hpp"
#include <sofattn/core/error.hpp>
#include <sofattn/core/half.hpp>
#include <sofattn/core/tensor.hpp>
#include <sofattn/dlzs/operands.hpp>
#include <sofattn/dlzs/packed_index.hpp>
#include <sofattn/dlzs/page_ranges.hpp>
#include <sofattn/dlzs/policy.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

using namespace sofattn;
using namespace sofattn::test;

namespace {

template <class Policy>
struct paged_case {
    paged_case(generator& random, index_t keys, index_t dim, index_t rows,
               dlzs::page_options const& options)
        : k(random_matrix<half, axis::key, axis::dim>(random, {keys, dim})),
          q(random_matrix<half, axis::head, axis::query, axis::dim>(random, {rows, 1, dim})),
          index(dlzs::key_calibration<Policy>::of(k.cview()), options) {
        index.append(k.cview());
    }
    [[nodiscard]] dlzs::scan_queries queries() const {
        dlzs::scan_queries result;
        index.keys().encode(
            q.view().template extent<axis::head>(),
            [this](index_t r) {
                return q.view().template slice<axis::head>(r).template slice<axis::query>(0);
            },
            result);
        return result;
    }
    tensor<half, axis::key, axis::dim> k;
    tensor<half, axis::head, axis::query, axis::dim> q;
    dlzs::paged_index<Policy> index;
};

/// The definition, of the largest row.
template <class Policy>
std::int32_t page_score(paged_case<Policy> const& c, dlzs::scan_queries const& queries,
                        index_t page) {
    auto const& options = c.index.pages().options();
    index_t const first = page * options.keys;
    index_t const end = std::min(first + options.keys, c.index.size());
    std::int32_t best = std::numeric_limits<std::int32_t>::lowest();
    for (index_t r = 0; r < queries.rows; ++r) {
        std::int32_t score = 0;
        for (index_t d = 0; d < c.index.dim(); ++d) {
            int low = 1000;
            int high = -1000;
            for (index_t k = first; k < end; ++k) {
                int const code = dlzs::code_panels<Policy>::factor(c.index.keys().code(k, d));
                low = std::min(low, code);
                high = std::max(high, code);
            }
            int const q = queries.code(r, d);
            int const hopeful = q * options.hopeful / 16;
            score +=
                q > 0 ? hopeful * high + (q - hopeful) * low : hopeful * low + (q - hopeful) * high;
        }
        best = std::max(best, score);
    }
    return best;
}

template <class Policy>
std::vector<std::int32_t> page_scores(paged_case<Policy> const& c,
                                      dlzs::scan_queries const& queries) {
    auto const& pages = c.index.pages();
    std::vector<std::int32_t> scores(static_cast<std::size_t>(pages.padded(pages.size())));
    pages.largest_scores(pages.page_queries(queries), pages.size(), scores.data(), false);
    pages.largest_scores(pages.page_queries(queries), pages.size(), scores.data(), true);
    scores.resize(static_cast<std::size_t>(pages.size()));
    return scores;
}

} // namespace

TEST_CASE_TEMPLATE("dlzs.page_ranges: scores are the definition's, whatever the shape", P,
                   dlzs::int8, dlzs::centred_int4, dlzs::lz_keys, dlzs::dlzs8) {
    SOFATTN_GENERATOR(random);
    for (index_t const keys : {1, 15, 16, 17, 64, 65, 300, 1000}) {
        for (index_t const dim : {1, 3, 4, 5, 8, 31, 64, 127, 256}) {
            dlzs::page_options const options{16 * random.integer<index_t>(1, 4),
                                             random.integer<int>(8, 16)};
            paged_case<P> const c(random, keys, dim, random.integer<index_t>(1, 4), options);
            CAPTURE(keys);
            CAPTURE(dim);
            CAPTURE(options.keys);
            CAPTURE(options.hopeful);
            REQUIRE(c.index.pages().size() == ceil_div(keys, options.keys));
            auto const queries = c.queries();
            auto const scores = page_scores(c, queries);
            int wrong = 0;
            for (index_t page = 0; page < c.index.pages().size(); ++page) {
                wrong +=
                    scores[static_cast<std::size_t>(page)] == page_score(c, queries, page) ? 0 : 1;
            }
            CHECK(wrong == 0);
        }
    }
}

TEST_CASE_TEMPLATE("dlzs.page_ranges: sixteen hopeful parts bound every key of the page", P,
                   dlzs::int8, dlzs::centred_int4, dlzs::lz_keys) {
    SOFATTN_GENERATOR(random);
    for (index_t const page : {16, 48}) {
        index_t const keys = 500;
        paged_case<P> const c(random, keys, 40, 3, {page, 16});
        auto const queries = c.queries();
        auto const bounds = page_scores(c, queries);
        std::vector<std::int32_t> scores(static_cast<std::size_t>(c.index.keys().padded(keys)));
        c.index.keys().largest_scores(queries, keys, scores.data(), false);
        int above = 0;
        for (index_t k = 0; k < keys; ++k) {
            above +=
                scores[static_cast<std::size_t>(k)] > bounds[static_cast<std::size_t>(k / page)]
                    ? 1
                    : 0;
        }
        CHECK(above == 0);
    }
}

TEST_CASE_TEMPLATE("dlzs.page_ranges: a page of equal keys scores as they do", P, dlzs::int8,
                   dlzs::centred_int4, dlzs::lz_keys) {
    SOFATTN_GENERATOR(random);
    paged_case<P> c(random, 20, 33, 2, {});
    dlzs::paged_index<P> equal(dlzs::key_calibration<P>::of(c.k.cview()), {});
    for (int i = 0; i < 20; ++i) {
        equal.append(c.k.cview().template slice<axis::key>(3));
    }
    c.index = equal;
    auto const queries = c.queries();
    std::vector<std::int32_t> scores(32);
    c.index.keys().largest_scores(queries, 20, scores.data(), false);
    CHECK(page_scores(c, queries) == std::vector<std::int32_t>{scores[0], scores[16]});
}

TEST_CASE_TEMPLATE("dlzs.page_ranges: appended one by one or at once, the same bytes", P,
                   dlzs::int8, dlzs::centred_int4, dlzs::lz_keys) {
    SOFATTN_GENERATOR(random);
    for (index_t const page : {16, 32}) {
        for (index_t const keys : {1, 16, 17, 33, 150}) {
            paged_case<P> const c(random, keys, 29, 1, {page, 11});
            dlzs::paged_index<P> one_by_one(dlzs::key_calibration<P>::of(c.k.cview()), {page, 11});
            for (index_t k = 0; k < keys; ++k) {
                one_by_one.append(c.k.cview().template slice<axis::key>(k));
            }
            CHECK(std::ranges::equal(one_by_one.pages().bytes(), c.index.pages().bytes()));
            CHECK(std::ranges::equal(one_by_one.keys().bytes(), c.index.keys().bytes()));
            CHECK(c.index.pages().smallest(0, 5) <= c.index.pages().largest(0, 5));
        }
    }
}

TEST_CASE_TEMPLATE("dlzs.paged_index: truncated, the bytes of an index that never had more", P,
                   dlzs::int8, dlzs::centred_int4, dlzs::lz_keys) {
    SOFATTN_GENERATOR(random);
    for (int round = 0; round < 40; ++round) {
        index_t const keys = random.integer<index_t>(1, 200);
        paged_case<P> c(random, keys, random.integer<index_t>(1, 70), 1,
                        {.keys = 16 * random.integer<index_t>(1, 3)});
        dlzs::paged_index<P> fresh(dlzs::key_calibration<P>::of(c.k.cview()),
                                   c.index.pages().options());
        index_t length = 0;
        for (int step = 0; step < 10; ++step) {
            length = random.integer<index_t>(0, keys);
            if (length > c.index.size()) {
                c.index.append(
                    c.k.cview().template range<axis::key>(c.index.size(), length - c.index.size()));
            } else {
                c.index.truncate(length);
            }
        }
        fresh.append(c.k.cview().template range<axis::key>(0, length));
        CHECK(c.index.size() == length);
        CHECK(std::ranges::equal(c.index.keys().bytes(), fresh.keys().bytes()));
        CHECK(std::ranges::equal(c.index.pages().bytes(), fresh.pages().bytes()));
        CHECK(c.index.pages().size() == fresh.pages().size());
    }
}

TEST_CASE_TEMPLATE("dlzs.packed_index: scores of some pages are those of their keys", P, dlzs::int8,
                   dlzs::centred_int4, dlzs::lz_keys) {
    SOFATTN_GENERATOR(random);
    for (index_t const page : {16, 32, 48}) {
        for (index_t const keys : {1, 16, 20, 50, 333, 1000}) {
            for (index_t rows = 1; rows <= 4; ++rows) {
                paged_case<P> const c(random, keys, random.integer<index_t>(1, 70), rows,
                                      {page, 11});
                auto const& index = c.index.keys();
                auto const queries = c.queries();
                std::vector<std::int32_t> all(static_cast<std::size_t>(index.padded(keys)));
                index.largest_scores(queries, keys, all.data(), false);
                std::vector<key_id> pages;
                for (index_t p = 0; p < ceil_div(keys, page); ++p) {
                    if (random.chance(0.5)) {
                        pages.push_back(static_cast<key_id>(p));
                    }
                }
                std::vector<std::int32_t> scores(pages.size() * static_cast<std::size_t>(page) + 1,
                                                 -7);
                index.largest_scores_of_pages(queries, pages, page, scores.data(), false);
                int wrong = 0;
                for (std::size_t i = 0; i < pages.size(); ++i) {
                    for (index_t k = 0; k < page && pages[i] * page + k < keys; ++k) {
                        auto const at =
                            i * static_cast<std::size_t>(page) + static_cast<std::size_t>(k);
                        wrong += scores[at] == all[static_cast<std::size_t>(pages[i] * page + k)]
                                     ? 0
                                     : 1;
                    }
                }
                CHECK(wrong == 0);
                CHECK(scores.back() == -7);
            }
        }
    }
}

TEST_CASE("dlzs.page_ranges: refuses what no page is") {
    using ranges = dlzs::page_ranges<dlzs::centred_int4>;
    CHECK_THROWS_AS(ranges(0, {}), error);
    CHECK_THROWS_AS(ranges(max_head_dim + 1, {}), error);
    CHECK_THROWS_AS(ranges(64, {8, 11}), error);
    CHECK_THROWS_AS(ranges(64, {24, 11}), error);
    CHECK_THROWS_AS(ranges(64, {16, 7}), error);
    CHECK_THROWS_AS(ranges(64, {16, 17}), error);
    CHECK(ranges(64, {48, 8}).size() == 0);
}
