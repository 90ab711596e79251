# SPDX-License-Identifier: MIT
# sofattn::strict: how our own programs are compiled. Never installed, never seen by users.
add_library(sofattn_strict INTERFACE)
add_library(sofattn::strict ALIAS sofattn_strict)

# Contraction would let one compiler fuse a multiply-add that another rounds twice; results that are
# specified exactly must not depend on that.
target_compile_options(sofattn_strict INTERFACE
    -Wall -Wextra -Wpedantic -Wconversion -Wshadow -Werror
    -ffp-contract=off)
if(CMAKE_CXX_COMPILER_ID STREQUAL GNU AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
    # GCC 12 takes "text" + string for an overlapping copy at -O3 (GCC bug 105651).
    target_compile_options(sofattn_strict INTERFACE -Wno-restrict)
endif()

if(SOFATTN_SANITIZE)
    # No recovery: a finding has to fail the test that shows it.
    set(flags -fsanitize=address,undefined -fno-sanitize-recover=all)
    # Targets with the property SOFATTN_WHOLE_KERNELS go without two checks: those take more than half of the
    # compiler's time there, and what they would find AddressSanitizer finds where memory is touched. All else,
    # the views and stages that kernels are made of among it, is compiled with them, and so are all fuzzers.
    set(kernel_flags)
    if(SOFATTN_SANITIZE STREQUAL "thread")
        set(flags -fsanitize=thread) # a finding is exit code 66
    elseif(NOT SOFATTN_FUZZ)
        set(kernel_flags -fno-sanitize=object-size,pointer-overflow)
    endif()
    target_compile_options(sofattn_strict INTERFACE ${flags} -fno-omit-frame-pointer
        $<$<BOOL:$<TARGET_PROPERTY:SOFATTN_WHOLE_KERNELS>>:${kernel_flags}>)
    target_link_options(sofattn_strict INTERFACE ${flags})
endif()

if(SOFATTN_COVERAGE)
    # One thread (examples/CMakeLists.txt): atomic counts would make the tests ten times slower.
    target_compile_options(sofattn_strict INTERFACE --coverage)
    target_link_options(sofattn_strict INTERFACE --coverage)
endif()
