// SPDX-License-Identifier: MIT
// Whole pages of keys, attended to as dense attention would.
#include "lm/method.hpp"
#include <sofattn/attention/dense.hpp>
#include <sofattn/attention/page_prefill.hpp>
#include <sofattn/attention/prefill_teams.hpp>
#include <sofattn/exec/page_tile.hpp>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

namespace sofattn::lm::detail {

namespace {

template <dense_products Products>
pair_counts attend_with(method_call const& call, attention_options const& options,
                        index_t dense_below) {
    using prefill = page_prefill<Products>;
    prefill const attend(options, dense_below);
    problem_shape const shape = call.given.shape();
    attend.check(shape);
    std::vector<typename prefill::index_type> made;
    if (call.codes == nullptr) {
        made = attend.index(call.given, call.run);
    }
    auto const indexes =
        call.codes == nullptr ? std::span(std::as_const(made)) : call.codes->indexes<Products>();
    std::vector<std::byte> workspace(prefill::workspace_bytes(shape, call.run.threads()));
    // A team's rows belong to one thread, so that counts need no lock.
    std::vector<std::uint64_t> kept(static_cast<std::size_t>(shape.heads * shape.queries));
    attend(call.given, indexes, call.output, workspace, call.run,
           [&](prefill_row first, index_t rows, index_t key, std::uint32_t looked) {
               for (; looked != 0; looked &= looked - 1) {
                   index_t const at = key + std::countr_zero(looked) * exec::page_keys;
                   for (index_t q = first.query; q < first.query + rows; ++q) {
                       kept[static_cast<std::size_t>(first.head * shape.queries + q)] +=
                           static_cast<std::uint64_t>(
                               std::clamp<index_t>(shape.visible(q) - at, 0, exec::page_keys));
                   }
               }
           });
    return counted(call, attend.is_dense(shape), kept);
}

} // namespace

pair_counts attend_to_pages(method_call const& call, attention_options const& options,
                            index_t dense_below) {
    return attend_with<dense_products::f32>(call, options, dense_below);
}
pair_counts attend_to_pages_in_bf16(method_call const& call, attention_options const& options,
                                    index_t dense_below) {
    return attend_with<dense_products::bf16>(call, options, dense_below);
}

} // namespace sofattn::lm::detail
