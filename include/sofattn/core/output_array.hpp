// SPDX-License-Identifier: MIT
// Where attention writes: an array in a storage type that kernels need not be compiled for.
#pragma once

#include <sofattn/core/assert.hpp>
#include <sofattn/core/element.hpp>
#include <sofattn/core/half.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/core/view.hpp>

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace sofattn {

/// A storage_float, known at run time.
enum class storage_type : std::uint8_t { f32, f16, bf16 };

template <storage_float T>
inline constexpr storage_type storage_type_of = std::same_as<T, float>  ? storage_type::f32
                                                : std::same_as<T, half> ? storage_type::f16
                                                                        : storage_type::bf16;

/// What may be written to.
template <class T>
concept output_float = storage_float<T> && !std::is_const_v<T>;

/// A row of outputs, [value_dim] with any stride. exec::store_row writes it.
class output_row {
public:
    template <output_float T>
    // NOLINTNEXTLINE(google-explicit-constructor): the same memory, its type named otherwise
    output_row(view<T, axis::value_dim> of) noexcept
        : output_row(reinterpret_cast<std::byte*>(of.data()), of.size(),
                     of.template stride<axis::value_dim>(), storage_type_of<T>) {}

    /// Stride in elements.
    output_row(std::byte* data, index_t size, index_t stride, storage_type type) noexcept
        : data_(data), size_(size), stride_(stride), type_(type) {}

    [[nodiscard]] storage_type type() const noexcept { return type_; }
    [[nodiscard]] index_t size() const noexcept { return size_; }
    /// pre: T is of type()
    template <output_float T>
    [[nodiscard]] view<T, axis::value_dim> as() const noexcept {
        SOFATTN_DASSERT(type_ == storage_type_of<T>);
        return {reinterpret_cast<T*>(data_), {size_}, {stride_}};
    }

private:
    std::byte* data_;
    index_t size_;
    index_t stride_;
    storage_type type_;
};

/// Outputs of all heads: a view<T, axis::head, axis::query, axis::value_dim> of any storage type T, which
/// converts to this. Kernels compute in float and round a row when it is finished, so what is written is
/// what they would write in f32, rounded to nearest, ties to even. In f16 numbers from 65520 on become
/// infinity and those up to 2^-25 zero; NaN stays NaN.
///
/// Not in the paper, whose outputs are int16; engines keep activations in 16-bit floats.
class output_array {
    using shape = view<std::byte, axis::head, axis::query, axis::value_dim>;

public:
    using extents_type = shape::extents_type;

    template <output_float T>
    // NOLINTNEXTLINE(google-explicit-constructor): the same memory, its type named otherwise
    output_array(view<T, axis::head, axis::query, axis::value_dim> of) noexcept
        : data_(reinterpret_cast<std::byte*>(of.data())), extents_(of.extents()),
          strides_(of.strides()), element_bytes_(sizeof(T)), type_(storage_type_of<T>) {}

    /// As the view of these: a call may name its outputs in braces. Strides in elements; dense, in C
    /// order, without.
    template <output_float T>
    output_array(T* data, extents_type extents) noexcept
        : output_array(view<T, axis::head, axis::query, axis::value_dim>(data, extents)) {}
    template <output_float T>
    output_array(T* data, extents_type extents, extents_type strides) noexcept
        : output_array(view<T, axis::head, axis::query, axis::value_dim>(data, extents, strides)) {}

    [[nodiscard]] storage_type type() const noexcept { return type_; }
    template <class Axis>
    [[nodiscard]] index_t extent() const noexcept {
        return extents_[shape::position<Axis>];
    }

    [[nodiscard]] output_row row(index_t head, index_t query) const noexcept {
        SOFATTN_DASSERT(head >= 0 && head < extents_[0] && query >= 0 && query < extents_[1]);
        return {data_ + (head * strides_[0] + query * strides_[1]) * element_bytes_, extents_[2],
                strides_[2], type_};
    }

private:
    std::byte* data_;
    extents_type extents_;
    extents_type strides_; ///< in elements
    index_t element_bytes_;
    storage_type type_;
};

} // namespace sofattn
