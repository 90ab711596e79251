// SPDX-License-Identifier: MIT
// sparse_prefill as a method: for the sources that instantiate it.
#pragma once

#include "lm/method.hpp"
#include <sofattn/attention/prefill.hpp>
#include <sofattn/dlzs/policy.hpp>
#include <sofattn/sufa/logit_source.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <span>
#include <vector>

namespace sofattn::lm::detail {

template <sufa::logit_source Source, bool Compensates>
pair_counts attend_sparsely(method_call const& call, attention_options const& options,
                            index_t dense_below) {
    using prefill = sparse_prefill<dlzs::rotated_int8, Source, Compensates>;
    prefill const attend(options, dense_below);
    problem_shape const shape = call.given.shape();
    attend.check(shape);
    auto const indexes = attend.index(call.given, call.run);
    std::vector<std::byte> workspace(prefill::workspace_bytes(shape, call.run.threads()));
    // A row belongs to one thread, so that counts need no lock.
    std::vector<std::uint64_t> kept(static_cast<std::size_t>(shape.heads * shape.queries));
    attend(call.given, std::span(indexes), call.output, workspace, call.run,
           [&](index_t head, index_t query, index_t, std::span<std::int32_t const> keys) {
               kept[static_cast<std::size_t>(head * shape.queries + query)] += keys.size();
           });
    pair_counts counts;
    counts.visible = visible_pairs(shape, call.first_row);
    if (attend.is_dense(shape)) {
        counts.kept = counts.visible;
        return counts;
    }
    for (index_t head = 0; head < shape.heads; ++head) {
        auto const row = kept.begin() + head * shape.queries;
        counts.kept += std::accumulate(row + std::min(call.first_row, shape.queries),
                                       row + shape.queries, std::uint64_t{0});
    }
    return counts;
}

} // namespace sofattn::lm::detail
