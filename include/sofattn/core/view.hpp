// SPDX-License-Identifier: MIT
// Non-owning strided views whose extents are named by types: a [dim, key] view is not a [key, dim].
#pragma once

#include <sofattn/core/assert.hpp>
#include <sofattn/core/types.hpp>

#include <array>
#include <cstddef>
#include <type_traits>

namespace sofattn {

/// Names of extents. Two views with equal axes in equal order are of one type.
namespace axis {
struct head {};      ///< query heads
struct kv_head {};   ///< key-value heads; head h reads kv_head h / (heads / kv_heads)
struct query {};     ///< query tokens (rows of the score matrix)
struct key {};       ///< key tokens (columns of the score matrix)
struct dim {};       ///< head dimension of queries and keys
struct value_dim {}; ///< head dimension of values and outputs
struct channel {};   ///< model width, the input of the projections
} // namespace axis

namespace detail {

template <class Axis, class... Axes>
consteval std::size_t position_of() {
    std::size_t position = 0;
    bool found = false;
    ((found = found || std::is_same_v<Axis, Axes>, position += found ? 0u : 1u), ...);
    return position;
}

template <class...>
inline constexpr bool all_distinct = true;
template <class First, class... Rest>
inline constexpr bool
    all_distinct<First, Rest...> = (!std::is_same_v<First, Rest> && ...) && all_distinct<Rest...>;

} // namespace detail

template <class T, class... Axes>
class view;

namespace detail {

/// view<T, Axes...> without `Removed`, order kept.
template <class T, class Removed, class Done, class... Left>
struct without;
template <class... Ts>
struct axis_list {};
template <class T, class Removed, class... Done>
struct without<T, Removed, axis_list<Done...>> {
    using type = view<T, Done...>;
};
template <class T, class Removed, class... Done, class First, class... Rest>
struct without<T, Removed, axis_list<Done...>, First, Rest...>
    : std::conditional_t<std::is_same_v<Removed, First>,
                         without<T, Removed, axis_list<Done...>, Rest...>,
                         without<T, Removed, axis_list<Done..., First>, Rest...>> {};

} // namespace detail

/// A pointer, one extent and one stride (in elements, any sign) per named axis. Copied freely; a
/// view of `T` converts to a view of `T const`.
template <class T, class... Axes>
class view {
    static_assert(sizeof...(Axes) > 0, "view: name at least one axis");
    static_assert(detail::all_distinct<Axes...>, "view: an axis is named twice");

public:
    static constexpr std::size_t rank = sizeof...(Axes);
    using element_type = T;
    using extents_type = std::array<index_t, rank>;

    /// Axis position, or a worded error.
    template <class Axis>
    static constexpr std::size_t position = [] {
        constexpr std::size_t found = detail::position_of<Axis, Axes...>();
        static_assert(found < rank, "view: this view has no such axis; see its type for the axes");
        return found;
    }();

    constexpr view() noexcept = default;

    /// Dense in C order: the last axis varies fastest.
    constexpr view(T* data, extents_type extents) noexcept : data_(data), extents_(extents) {
        index_t step = 1;
        for (std::size_t a = rank; a-- > 0;) {
            strides_[a] = step;
            step *= extents_[a];
        }
    }

    constexpr view(T* data, extents_type extents, extents_type strides) noexcept
        : data_(data), extents_(extents), strides_(strides) {}

    template <class U>
        requires(std::is_same_v<U const, T> && !std::is_const_v<U>)
    // NOLINTNEXTLINE(google-explicit-constructor): as pointers do
    constexpr view(view<U, Axes...> other) noexcept
        : data_(other.data()), extents_(other.extents()), strides_(other.strides()) {}

    [[nodiscard]] constexpr T* data() const noexcept { return data_; }
    [[nodiscard]] constexpr extents_type extents() const noexcept { return extents_; }
    [[nodiscard]] constexpr extents_type strides() const noexcept { return strides_; }

    template <class Axis>
    [[nodiscard]] constexpr index_t extent() const noexcept {
        return extents_[position<Axis>];
    }
    template <class Axis>
    [[nodiscard]] constexpr index_t stride() const noexcept {
        return strides_[position<Axis>];
    }

    /// Number of elements.
    [[nodiscard]] constexpr index_t size() const noexcept {
        index_t product = 1;
        for (index_t extent : extents_) {
            product *= extent;
        }
        return product;
    }

    template <class... Indices>
        requires(sizeof...(Indices) == rank)
    [[nodiscard]] constexpr T& operator()(Indices... indices) const noexcept {
        std::array<index_t, rank> const at{static_cast<index_t>(indices)...};
        index_t offset = 0;
        for (std::size_t a = 0; a < rank; ++a) {
            SOFATTN_DASSERT(at[a] >= 0 && at[a] < extents_[a]);
            offset += at[a] * strides_[a];
        }
        return data_[offset];
    }

    /// One index of `Axis`: a view with that axis gone.
    template <class Axis>
        requires(rank > 1)
    [[nodiscard]] constexpr auto slice(index_t at) const noexcept {
        constexpr std::size_t gone = position<Axis>;
        SOFATTN_DASSERT(at >= 0 && at < extents_[gone]);
        std::array<index_t, rank - 1> extents{};
        std::array<index_t, rank - 1> strides{};
        for (std::size_t from = 0, to = 0; from < rank; ++from) {
            if (from != gone) {
                extents[to] = extents_[from];
                strides[to] = strides_[from];
                ++to;
            }
        }
        using result = typename detail::without<T, Axis, detail::axis_list<>, Axes...>::type;
        return result(data_ + at * strides_[gone], extents, strides);
    }

    /// `count` indices of `Axis` from `first` on: the same axes, fewer of one.
    template <class Axis>
    [[nodiscard]] constexpr view range(index_t first, index_t count) const noexcept {
        SOFATTN_DASSERT(first >= 0 && count >= 0 && first + count <= extents_[position<Axis>]);
        view part = *this;
        part.data_ = data_ + first * strides_[position<Axis>];
        part.extents_[position<Axis>] = count;
        return part;
    }

    /// The same numbers under other names, e.g. an output [query, value_dim] read as [key, dim].
    template <class... NewAxes>
        requires(sizeof...(NewAxes) == rank)
    [[nodiscard]] constexpr view<T, NewAxes...> renamed() const noexcept {
        return view<T, NewAxes...>(data_, extents_, strides_);
    }

private:
    T* data_ = nullptr;
    extents_type extents_{};
    extents_type strides_{};
};

/// [query, dim], one head.
template <class T>
using query_view = view<T, axis::query, axis::dim>;
/// [key, dim], one KV head.
template <class T>
using key_view = view<T, axis::key, axis::dim>;
/// [key, value_dim], one KV head.
template <class T>
using value_view = view<T, axis::key, axis::value_dim>;
/// [query, value_dim], one head.
template <class T>
using output_view = view<T, axis::query, axis::value_dim>;

} // namespace sofattn
