// SPDX-License-Identifier: MIT
// The header of NumPy's .npy files: a dict literal of Python, parsed and refused with care.
#pragma once

#include <sofattn/core/error.hpp>
#include <sofattn/core/half.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/io/file.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <charconv>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

namespace sofattn::io {

static_assert(
    std::endian::native == std::endian::little,
    "sofattn::io reads little-endian files in place; a big-endian host has to swap bytes");

/// Element types that are read and written.
enum class npy_dtype { float32, float16, int32 };

template <class T>
concept npy_element =
    std::same_as<T, float> || std::same_as<T, half> || std::same_as<T, std::int32_t>;

/// The dtype that holds a `T`.
template <npy_element T>
inline constexpr npy_dtype npy_dtype_of = std::same_as<T, float>  ? npy_dtype::float32
                                          : std::same_as<T, half> ? npy_dtype::float16
                                                                  : npy_dtype::int32;

/// NumPy's name, byte order included.
[[nodiscard]] constexpr std::string_view descr(npy_dtype dtype) noexcept {
    return dtype == npy_dtype::float32 ? "<f4" : dtype == npy_dtype::float16 ? "<f2" : "<i4";
}

/// Bytes per element.
[[nodiscard]] constexpr std::size_t item_bytes(npy_dtype dtype) noexcept {
    return dtype == npy_dtype::float16 ? 2 : 4;
}

/// What a file says about itself, checked.
struct npy_header {
    npy_dtype dtype = npy_dtype::float32;
    std::vector<index_t> shape; ///< every extent >= 0; their product, zeros left out, fits index_t
    std::uint64_t data_offset = 0; ///< bytes from the start of the file

    /// Number of elements.
    [[nodiscard]] index_t size() const noexcept {
        index_t product = 1;
        for (index_t extent : shape) {
            product *= extent;
        }
        return product;
    }
};

/// Longest header text that is read; NumPy's own are about 120 bytes.
inline constexpr std::size_t max_npy_header_bytes = 64 * 1024;

namespace detail {

inline constexpr std::string_view npy_magic = "\x93NUMPY";

/// The header is a Python dict literal; this reads the one form of it that the format allows.
class npy_header_parser {
public:
    npy_header_parser(std::string_view text, std::string_view name) : text_(text), name_(name) {}

    [[nodiscard]] npy_header parse() {
        npy_header header;
        std::array<bool, keys.size()> seen{};
        expect('{');
        while (!accept('}')) {
            std::string_view const key = string("a key in quotes");
            auto const index =
                static_cast<std::size_t>(std::find(keys.begin(), keys.end(), key) - keys.begin());
            if (index == keys.size()) {
                throw error(subject("header key"), quoted(key),
                            "'descr', 'fortran_order' or 'shape'");
            }
            if (std::exchange(seen[index], true)) {
                throw error(subject(key_text(index)), "given twice", "given once");
            }
            expect(':');
            switch (index) {
            case 0: header.dtype = dtype(); break;
            case 1: c_order(); break;
            default: header.shape = shape(); break;
            }
            if (!accept(',')) {
                expect('}');
                break;
            }
        }
        skip_space();
        if (at_ != text_.size()) {
            fail("nothing after the '}'");
        }
        for (std::size_t index = 0; index < keys.size(); ++index) {
            if (!seen[index]) {
                throw error(subject(key_text(index)), "missing", "given once");
            }
        }
        return header;
    }

private:
    static constexpr std::array<std::string_view, 3> keys{"descr", "fortran_order", "shape"};

    [[nodiscard]] std::string subject(std::string const& what) const {
        return std::string(name_) + ": " + what;
    }
    [[nodiscard]] static std::string key_text(std::size_t index) {
        return "header key '" + std::string(keys[index]) + "'";
    }
    [[noreturn]] void fail(std::string const& expected) const {
        throw error(subject("header text at byte " + std::to_string(at_)),
                    at_ < text_.size() ? quoted(text_.substr(at_, 20)) : "its end", expected);
    }

    void skip_space() noexcept {
        while (at_ < text_.size() &&
               std::string_view(" \t\r\n").find(text_[at_]) != std::string_view::npos) {
            ++at_;
        }
    }
    [[nodiscard]] bool accept(char c) noexcept {
        skip_space();
        bool const found = at_ < text_.size() && text_[at_] == c;
        at_ += found ? 1 : 0;
        return found;
    }
    void expect(char c) {
        if (!accept(c)) {
            fail(std::string("'") + c + "'");
        }
    }
    [[nodiscard]] std::string_view take_while(std::string_view allowed) noexcept {
        std::size_t const start = at_;
        at_ = std::min(text_.find_first_not_of(allowed, at_), text_.size());
        return text_.substr(start, at_ - start);
    }

    [[nodiscard]] std::string_view string(std::string const& expected) {
        skip_space();
        if (at_ == text_.size() || (text_[at_] != '\'' && text_[at_] != '"')) {
            fail(expected);
        }
        std::size_t const end = text_.find(text_[at_], at_ + 1);
        if (end == std::string_view::npos) {
            fail(expected + " that ends");
        }
        std::string_view const content = text_.substr(at_ + 1, end - at_ - 1);
        at_ = end + 1;
        return content; // an escape stays as written, and then is no known word
    }

    [[nodiscard]] npy_dtype dtype() {
        std::string_view const text = string("'<f4', '<f2' or '<i4'");
        for (npy_dtype known : {npy_dtype::float32, npy_dtype::float16, npy_dtype::int32}) {
            if (text == descr(known)) {
                return known;
            }
        }
        if (text.starts_with('>')) {
            throw error(subject("dtype"), "big-endian " + quoted(text),
                        "little-endian, '<f4', '<f2' or '<i4'");
        }
        throw error(subject("dtype"), quoted(text), "'<f4', '<f2' or '<i4'");
    }

    void c_order() {
        skip_space();
        std::size_t const start = at_;
        std::string_view const word =
            take_while("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_0123456789");
        if (word == "True") {
            throw error(subject("element order"), "Fortran order", "C order");
        }
        if (word != "False") {
            at_ = start;
            fail("True or False");
        }
    }

    [[nodiscard]] std::vector<index_t> shape() {
        std::vector<index_t> extents;
        expect('(');
        while (!accept(')')) {
            extents.push_back(extent(extents.size()));
            if (!accept(',')) {
                if (extents.size() == 1) {
                    fail("',': a tuple of one is written (n,)");
                }
                expect(')');
                break;
            }
        }
        return extents;
    }

    [[nodiscard]] index_t extent(std::size_t number) {
        bool const negative = accept('-');
        std::string_view const digits = take_while("0123456789");
        if (digits.empty()) {
            fail("an integer");
        }
        auto const what = subject("extent " + std::to_string(number) + " of the shape");
        if (negative) {
            throw error(what, "-" + std::string(digits.substr(0, 20)), "at least 0");
        }
        index_t value = 0;
        if (std::from_chars(digits.data(), digits.data() + digits.size(), value).ec !=
            std::errc()) {
            throw error(what,
                        digits.size() > 20 ? std::string(digits.substr(0, 20)) + "..."
                                           : std::string(digits),
                        "at most " + std::to_string(std::numeric_limits<index_t>::max()));
        }
        static_cast<void>(accept('L')); // Python 2 wrote its long integers so
        return value;
    }

    std::string_view text_;
    std::string_view name_;
    std::size_t at_ = 0;
};

/// Reads and checks all but the numbers; the file is left at the first of them.
inline npy_header read_header(input_file& file) {
    auto const part = [&](char const* what) { return file.name + ": " + what; };
    auto const bytes = [](std::uint64_t count) { return std::to_string(count) + " bytes"; };

    std::array<char, 12> start{}; // magic 6, version 2, length of the text 2 or 4
    auto const most = static_cast<std::size_t>(std::min<std::uintmax_t>(file.size, start.size()));
    file.read(start.data(), std::min<std::size_t>(most, 8));
    std::string_view const magic(start.data(), std::min(most, npy_magic.size()));
    if (!npy_magic.starts_with(magic)) {
        throw error(part("start"), quoted(magic), quoted(npy_magic) + ", the mark of a .npy file");
    }
    auto const byte = [&](std::size_t i) {
        return std::uint32_t{static_cast<unsigned char>(start[i])};
    };
    if (most < 8) {
        throw error(part("truncated header"), bytes(most), "at least 10 bytes");
    }
    if (byte(6) < 1 || byte(6) > 3 || byte(7) != 0) {
        throw error(part("format version"), std::to_string(byte(6)) + "." + std::to_string(byte(7)),
                    "1.0, 2.0 or 3.0");
    }
    std::size_t const text_at = byte(6) == 1 ? 10 : 12;
    if (most < text_at) {
        throw error(part("truncated header"), bytes(most), "at least " + bytes(text_at));
    }
    file.read(start.data() + 8, text_at - 8);
    std::uint32_t const length =
        byte(8) | byte(9) << 8 | (text_at == 12 ? byte(10) << 16 | byte(11) << 24 : 0u);
    if (length > max_npy_header_bytes) {
        throw error(part("length of the header"), bytes(length),
                    "at most " + bytes(max_npy_header_bytes));
    }
    if (length > file.size - text_at) {
        throw error(part("truncated header"), bytes(file.size - text_at),
                    bytes(length) + " as its length field says");
    }
    std::string text(length, '\0');
    file.read(text.data(), text.size());
    npy_header header = npy_header_parser(text, file.name).parse();
    header.data_offset = text_at + length;

    // Extents of zero are left out: strides are products of the others. 128 leaves room for bytes
    // per element and for tensor's padding of rows.
    constexpr index_t limit = std::numeric_limits<index_t>::max() / 128;
    index_t product = 1;
    for (index_t extent : header.shape) {
        if (extent > limit / product) {
            throw error(part("shape"), shape_text(header.shape),
                        "of at most " + std::to_string(limit) + " elements");
        }
        product *= std::max<index_t>(extent, 1);
    }
    std::uint64_t const wanted =
        static_cast<std::uint64_t>(header.size()) * item_bytes(header.dtype);
    if (std::uint64_t const found = file.size - header.data_offset; found != wanted) {
        throw error(part("data"), bytes(found),
                    bytes(wanted) + " for shape " + shape_text(header.shape) + " of '" +
                        std::string(descr(header.dtype)) + "'");
    }
    return header;
}

} // namespace detail

} // namespace sofattn::io
