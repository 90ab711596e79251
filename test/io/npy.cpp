// SPDX-License-Identifier: MIT
#include "support/allocations.hpp"
#include "support/generators.hpp"
#include "support/temporary_folder.hpp"
#include <sofattn/core/error.hpp>
#include <sofattn/core/half.hpp>
#include <sofattn/core/tensor.hpp>
#include <sofattn/core/view.hpp>
#include <sofattn/io/npy.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <new>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace {

namespace axis = sofattn::axis;
namespace fs = std::filesystem;
namespace io = sofattn::io;
using sofattn::half;
using sofattn::index_t;
using sofattn::tensor;
using sofattn::view;
using sofattn::test::read_bytes;
using sofattn::test::temporary_folder;
using sofattn::test::write_bytes;
using namespace std::string_literals;

/// A file with this header text; version 1 has a length of 2 bytes, the others of 4.
std::string npy_bytes(std::string const& text, std::string const& data, int version = 1) {
    std::string bytes = "\x93NUMPY"s + static_cast<char>(version) + '\0';
    for (int i = 0; i < (version == 1 ? 2 : 4); ++i) {
        bytes += static_cast<char>((text.size() >> (8 * i)) & 0xff);
    }
    return bytes + text + data;
}

std::string header_text(std::string const& descr, std::string const& shape,
                        std::string const& order = "False") {
    return "{'descr': '" + descr + "', 'fortran_order': " + order + ", 'shape': " + shape + ", }\n";
}

template <class T>
std::string bytes_of(std::vector<T> const& values) {
    std::string bytes(values.size() * sizeof(T), '\0');
    std::memcpy(bytes.data(), values.data(), bytes.size());
    return bytes;
}

/// What sofattn::error says; anything else thrown fails the case.
template <class F>
std::string refusal(F f) {
    try {
        f();
    } catch (sofattn::error const& e) {
        return e.what();
    }
    return "accepted";
}

struct folder_with_file {
    temporary_folder folder;
    fs::path path = folder / "q.npy";

    std::string refusal_of(std::string const& bytes) const {
        write_bytes(path, bytes);
        std::string const header_only =
            refusal([&] { static_cast<void>(io::read_npy_header(path)); });
        std::string const whole = refusal([&] { static_cast<void>(io::read_npy(path)); });
        CHECK(header_only == whole);
        return after_path(whole);
    }
    /// The rest of a message that starts with the path, as it must.
    std::string after_path(std::string const& message) const {
        if (message.starts_with(path.string())) {
            return "q.npy" + message.substr(path.string().size());
        }
        return message;
    }
};

std::string const two_floats = bytes_of<float>({1.5f, -2.0f});

/// The bits of every element, in C order.
template <class T, class... Axes>
std::vector<std::uint32_t> bits_of(view<T, Axes...> array) {
    std::vector<std::uint32_t> bits;
    sofattn::test::for_each_index(array.extents(), [&](auto const& at) {
        if constexpr (std::is_same_v<std::remove_const_t<T>, half>) {
            bits.push_back(sofattn::test::at(array, at).bits());
        } else {
            bits.push_back(std::bit_cast<std::uint32_t>(sofattn::test::at(array, at)));
        }
    });
    return bits;
}

template <class T, class... Axes>
void check_round_trip(view<T, Axes...> array) {
    temporary_folder const folder;
    fs::path const path = folder / "round.npy";
    io::write_npy(path, array);
    CHECK(folder.entries() == 1);
    io::npy_array const read = io::read_npy(path);
    CHECK(read.dtype() == io::npy_dtype_of<std::remove_const_t<T>>);
    auto const values = read.values_as<std::remove_const_t<T>, Axes...>();
    REQUIRE(values.extents() == array.extents());
    CHECK(bits_of(values) == bits_of(array));
    CHECK(io::read_npy_header(path).data_offset % 64 == 0);
}

} // namespace

TEST_CASE("io.npy: float arrays of any rank come back bit for bit") {
    SOFATTN_GENERATOR(random);
    check_round_trip(sofattn::test::random_matrix<float, axis::dim>(random, {17}).view());
    check_round_trip(
        sofattn::test::random_matrix<float, axis::key, axis::dim>(random, {5, 3}).cview());
    check_round_trip(
        sofattn::test::random_matrix<float, axis::head, axis::query, axis::dim>(random, {3, 4, 20})
            .view());
}

TEST_CASE("io.npy: every half comes back bit for bit") {
    tensor<half, axis::key, axis::dim> all({256, 256});
    for (index_t i = 0; i < 65536; ++i) {
        all(i / 256, i % 256) = half::from_bits(static_cast<std::uint16_t>(i));
    }
    check_round_trip(all.cview());
}

TEST_CASE("io.npy: special floats come back bit for bit") {
    std::vector<float> const values{0.0f,
                                    -0.0f,
                                    std::numeric_limits<float>::infinity(),
                                    std::numeric_limits<float>::quiet_NaN(),
                                    std::numeric_limits<float>::denorm_min(),
                                    std::numeric_limits<float>::max()};
    check_round_trip(view<float const, axis::dim>(values.data(), {6}));
}

TEST_CASE("io.npy: strided, reversed and transposed views are written in C order") {
    SOFATTN_GENERATOR(random);
    auto const whole =
        sofattn::test::random_matrix<half, axis::head, axis::query, axis::dim>(random, {4, 6, 10});
    auto const v = whole.view();
    check_round_trip(v.range<axis::query>(2, 3).range<axis::dim>(1, 7));
    check_round_trip(v.slice<axis::query>(5));
    auto const s = v.strides();
    check_round_trip(view<half const, axis::dim, axis::query, axis::head>(v.data(), {10, 6, 4},
                                                                          {s[2], s[1], s[0]}));
    check_round_trip(view<half const, axis::head, axis::query, axis::dim>(
        &v(3, 5, 9), {4, 6, 5}, {-s[0], -s[1], -2 * s[2]}));
    check_round_trip(view<half const, axis::head, axis::dim>(v.data(), {3, 4}, {0, 1}));
}

TEST_CASE("io.npy: empty arrays are read and written") {
    tensor<float, axis::head, axis::query, axis::dim> const none({3, 0, 4});
    check_round_trip(none.view());
    check_round_trip(view<float const, axis::key, axis::dim>(nullptr, {4, 0}));
}

TEST_CASE("io.npy: what is written is what numpy.save writes") {
    temporary_folder const folder;
    std::vector<float> const values{1.0f, 2.0f, 3.0f};
    io::write_npy(folder / "a.npy", view<float const, axis::dim>(values.data(), {3}));
    // numpy.save(file, numpy.array([1, 2, 3], numpy.float32)), NumPy 1.26
    std::string text = "{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }";
    text.resize(117, ' ');
    CHECK(read_bytes(folder / "a.npy") == npy_bytes(text + "\n", bytes_of(values)));
}

TEST_CASE("io.npy: token ids and scalars are read, in all three format versions") {
    folder_with_file const f;
    for (int version : {1, 2, 3}) {
        write_bytes(f.path, npy_bytes(header_text("<i4", "(3,)"),
                                      bytes_of<std::int32_t>({1, -7, 32000}), version));
        io::npy_array const tokens = io::read_npy(f.path);
        CHECK(tokens.shape() == std::vector<index_t>{3});
        CHECK(tokens.name() == f.path.string());
        auto const ids = tokens.values<std::int32_t>();
        CHECK(std::vector<std::int32_t>(ids.begin(), ids.end()) ==
              std::vector<std::int32_t>{1, -7, 32000});
        CHECK(reinterpret_cast<std::uintptr_t>(ids.data()) % io::npy_array::alignment == 0);
    }
    write_bytes(f.path, npy_bytes(header_text("<f4", "()"), bytes_of<float>({2.5f})));
    io::npy_array const scalar = io::read_npy(f.path);
    CHECK(scalar.shape().empty());
    CHECK(scalar.size() == 1);
    CHECK(scalar.values<float>()[0] == 2.5f);
}

TEST_CASE("io.npy: keys in any order, either quote, any space and Python 2's integers are read") {
    folder_with_file const f;
    for (std::string const& text : {
             "{'shape':(2,),'descr':'<f4','fortran_order':False}"s,
             "{\"fortran_order\": False, \"shape\": (2,), \"descr\": \"<f4\"}\n"s,
             " \n{ 'shape' : ( 2 , ) , 'fortran_order' :\tFalse , 'descr' : '<f4' , } \r\n  "s,
             "{'descr': '<f4', 'fortran_order': False, 'shape': (2L,), }\n"s,
             "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2), }\n"s,
             "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2, 1,)}"s,
         }) {
        CAPTURE(text);
        write_bytes(f.path, npy_bytes(text, two_floats));
        CHECK(io::read_npy(f.path).values<float>()[1] == -2.0f);
    }
}

TEST_CASE("io.npy: a float copy is exact and refuses integers and another rank") {
    folder_with_file const f;
    std::vector<half> const halves{half(1.0f), half(-0.5f), half::from_bits(1), half(65504.0f)};
    write_bytes(f.path, npy_bytes(header_text("<f2", "(2, 2)"), bytes_of(halves)));
    io::npy_array const array = io::read_npy(f.path);
    auto const copy = array.to_tensor<axis::key, axis::dim>();
    CHECK(copy(0, 0) == 1.0f);
    CHECK(copy(0, 1) == -0.5f);
    CHECK(copy(1, 0) == 0x1p-24f);
    CHECK(copy(1, 1) == 65504.0f);
    CHECK(f.after_path(refusal([&] { static_cast<void>(array.to_tensor<axis::dim>()); })) ==
          "q.npy: rank is 2, must be 1");
    CHECK(f.after_path(refusal([&] { static_cast<void>(array.values<float>()); })) ==
          "q.npy: dtype is '<f2', must be '<f4'");

    write_bytes(f.path, npy_bytes(header_text("<i4", "(2,)"), bytes_of<std::int32_t>({1, 2})));
    io::npy_array const tokens = io::read_npy(f.path);
    CHECK(f.after_path(refusal([&] { static_cast<void>(tokens.to_tensor<axis::dim>()); })) ==
          "q.npy: dtype is '<i4', must be '<f4' or '<f2'");
}

TEST_CASE("io.npy: a missing file, a folder and a device are errors that name them") {
    folder_with_file const f;
    CHECK(f.after_path(refusal([&] { static_cast<void>(io::read_npy(f.path)); })) ==
          "q.npy is missing, must be a readable file");
    fs::create_directory(f.path);
    CHECK(f.after_path(refusal([&] { static_cast<void>(io::read_npy(f.path)); })) ==
          "q.npy is a folder, must be a regular file");
    if (fs::exists("/dev/null")) {
        CHECK(refusal([] { static_cast<void>(io::read_npy("/dev/null")); }) ==
              "/dev/null is a special file, must be a regular file");
    }
    // A name that the system refuses: neither missing nor there.
    std::string const long_name(5000, 'n');
    CHECK(refusal([&] { static_cast<void>(io::read_npy(long_name)); }).find("unreadable (") !=
          std::string::npos);
}

TEST_CASE("io.npy: a file without read permission is an error that names it") {
    folder_with_file const f;
    write_bytes(f.path, npy_bytes(header_text("<f4", "(2,)"), two_floats));
    fs::permissions(f.path, fs::perms::none);
    if (std::ifstream(f.path).is_open()) {
        MESSAGE("skipped: permissions do not bind this user");
        return;
    }
    CHECK(f.after_path(refusal([&] { static_cast<void>(io::read_npy(f.path)); })) ==
          "q.npy is unreadable (Permission denied), must be a readable file");
}

TEST_CASE("io.npy: another kind of file is an error that shows its start") {
    folder_with_file const f;
    CHECK(f.refusal_of("PK\x03\x04 a zip file") ==
          "q.npy: start is \"PK\\x03\\x04 a\", must be \"\\x93NUMPY\", the mark of a .npy file");
    CHECK(f.refusal_of("1\n2") ==
          "q.npy: start is \"1\\x0a2\", must be \"\\x93NUMPY\", the mark of a .npy file");
}

TEST_CASE("io.npy: a truncated header is an error that names the file") {
    folder_with_file const f;
    std::string const whole = npy_bytes(header_text("<f4", "(2,)"), "");
    CHECK(f.refusal_of("") == "q.npy: truncated header is 0 bytes, must be at least 10 bytes");
    CHECK(f.refusal_of(whole.substr(0, 7)) ==
          "q.npy: truncated header is 7 bytes, must be at least 10 bytes");
    CHECK(f.refusal_of(whole.substr(0, 9)) ==
          "q.npy: truncated header is 9 bytes, must be at least 10 bytes");
    CHECK(f.refusal_of("\x93NUMPY\x02\0\x10\0\0"s) ==
          "q.npy: truncated header is 11 bytes, must be at least 12 bytes");
    CHECK(f.refusal_of(whole.substr(0, 30)) == "q.npy: truncated header is 20 bytes, must be " +
                                                   std::to_string(whole.size() - 10) +
                                                   " bytes as its length field says");
}

TEST_CASE("io.npy: an unknown format version is an error") {
    folder_with_file const f;
    std::string const text = header_text("<f4", "(2,)");
    CHECK(f.refusal_of(npy_bytes(text, two_floats, 4)) ==
          "q.npy: format version is 4.0, must be 1.0, 2.0 or 3.0");
    CHECK(f.refusal_of(npy_bytes(text, two_floats, 0)) ==
          "q.npy: format version is 0.0, must be 1.0, 2.0 or 3.0");
    CHECK(f.refusal_of("\x93NUMPY\x01\x01\0\0"s) ==
          "q.npy: format version is 1.1, must be 1.0, 2.0 or 3.0");
}

TEST_CASE("io.npy: a header over 64 KiB is an error, one of exactly that is read") {
    folder_with_file const f;
    std::string text = header_text("<f4", "(2,)");
    text.resize(io::max_npy_header_bytes, ' ');
    write_bytes(f.path, npy_bytes(text, two_floats, 2));
    CHECK(io::read_npy(f.path).values<float>()[0] == 1.5f);
    CHECK(f.refusal_of(npy_bytes(text + " ", two_floats, 2)) ==
          "q.npy: length of the header is 65537 bytes, must be at most 65536 bytes");
    CHECK(f.refusal_of("\x93NUMPY\x02\0\xff\xff\xff\xff"s) ==
          "q.npy: length of the header is 4294967295 bytes, must be at most 65536 bytes");
}

TEST_CASE("io.npy: a header that is no well-formed dict is an error that says where") {
    folder_with_file const f;
    auto const says = [&](std::string const& text, std::string const& message) {
        CAPTURE(text);
        CHECK(f.refusal_of(npy_bytes(text, two_floats)) == "q.npy: " + message);
    };
    std::string const rest = "'fortran_order': False, 'shape': (2,)}";
    says("", "header text at byte 0 is its end, must be '{'");
    says("['descr']", "header text at byte 0 is \"['descr']\", must be '{'");
    says("{descr: 1}", "header text at byte 1 is \"descr: 1}\", must be a key in quotes");
    says("{'descr", "header text at byte 1 is \"'descr\", must be a key in quotes that ends");
    says("{'descr' '<f4'}", "header text at byte 9 is \"'<f4'}\", must be ':'");
    says("{'descr': '<f4' " + rest,
         "header text at byte 16 is \"'fortran_order': Fal\", must be '}'");
    says("{'descr': '<f4'", "header text at byte 15 is its end, must be '}'");
    says("{, }", "header text at byte 1 is \", }\", must be a key in quotes");
    says("{'descr': '<f4', " + rest + " 1", "header text at byte 56 is \"1\", must be nothing "
                                            "after the '}'");
    says("{'descr': '<f4', 'fortran_order': 0, 'shape': (2,)}",
         "header text at byte 34 is \"0, 'shape': (2,)}\", must be True or False");
    says("{'descr': '<f4', 'fortran_order': Falsehood, 'shape': (2,)}",
         "header text at byte 34 is \"Falsehood, 'shape': \", must be True or False");
    says("{'shape': [2]}", "header text at byte 10 is \"[2]}\", must be '('");
    says("{'shape': (2)}",
         "header text at byte 12 is \")}\", must be ',': a tuple of one is written (n,)");
    says("{'shape': (,)}", "header text at byte 11 is \",)}\", must be an integer");
    says("{'shape': (2 3)}",
         "header text at byte 13 is \"3)}\", must be ',': a tuple of one is written (n,)");
    says("{'shape': (2,\n3\x01)}", "header text at byte 15 is \"\\x01)}\", must be ')'");
    says("{'shape': (2,3,,)}", "header text at byte 15 is \",)}\", must be an integer");
    says("{'shape': (2.0,)}",
         "header text at byte 12 is \".0,)}\", must be ',': a tuple of one is written (n,)");
    says("{}", "header key 'descr' is missing, must be given once");
    says("{'descr': '<f4', 'shape': (2,)}",
         "header key 'fortran_order' is missing, must be given once");
    says("{'descr': '<f4', 'fortran_order': False}",
         "header key 'shape' is missing, must be given once");
    says("{'descr': '<f4', 'descr': '<f4', " + rest,
         "header key 'descr' is given twice, must be given once");
    says("{'descr': '<f4', 'colour': 'red', " + rest,
         "header key is \"colour\", must be 'descr', 'fortran_order' or 'shape'");
}

TEST_CASE("io.npy: Fortran order, big-endian and other dtypes are errors that say so") {
    folder_with_file const f;
    CHECK(f.refusal_of(npy_bytes(header_text("<f4", "(2,)", "True"), two_floats)) ==
          "q.npy: element order is Fortran order, must be C order");
    CHECK(f.refusal_of(npy_bytes(header_text(">f4", "(2,)"), two_floats)) ==
          "q.npy: dtype is big-endian \">f4\", must be little-endian, '<f4', '<f2' or '<i4'");
    for (std::string const descr : {"<f8", "<i8", "|b1", "f4", "<U3", "", "<f4 "}) {
        CHECK(f.refusal_of(npy_bytes(header_text(descr, "(2,)"), two_floats)) ==
              "q.npy: dtype is \"" + descr + "\", must be '<f4', '<f2' or '<i4'");
    }
    CHECK(f.refusal_of(npy_bytes("{'descr': [('a', '<f4')], }", two_floats)) ==
          "q.npy: header text at byte 10 is \"[('a', '<f4')], }\", must be '<f4', '<f2' or '<i4'");
}

TEST_CASE("io.npy: negative and overflowing shapes are errors, before memory is taken") {
    folder_with_file const f;
    auto const says = [&](std::string const& shape, std::string const& message) {
        CAPTURE(shape);
        std::string const bytes = npy_bytes(header_text("<f4", shape), two_floats);
        sofattn::test::allocations.largest =
            0; // a broken file must not make the reader ask for gigabytes
        CHECK(f.refusal_of(bytes) == "q.npy: " + message);
        CHECK(sofattn::test::allocations.largest < 64 * 1024);
    };
    std::string const most = std::to_string(std::numeric_limits<index_t>::max() / 128);
    says("(-2,)", "extent 0 of the shape is -2, must be at least 0");
    says("(1, - 2)", "header text at byte 55 is \" 2), }\\x0a\", must be an integer");
    says("(3, 99999999999999999999)", "extent 1 of the shape is 99999999999999999999, must be at "
                                      "most 9223372036854775807");
    says("(" + std::string(400, '9') + ",)",
         "extent 0 of the shape is 99999999999999999999..., must be at most 9223372036854775807");
    says("(4294967296, 4294967296)",
         "shape is (4294967296, 4294967296), must be of at most " + most + " elements");
    says("(0, 4294967296, 4294967296)",
         "shape is (0, 4294967296, 4294967296), must be of at most " + most + " elements");
    says("(9223372036854775807,)",
         "shape is (9223372036854775807,), must be of at most " + most + " elements");
    says("(72057594037927935,)", "data is 8 bytes, must be 288230376151711740 bytes for shape "
                                 "(72057594037927935,) of '<f4'");
    says("(1, 1, 1, 1, 1, 1, 1, 1, 3)", "data is 8 bytes, must be 12 bytes for shape "
                                        "(1, 1, 1, 1, 1, 1, 1, 1, ...) of '<f4'");
}

TEST_CASE("io.npy: data shorter or longer than the shape says is an error with both sizes") {
    folder_with_file const f;
    std::string const text = header_text("<f2", "(2, 3)");
    CHECK(f.refusal_of(npy_bytes(text, std::string(11, '\0'))) ==
          "q.npy: data is 11 bytes, must be 12 bytes for shape (2, 3) of '<f2'");
    CHECK(f.refusal_of(npy_bytes(text, std::string(13, '\0'))) ==
          "q.npy: data is 13 bytes, must be 12 bytes for shape (2, 3) of '<f2'");
    CHECK(f.refusal_of(npy_bytes(header_text("<f4", "(0, 3)"), "x")) ==
          "q.npy: data is 1 bytes, must be 0 bytes for shape (0, 3) of '<f4'");
}

TEST_CASE("io.npy: a file that shrinks while it is read is an error") {
    folder_with_file const f;
    write_bytes(f.path, "12345678");
    io::input_file file(f.path);
    CHECK(file.size == 8);
    std::array<char, 16> to{};
    file.read(to.data(), 5);
    CHECK(f.after_path(refusal([&] { file.read(to.data(), 5); })) ==
          "q.npy: number of bytes read is 3, must be 5");
}

TEST_CASE("io.npy: thousands of damaged files load or are refused in one line that names them") {
    SOFATTN_GENERATOR(random);
    folder_with_file const f;
    std::vector<std::string> const valid{
        npy_bytes(header_text("<f4", "(2, 3, 4)"), std::string(96, 'a')),
        npy_bytes(header_text("<f2", "(2, 3, 4)") + std::string(40, ' '), std::string(48, 'b'), 2),
        npy_bytes(header_text("<i4", "(7,)"), std::string(28, 'c'), 3),
        npy_bytes(header_text("<f2", "(3, 0)"), ""),
    };
    std::vector<std::string> const pieces{
        "(",     ")",     "{",           "}",     "'",    "\"",    ",",   ":",        "-",
        "0",     "9",     "65536",       "False", "True", "descr", ">f4", "'shape'",  "\n",
        "\0"s,   "\xff"s, "4294967296",  "<f8",   "(0,)", "L",     " ",   "1,1,1,1,", "\\",
        "\x93"s, "{{{{",  "'descr': 1,", "[]",    "1e3",  "None",  "u'",  "(2, 3, 4)"};
    auto const any = [&](std::string const& bytes) {
        return random.integer<std::size_t>(0, bytes.size() - 1);
    };
    int loaded = 0;
    int refused = 0;
    for (int round = 0; round < 5000; ++round) {
        std::string bytes = valid[random.integer<std::size_t>(0, valid.size() - 1)];
        std::size_t const header_end = bytes.find('\n');
        int const changes = random.integer(1, 3);
        for (int change = 0; change < changes && !bytes.empty(); ++change) {
            std::string const& piece = pieces[random.integer<std::size_t>(0, pieces.size() - 1)];
            auto const in_header =
                random.integer<std::size_t>(0, std::min(header_end, bytes.size() - 1));
            switch (random.integer(0, 7)) {
            case 0: // one bit
                bytes[any(bytes)] ^= static_cast<char>(1 << random.integer(0, 7));
                break;
            case 1: // one byte of the header
                bytes[in_header] = static_cast<char>(random.integer(0, 255));
                break;
            case 2: bytes.resize(any(bytes)); break;
            case 6: // a number
                bytes[bytes.size() - 1 - any(bytes) / 4] ^= '\x55';
                break;
            case 3: bytes += std::string(random.integer<std::size_t>(1, 200), piece[0]); break;
            case 4: bytes.insert(in_header, piece); break;
            case 5: bytes.erase(in_header, random.integer<std::size_t>(1, 12)); break;
            default: bytes.replace(in_header, piece.size(), piece); break;
            }
        }
        write_bytes(f.path, bytes);
        sofattn::test::allocations.largest =
            0; // a broken file must not make the reader ask for gigabytes
        try {
            io::npy_array const array = io::read_npy(f.path);
            ++loaded;
            REQUIRE(static_cast<std::size_t>(array.size()) * io::item_bytes(array.dtype()) <=
                    bytes.size());
            if (array.shape().size() == 3 && array.dtype() != io::npy_dtype::int32) {
                auto const copy = array.to_tensor<axis::head, axis::query, axis::dim>();
                REQUIRE(copy.view().size() == array.size());
            }
        } catch (sofattn::error const& e) {
            ++refused;
            std::string_view const message = e.what();
            bool const one_line = std::all_of(message.begin(), message.end(),
                                              [](char c) { return c >= 0x20 && c < 0x7f; });
            if (!one_line || !message.starts_with(f.path.string()) || message.size() > 400) {
                FAIL("message: ", message);
            }
        }
        REQUIRE(sofattn::test::allocations.largest < 64 * 1024);
    }
    CHECK(loaded > 100);
    CHECK(refused > 2500);
}

TEST_CASE("io.npy: a name with a line break gives a message of one line") {
    temporary_folder const folder;
    std::string const message =
        refusal([&] { static_cast<void>(io::read_npy(folder / "a\nb.npy")); });
    CHECK(message.find('\n') == std::string::npos);
    CHECK(message.find("a?b.npy is missing") != std::string::npos);
}

TEST_CASE("io.npy: unwritable output is an error that names it and leaves nothing") {
    temporary_folder const folder;
    std::vector<float> const values{1.0f, 2.0f};
    view<float const, axis::dim> const v(values.data(), {2});
    fs::path const absent = folder / "no_such_folder/q.npy";
    CHECK(refusal([&] { io::write_npy(absent, v); }) ==
          absent.string() +
              " is not writable (No such file or directory), must be a writable file");
    fs::path const taken = folder / "taken";
    fs::create_directory(taken);
    CHECK(refusal([&] { io::write_npy(taken, v); }) ==
          taken.string() + " is a folder, must be a regular file or a new one");
    if (fs::exists("/dev/full")) { // and is not replaced by a file
        CHECK(refusal([&] { io::write_npy("/dev/full", v); }) ==
              "/dev/full is a special file, must be a regular file or a new one");
    }
    CHECK(folder.entries() == 1);
}

TEST_CASE("io.npy: an existing file is replaced only by a complete one") {
    temporary_folder const folder;
    fs::path const path = folder / "report.json";
    write_bytes(path, "old");
    {
        io::atomic_file file(path);
        file.write("half a rep");
        CHECK(folder.entries() == 2);
        CHECK(read_bytes(path) == "old");
    }
    CHECK(folder.entries() == 1);
    CHECK(read_bytes(path) == "old");
    {
        io::atomic_file file(path);
        io::atomic_file other(path); // two writers do not disturb each other
        file.write("new");
        other.write("other");
        file.commit();
        CHECK(read_bytes(path) == "new");
        CHECK(refusal([&] { file.write("more"); }).find("not writable") != std::string::npos);
    }
    CHECK(read_bytes(path) == "new");
    CHECK(folder.entries() == 1);
}

TEST_CASE("io.npy: a target that turns into a folder meanwhile is an error, and nothing is left") {
    temporary_folder const folder;
    fs::path const path = folder / "q.npy";
    io::atomic_file file(path);
    fs::create_directory(path);
    write_bytes(path / "in_it", "x");
    CHECK(refusal([&] { file.commit(); }).starts_with(path.string() + " is not writable ("));
    CHECK(folder.entries() == 1);
}

TEST_CASE("io.npy: a hundred leftovers of killed writers are an error, and are left alone") {
    temporary_folder const folder;
    fs::path const path = folder / "q.npy";
    for (int i = 0; i < 100; ++i) {
        write_bytes(path.string() + ".partial" + std::to_string(i), "theirs");
    }
    CHECK(refusal([&] { io::atomic_file const file(path); }) ==
          path.string() + " is not writable (File exists), must be a writable file");
    CHECK(folder.entries() == 100);
}
