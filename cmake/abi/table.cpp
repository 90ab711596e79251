// SPDX-License-Identifier: MIT
// The C interface for one instruction set: compiled once for each, with SOFATTN_LEVEL as its name.
#include <sofattn/abi/functions.hpp>
#include <sofattn/abi/implementation.hpp>

#define SOFATTN_JOINED(a, b) a##b
#define SOFATTN_TABLE_OF(level) SOFATTN_JOINED(sofattn_functions_, level)
#define SOFATTN_TEXT_OF(level) #level
#define SOFATTN_NAME_OF(level) SOFATTN_TEXT_OF(level)

// The one symbol of this file that the library's other objects see.
extern "C" {
extern sofattn_functions const SOFATTN_TABLE_OF(SOFATTN_LEVEL);
constexpr sofattn_functions
    SOFATTN_TABLE_OF(SOFATTN_LEVEL) = sofattn::abi::functions(SOFATTN_NAME_OF(SOFATTN_LEVEL));
}
