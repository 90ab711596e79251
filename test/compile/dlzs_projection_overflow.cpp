// SPDX-License-Identifier: MIT
// Key prediction whose widths do not prove that the sum fits in 64 bits.
// expect: error: .*predict_keys: the sum could overflow; lower max_channels, token_bits or weight_bits

#include <sofattn/dlzs/predict_keys.hpp>

using namespace sofattn;

struct wide : dlzs::coded_weights {
    static constexpr int token_bits = 16;
    static constexpr int weight_bits = 16;
#ifdef SOFATTN_OK
    static constexpr index_t max_channels = index_t{1} << 33;
#else
    static constexpr index_t max_channels = index_t{1} << 35; // 2^15 * 2^14 * 2^35 = 2^64
#endif
};

dlzs::predict_keys<wide> const predict;
