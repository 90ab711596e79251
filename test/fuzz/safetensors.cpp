// SPDX-License-Identifier: MIT
// Weights: whatever is read lies within the file.
#include "lm/safetensors.hpp"

#include "fuzz/fuzzed.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <variant>

namespace {

std::string valid() {
    std::string const header =
        R"({"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},)"
        R"("b":{"dtype":"BF16","shape":[4],"data_offsets":[24,32]},)"
        R"("c":{"dtype":"F16","shape":[],"data_offsets":[32,34]}})";
    std::uint64_t const length = header.size();
    std::string file(sizeof length, '\0');
    std::memcpy(file.data(), &length, sizeof length);
    return file + header + std::string(34, '\1');
}

} // namespace

SOFATTN_FUZZ_FROM(valid)

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
    using namespace sofattn;
    fuzz::copied const file(data, size);
    fuzz::refused_or_read([&] {
        std::size_t all = 0;
        for (auto const& named : lm::parse_safetensors(file.bytes(), "fuzzed")) {
            lm::stored_tensor const& tensor = named.second;
            all += tensor.bytes.size();
            unsigned sum = 0;
            for (std::byte const b : tensor.bytes) { // all of them are there
                sum += std::to_integer<unsigned>(b);
            }
            fuzz::require(sum <= 255 * tensor.bytes.size(), "bytes are bytes");
            fuzz::refused_or_read([&] {
                std::visit(
                    [&](auto numbers) {
                        fuzz::require(numbers.size_bytes() == tensor.bytes.size(),
                                      "numbers are all of a tensor's bytes");
                    },
                    tensor.numbers(tensor.shape));
            });
        }
        fuzz::require(all < size, "tensors do not overlap");
    });
    return 0;
}
