# SPDX-License-Identifier: MIT
# Tests of vector code, built for other registers than those of every x86-64.
include(CheckCXXCompilerFlag)
include(CheckCXXSourceRuns)

set(simd_flags_avx2 -mavx2 -mfma -mf16c)
set(simd_flags_avx512 -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512cd)
set(simd_flags_avx512_dot ${simd_flags_avx512} -mavx512vnni -mavx512bf16)

# Makes sofattn_test_simd_<level>, ctest name unit.simd.<level>, of sources in test/. Skipped where the
# machine lacks the level; not made where the compiler does.
function(sofattn_add_simd_tests level)
    list(JOIN simd_flags_${level} " " flags)
    check_cxx_compiler_flag("${flags}" SOFATTN_HAS_${level})
    if(NOT SOFATTN_HAS_${level})
        return()
    endif()

    set(target sofattn_test_simd_${level})
    add_executable(${target} ${ARGN} simd/skip.cpp)
    target_compile_options(${target} PRIVATE ${simd_flags_${level}})
    target_link_libraries(${target} PRIVATE sofattn_test_support sofattn::strict)
    set_target_properties(${target} PROPERTIES SOFATTN_WHOLE_KERNELS ON)
    if(level MATCHES "^avx512" AND CMAKE_CXX_COMPILER_ID STREQUAL GNU)
        # GCC 12 takes its own _mm512_undefined_ps for a mistake, avx512fintrin.h (GCC bug 105593).
        target_compile_options(${target} PRIVATE -Wno-maybe-uninitialized -Wno-uninitialized)
    endif()
    add_test(NAME unit.simd.${level} COMMAND ${target} WORKING_DIRECTORY "${PROJECT_SOURCE_DIR}")
    set_tests_properties(unit.simd.${level} PROPERTIES SKIP_RETURN_CODE 77) # test/simd/skip.cpp
endfunction()

# Sets SOFATTN_MACHINE_HAS_<level>: whether its tests would not be skipped here.
function(sofattn_check_machine_has level)
    set(CMAKE_REQUIRED_FLAGS "${simd_flags_${level}}")
    list(JOIN CMAKE_REQUIRED_FLAGS " " CMAKE_REQUIRED_FLAGS)
    check_cxx_source_runs("
        #include \"${PROJECT_SOURCE_DIR}/test/simd/skip.cpp\"
        int main() { return 0; }" SOFATTN_MACHINE_HAS_${level})
endfunction()
