// SPDX-License-Identifier: MIT
// The element types that queries, keys and values may be stored in.
#pragma once

#include <sofattn/core/bfloat16.hpp>
#include <sofattn/core/half.hpp>

#include <concepts>
#include <type_traits>

namespace sofattn {

/// Storage types of Q, K, V, X and the projection weights.
template <class T>
concept storage_float = (std::same_as<std::remove_cv_t<T>, float> ||
                         std::same_as<std::remove_cv_t<T>, half> ||
                         std::same_as<std::remove_cv_t<T>, bfloat16>);

/// Exact for every storage type.
template <storage_float T>
[[nodiscard]] constexpr float to_float(T value) noexcept {
    return static_cast<float>(value);
}

} // namespace sofattn
