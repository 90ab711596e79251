// SPDX-License-Identifier: MIT
// Owning counterpart of view: aligned rows, padding that may be read and is zero.
#pragma once

#include <sofattn/core/error.hpp>
#include <sofattn/core/huge_pages.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/core/view.hpp>

#include <algorithm>
#include <cstddef>
#include <memory>
#include <new>
#include <string>
#include <type_traits>
#include <utility>

namespace sofattn {

/// An array with named axes. Every row of the last axis starts on a 64-byte boundary (a cache
/// line and the widest vector), and the padding after it is zero. Large arrays lie in huge pages where
/// the system has them (prefer_huge_pages).
template <class T, class... Axes>
    requires std::is_trivially_copyable_v<T>
class tensor {
public:
    using view_type = sofattn::view<T, Axes...>;
    using const_view_type = sofattn::view<T const, Axes...>;
    using extents_type = typename view_type::extents_type;
    static constexpr std::size_t alignment = 64;

    tensor() noexcept = default;

    /// All elements are value-initialised. Throws `error` on a negative extent.
    explicit tensor(extents_type extents) : tensor(extents, allocated{}) {
        std::uninitialized_fill_n(data_.get(), size_, T{});
    }

    /// The same, but elements have no value yet: for results that are about to be written. Only the
    /// padding is zero.
    [[nodiscard]] static tensor for_overwrite(extents_type extents) {
        tensor result(extents, allocated{});
        index_t const row = extents.back();
        index_t const all = padded(row);
        for (index_t from = 0; from < result.size_ && row < all; from += all) {
            std::uninitialized_fill_n(result.data_.get() + from + row, all - row, T{});
        }
        return result;
    }

    tensor(tensor&&) noexcept = default;
    tensor& operator=(tensor&&) noexcept = default;
    tensor(tensor const& other) : tensor(other.extents_) {
        std::copy_n(other.data_.get(), size_, data_.get());
    }
    tensor& operator=(tensor const& other) {
        tensor copy(other);
        *this = std::move(copy);
        return *this;
    }
    ~tensor() = default;

    [[nodiscard]] view_type view() noexcept { return view_type(data_.get(), extents_, strides_); }
    [[nodiscard]] const_view_type view() const noexcept {
        return const_view_type(data_.get(), extents_, strides_);
    }
    [[nodiscard]] const_view_type cview() const noexcept { return view(); }

    template <class Axis>
    [[nodiscard]] index_t extent() const noexcept {
        return extents_[view_type::template position<Axis>];
    }

    template <class... Indices>
    [[nodiscard]] T& operator()(Indices... indices) noexcept {
        return view()(indices...);
    }
    template <class... Indices>
    [[nodiscard]] T const& operator()(Indices... indices) const noexcept {
        return view()(indices...);
    }

private:
    static constexpr index_t padded(index_t extent) noexcept {
        constexpr auto per_line = static_cast<index_t>(
            alignment % sizeof(T) == 0 ? alignment / sizeof(T) : std::size_t{1});
        return ceil_div(extent, per_line) * per_line;
    }
    struct release {
        void operator()(T* p) const noexcept { ::operator delete (p, std::align_val_t{alignment}); }
    };
    struct allocated {};
    tensor(extents_type extents, allocated) : extents_(extents) {
        index_t step = 1;
        for (std::size_t a = view_type::rank; a-- > 0;) {
            if (extents[a] < 0) {
                throw error("tensor: extent " + std::to_string(a), std::to_string(extents[a]),
                            "at least 0");
            }
            strides_[a] = step;
            step *= a + 1 == view_type::rank ? padded(extents[a]) : extents[a];
        }
        size_ = step;
        std::size_t const all = static_cast<std::size_t>(size_) * sizeof(T);
        data_.reset(static_cast<T*>(::operator new (all, std::align_val_t{alignment})));
        prefer_huge_pages(data_.get(), all);
    }

    extents_type extents_{};
    extents_type strides_{};
    index_t size_ = 0;
    std::unique_ptr<T, release> data_;
};

} // namespace sofattn
