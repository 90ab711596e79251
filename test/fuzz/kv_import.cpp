// SPDX-License-Identifier: MIT
// Exports of KV caches in f16: kv_imports.hpp.
#include "fuzz/fuzzed.hpp"
#include "fuzz/kv_imports.hpp"
#include <sofattn/core/half.hpp>

#include <cstddef>
#include <cstdint>
#include <string>

using imports = sofattn::fuzz::kv_imports<sofattn::half>;

SOFATTN_FUZZ_FROM(imports::valid)

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
    return imports::one(data, size);
}
