// SPDX-License-Identifier: MIT
#include "attention/decode_case.hpp"
#include "attention/rounded_outputs.hpp"
#include "core/aborts.hpp"
#include "support/allocation_counts.hpp"
#include "support/generators.hpp"
#include "support/own_threads.hpp"
#include <sofattn/attention/options.hpp>
#include <sofattn/attention/sparse_decode.hpp>
#include <sofattn/core/half.hpp>
#include <sofattn/core/order.hpp>
#include <sofattn/core/output_array.hpp>
#include <sofattn/dlzs/code_panels.hpp>
#include <sofattn/dlzs/lz_code.hpp>
#include <sofattn/dlzs/operands.hpp>
#include <sofattn/dlzs/packed_index.hpp>
#include <sofattn/dlzs/page_ranges.hpp>
#include <sofattn/dlzs/policy.hpp>
#include <sofattn/dlzs/predict_scores.hpp>
#include <sofattn/exec/executor.hpp>
#include <sofattn/exec/parallel.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <mutex>
#include <span>
#include <utility>
#include <vector>

using namespace sofattn;
using namespace sofattn::test;

namespace {

constexpr double tolerance = 2e-5; // the contract

template <class Policy, class T>
std::vector<dlzs::packed_index<Policy>> indices_of(decode_case<T> const& layer) {
    std::vector<dlzs::packed_index<Policy>> indices;
    for (index_t h = 0; h < layer.k.template extent<axis::kv_head>(); ++h) {
        auto const keys = layer.k.cview().template slice<axis::kv_head>(h);
        indices.emplace_back(dlzs::key_calibration<Policy>::of(keys));
        indices.back().append(keys);
    }
    return indices;
}

template <class Policy, class T>
std::vector<dlzs::paged_index<Policy>> paged_indices_of(decode_case<T> const& layer,
                                                        dlzs::page_options const& pages) {
    std::vector<dlzs::paged_index<Policy>> indices;
    for (index_t h = 0; h < layer.k.template extent<axis::kv_head>(); ++h) {
        auto const keys = layer.k.cview().template slice<axis::kv_head>(h);
        indices.emplace_back(dlzs::key_calibration<Policy>::of(keys), pages);
        indices.back().append(keys);
    }
    return indices;
}

using selections = std::map<std::pair<index_t, index_t>, std::vector<key_id>>;

/// Codes of the keys' and query's, as numbers: [key, channel], [channel].
template <class Policy>
int key_factor(dlzs::key_index<Policy> const& index, index_t key, index_t d) {
    return dlzs::code_panels<Policy>::factor(index.codes()(key, d));
}

/// Which keys compete where those of the best pages do: page by page, by the definition.
template <class Policy, class Queries>
std::vector<bool> in_best_pages(dlzs::key_index<Policy> const& index, Queries const& row_codes,
                                index_t visible, index_t sinks, index_t window,
                                sparse_decode_options const& options,
                                dlzs::page_options const& pages) {
    index_t const keys = index.codes().template extent<axis::key>();
    index_t const dim = index.codes().template extent<axis::dim>();
    std::vector<ranked<std::int32_t>> order;
    index_t const competing = visible - sinks - window;
    for (index_t page = 0; page * pages.keys < visible; ++page) {
        index_t const first = page * pages.keys;
        index_t const end = std::min(first + pages.keys, keys);
        if (end <= sinks || first >= visible - window || competing == 0) {
            continue; // none of its keys competes
        }
        std::int32_t best = std::numeric_limits<std::int32_t>::lowest();
        for (auto const& query : row_codes) {
            std::int32_t score = 0;
            for (index_t d = 0; d < dim; ++d) {
                int low = key_factor(index, first, d);
                int high = low;
                for (index_t k = first; k < end; ++k) {
                    low = std::min(low, key_factor(index, k, d));
                    high = std::max(high, key_factor(index, k, d));
                }
                int const q = query[static_cast<std::size_t>(d)];
                int const hopeful = q * pages.hopeful / 16;
                score += q > 0 ? hopeful * high + (q - hopeful) * low
                               : hopeful * low + (q - hopeful) * high;
            }
            best = std::max(best, score);
        }
        order.push_back({best, static_cast<key_id>(page)});
    }
    std::ranges::sort(order, [](auto const& a, auto const& b) { return comes_before(a, b); });
    index_t const scanned =
        std::min(competing, std::max(options.scanned_per_kept * options.count,
                                     ceil_div(competing, options.scanned_one_in)));
    std::vector<bool> in(static_cast<std::size_t>(visible), false);
    index_t const best = scanned < competing
                             ? std::min(std::ssize(order), ceil_div(scanned, pages.keys))
                             : std::ssize(order);
    for (index_t i = 0; i < best; ++i) {
        index_t const first = order[static_cast<std::size_t>(i)].key * pages.keys;
        for (index_t k = first; k < std::min(first + pages.keys, visible); ++k) {
            in[static_cast<std::size_t>(k)] = true;
        }
    }
    return in;
}

/// What a full sort of the reference's scores keeps, by head and query; with `pages`, of those in the
/// best of them.
template <class Policy, class T>
selections by_sorting(decode_case<T> const& layer, sparse_decode_options const& options,
                      dlzs::page_options const* pages = nullptr) {
    problem_shape const s = layer.given().shape();
    selections result;
    bool const together = options.scope == selection_scope::per_group;
    for (index_t kv = 0; kv < s.kv_heads; ++kv) {
        dlzs::key_index<Policy> const index(layer.k.cview().template slice<axis::kv_head>(kv));
        for (index_t q = 0; q < s.queries; ++q) {
            dlzs::query_codes<Policy> const codes(
                layer.q.cview()
                    .template range<axis::head>(kv * s.group(), s.group())
                    .template range<axis::query>(q, 1),
                index);
            index_t const visible = s.visible(q);
            std::vector<std::int32_t> largest;
            std::vector<std::vector<int>> row_codes;
            for (index_t h = 0; h < s.group(); ++h) {
                exec::reference x;
                std::vector<std::int32_t> scores(static_cast<std::size_t>(visible));
                dlzs::predict_scores<Policy>{}(x, codes.row(h, 0),
                                               index.codes().template range<axis::key>(0, visible),
                                               scores);
                if (h == 0 || !together) {
                    largest = scores;
                    row_codes.clear();
                }
                if (pages != nullptr) {
                    std::vector<int> row;
                    for (index_t d = 0; d < s.dim; ++d) {
                        int const stored = codes.row(h, 0)(d);
                        row.push_back(
                            Policy::query == dlzs::operand::leading_zero
                                ? dlzs::lz_code::from_stored(static_cast<std::int8_t>(stored))
                                      .value()
                                : stored);
                    }
                    row_codes.push_back(row);
                }
                for (std::size_t i = 0; i < scores.size(); ++i) {
                    largest[i] = std::max(largest[i], scores[i]);
                }
                if (together && h + 1 < s.group()) {
                    continue;
                }
                index_t const sinks = std::min(options.sinks, visible);
                index_t const window = std::min(options.window, visible - sinks);
                std::vector<bool> const competes =
                    pages != nullptr
                        ? in_best_pages(index, row_codes, visible, sinks, window, options, *pages)
                        : std::vector<bool>(static_cast<std::size_t>(visible), true);
                std::vector<ranked<std::int32_t>> middle;
                std::vector<key_id> kept;
                for (index_t k = 0; k < visible; ++k) {
                    auto const key = static_cast<key_id>(k);
                    if (k < sinks || k >= visible - window) {
                        kept.push_back(key);
                    } else if (competes[static_cast<std::size_t>(k)]) {
                        middle.push_back({largest[static_cast<std::size_t>(k)], key});
                    }
                }
                std::ranges::sort(middle,
                                  [](auto const& a, auto const& b) { return comes_before(a, b); });
                for (auto const& entry : middle) {
                    if (std::ssize(kept) < options.count) {
                        kept.push_back(entry.key);
                    }
                }
                std::ranges::sort(kept);
                result[{kv * s.group() + (together ? 0 : h), q}] = kept;
            }
        }
    }
    return result;
}

struct attended {
    decode_output output;
    selections kept;
};

template <class Index, class T, class Run = exec::serial>
attended attend(problem<T> const& given, std::vector<Index> const& indices,
                sparse_decode_options const& options, Run const& run = {}) {
    problem_shape const s = given.shape();
    attended result{decode_output({s.heads, s.queries, s.value_dim}), {}};
    guarded_workspace workspace(sparse_decode_workspace_bytes(given, options, run.threads()));
    std::mutex one_at_a_time;
    sparse_decode(given, std::span(indices), options, result.output.view(), workspace.span(), run,
                  [&](index_t head, index_t query, std::span<key_id const> keys) {
                      std::scoped_lock const lock(one_at_a_time);
                      result.kept[{head, query}] = {keys.begin(), keys.end()};
                  });
    CHECK(workspace.kept_outside());
    return result;
}

double deviation_of(auto const& given, attended const& result,
                    sparse_decode_options const& options) {
    index_t const group = given.shape().group();
    return deviation(given, result.output, [&](index_t head, index_t query, index_t key) {
        index_t const leader =
            options.scope == selection_scope::per_group ? head - head % group : head;
        return std::ranges::binary_search(result.kept.at({leader, query}),
                                          static_cast<key_id>(key));
    });
}

} // namespace

TEST_CASE_TEMPLATE("attention.sparse_decode: keeps what a full sort keeps, attends to it exactly",
                   P, dlzs::int8, dlzs::centred_int4, dlzs::lz_keys, dlzs::dlzs8) {
    SOFATTN_GENERATOR(random);
    for (index_t const group : {1, 3, 4, 5, 9}) {
        for (index_t const keys : {1, 17, 64, 300, 1500}) {
            decode_shape const shape{random.integer<index_t>(1, 2),
                                     group,
                                     random.integer<index_t>(1, 3),
                                     keys,
                                     random.integer<index_t>(1, 70),
                                     random.integer<index_t>(1, 70),
                                     random.chance(0.7)};
            for (auto const scope : {selection_scope::per_group, selection_scope::per_query_head}) {
                sparse_decode_options const options{random.integer<index_t>(0, keys + 1),
                                                    random.integer<index_t>(0, 5),
                                                    random.integer<index_t>(0, 20), scope};
                INFO(described(shape));
                CAPTURE(options.count);
                decode_case<half> const layer(random, shape);
                auto const indices = indices_of<P>(layer);
                auto const result = attend(layer.given(), indices, options);
                CHECK(result.kept == by_sorting<P>(layer, options));
                CHECK(deviation_of(layer.given(), result, options) <= tolerance);
            }
        }
    }
}

TEST_CASE_TEMPLATE("attention.sparse_decode: with pages, keeps the best keys of the best pages", P,
                   dlzs::int8, dlzs::centred_int4, dlzs::lz_keys, dlzs::dlzs8) {
    SOFATTN_GENERATOR(random);
    for (index_t const group : {1, 4, 6}) {
        for (index_t const keys : {1, 16, 17, 100, 300, 1500}) {
            dlzs::page_options const pages{16 * random.integer<index_t>(1, 3),
                                           random.integer<int>(8, 16)};
            decode_shape const shape{random.integer<index_t>(1, 2),
                                     group,
                                     random.integer<index_t>(1, 3),
                                     keys,
                                     random.integer<index_t>(1, 40),
                                     random.integer<index_t>(1, 40),
                                     random.chance(0.7)};
            for (auto const scope : {selection_scope::per_group, selection_scope::per_query_head}) {
                sparse_decode_options options{
                    random.integer<index_t>(0, 1 + keys / random.integer<index_t>(1, 10)),
                    random.integer<index_t>(0, 40), random.integer<index_t>(0, 40), scope};
                options.scanned_per_kept = random.integer<index_t>(1, 4);
                options.scanned_one_in = random.integer<index_t>(2, 12);
                INFO(described(shape));
                CAPTURE(options.count);
                CAPTURE(pages.keys);
                decode_case<half> const layer(random, shape);
                auto const indices = paged_indices_of<P>(layer, pages);
                auto const result = attend(layer.given(), indices, options);
                CHECK(result.kept == by_sorting<P>(layer, options, &pages));
                CHECK(deviation_of(layer.given(), result, options) <= tolerance);
            }
        }
    }
}

TEST_CASE("attention.sparse_decode: all pages scanned is no pages, to the bit") {
    SOFATTN_GENERATOR(random);
    decode_case<half> const layer(random, {2, 5, 2, 900, 64, 64, true});
    auto const pages = paged_indices_of<dlzs::centred_int4>(layer, {});
    auto const plain = indices_of<dlzs::centred_int4>(layer);
    for (auto const scope : {selection_scope::per_group, selection_scope::per_query_head}) {
        sparse_decode_options options{60, 4, 16, scope};
        auto const expected = attend(layer.given(), plain, options);
        auto const fewer = attend(layer.given(), pages, options);
        CHECK(fewer.kept != expected.kept);
        options.scanned_one_in = 1;
        auto const all = attend(layer.given(), pages, options);
        CHECK(all.kept == expected.kept);
        CHECK(same_bits(all.output, expected.output));
    }
}

TEST_CASE("attention.sparse_decode: with pages, the same bits for any number of threads") {
    SOFATTN_GENERATOR(random);
    decode_case<half> const layer(random, {3, 6, 2, 3000, 64, 64, true});
    auto const indices = paged_indices_of<dlzs::centred_int4>(layer, {});
    for (auto const scope : {selection_scope::per_group, selection_scope::per_query_head}) {
        sparse_decode_options const options{200, 4, 64, scope};
        auto const expected = attend(layer.given(), indices, options);
        for (index_t const threads : {2, 3, 7}) {
            auto const result = attend(layer.given(), indices, options, exec::openmp(threads));
            CHECK(same_bits(result.output, expected.output));
            CHECK(result.kept == expected.kept);
        }
    }
}

TEST_CASE("attention.sparse_decode: the same bits for any number of threads") {
    SOFATTN_GENERATOR(random);
    decode_case<half> const layer(random, {3, 6, 2, 3000, 64, 64, true});
    auto const indices = indices_of<dlzs::centred_int4>(layer);
    for (auto const scope : {selection_scope::per_group, selection_scope::per_query_head}) {
        sparse_decode_options const options{700, 4, 64, scope};
        auto const expected = attend(layer.given(), indices, options);
        for (index_t const threads : {2, 3, 7}) {
            auto const result = attend(layer.given(), indices, options, exec::openmp(threads));
            CHECK(same_bits(result.output, expected.output));
            CHECK(result.kept == expected.kept);
        }
        CHECK(same_bits(attend(layer.given(), indices, options, own_threads{}).output,
                        expected.output));
    }
}

TEST_CASE("attention.sparse_decode: any strides, K and V side by side among them") {
    SOFATTN_GENERATOR(random);
    decode_case<half> const layer(random, {2, 4, 1, 400, 32, 48, true});
    auto const indices = indices_of<dlzs::int8>(layer);
    sparse_decode_options const options{100, 4, 16, selection_scope::per_group};
    auto const expected = attend(layer.given(), indices, options);
    for (layout const kind : all_layouts) {
        CAPTURE(static_cast<int>(kind));
        auto const sk = strided(random, layer.k.cview(), kind);
        auto const sv = strided(random, layer.v.cview(), kind);
        problem<half> const given{layer.q.view(), sk.cview(), sv.cview(), true, 0};
        CHECK(same_bits(attend(given, indices, options).output, expected.output));
    }
    std::vector<half> rows(2 * 400 * 80);
    view<half, axis::kv_head, axis::key, axis::dim> const k(rows.data(), {2, 400, 32},
                                                            {400 * 80, 80, 1});
    view<half, axis::kv_head, axis::key, axis::value_dim> const v(rows.data() + 32, {2, 400, 48},
                                                                  {400 * 80, 80, 1});
    for_each_index(k.extents(), [&](auto const& i) { at(k, i) = at(layer.k.cview(), i); });
    for_each_index(v.extents(), [&](auto const& i) { at(v, i) = at(layer.v.cview(), i); });
    problem<half> const given{layer.q.view(), k, v, true, 0};
    CHECK(same_bits(attend(given, indices, options).output, expected.output));
}

TEST_CASE("attention.sparse_decode: 16-bit outputs are those in f32, rounded to nearest") {
    SOFATTN_GENERATOR(random);
    decode_case<half> const layer(random, {2, 3, 2, 900, 64, 50, true});
    auto const given = layer.given();
    auto const indices = indices_of<dlzs::centred_int4>(layer);
    for (auto const scope : {selection_scope::per_group, selection_scope::per_query_head}) {
        sparse_decode_options const options{100, 4, 16, scope};
        check_rounded_outputs(random, given.shape(), [&](output_array const& to) {
            std::vector<std::byte> workspace(sparse_decode_workspace_bytes(given, options, 1));
            sparse_decode(given, std::span(indices), options, to, workspace, exec::serial{});
        });
    }
}

TEST_CASE("attention.sparse_decode: allocates nothing, at most 4 MiB per thread of 131072 keys") {
    SOFATTN_GENERATOR(random);
    decode_case<half> const layer(random, {2, 4, 1, 2000, 64, 64, true});
    auto const indices = indices_of<dlzs::centred_int4>(layer);
    auto const given = layer.given();
    auto const paged = paged_indices_of<dlzs::centred_int4>(layer, {});
    sparse_decode_options const options{};
    sparse_decode_options const few{100, 4, 16, selection_scope::per_group};
    decode_output output({8, 1, 64});
    std::vector<std::byte> workspace(sparse_decode_workspace_bytes(given, options, 2));
    long const before = allocations.requests;
    sparse_decode(given, std::span(indices), options, output.view(), workspace, exec::serial{});
    sparse_decode(given, std::span(indices), options, output.view(), workspace, exec::openmp(2));
    sparse_decode(given, std::span(paged), few, output.view(), workspace, exec::serial{});
    sparse_decode(given, std::span(paged), few, output.view(), workspace, exec::openmp(2));
    long const after = allocations.requests;
    CHECK(after == before);

    half const some{};
    for (index_t const group : {1, 4, 8, 16}) {
        for (index_t const dim : {64, 128, 256}) {
            for (auto const scope : {selection_scope::per_group, selection_scope::per_query_head}) {
                problem<half> long_one;
                long_one.queries = {&some, {8 * group, 1, dim}, {0, 0, 0}};
                long_one.keys = {&some, {8, 131072, dim}, {0, 0, 0}};
                long_one.values = {&some, {8, 131072, dim}, {0, 0, 0}};
                sparse_decode_options const usual{2048, 4, 64, scope};
                CHECK(sparse_decode_workspace_bytes(long_one, usual, 1) <= std::size_t{4} << 20);
            }
        }
    }
}

TEST_CASE("attention.sparse_decode: what does not fit ends the program") {
    SOFATTN_GENERATOR(random);
    decode_case<half> const layer(random, {1, 2, 1, 40, 8, 8, true});
    auto const indices = indices_of<dlzs::int8>(layer);
    sparse_decode_options const options{10, 1, 4, selection_scope::per_group};
    decode_output output({2, 1, 8});
    std::vector<std::byte> workspace(sparse_decode_workspace_bytes(layer.given(), options, 1));
    auto const attempt = [&](std::size_t bytes, std::size_t heads) {
        sparse_decode(layer.given(), std::span(indices).first(heads), options, output.view(),
                      std::span(workspace).first(bytes), exec::serial{});
    };
    attempt(workspace.size(), 1);
    SOFATTN_CHECK_ABORTS("workspace", attempt(workspace.size() - 1, 1));
    SOFATTN_CHECK_ABORTS("indices", attempt(workspace.size(), 0));
}
