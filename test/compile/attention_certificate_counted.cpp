// SPDX-License-Identifier: MIT
// Certificates of rows whose events are counted.
// expect: error: .*attention: certificates are no part of the circuit and not counted
// expect: ask an executor without a probe
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
        x, given, output, ignore_kept{}, [](index_t, index_t, row_certificate const&) {});
}
