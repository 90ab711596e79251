// SPDX-License-Identifier: MIT
// sparse_prefill as a method: for the sources that instantiate it.
#pragma once

#include "lm/method.hpp"
#include <sofattn/attention/prefill.hpp>
#include <sofattn/dlzs/policy.hpp>
#include <sofattn/sufa/logit_source.hpp>

#include <cstddef>
#include <cstdint>
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
    return counted(call, attend.is_dense(shape), kept);
}

} // namespace sofattn::lm::detail
