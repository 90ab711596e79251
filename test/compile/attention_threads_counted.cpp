// SPDX-License-Identifier: MIT
// Events of several threads.
// expect: error: .*attention: events are heard in the order of one thread
// expect: count without a thread pool
#include <sofattn/attention/attention.hpp>

using namespace sofattn;

#ifndef SOFATTN_OK
using executor = exec::counting;
#else
using executor = exec::reference;
#endif

attention_result run(problem<float> const& given,
                     view<float, axis::head, axis::query, axis::value_dim> output) {
    executor x;
    return attention<dlzs::rotated_int8, sads::segment_topk<>, sufa::sorted_updating<>, executor>{}(
        x, exec::openmp(2), given, output);
}
