// SPDX-License-Identifier: MIT
// NumPy's .npy files, in and out. A file is input from outside: nothing in it is believed, and
// every fault is an `error` of one line that names the file, what is wrong, the value and the
// limit.
#pragma once

#include <sofattn/core/element.hpp>
#include <sofattn/core/error.hpp>
#include <sofattn/core/half.hpp>
#include <sofattn/core/rows.hpp>
#include <sofattn/core/tensor.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/core/view.hpp>
#include <sofattn/io/file.hpp>
#include <sofattn/io/npy_header.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <new>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace sofattn::io {

// --- reading -------------------------------------------------------------------------------------

/// The contents of one file: dtype, shape of any rank, and the numbers in C order.
class npy_array {
public:
    static constexpr std::size_t alignment = 64; ///< bytes: a cache line and the widest vector

    [[nodiscard]] npy_dtype dtype() const noexcept { return header_.dtype; }
    [[nodiscard]] std::vector<index_t> const& shape() const noexcept { return header_.shape; }
    /// Number of elements.
    [[nodiscard]] index_t size() const noexcept { return header_.size(); }
    /// The file, as messages name it.
    [[nodiscard]] std::string const& name() const noexcept { return name_; }

    /// The numbers [size].
    /// error  the file holds another dtype
    template <npy_element T>
    [[nodiscard]] std::span<T const> values() const {
        if (npy_dtype_of<T> != dtype()) {
            throw error(name_ + ": dtype", "'" + std::string(descr(dtype())) + "'",
                        "'" + std::string(descr(npy_dtype_of<T>)) + "'");
        }
        return {reinterpret_cast<T const*>(data_.get()), static_cast<std::size_t>(size())};
    }

    /// The numbers [Axes...], dense; valid as long as the array.
    /// error  the file holds another dtype, or its rank is not the number of axes
    template <npy_element T, class... Axes>
    [[nodiscard]] view<T const, Axes...> values_as() const {
        return view<T const, Axes...>(values<T>().data(), extents<sizeof...(Axes)>());
    }

    /// A float copy [Axes...] of '<f4' or '<f2' numbers, exact.
    /// error  the file holds integers, or its rank is not the number of axes
    template <class... Axes>
    [[nodiscard]] tensor<float, Axes...> to_tensor() const {
        if (dtype() == npy_dtype::float16) {
            return converted<half, Axes...>();
        }
        if (dtype() != npy_dtype::float32) {
            throw error(name_ + ": dtype", "'" + std::string(descr(dtype())) + "'",
                        "'<f4' or '<f2'");
        }
        return converted<float, Axes...>();
    }

private:
    friend npy_array read_npy(std::filesystem::path const& path);

    explicit npy_array(input_file file) : name_(file.name), header_(detail::read_header(file)) {
        auto const bytes = static_cast<std::size_t>(size()) * item_bytes(dtype());
        try {
            data_.reset(static_cast<std::byte*>(
                ::operator new (std::max<std::size_t>(bytes, 1), std::align_val_t{alignment})));
        } catch (std::bad_alloc const&) {
            throw error(name_ + ": data", std::to_string(bytes) + " bytes", "what memory holds");
        }
        file.read(data_.get(), bytes);
    }

    template <std::size_t Rank>
    [[nodiscard]] std::array<index_t, Rank> extents() const {
        if (shape().size() != Rank) {
            throw error(name_ + ": rank", std::to_string(shape().size()), std::to_string(Rank));
        }
        std::array<index_t, Rank> result{};
        std::copy_n(shape().begin(), Rank, result.begin());
        return result;
    }

    template <npy_element T, class... Axes>
    [[nodiscard]] tensor<float, Axes...> converted() const {
        tensor<float, Axes...> result(extents<sizeof...(Axes)>());
        auto const* from = values<T>().data();
        auto const length = result.view().extents().back();
        for_each_row(result.view(), [&](auto const&, float* row) {
            std::transform(from, from + length, row, [](T value) { return to_float(value); });
            from += length;
        });
        return result;
    }

    struct release {
        void operator()(std::byte* p) const noexcept {
            ::operator delete (p, std::align_val_t{alignment});
        }
    };

    std::string name_;
    npy_header header_;
    std::unique_ptr<std::byte, release> data_;
};

/// dtype and shape of a .npy file, format version 1.0, 2.0 or 3.0, without reading its numbers.
/// Extents may be zero: what is an empty array is for the caller to judge.
/// error  missing, unreadable, not .npy, unknown version, header truncated, over 64 KiB or
///        ill-formed, Fortran order, big-endian or other dtype than '<f4', '<f2', '<i4', shape
///        negative or overflowing, data shorter or longer than the shape says
[[nodiscard]] inline npy_header read_npy_header(std::filesystem::path const& path) {
    input_file file(path);
    return detail::read_header(file);
}

/// A whole .npy file. Memory is taken only after the shape was found to agree with the size of the
/// file.
/// error  as read_npy_header; also more data than memory holds
[[nodiscard]] inline npy_array read_npy(std::filesystem::path const& path) {
    return npy_array(input_file(path));
}

// --- writing -------------------------------------------------------------------------------------

/// Writes a version 1.0 file in C order, as numpy.save does. It appears complete or not at all
/// (atomic_file).
/// in     array  any rank, any strides; float -> '<f4', half -> '<f2', int32 -> '<i4'
/// error  the file cannot be written
template <class T, class... Axes>
    requires npy_element<std::remove_const_t<T>>
void write_npy(std::filesystem::path const& path, view<T, Axes...> array) {
    using value_type = std::remove_const_t<T>;
    auto const extents = array.extents();
    std::string text = "{'descr': '" + std::string(descr(npy_dtype_of<value_type>)) +
                       "', 'fortran_order': False, 'shape': (";
    for (index_t extent : extents) {
        text += std::to_string(extent) + ", ";
    }
    text.resize(text.size() - (extents.size() == 1 ? 1 : 2)); // "(3,)" but "(3, 4)"
    text += "), }";
    constexpr std::size_t start_bytes = 10;
    std::size_t const total = ceil_div<std::size_t>(start_bytes + text.size() + 1, 64) * 64;
    text.resize(total - start_bytes - 1, ' '); // numbers start on a multiple of 64, as NumPy's do
    text += '\n';

    atomic_file file(path);
    file.write(detail::npy_magic);
    std::array<char, 4> const version_and_length{1, 0, static_cast<char>(text.size() & 0xff),
                                                 static_cast<char>(text.size() >> 8)};
    file.write(version_and_length.data(), version_and_length.size());
    file.write(text);
    std::vector<value_type> packed(static_cast<std::size_t>(extents.back()));
    for_each_row(array, [&](auto const&, T* row) {
        index_t const step = array.strides().back();
        for (index_t i = 0; i < extents.back(); ++i) {
            packed[static_cast<std::size_t>(i)] = row[i * step];
        }
        file.write(packed.data(), packed.size() * sizeof(value_type));
    });
    file.commit();
}

} // namespace sofattn::io
