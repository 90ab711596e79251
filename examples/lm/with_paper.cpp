// SPDX-License-Identifier: MIT
// The paper's preset on the reference executor: what it computes, not how fast that could be.
#include "lm/method.hpp"
#include <sofattn/attention/presets.hpp>
#include <sofattn/core/order.hpp>

#include <cstdint>
#include <span>
#include <vector>

namespace sofattn::lm::detail {

pair_counts attend_as_the_paper(method_call const& call, attention_options const& options,
                                index_t /*dense_below*/) {
    using preset = presets::attention<presets::paper>;
    problem_shape const shape = call.given.shape();
    options.validate(shape); // whoever throws in a thread ends the program
    std::vector<std::uint64_t> kept(static_cast<std::size_t>(shape.kv_heads));
    call.run(shape.kv_heads, [&](index_t kv, index_t) {
        problem<float> part = call.given;
        part.queries = part.queries.range<axis::head>(kv * shape.group(), shape.group());
        part.keys = part.keys.range<axis::kv_head>(kv, 1);
        part.values = part.values.range<axis::kv_head>(kv, 1);
        exec::reference x;
        auto& sum = kept[static_cast<std::size_t>(kv)];
        preset const attend(options);
        attend(x, part, call.output.range<axis::head>(kv * shape.group(), shape.group()),
               [&]<class Score>(index_t, index_t query, std::span<ranked<Score> const> keys) {
                   sum += query >= call.first_row ? keys.size() : 0;
               });
    });
    pair_counts counts;
    counts.visible = visible_pairs(shape, call.first_row);
    for (std::uint64_t const of_head : kept) {
        counts.kept += of_head;
    }
    return counts;
}

} // namespace sofattn::lm::detail
