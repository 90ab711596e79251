// SPDX-License-Identifier: MIT
// Scores reused as logits where they are products with predicted keys.
// expect: error: .*attention: scores of predicted keys are ranks, not logits to attend with
// expect: use sufa::recomputed
#include <sofattn/attention/attention.hpp>

using namespace sofattn;

#ifndef SOFATTN_OK
using logits = sufa::reused;
#else
using logits = sufa::recomputed;
#endif

attention_result run(projected_problem<float> const& given,
                     view<float, axis::head, axis::query, axis::value_dim> output) {
    exec::reference x;
    return attention<dlzs::dlzs8, sads::segment_topk<>,
                     sufa::sorted_updating<sufa::descending, logits>>{}(x, given, output);
}
