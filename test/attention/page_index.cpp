// SPDX-License-Identifier: MIT
// Indexes that grow and shrink, against those that were never anything else.
#include "attention/index_content.hpp"
#include "support/allocation_counts.hpp"
#include "support/generators.hpp"
#include <sofattn/attention/page_index.hpp>
#include <sofattn/attention/page_prefill.hpp>
#include <sofattn/core/bfloat16.hpp>
#include <sofattn/core/half.hpp>
#include <sofattn/core/page_table.hpp>
#include <sofattn/core/tensor.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/dlzs/page_sketch.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <numeric>
#include <type_traits>
#include <vector>

namespace {

using namespace sofattn;
using test::index_content;

/// Keys and values of a sequence in a row, and the same in pages of a pool.
template <class T>
struct sequence_case {
    sequence_case(test::generator& random, index_t tokens, index_t dim, index_t value_dim,
                  index_t page_tokens)
        : keys(test::random_matrix<T, axis::key, axis::dim>(random, {tokens, dim})),
          values(test::random_matrix<T, axis::key, axis::value_dim>(random, {tokens, value_dim})),
          numbers(static_cast<std::size_t>(ceil_div(tokens, page_tokens) + 2)),
          pool_keys({std::ssize(numbers) * page_tokens, dim}),
          pool_values({std::ssize(numbers) * page_tokens, value_dim}), page(page_tokens) {
        for (index_t k = 0; k < tokens; ++k) { // calibrations of a part are not those of all
            for (index_t d = 0; d < dim; ++d) {
                keys(k, d) = T(to_float(keys(k, d)) * (random.chance(0.02) ? 5.0f : 1.0f) +
                               static_cast<float>(k % 300) / 100.0f);
            }
        }
        std::iota(numbers.begin(), numbers.end(), 0);
        random.shuffle(numbers);
        for (index_t k = 0; k < tokens; ++k) {
            for (index_t d = 0; d < dim; ++d) {
                pool_keys(table().row(k), d) = keys(k, d);
            }
            for (index_t d = 0; d < value_dim; ++d) {
                pool_values(table().row(k), d) = values(k, d);
            }
        }
    }
    [[nodiscard]] page_table table() const { return {numbers, page}; }
    [[nodiscard]] auto first_keys(index_t n) const {
        return keys.cview().template range<axis::key>(0, n);
    }
    [[nodiscard]] auto first_values(index_t n) const {
        return values.cview().template range<axis::key>(0, n);
    }
    template <class Index>
    void grow(Index& index, index_t n, bool from_pool) const {
        if (from_pool) {
            index.grow(paged_view(pool_keys.cview(), table(), 0, n),
                       paged_view(pool_values.cview(), table(), 0, n));
        } else {
            index.grow(first_keys(n), first_values(n));
        }
    }
    template <class Index>
    void truncate(Index& index, index_t n, bool from_pool) const {
        if (from_pool) {
            index.truncate(paged_view(pool_keys.cview(), table(), 0, n));
        } else {
            index.truncate(first_keys(n));
        }
    }

    tensor<T, axis::key, axis::dim> keys;
    tensor<T, axis::key, axis::value_dim> values;
    std::vector<std::int32_t> numbers;
    tensor<T, axis::key, axis::dim> pool_keys;
    tensor<T, axis::key, axis::value_dim> pool_values;
    index_t page;
};

template <class Index, class T>
void check_fresh(sequence_case<T> const& c, Index const& index, index_t n) {
    Index fresh(index.dim(), index.value_dim());
    c.grow(fresh, n, false);
    REQUIRE(index.keys() == n);
    CHECK(index_content(index) == index_content(fresh));
}

template <dense_products Products, class T>
void live(test::generator& random) {
    using index_type = typename page_prefill<Products>::index_type;
    index_t const most = 900;
    sequence_case<T> const c(random, most, random.integer<index_t>(1, 70),
                             random.integer<index_t>(1, 70), random.integer<index_t>(1, 40));
    index_t const dim = c.keys.cview().template extent<axis::dim>();
    index_t const value_dim = c.values.cview().template extent<axis::value_dim>();
    struct one {
        index_type index;
        index_t tokens = 0;
    };
    std::vector<one> all;
    all.push_back({index_type(dim, value_dim)});
    for (int step = 0; step < 150; ++step) {
        auto& at = all[random.integer<std::size_t>(0, all.size() - 1)];
        bool const from_pool = random.chance(0.5);
        int const what = random.integer(0, 9);
        if (what < 6) {
            at.tokens =
                std::min(most, at.tokens + (random.chance(0.6) ? random.integer<index_t>(0, 3)
                                                               : random.integer<index_t>(1, 300)));
            c.grow(at.index, at.tokens, from_pool);
        } else if (what < 8) {
            at.tokens = random.chance(0.5) ? random.integer<index_t>(0, at.tokens)
                                           : std::max<index_t>(0, at.tokens - 5);
            c.truncate(at.index, at.tokens, from_pool);
        } else if (what == 8 && all.size() < 4) {
            all.push_back(one(at)); // shares what is full, and lives on by itself
        } else if (all.size() > 1) {
            all.pop_back();
        }
        if (step % 10 == 9) {
            for (one const& o : all) {
                check_fresh(c, o.index, o.tokens);
            }
        }
    }
}

} // namespace

TEST_CASE_TEMPLATE("attention.page_index: a function of keys, values and their number, after any "
                   "growth, truncation and copying",
                   T, float, half, bfloat16) {
    SOFATTN_GENERATOR(random);
    for (int round = 0; round < 3; ++round) {
        live<dense_products::f32, T>(random);
        live<dense_products::bf16, T>(random);
    }
}

TEST_CASE("attention.page_index: made at once it is one that has grown where keys are 16 * 2^i") {
    SOFATTN_GENERATOR(random);
    using index_type = page_prefill<>::index_type;
    sequence_case<float> const c(random, 600, 24, 40, 16);
    for (index_t const n : {16, 32, 64, 128, 256, 512}) {
        index_type grown(24, 40);
        c.grow(grown, n, false);
        CHECK(index_content(index_type(c.first_keys(n), c.first_values(n))) ==
              index_content(grown));
    }
    for (index_t const n : {0, 5, 17, 333, 600}) {
        index_type made(c.first_keys(n), c.first_values(n));
        CHECK(made.sketches().calibrated_by() == n);
        c.grow(made, std::min<index_t>(600, n + 1), false);
        check_fresh(c, made, std::min<index_t>(600, n + 1));
    }
    using dlzs::page_sketches;
    CHECK(page_sketches::calibrated_by(0) == 0);
    CHECK(page_sketches::calibrated_by(15) == 0);
    CHECK(page_sketches::calibrated_by(16) == 16);
    CHECK(page_sketches::calibrated_by(1023) == 512);
    CHECK(page_sketches::calibrated_by(1024) == 1024);
}

TEST_CASE("attention.page_index: pages stay where they are, and copies share the full ones") {
    SOFATTN_GENERATOR(random);
    using index_type = page_prefill<>::index_type;
    sequence_case<float> const c(random, 4000, 8, 8, 16);
    index_type index(8, 8);
    std::vector<float const*> places;
    for (index_t n = 1; n <= 4000; n += 7) {
        c.grow(index, n, false);
        while (std::ssize(places) < ceil_div<index_t>(n, 16)) {
            places.push_back(index.pages().keys(std::ssize(places)));
        }
        bool same = true;
        for (index_t p = 0; p < std::ssize(places); ++p) {
            same = same && places[static_cast<std::size_t>(p)] == index.pages().keys(p);
        }
        REQUIRE(same);
    }
    auto const before = index_content(index);
    index_type copy = index;
    CHECK(copy.pages().keys(3) == index.pages().keys(3));
    CHECK(copy.pages().keys(3900 / 16) != index.pages().keys(3900 / 16)); // is still written to
    // Other tokens from 1000 on: the shared ones must not change.
    sequence_case<float> other(random, 2000, 8, 8, 16);
    for (index_t k = 0; k < 1000; ++k) {
        for (index_t d = 0; d < 8; ++d) {
            other.keys(k, d) = c.keys(k, d);
            other.values(k, d) = c.values(k, d);
        }
    }
    other.truncate(copy, 1000, false);
    other.grow(copy, 2000, false);
    check_fresh(other, copy, 2000);
    CHECK(index_content(index) == before);
}

TEST_CASE("attention.page_index: within its room it grows without allocating") {
    SOFATTN_GENERATOR(random);
    using index_type = page_prefill<dense_products::bf16>::index_type;
    sequence_case<half> const c(random, 1000, 64, 64, 16);
    index_type index(64, 64);
    c.grow(index, 600, false);
    index.reserve(1000);
    long const before = test::allocations.requests;
    for (index_t n = 601; n <= 1000; ++n) {
        index.append(c.first_keys(n), c.first_values(n), {});
    }
    CHECK(test::allocations.requests == before);
    index.truncate(700, index.recalibrated(c.first_keys(700)));
    check_fresh(c, index, 700);
    // In blocks of 256 tokens; 43 pages in three parts, in panels of 16; 10 segments.
    index_t const element = index_type::rounds ? 2 : 4;
    CHECK(index.bytes() == 768 * 128 * element + 3 * 48 * 64 + 10 * 64 * 4);
}

TEST_CASE(
    "attention.page_index: without memory it stays as it was, and grows as if nothing had been") {
    SOFATTN_GENERATOR(random);
    using index_type = page_prefill<dense_products::bf16>::index_type;
    for (bool const then_all : {false, true}) {
        index_t const most = 700;
        sequence_case<half> const c(random, most, random.integer<index_t>(1, 70),
                                    random.integer<index_t>(1, 70), 16);
        index_type index(c.keys.cview().template extent<axis::dim>(),
                         c.values.cview().template extent<axis::value_dim>());
        std::vector<index_type> copies; // that share blocks
        index_t tokens = 0;
        long refusals = 0;
        auto const change = [&](auto act) {
            auto const before = index_content(index);
            index_t const bytes = index.bytes();
            bool const done = test::with_scarce_memory(
                then_all, [&] { return test::has_memory_for(act); },
                [&](bool despite) {
                    CHECK_FALSE(despite);
                    CHECK(index.bytes() == bytes);
                    CHECK(index_content(index) == before);
                    ++refusals;
                });
            CHECK(done);
            check_fresh(c, index, tokens);
        };
        for (int step = 0; step < 40; ++step) {
            int const what = random.integer(0, 9);
            if (what < 6) {
                tokens =
                    std::min(most, tokens + (random.chance(0.5) ? random.integer<index_t>(1, 3)
                                                                : random.integer<index_t>(1, 200)));
                change([&] { c.grow(index, tokens, false); });
            } else if (what < 8) {
                tokens = random.integer<index_t>(tokens / 2, tokens);
                change([&] { c.truncate(index, tokens, false); });
            } else {
                copies.clear();
                change([&] { copies.push_back(index); });
                CHECK(index_content(copies.back()) == index_content(index));
            }
        }
        CHECK(refusals > 100);
    }
}
