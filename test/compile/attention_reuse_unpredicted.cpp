// SPDX-License-Identifier: MIT
// Scores reused as logits where nobody predicts any.
// expect: error: .*attention: there are no scores to reuse
// expect: use sufa::recomputed or a predictor
#include <sofattn/attention/attention.hpp>

using namespace sofattn;

#ifndef SOFATTN_OK
using logits = sufa::reused;
#else
using logits = sufa::recomputed;
#endif

attention<dlzs::unpredicted, sads::segment_topk<>,
          sufa::sorted_updating<sufa::descending, logits>> const attend;
