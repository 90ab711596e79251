// SPDX-License-Identifier: MIT
// A step per key would make the scores of a row incomparable.
// expect: error: .*constraint
// expect: my_policy
// expect: (P::)?key_step != (sofattn::)?granularity::per_row

#include <sofattn/dlzs/predict_scores.hpp>

using namespace sofattn;

struct my_policy : dlzs::int8 {
#ifdef SOFATTN_OK
    static constexpr granularity key_step = granularity::per_channel;
#else
    static constexpr granularity key_step = granularity::per_row;
#endif
};

dlzs::predict_scores<my_policy> const predict;
