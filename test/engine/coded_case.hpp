// SPDX-License-Identifier: MIT
// Descriptors over random layers whose keys and values are in int8.
#pragma once

#include "attention/scaled_case.hpp"
#include "engine/engine_case.hpp"
#include "support/generators.hpp"
#include <sofattn/attention/problem.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/core/view.hpp>
#include <sofattn/dlzs/packed_index.hpp>
#include <sofattn/engine/descriptor.hpp>

#include <cstdint>

namespace sofattn::test {

template <class Column>
[[nodiscard]] engine::operand operand_of(scaled_view<axis::kv_head, axis::key, Column> of) {
    auto const codes = of.codes();
    return {codes.data(), engine::dtype::int8, codes.strides()[0], codes.strides()[1]};
}
template <class Column>
[[nodiscard]] engine::row_scales scales_of(scaled_view<axis::kv_head, axis::key, Column> of) {
    auto const scales = of.scales();
    return {scales.data(), scales.strides()[0] * 4, scales.strides()[1] * 4};
}

/// Queries in T.
template <class T = float>
struct coded_case : engine_case<T> {
    coded_case(generator& random, decode_shape const& s, scale_kind kind = scale_kind::any)
        : engine_case<T>(random, s), k(random, this->layer.k.cview(), kind),
          v(random, this->layer.v.cview(), kind) {
        this->desc.key = operand_of(k.view());
        this->desc.value = operand_of(v.view());
        this->desc.key_scales = scales_of(k.view());
        this->desc.value_scales = scales_of(v.view());
    }
    [[nodiscard]] problem<T, std::int8_t> given() const {
        return {this->layer.q.view(), k.view(), v.view(), this->layer.causal};
    }
    /// The same numbers in f32.
    [[nodiscard]] problem<T, float> widened() const {
        return {this->layer.q.view(), k.wide.cview(), v.wide.cview(), this->layer.causal};
    }
    /// Of the numbers that codes stand for.
    void index() {
        this->codes.clear();
        for (index_t h = 0; h < this->desc.kv_heads; ++h) {
            auto const keys = k.wide.cview().template slice<axis::kv_head>(h);
            this->codes.emplace_back(dlzs::key_calibration<dlzs::centred_int4>::of(keys));
            this->codes.back().append(keys);
        }
        this->desc.codes = this->codes.data();
    }

    scaled_tensor<axis::dim> k;
    scaled_tensor<axis::value_dim> v;
};

} // namespace sofattn::test
