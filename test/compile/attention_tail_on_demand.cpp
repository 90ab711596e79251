// SPDX-License-Identifier: MIT
// Means of dropped values where values are generated for kept keys only.
// expect: error: .*attention: values of dropped keys do not exist where K and V are made on demand
// expect: use sufa::no_tail
#include <sofattn/attention/attention.hpp>

using namespace sofattn;

#ifndef SOFATTN_OK
using tail = sufa::mean_tail;
#else
using tail = sufa::no_tail;
#endif

attention_result run(projected_problem<float> const& given,
                     view<float, axis::head, axis::query, axis::value_dim> output) {
    exec::reference x;
    return attention<dlzs::dlzs8, sads::segment_topk<>, sufa::sorted_updating<>, exec::reference,
                     rass::reuse_aware, dlzs::coded_weights, tail>{}(x, given, output);
}
