// SPDX-License-Identifier: MIT
// Outputs of dense attention and decode with the (m, l) of their rows.
#pragma once

#include "attention/decode_case.hpp"
#include "support/guarded_workspace.hpp"
#include <sofattn/attention/decode.hpp>
#include <sofattn/attention/dense.hpp>
#include <sofattn/attention/problem.hpp>
#include <sofattn/attention/softmax_sums.hpp>
#include <sofattn/core/tensor.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/exec/parallel.hpp>

#include <doctest/doctest.h>

namespace sofattn::test {

struct dense_outcome {
    decode_output output;
    tensor<float, axis::head, axis::query> max;
    tensor<float, axis::head, axis::query> sum;

    explicit dense_outcome(problem_shape const& s)
        : output({s.heads, s.queries, s.value_dim}), max({s.heads, s.queries}),
          sum({s.heads, s.queries}) {}
    [[nodiscard]] softmax_sums sums() { return {max.view(), sum.view()}; }
};

template <dense_products Products = dense_products::f32, class Given>
dense_outcome dense(Given const& given) {
    problem_shape const s = given.shape();
    dense_outcome result(s);
    guarded_workspace workspace(dense_workspace_bytes(s, 1));
    dense_attention<Products>(given, result.output.view(), workspace.span(), exec::serial{},
                              result.sums());
    CHECK(workspace.kept_outside());
    return result;
}
template <class Given, class Run = exec::serial>
dense_outcome decoded(Given const& given, Run const& run = {}) {
    problem_shape const s = given.shape();
    dense_outcome result(s);
    guarded_workspace workspace(decode_workspace_bytes(s, run.threads()));
    dense_decode(given, result.output.view(), workspace.span(), run, result.sums());
    CHECK(workspace.kept_outside());
    return result;
}

} // namespace sofattn::test
