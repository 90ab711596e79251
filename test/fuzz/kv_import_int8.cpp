// SPDX-License-Identifier: MIT
// Exports of KV caches in int8: kv_imports.hpp.
#include "fuzz/fuzzed.hpp"
#include "fuzz/kv_imports.hpp"

#include <cstddef>
#include <cstdint>
#include <string>

using imports = sofattn::fuzz::kv_imports<std::int8_t>;

SOFATTN_FUZZ_FROM(imports::valid)

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
    return imports::one(data, size);
}
