# SPDX-License-Identifier: MIT
include(CheckCXXCompilerFlag)

# Compiles a target for the processor at hand, where the compiler knows how.
function(sofattn_for_this_processor target scope)
    check_cxx_compiler_flag(-march=native SOFATTN_HAS_MARCH_NATIVE)
    if(SOFATTN_HAS_MARCH_NATIVE)
        # GCC 12 takes registers of its own AVX-512 header for uninitialised.
        target_compile_options(${target} ${scope} -march=native
            "$<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized;-Wno-uninitialized>")
    endif()
endfunction()
