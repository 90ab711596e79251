// SPDX-License-Identifier: MIT
#include "attention/layer_case.hpp"
#include "attention/page_oracle.hpp"
#include "attention/prefill_case.hpp"
#include "attention/rounded_outputs.hpp"
#include "support/allocation_counts.hpp"
#include "support/generators.hpp"
#include "support/guarded_workspace.hpp"
#include "support/own_threads.hpp"
#include "support/same_bits.hpp"
#include <sofattn/attention/dense.hpp>
#include <sofattn/attention/page_prefill.hpp>
#include <sofattn/attention/paged_problem.hpp>
#include <sofattn/core/bfloat16.hpp>
#include <sofattn/core/error.hpp>
#include <sofattn/core/half.hpp>
#include <sofattn/core/output_array.hpp>
#include <sofattn/dlzs/page_sketch.hpp>
#include <sofattn/exec/parallel.hpp>
#include <sofattn/ref/dense_attention.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <numbers>
#include <numeric>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace {

using namespace sofattn;
using sads::budget;
using test::prefill_case;
using test::prefill_shape;
using test::prefill_shapes;

constexpr index_t sparse_always = 0; // keys below which attention is dense
constexpr double of_f32 = 2e-5;      // outputs, relative, Frobenius
constexpr double of_bf16 = 1e-2;
constexpr double of_estimates = 2e-6; // weights of skipped pages, whose powers of two are floats

using output_tensor = tensor<float, axis::head, axis::query, axis::value_dim>;

struct outcome {
    output_tensor output;
    tensor<float, axis::head, axis::query> dropped;
    std::vector<std::vector<char>> looked; ///< [head * queries + query] of its pages
};

template <class Prefill>
using indexes_of = std::vector<typename Prefill::index_type>;

template <class Prefill, class Given, class Run = exec::serial>
outcome prefill(Prefill const& run_prefill, Given const& given,
                std::optional<indexes_of<Prefill>> const& grown = {}, Run const& run = {}) {
    problem_shape const s = given.shape();
    run_prefill.check(s);
    outcome result{output_tensor({s.heads, s.queries, s.value_dim}),
                   tensor<float, axis::head, axis::query>({s.heads, s.queries}),
                   {}};
    result.looked.assign(
        static_cast<std::size_t>(s.heads * s.queries),
        std::vector<char>(static_cast<std::size_t>(ceil_div<index_t>(s.keys, 16))));
    auto const indexes = grown ? *grown : run_prefill.index(given, run);
    std::vector<std::byte> workspace(Prefill::workspace_bytes(s, run.threads()), std::byte{0xff});
    run_prefill(
        given, indexes, result.output.view(), workspace, run,
        [&](prefill_row first, index_t rows, index_t key, std::uint32_t pages) {
            for (index_t q = first.query; q < first.query + rows; ++q) {
                auto& row = result.looked[static_cast<std::size_t>(first.head * s.queries + q)];
                for (index_t p = 0; p < 32; ++p) {
                    if ((pages >> p & 1u) != 0) {
                        row[static_cast<std::size_t>(key / 16 + p)] = 1;
                    }
                }
            }
        },
        result.dropped.view());
    return result;
}

budget some_mass(test::generator& random) {
    double const loss = std::exp2(random.uniform(-9.0, -1.0));
    budget b = random.chance(0.7) ? budget::of_mass(1.0 - loss) : budget::of_output_error(2 * loss);
    b.at_least = random.integer<index_t>(0, 40);
    b.sinks = random.integer<index_t>(0, 3);
    b.window = random.integer<index_t>(0, 20);
    return b;
}

struct page_counts {
    std::int64_t looked = 0;
    std::int64_t all = 0;
};
struct deviations {
    double output = 0; ///< relative, Frobenius
    double dropped = 0;
    bool same_pages = true;
    page_counts pages;
};

/// The contract in double precision: all keys of the looked-at pages, and the others' estimates as weights of
/// their segments' means. sketches_of(KV head) [key, dim]
template <class Q, class KV, class SketchesOf>
deviations deviation(problem<Q, KV> const& given, attention_options const& options,
                     outcome const& found, SketchesOf sketches_of) {
    problem_shape const s = given.shape();
    deviations all;
    double error = 0;
    double size = 0;
    for (index_t h = 0; h < s.heads; ++h) {
        auto const keys = given.keys.template slice<axis::kv_head>(h / s.group());
        auto const values = given.values.template slice<axis::kv_head>(h / s.group());
        dlzs::page_sketches const sketches = sketches_of(h / s.group());
        budget const& b = options.budget_of(h);
        test::looked_at pages; // of six rows
        for (index_t q = 0; q < s.queries; ++q) {
            index_t const visible = s.visible(q);
            auto const query =
                given.queries.template slice<axis::head>(h).template slice<axis::query>(q);
            if (q % 6 == 0) {
                pages = test::looked_by(given, sketches, h, q, b, page_prefill<>::page_loss(b));
            }
            auto const& looked = found.looked[static_cast<std::size_t>(h * s.queries + q)];
            for (std::size_t p = 0; p < looked.size(); ++p) {
                bool const wanted = p < pages.pages.size() && pages.pages[p] != 0;
                all.same_pages = all.same_pages && wanted == (looked[p] != 0);
                all.pages.looked += wanted;
            }
            index_t const from = s.sees(q).from;
            all.pages.all += std::ssize(pages.pages) - from / 16;
            std::vector<double> exact(static_cast<std::size_t>(visible));
            ref::row_logits(query, keys, s.scale, exact);
            double middle = 0; // logit of the mean key
            for (index_t d = 0; d < s.dim; ++d) {
                middle += s.scale * static_cast<double>(to_float(query(d))) *
                          static_cast<double>(sketches.centre()[d]);
            }
            double top = -std::numeric_limits<double>::infinity();
            for (index_t key = from; key < visible; ++key) {
                top = pages.has(key) ? std::max(top, exact[static_cast<std::size_t>(key)]) : top;
            }
            double const best = (top - middle) / std::numbers::ln2;
            std::vector<double> sum(static_cast<std::size_t>(s.value_dim));
            double weights = 0;
            auto const add = [&](index_t key, double weight) {
                weights += weight;
                for (index_t d = 0; d < s.value_dim; ++d) {
                    sum[static_cast<std::size_t>(d)] +=
                        weight * static_cast<double>(to_float(values(key, d)));
                }
            };
            for (index_t key = from; key < visible; ++key) {
                if (pages.has(key)) {
                    add(key, std::exp(exact[static_cast<std::size_t>(key)] - top));
                }
            }
            double const before = weights;
            double const unit = pages.unit(static_cast<std::size_t>(q % 6), 256 * best,
                                           page_prefill<>::page_loss(b), weights);
            for (index_t first = 0; unit > 0 && first + 64 <= visible; first += 64) {
                double skipped_here = 0;
                for (index_t key = first; key < first + 64; ++key) {
                    skipped_here += pages.has(key) ? 0.0 : pages.weight(key) * unit;
                }
                for (index_t key = first; skipped_here > 0 && key < first + 64; ++key) {
                    add(key, skipped_here / 64);
                }
            }
            double const skipped = weights - before;
            all.dropped = std::max(all.dropped, std::abs(static_cast<double>(found.dropped(h, q)) -
                                                         (weights > 0 ? skipped / weights : 0.0)));
            for (index_t d = 0; d < s.value_dim; ++d) {
                double const right = weights > 0 ? sum[static_cast<std::size_t>(d)] / weights : 0.0;
                double const off = static_cast<double>(found.output(h, q, d)) - right;
                error += visible > 0 || off == 0 ? off * off : 1e300;
                size += right * right;
            }
        }
    }
    all.output = size > 0 ? std::sqrt(error / size) : std::sqrt(error);
    return all;
}

template <class Q, class KV>
deviations deviation(problem<Q, KV> const& given, attention_options const& options,
                     outcome const& found) {
    return deviation(given, options, found, [&](index_t kv) {
        return dlzs::page_sketches(given.keys.template slice<axis::kv_head>(kv));
    });
}

template <dense_products Products, class T = float>
void check_against_oracle(test::generator& random, prefill_shape const& s, budget const& b,
                          page_counts& counts, index_t window = 0, index_t prefix = 0) {
    CAPTURE(s.kv_heads);
    CAPTURE(s.group);
    CAPTURE(s.queries);
    CAPTURE(s.keys);
    CAPTURE(s.dim);
    CAPTURE(s.value_dim);
    CAPTURE(s.causal);
    CAPTURE(window);
    CAPTURE(prefix);
    prefill_case<T> layer(random, s);
    test::cluster(random, layer);
    auto const options = test::with(b, 256);
    auto given = layer.given();
    given.window = window;
    given.prefix = prefix;
    auto const found = prefill(page_prefill<Products>(options, sparse_always), given);
    auto const off = deviation(given, options, found);
    CHECK(off.same_pages);
    bool const rounds = page_prefill<Products>::index_type::rounds && s.dim >= 8;
    CHECK(off.output <= (rounds ? of_bf16 : of_f32) + of_estimates);
    CHECK(off.dropped <= (rounds ? of_bf16 : of_f32) + of_estimates);
    counts.looked += off.pages.looked;
    counts.all += off.pages.all;
}

} // namespace

TEST_CASE("attention.page_prefill: the pages that sketches leave, and outputs on them") {
    SOFATTN_GENERATOR(random);
    page_counts counts;
    for (prefill_shape s : prefill_shapes(random)) {
        s.keys = s.keys * 2; // the others keep being seen from behind
        check_against_oracle<dense_products::f32>(random, s, some_mass(random), counts);
        check_against_oracle<dense_products::f32, half>(random, s, some_mass(random), counts);
        s.dim = std::max<index_t>(s.dim, 8);             // fewer bf16 products do not average out,
        s.value_dim = std::max<index_t>(s.value_dim, 8); // nor do the values of a single output
        check_against_oracle<dense_products::bf16>(random, s, some_mass(random), counts);
        check_against_oracle<dense_products::bf16, bfloat16>(random, s, some_mass(random), counts);
    }
    MESSAGE("pages looked at: " << counts.looked << " of " << counts.all);
    CHECK(counts.looked * 10 < counts.all * 9);
    CHECK(counts.looked * 10 > counts.all);
}

TEST_CASE("attention.page_prefill: windows and prefixes") {
    SOFATTN_GENERATOR(random);
    page_counts counts;
    for (prefill_shape s : prefill_shapes(random)) {
        s.causal = true;
        s.keys = s.keys * 3;
        auto b = budget::of_mass(random.uniform(0.3, 1.0));
        b.sinks = random.integer<index_t>(0, s.keys);
        b.at_least = random.integer<index_t>(0, s.keys);
        index_t const window = random.chance(0.2) ? random.integer<index_t>(1, 20)
                                                  : random.integer<index_t>(1, s.keys + 10);
        check_against_oracle<dense_products::f32>(random, s, b, counts, window);
        b = some_mass(random);
        check_against_oracle<dense_products::f32, half>(random, s, b, counts, window);
        s.dim = std::max<index_t>(s.dim, 8);
        s.value_dim = std::max<index_t>(s.value_dim, 8);
        check_against_oracle<dense_products::bf16>(random, s, b, counts, window);
        check_against_oracle<dense_products::bf16>(random, s, b, counts, 0,
                                                   random.integer<index_t>(1, s.keys + 10));
    }
    MESSAGE("pages looked at: " << counts.looked << " of " << counts.all);
    CHECK(counts.looked * 10 < counts.all * 9);
    CHECK(counts.looked * 10 > counts.all);
}

TEST_CASE("attention.page_prefill: without a budget it is dense attention") {
    SOFATTN_GENERATOR(random);
    for (prefill_shape const& s : prefill_shapes(random)) {
        prefill_case<float> const layer(random, s);
        auto given = layer.given();
        given.window = s.causal ? random.integer<index_t>(0, s.keys) : 0;
        auto const found = prefill(page_prefill<>(test::with(budget{}, 256), sparse_always), given);
        output_tensor dense({given.shape().heads, s.queries, s.value_dim});
        std::vector<std::byte> workspace(dense_workspace_bytes(given.shape(), 1));
        dense_attention(given, dense.view(), workspace, exec::serial{});
        double error = 0;
        double size = 0;
        test::for_each_index(dense.cview().extents(), [&](auto const& i) {
            auto const right = static_cast<double>(test::at(dense.cview(), i));
            double const off = static_cast<double>(test::at(found.output.cview(), i)) - right;
            error += off * off;
            size += right * right;
        });
        CHECK(error <= of_f32 * of_f32 * size);
        test::for_each_index(found.dropped.cview().extents(), [&](auto const& i) {
            CHECK(test::at(found.dropped.cview(), i) == 0.0f);
        });
    }
}

TEST_CASE("attention.page_prefill: learned sinks take their share") {
    SOFATTN_GENERATOR(random);
    prefill_case<float> layer(random, {1, 2, 60, 500, 32, 16, true});
    test::cluster(random, layer);
    budget const b = some_mass(random);
    page_prefill<> const entry(test::with(b, 256), sparse_always);
    auto const without = prefill(entry, layer.given());
    std::vector<float> const sinks{0.5f, -30.0f};
    auto given = layer.given();
    given.terms.sink_logits = sinks.data();
    auto const with = prefill(entry, given);
    // What the rows of a head lose is one factor for all columns, less than 1.
    double most = 0;
    double least = 1;
    for (index_t q = 0; q < 60; ++q) {
        auto const factor = static_cast<double>(with.output(0, q, 0)) /
                            static_cast<double>(without.output(0, q, 0));
        most = std::max(most, factor);
        least = std::min(least, factor);
        for (index_t d = 1; d < 16; ++d) {
            CHECK(static_cast<double>(with.output(0, q, d)) ==
                  doctest::Approx(factor * static_cast<double>(without.output(0, q, d)))
                      .epsilon(1e-4));
        }
        CHECK(with.output(1, q, 3) == doctest::Approx(without.output(1, q, 3)).epsilon(1e-4));
    }
    CHECK(least < most);
    CHECK(most < 1.0);
    CHECK(least > 0.0);
}

TEST_CASE("attention.page_prefill: strides do not matter") {
    SOFATTN_GENERATOR(random);
    prefill_case<float> const layer(random, {2, 2, 40, 280, 48, 64, true});
    page_prefill<dense_products::bf16> const entry(test::with(some_mass(random), 256),
                                                   sparse_always);
    auto const wanted = prefill(entry, layer.given());
    for (test::layout const kind : test::all_layouts) {
        auto const q = test::strided(random, layer.q.cview(), kind);
        auto const k = test::strided(random, layer.k.cview(), kind);
        auto const v = test::strided(random, layer.v.cview(), kind);
        problem<float> const given{q.cview(), k.cview(), v.cview(), true, 0};
        auto const found = prefill(entry, given);
        CHECK(found.looked == wanted.looked);
        CHECK(test::same_bits(found.output, wanted.output));
    }
}

TEST_CASE_TEMPLATE("attention.page_prefill: the same bits for any number of threads", Entry,
                   page_prefill<>, page_prefill<dense_products::bf16>) {
    SOFATTN_GENERATOR(random);
    prefill_case<float> layer(random, {2, 3, 150, 400, 64, 64, true});
    test::cluster(random, layer);
    Entry const entry(test::with(some_mass(random), 256), sparse_always);
    auto const alone = prefill(entry, layer.given());
    CHECK(test::same_bits(prefill(entry, layer.given(), {}, test::own_threads{}).output,
                          alone.output));
    CHECK(test::same_bits(prefill(entry, layer.given(), {}, exec::openmp(4)).output, alone.output));
    for (index_t const teams : {index_t{1}, index_t{5}, Entry::teams_most}) {
        Entry const cut(entry.options(), sparse_always, teams);
        CHECK(test::same_bits(prefill(cut, layer.given()).output, alone.output));
    }
}

TEST_CASE_TEMPLATE("attention.page_prefill: kernels allocate nothing and stay in the workspace",
                   Entry, page_prefill<>, page_prefill<dense_products::bf16>) {
    SOFATTN_GENERATOR(random);
    prefill_case<float> const layer(random, {2, 2, 150, 600, 70, 50, true});
    Entry const entry(test::with(some_mass(random), 256), sparse_always);
    auto const given = layer.given();
    problem_shape const s = given.shape();
    auto const indexes = entry.index(given, exec::serial{});
    output_tensor output({s.heads, s.queries, s.value_dim});
    std::size_t const bytes = Entry::workspace_bytes(s, 1);
    CHECK(bytes <= std::size_t{4} << 20);
    test::guarded_workspace memory(bytes, 24);
    long const before = test::allocations.requests;
    entry(given, indexes, output.view(), memory.span(), exec::serial{});
    CHECK(test::allocations.requests == before);
    CHECK(before > 0); // they are counted
    CHECK(memory.kept_outside());
}

TEST_CASE_TEMPLATE("attention.page_prefill: 16-bit outputs are those in f32, rounded to nearest",
                   Entry, page_prefill<>, page_prefill<dense_products::bf16>) {
    SOFATTN_GENERATOR(random);
    for (index_t const value_dim : {3, 50, 128}) {
        prefill_case<float> const layer(random, {2, 2, 70, 300, 48, value_dim, true});
        Entry const entry(test::with(some_mass(random), 256), sparse_always);
        auto const given = layer.given();
        auto const indexes = entry.index(given, exec::serial{});
        test::check_rounded_outputs(random, given.shape(), [&](output_array const& to) {
            std::vector<std::byte> workspace(Entry::workspace_bytes(given.shape(), 1));
            entry(given, indexes, to, workspace, exec::serial{});
        });
    }
}

TEST_CASE_TEMPLATE("attention.page_prefill: chunks over an index that grows with them, in a pool",
                   Entry, page_prefill<>, page_prefill<dense_products::bf16>) {
    SOFATTN_GENERATOR(random);
    constexpr index_t tokens = 900;
    constexpr index_t page = 48;
    prefill_case<half> layer(random, {2, 2, tokens, tokens, 40, 24, true});
    test::cluster(random, layer);
    std::vector<std::int32_t> numbers(tokens / page + 1);
    std::iota(numbers.begin(), numbers.end(), 0);
    random.shuffle(numbers);
    tensor<half, axis::kv_head, axis::key, axis::dim> keys({2, std::ssize(numbers) * page, 40});
    tensor<half, axis::kv_head, axis::key, axis::value_dim> values(
        {2, std::ssize(numbers) * page, 24});
    auto const options = test::with(some_mass(random), 256);
    Entry const entry(options, sparse_always);
    indexes_of<Entry> indexes(2, typename Entry::index_type(40, 24));
    struct part {
        index_t first; ///< query
        outcome found;
        indexes_of<Entry> indexes;
    };
    std::vector<part> chunks;
    page_counts counts;
    for (index_t first = 0; first < tokens;) {
        index_t const end = std::min(tokens, first + 6 * random.integer<index_t>(1, 50));
        paged_problem<half> chunk;
        chunk.queries = layer.q.cview().range<axis::query>(first, end - first);
        chunk.keys = keys.cview();
        chunk.values = values.cview();
        chunk.table = {numbers, page};
        chunk.tokens = end;
        for (index_t kv = 0; kv < 2; ++kv) {
            for (index_t k = first; k < end; ++k) {
                std::copy_n(&layer.k(kv, k, 0), 40, &keys(kv, chunk.table.row(k), 0));
                std::copy_n(&layer.v(kv, k, 0), 24, &values(kv, chunk.table.row(k), 0));
            }
            indexes[static_cast<std::size_t>(kv)].grow(keys_of(chunk, kv), values_of(chunk, kv));
        }
        auto found = prefill(entry, chunk, std::optional(indexes));
        problem<half> const in_row{chunk.queries, layer.k.cview().range<axis::key>(0, end),
                                   layer.v.cview().range<axis::key>(0, end), true, 0};
        auto const off = deviation(in_row, options, found, [&](index_t kv) {
            return indexes[static_cast<std::size_t>(kv)].sketches();
        });
        CHECK(off.same_pages);
        CHECK(off.output <= (Entry::index_type::rounds ? of_bf16 : of_f32) + of_estimates);
        counts.looked += off.pages.looked;
        counts.all += off.pages.all;
        CHECK(test::same_bits(prefill(entry, in_row, std::optional(indexes)).output, found.output));
        chunks.push_back({first, std::move(found), indexes});
        first = end;
    }
    CHECK(counts.looked < counts.all);
    // At once, by the last index.
    auto const all = prefill(entry, layer.given(), std::optional(indexes));
    index_t alike = 0;
    for (part const& chunk : chunks) {
        bool same = true;
        test::for_each_index(chunk.found.output.cview().extents(), [&](auto const& i) {
            same = same && chunk.found.output(i[0], i[1], i[2]) ==
                               all.output(i[0], chunk.first + i[1], i[2]);
        });
        bool const is_alike =
            test::same_steps(chunk.indexes[0].sketches(), indexes[0].sketches()) &&
            test::same_steps(chunk.indexes[1].sketches(), indexes[1].sketches());
        CHECK((same || !is_alike));
        alike += is_alike;
    }
    CHECK(alike > 0); // the last one is
}

TEST_CASE("attention.page_prefill: at 131072 keys and d = 256 a thread needs less than 4 MiB") {
    problem_shape shape;
    shape.heads = shape.kv_heads = 1;
    shape.queries = shape.keys = 131072;
    shape.dim = shape.value_dim = 256;
    CHECK(page_prefill<>::workspace_bytes(shape, 1) <= std::size_t{4} << 20);
}

TEST_CASE("attention.page_prefill: short contexts are dense, to the bit") {
    SOFATTN_GENERATOR(random);
    prefill_case<float> const layer(random, {2, 2, 90, 200, 40, 24, true});
    auto const given = layer.given();
    problem_shape const s = given.shape();
    page_prefill<dense_products::bf16> const entry(test::with(some_mass(random), 256), 201);
    CHECK(entry.is_dense(s));
    CHECK_FALSE(page_prefill<>(entry.options(), 200).is_dense(s));
    output_tensor wanted({s.heads, s.queries, s.value_dim});
    std::vector<std::byte> workspace(dense_workspace_bytes(s, 1));
    dense_attention<dense_products::bf16>(given, wanted.view(), workspace, exec::serial{});
    CHECK(test::same_bits(prefill(entry, given).output, wanted));
}

TEST_CASE("attention.page_prefill: heads have budgets of their own") {
    SOFATTN_GENERATOR(random);
    prefill_case<float> layer(random, {1, 2, 70, 600, 32, 32, true});
    test::cluster(random, layer);
    auto options = test::with(budget{}, 256);
    options.head_budgets = {budget{}, budget::of_mass(0.9)};
    auto const found = prefill(page_prefill<>(options, sparse_always), layer.given());
    CHECK(deviation(layer.given(), options, found).output <= of_f32 + of_estimates);
    for (index_t q = 0; q < 70; ++q) {
        CHECK(found.dropped(0, q) == 0.0f);
    }
    CHECK(std::ranges::any_of(found.looked.back(), [](char page) { return page == 0; }));
}

TEST_CASE("attention.page_prefill: logits far from 0 leave finite rows") {
    SOFATTN_GENERATOR(random);
    prefill_case<float> layer(random, {1, 1, 300, 700, 16, 16, true});
    for (index_t k = 300; k < 700; ++k) { // weigh far more than float can tell from the first tile
        for (index_t d = 0; d < 16; ++d) {
            layer.k(0, k, d) = 40.0f * layer.q(0, 299, d);
        }
    }
    for (double const mass : {1e-9, 0.5, 1.0}) {
        auto const options = test::with(budget::of_mass(mass), 256);
        auto const all_finite = [](output_tensor const& output) {
            bool finite = true;
            test::for_each_index(output.cview().extents(), [&](auto const& i) {
                finite = finite && std::isfinite(test::at(output.cview(), i));
            });
            return finite;
        };
        CHECK(all_finite(prefill(page_prefill<>(options, sparse_always), layer.given()).output));
        CHECK(all_finite(
            prefill(page_prefill<dense_products::bf16>(options, sparse_always), layer.given())
                .output));
    }
}

TEST_CASE("attention.page_prefill: what a budget lets go") {
    CHECK(page_prefill<>::page_loss(budget{}) == 0.0);
    CHECK(page_prefill<>::page_loss(budget::of_mass(0.75)) == 0.25);
    CHECK(page_prefill<>::page_loss(budget::of_output_error(0.01)) == 0.005);
    CHECK(page_prefill<>::page_loss(budget::of_output_error(1e6)) == 0.5);
}

TEST_CASE("attention.page_prefill: what it does not do is refused with a reason") {
    problem_shape shape;
    shape.heads = 2;
    shape.kv_heads = 1;
    shape.queries = 10;
    shape.keys = 10;
    shape.dim = 8;
    shape.value_dim = 8;
    shape.scale = 1;
    auto const says = [&](attention_options const& options, char const* what) {
        try {
            page_prefill<>(options).check(shape);
            FAIL("not refused");
        } catch (error const& e) {
            CHECK(std::string(e.what()).find(what) != std::string::npos);
        }
    };
    says(test::with(budget::of_mass(0.9), 256, selection_scope::per_group), "per_group");
    says(test::with(budget::of_ratio(0.5), 256), "a ratio");
    says(test::with(budget::of_count(5), 256), "a count");
    says(test::with(budget::of_radius(3.0), 256), "a radius");
    budget limited = budget::of_mass(0.9);
    limited.at_most = 5;
    says(test::with(limited, 256), "a maximum count");
    for (index_t const teams : {index_t{0}, page_prefill<>::teams_most + 1}) {
        page_prefill<> const cut(test::with(budget::of_mass(0.9), 256), sparse_always, teams);
        CHECK_THROWS_AS(cut.check(shape), error);
    }
    CHECK_NOTHROW(page_prefill<>(test::with(budget::of_mass(0.9), 256)).check(shape));
    shape.terms.softcap = 30.0f;
    says(test::with(budget::of_mass(0.9), 256), "soft cap");
}
