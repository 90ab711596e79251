// SPDX-License-Identifier: MIT
// The exact predictor is no circuit, so nobody may count it.
// expect: error: .*predict_scores: the exact predictor is an oracle, not a circuit; count with dlzs8

#include <sofattn/dlzs/predict_scores.hpp>

#include <span>

using namespace sofattn;

#ifdef SOFATTN_OK
using predictor = dlzs::predict_scores<dlzs::dlzs8>;
#else
using predictor = dlzs::predict_scores<dlzs::exact>;
#endif

void count(view<predictor::query_element const, axis::dim> query,
           view<predictor::key_element const, axis::key, axis::dim> keys,
           std::span<predictor::score> scores) {
    exec::counting x;
    predictor{}(x, query, keys, scores);
}
