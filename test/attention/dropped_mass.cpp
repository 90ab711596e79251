// SPDX-License-Identifier: MIT
// Estimated shares of dropped keys against what a double-precision oracle says of the same keys.
#include "attention/decode_case.hpp"
#include "support/generators.hpp"
#include <sofattn/attention/dropped_mass.hpp>
#include <sofattn/attention/listed.hpp>
#include <sofattn/attention/prefill.hpp>
#include <sofattn/attention/sparse_decode.hpp>
#include <sofattn/core/tensor.hpp>
#include <sofattn/dlzs/packed_index.hpp>
#include <sofattn/dlzs/policy.hpp>
#include <sofattn/exec/parallel.hpp>
#include <sofattn/ref/dense_attention.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <map>
#include <set>
#include <span>
#include <utility>
#include <vector>

using namespace sofattn;
using namespace sofattn::test;

namespace {

using shares = tensor<float, axis::head, axis::query>;
/// [head, query] keys that a row attends to.
using kept_keys = std::map<std::pair<index_t, index_t>, std::set<index_t>>;

/// What a row's estimate is compared with.
struct truth {
    double share = 0;     ///< dropped weight in all
    double kept = 0;      ///< weight, beside the row's best logit
    double dropped = 0;   ///< likewise
    double deviation = 0; ///< of the estimate of dropped: the bound that dropped_mass documents
};

truth truth_of(problem<float> const& given, index_t head, index_t query,
               std::set<index_t> const& kept) {
    problem_shape const s = given.shape();
    index_t const visible = s.visible(query);
    std::vector<double> weights(static_cast<std::size_t>(visible));
    ref::row_logits(given.queries.slice<axis::head>(head).slice<axis::query>(query),
                    given.keys.slice<axis::kv_head>(head / s.group()), s.scale, weights);
    double const most = weights.empty() ? 0 : *std::ranges::max_element(weights);
    truth t;
    for (index_t k = 0; k < visible; ++k) {
        double& w = weights[static_cast<std::size_t>(k)];
        w = std::exp(w - most);
        bool const is_kept = kept.contains(k);
        (is_kept ? t.kept : t.dropped) += w;
        w = is_kept ? 0.0 : w;
    }
    t.share = visible == 0 ? 0 : t.dropped / (t.dropped + t.kept);
    constexpr index_t draws = detail::dropped_sample::most;
    double const stretch = static_cast<double>(visible) / static_cast<double>(draws);
    double variance = 0;
    for (index_t i = 0; visible > draws && i < draws; ++i) {
        double mean = 0;
        double square = 0;
        double const from = static_cast<double>(i) * stretch;
        double const to = from + stretch;
        for (auto k = static_cast<index_t>(from); k < visible && static_cast<double>(k) < to; ++k) {
            double const part = (std::min(to, static_cast<double>(k + 1)) -
                                 std::max(from, static_cast<double>(k))) /
                                stretch;
            double const w = weights[static_cast<std::size_t>(k)];
            mean += part * w;
            square += part * w * w;
        }
        variance += stretch * stretch * std::max(0.0, square - mean * mean);
    }
    t.deviation = std::sqrt(variance);
    return t;
}

std::vector<dlzs::paged_index<dlzs::centred_int4>> indices_of(decode_case<> const& layer) {
    std::vector<dlzs::paged_index<dlzs::centred_int4>> indices;
    for (index_t h = 0; h < layer.k.extent<axis::kv_head>(); ++h) {
        auto const keys = layer.k.cview().slice<axis::kv_head>(h);
        indices.emplace_back(dlzs::key_calibration<dlzs::centred_int4>::of(keys));
        indices.back().append(keys);
    }
    return indices;
}

struct estimated {
    shares dropped;
    kept_keys kept;
    decode_output output;
};

estimated by_best_keys(decode_case<> const& layer, sparse_decode_options const& options) {
    problem<float> const given = layer.given();
    problem_shape const s = given.shape();
    auto const indices = indices_of(layer);
    estimated e{shares({s.heads, s.queries}), {}, decode_output({s.heads, s.queries, s.value_dim})};
    std::vector<std::byte> workspace(sparse_decode_workspace_bytes(given, options, 1));
    bool const together = options.scope == selection_scope::per_group;
    sparse_decode(
        given, std::span(indices), options, e.output.view(), std::span(workspace), exec::serial{},
        [&](index_t head, index_t query, std::span<key_id const> keys) {
            for (index_t h = head; h < head + (together ? s.group() : 1); ++h) {
                e.kept[{h, query}] = {keys.begin(), keys.end()};
            }
        },
        {}, e.dropped.view());
    return e;
}

} // namespace

TEST_CASE("attention.dropped_mass: exact where all seen keys are drawn") {
    SOFATTN_GENERATOR(random);
    for (int round = 0; round < 40; ++round) {
        decode_case<> const layer(
            random, {random.integer<index_t>(1, 2), random.integer<index_t>(1, 5),
                     random.integer<index_t>(1, 3), random.integer<index_t>(3, 256), 16, 8, true});
        sparse_decode_options options;
        options.count = random.integer<index_t>(0, 60);
        options.sinks = random.integer<index_t>(0, 3);
        options.window = random.integer<index_t>(0, 5);
        options.scope =
            random.chance(0.5) ? selection_scope::per_group : selection_scope::per_query_head;
        estimated const e = by_best_keys(layer, options);
        double worst = 0;
        for (auto const& [row, kept] : e.kept) {
            truth const t = truth_of(layer.given(), row.first, row.second, kept);
            worst = std::max(worst, std::abs(t.share - double{e.dropped(row.first, row.second)}));
        }
        CHECK(worst < 2e-5);
        // The output is that of a run that was asked for nothing.
        decode_output plain(e.output.cview().extents());
        problem<float> const given = layer.given();
        auto const indices = indices_of(layer);
        std::vector<std::byte> workspace(sparse_decode_workspace_bytes(given, options, 1));
        sparse_decode(given, std::span(indices), options, plain.view(), std::span(workspace),
                      exec::serial{});
        CHECK(same_bits(plain, e.output));
    }
}

TEST_CASE("attention.dropped_mass: unbiased, and off by as much as its deviation says") {
    SOFATTN_GENERATOR(random);
    double sum = 0;
    double squares = 0;
    double count = 0;
    double far = 0;
    for (int round = 0; round < 60; ++round) {
        auto const keys = random.integer<index_t>(300, 3000);
        decode_case<> const layer(random, {2, 4, 4, keys, 16, 8, true});
        sparse_decode_options options;
        options.count = random.integer<index_t>(10, 100);
        options.window = 8;
        estimated const e = by_best_keys(layer, options);
        for (auto const& [row, kept] : e.kept) {
            truth const t = truth_of(layer.given(), row.first, row.second, kept);
            auto const share = double{e.dropped(row.first, row.second)};
            CHECK(share >= 0);
            CHECK(share < 1);
            double const z = (t.kept * share / (1 - share) - t.dropped) / t.deviation;
            sum += z;
            squares += z * z;
            far += std::abs(z) > 4 ? 1 : 0;
            count += 1;
        }
    }
    CAPTURE(sum / count);
    CAPTURE(squares / count);
    CAPTURE(far / count);
    CHECK(count == 60 * 8 * 4);
    CHECK(std::abs(sum / count) < 0.2); // four deviations of a mean whose heads share draws
    CHECK(squares / count > 0.7);
    CHECK(squares / count < 1.4);
    CHECK(far / count < 0.01);
}

TEST_CASE("attention.dropped_mass: of listed keys in any order, within windows") {
    SOFATTN_GENERATOR(random);
    for (int round = 0; round < 40; ++round) {
        auto const keys = random.integer<index_t>(5, 700);
        auto const queries = random.integer<index_t>(1, std::min<index_t>(keys, 9));
        decode_case<> const layer(random, {2, 2, queries, keys, 16, 8, true});
        problem<float> given = layer.given();
        given.window = random.chance(0.5) ? random.integer<index_t>(1, 256) : 0;
        problem_shape const s = given.shape();
        auto const slots = random.integer<index_t>(1, 40);
        std::vector<std::int32_t> entries(static_cast<std::size_t>(2 * queries * slots));
        for (index_t list = 0; list < 2 * queries; ++list) {
            std::set<std::int32_t> there; // none twice
            for (index_t i = 0; i < slots; ++i) {
                auto const key =
                    random.integer<std::int32_t>(-1, static_cast<std::int32_t>(keys + 3));
                entries[static_cast<std::size_t>(list * slots + i)] =
                    there.insert(key).second ? key : -1;
            }
        }
        key_lists lists;
        lists.entries = {entries.data(), {2, queries, slots}};
        decode_output output({s.heads, queries, s.value_dim});
        shares dropped({s.heads, queries});
        std::vector<std::byte> workspace(listed_workspace_bytes(s, lists, 1));
        listed_attention(given, lists, output.view(), std::span(workspace), exec::serial{}, {},
                         dropped.view());
        for (index_t h = 0; h < s.heads; ++h) {
            for (index_t q = 0; q < queries; ++q) {
                key_range const sees = s.sees(q);
                if (sees.to - sees.from > detail::dropped_sample::most) {
                    continue;
                }
                std::set<index_t> kept;
                double all = 0;
                double rest = 0;
                for (index_t i = 0; i < slots; ++i) {
                    kept.insert(lists.entries(h / 2, q, i));
                }
                std::vector<double> logits(static_cast<std::size_t>(sees.to));
                ref::row_logits(given.queries.slice<axis::head>(h).slice<axis::query>(q),
                                given.keys.slice<axis::kv_head>(h / 2), s.scale, logits);
                for (index_t k = sees.from; k < sees.to; ++k) {
                    double const w = std::exp(logits[static_cast<std::size_t>(k)]);
                    all += w;
                    rest += kept.contains(k) ? 0 : w;
                }
                CHECK(std::abs(rest / all - double{dropped(h, q)}) < 2e-5);
            }
        }
    }
}

TEST_CASE("attention.dropped_mass: of a budget, what compensation stands for") {
    SOFATTN_GENERATOR(random);
    for (double const mass : {0.7, 0.9, 0.99}) {
        decode_case<> const layer(random, {2, 2, 60, 900, 32, 16, true});
        problem<float> const given = layer.given();
        problem_shape const s = given.shape();
        attention_options options;
        options.budget.mass = mass;
        sparse_prefill<> const attend(std::move(options), 0, 0.0); // all pages are looked at
        auto const indexes = attend.index(given, exec::serial{});
        decode_output output({s.heads, s.queries, s.value_dim});
        shares dropped({s.heads, s.queries});
        kept_keys kept;
        std::vector<std::byte> workspace(sparse_prefill<>::workspace_bytes(s, 1));
        attend(
            given, std::span<prefill_index<dlzs::rotated_int8> const>(indexes), output.view(),
            std::span(workspace), exec::serial{},
            [&](index_t head, index_t query, index_t first, std::span<std::int32_t const> keys) {
                for (std::int32_t const k : keys) {
                    kept[{head, query}].insert(first + k);
                }
            },
            dropped.view());
        double worst = 0;
        double some = 0;
        for (index_t h = 0; h < s.heads; ++h) {
            for (index_t q = 0; q < s.queries; ++q) {
                truth const t = truth_of(given, h, q, kept[{h, q}]);
                worst = std::max(worst, std::abs(t.share - double{dropped(h, q)}));
                some = std::max(some, t.share);
            }
        }
        CAPTURE(worst);
        CHECK(worst < 0.02); // logits by int8 codes
        CHECK(some > 0.1 * (1 - mass));
    }
}
