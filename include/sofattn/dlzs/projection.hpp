// SPDX-License-Identifier: MIT
// The K or V projection of one head, as the model holds it.
#pragma once

#include <sofattn/core/element.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/core/view.hpp>
#include <sofattn/dlzs/rope.hpp>

namespace sofattn::dlzs {

/// y = x W + b, then RoPE if there is one. Strides let W be stored either way round. `Dim` is
/// axis::dim for K and axis::value_dim for V.
template <storage_float T, class Dim>
struct projection {
    view<T const, axis::channel, Dim> weights;
    view<T const, Dim> bias{};            ///< extent 0: none
    dlzs::rope const* rotation = nullptr; ///< null: none; token i has position i

    [[nodiscard]] index_t channels() const noexcept {
        return weights.template extent<axis::channel>();
    }
    [[nodiscard]] index_t dims() const noexcept { return weights.template extent<Dim>(); }
    [[nodiscard]] bool has_bias() const noexcept { return bias.template extent<Dim>() > 0; }
    [[nodiscard]] float bias_at(index_t d) const noexcept {
        return has_bias() ? to_float(bias(d)) : 0.0f;
    }
};

} // namespace sofattn::dlzs
