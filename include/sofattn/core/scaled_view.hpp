// SPDX-License-Identifier: MIT
// Rows of 8-bit codes with a scale each: keys and values in a quarter of a float's memory.
#pragma once

#include <sofattn/core/assert.hpp>
#include <sofattn/core/element.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/core/view.hpp>

#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <tuple>
#include <type_traits>

namespace sofattn {

/// Codes [Axes...] with a scale for each row of the last axis: an element is scale * code, in float. Read
/// only, copied freely.
///
/// Not in the paper, whose K and V are int16; caches of inference engines store rows like this. A token has
/// a scale of its own, so one that arrives never changes what is stored. Codes are meant to lie in
/// [-127, 127]; -128 is a number like any other.
template <class... Axes>
class scaled_view {
public:
    static constexpr std::size_t rank = sizeof...(Axes);
    using column = std::tuple_element_t<rank - 1, std::tuple<Axes...>>;
    using element_type = std::int8_t const;
    using codes_type = view<std::int8_t const, Axes...>;
    using scales_type =
        typename detail::without<float const, column, detail::axis_list<>, Axes...>::type;

    constexpr scaled_view() noexcept = default;
    /// Both of the same extents, which whoever makes one sees to.
    constexpr scaled_view(codes_type codes, scales_type scales) noexcept
        : codes_(codes), scales_(scales) {}

    [[nodiscard]] constexpr codes_type codes() const noexcept { return codes_; }
    [[nodiscard]] constexpr scales_type scales() const noexcept { return scales_; }

    template <class Axis>
    [[nodiscard]] constexpr index_t extent() const noexcept {
        return codes_.template extent<Axis>();
    }
    /// Of the codes.
    template <class Axis>
    [[nodiscard]] constexpr index_t stride() const noexcept {
        return codes_.template stride<Axis>();
    }

    template <class... Indices>
        requires(sizeof...(Indices) == rank)
    [[nodiscard]] constexpr float operator()(Indices... indices) const noexcept {
        return scale_of(indices...) * static_cast<float>(codes_(indices...));
    }

    /// One index of `Axis`: a view with that axis gone.
    template <class Axis>
        requires(!std::is_same_v<Axis, column>)
    [[nodiscard]] constexpr auto slice(index_t at) const noexcept {
        if constexpr (rank == 2) {
            return scaled_view<column>(codes_.template slice<Axis>(at), scales_(at));
        } else {
            return scaled_view_of(codes_.template slice<Axis>(at),
                                  scales_.template slice<Axis>(at));
        }
    }
    /// `count` indices of `Axis` from `first` on.
    template <class Axis>
    [[nodiscard]] constexpr scaled_view range(index_t first, index_t count) const noexcept {
        if constexpr (std::is_same_v<Axis, column>) {
            return {codes_.template range<Axis>(first, count), scales_};
        } else {
            return {codes_.template range<Axis>(first, count),
                    scales_.template range<Axis>(first, count)};
        }
    }

private:
    template <class... Left, class Scales>
    [[nodiscard]] static constexpr scaled_view<Left...>
    scaled_view_of(view<std::int8_t const, Left...> codes, Scales scales) noexcept {
        return {codes, scales};
    }
    /// The last index is a column's.
    template <class... Indices>
    [[nodiscard]] constexpr float scale_of(Indices... indices) const noexcept {
        static_assert(rank == 2 || rank == 3, "scaled_view: rows of one head, or of several");
        std::array<index_t, rank> const at{static_cast<index_t>(indices)...};
        if constexpr (rank == 2) {
            return scales_(at[0]);
        } else {
            return scales_(at[0], at[1]);
        }
    }

    codes_type codes_{};
    scales_type scales_{};
};

/// One row.
template <class Column>
class scaled_view<Column> {
public:
    using element_type = std::int8_t const;

    constexpr scaled_view(view<std::int8_t const, Column> codes, float scale) noexcept
        : codes_(codes), scale_(scale) {}

    [[nodiscard]] constexpr view<std::int8_t const, Column> codes() const noexcept {
        return codes_;
    }
    [[nodiscard]] constexpr float scale() const noexcept { return scale_; }
    template <class Axis>
    [[nodiscard]] constexpr index_t extent() const noexcept {
        return codes_.template extent<Axis>();
    }
    [[nodiscard]] constexpr index_t size() const noexcept { return codes_.size(); }
    /// Of the codes.
    template <class Axis>
    [[nodiscard]] constexpr index_t stride() const noexcept {
        return codes_.template stride<Axis>();
    }
    [[nodiscard]] constexpr float operator()(index_t at) const noexcept {
        return scale_ * static_cast<float>(codes_(at));
    }

private:
    view<std::int8_t const, Column> codes_;
    float scale_;
};

/// Calls take(i, scale * code) for the elements of a row, in order.
template <class Column, class Take>
constexpr void for_each_float(scaled_view<Column> row, Take take) {
    for (index_t i = 0; i < row.template extent<Column>(); ++i) {
        take(i, row(i));
    }
}

/// Storage types of K and V: floats, or 8-bit codes with scales.
template <class T>
concept storage_element = storage_float<T> || std::same_as<std::remove_cv_t<T>, std::int8_t>;

/// Rows of that type, to be read.
template <storage_element T, class... Axes>
using stored_view =
    std::conditional_t<std::same_as<T, std::int8_t>, scaled_view<Axes...>, view<T const, Axes...>>;

namespace detail {

template <class Rows, class Column>
inline constexpr bool are_stored_rows = false;
template <storage_float T, class Column>
inline constexpr bool are_stored_rows<view<T const, axis::key, Column>, Column> = true;
template <class Column>
inline constexpr bool are_stored_rows<scaled_view<axis::key, Column>, Column> = true;

} // namespace detail

/// Keys, or values, of one KV head: stored_view<T, axis::key, Column> of some T.
template <class Rows, class Column>
concept stored_rows = detail::are_stored_rows<Rows, Column>;

} // namespace sofattn
