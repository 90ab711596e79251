// SPDX-License-Identifier: MIT
// An attender where a selector belongs.
// expect: error: .*constraint
#include <sofattn/attention/attention.hpp>

using namespace sofattn;

#ifndef SOFATTN_OK
attention<dlzs::int8, sufa::flash_attention_2, sufa::flash_attention_2> attend;
#else
attention<dlzs::int8, sads::segment_topk<>, sufa::flash_attention_2> attend;
#endif
