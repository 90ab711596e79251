// SPDX-License-Identifier: MIT
// .npy files: as many numbers as the shape says, all of them there.
#include "fuzz/fuzzed.hpp"
#include "support/temporary_folder.hpp"
#include <sofattn/core/half.hpp>
#include <sofattn/io/npy.hpp>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>

namespace {

std::string valid() {
    std::string text = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }";
    text.resize(117, ' ');
    text += '\n';
    std::string file("\x93NUMPY\x01\x00", 8);
    file += static_cast<char>(text.size());
    file += '\0';
    return file + text + std::string(24, '\1');
}

} // namespace

SOFATTN_FUZZ_FROM(valid)

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
    using namespace sofattn;
    static test::temporary_folder const folder; // where TMPDIR says
    static std::filesystem::path const path = folder / "fuzzed.npy";
    std::ofstream(path, std::ios::binary)
        .write(reinterpret_cast<char const*>(data), static_cast<std::streamsize>(size));
    fuzz::refused_or_read([&] {
        io::npy_array const array = io::read_npy(path);
        auto const all = [&](auto values) {
            fuzz::require(std::ssize(values) == array.size(), "as many numbers as the shape says");
            fuzz::require(values.size_bytes() < size, "numbers are of the file");
            unsigned sum = 0;
            for (std::byte const b : std::as_bytes(values)) {
                sum += std::to_integer<unsigned>(b);
            }
            fuzz::require(sum <= 255 * size, "bytes are bytes");
        };
        switch (array.dtype()) {
        case io::npy_dtype::float32: all(array.values<float>()); break;
        case io::npy_dtype::float16: all(array.values<half>()); break;
        case io::npy_dtype::int32: all(array.values<std::int32_t>()); break;
        }
        fuzz::refused_or_read([&] { (void)array.to_tensor<axis::query, axis::key>(); });
        fuzz::refused_or_read([&] { (void)array.to_tensor<axis::head, axis::query, axis::key>(); });
    });
    return 0;
}
