# SPDX-License-Identifier: MIT
# libsofattn: the C interface, one shared library that holds the kernels of several instruction sets.
#
# Each set is the same source with other flags. Templates and inline functions have the same names in all
# of them, so that a linker would keep one set's at random: every set is linked into one object first, in
# which all names but that of its table are made local. Needs ELF and binutils; elsewhere, and with
# sanitizers, there is the target's own set alone.
include(CheckCXXCompilerFlag)
include(GNUInstallDirs)

find_program(SOFATTN_OBJCOPY NAMES objcopy)
mark_as_advanced(SOFATTN_OBJCOPY)
set(library_flags_avx2 -march=x86-64-v3)
set(library_flags_avx512 -march=x86-64-v4)
set(library_flags_avx512_dot -march=x86-64-v4 -mavx512vnni -mavx512bf16)

set(levels base)
if(CMAKE_SYSTEM_NAME STREQUAL Linux AND CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64)$"
        AND SOFATTN_OBJCOPY AND CMAKE_LINKER AND NOT SOFATTN_SANITIZE AND NOT SOFATTN_COVERAGE)
    list(APPEND levels avx2 avx512 avx512_dot)
    foreach(level IN LISTS levels)
        list(JOIN library_flags_${level} " " flags)
        check_cxx_compiler_flag("${flags}" SOFATTN_LIBRARY_${level})
        if(NOT SOFATTN_LIBRARY_${level}) # all or none: dispatch.cpp names them
            set(levels base)
            break()
        endif()
    endforeach()
endif()

set(objects)
foreach(level IN LISTS levels)
    set(target sofattn_table_${level})
    add_library(${target} OBJECT cmake/abi/table.cpp)
    target_compile_definitions(${target} PRIVATE SOFATTN_LEVEL=${level})
    target_compile_options(${target} PRIVATE ${library_flags_${level}}
        # Unique symbols could not be made local.
        $<$<CXX_COMPILER_ID:GNU>:-fno-gnu-unique>
        # GCC 12 takes registers of its own AVX-512 header for uninitialised.
        $<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized> $<$<CXX_COMPILER_ID:GNU>:-Wno-uninitialized>)
    target_link_libraries(${target} PRIVATE sofattn::sofattn sofattn::strict)
    set_target_properties(${target} PROPERTIES SOFATTN_WHOLE_KERNELS ON
        POSITION_INDEPENDENT_CODE ON CXX_VISIBILITY_PRESET hidden VISIBILITY_INLINES_HIDDEN ON)
    if(levels STREQUAL base)
        list(APPEND objects $<TARGET_OBJECTS:${target}>)
        continue()
    endif()
    set(whole "${CMAKE_CURRENT_BINARY_DIR}/${target}.o")
    add_custom_command(OUTPUT "${whole}"
        COMMAND ${CMAKE_LINKER} -r --force-group-allocation $<TARGET_OBJECTS:${target}> -o "${whole}"
        COMMAND ${SOFATTN_OBJCOPY} --keep-global-symbol=sofattn_functions_${level} "${whole}"
        DEPENDS ${target} $<TARGET_OBJECTS:${target}>
        COMMENT "Making the names of ${target} local"
        VERBATIM)
    set_source_files_properties("${whole}" PROPERTIES EXTERNAL_OBJECT ON GENERATED ON)
    list(APPEND objects "${whole}")
endforeach()

add_library(sofattn_c SHARED cmake/abi/dispatch.cpp ${objects})
add_library(sofattn::c ALIAS sofattn_c)
target_link_libraries(sofattn_c PRIVATE sofattn::strict)
target_include_directories(sofattn_c INTERFACE
    $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include> $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
target_include_directories(sofattn_c PRIVATE "${PROJECT_SOURCE_DIR}/include")
if(NOT levels STREQUAL base)
    target_compile_definitions(sofattn_c PRIVATE SOFATTN_HAS_LEVELS)
endif()
target_compile_features(sofattn_c PRIVATE cxx_std_20)
if(CMAKE_SYSTEM_NAME STREQUAL Linux) # what the standard library's headers make visible, too
    set(exports "${PROJECT_SOURCE_DIR}/cmake/abi/exports.map")
    target_link_options(sofattn_c PRIVATE "LINKER:--version-script=${exports}")
    set_target_properties(sofattn_c PROPERTIES LINK_DEPENDS "${exports}")
endif()
set_target_properties(sofattn_c PROPERTIES
    OUTPUT_NAME sofattn EXPORT_NAME c
    VERSION ${PROJECT_VERSION} SOVERSION ${PROJECT_VERSION_MAJOR} # sofattn.h: others only add
    CXX_VISIBILITY_PRESET hidden VISIBILITY_INLINES_HIDDEN ON
    LIBRARY_OUTPUT_DIRECTORY "${CMAKE_RUNTIME_OUTPUT_DIRECTORY}")

if(SOFATTN_INSTALL)
    set(c_config_dir "${CMAKE_INSTALL_LIBDIR}/cmake/sofattn-c")
    install(TARGETS sofattn_c EXPORT sofattn-c-targets LIBRARY DESTINATION "${CMAKE_INSTALL_LIBDIR}")
    install(EXPORT sofattn-c-targets NAMESPACE sofattn:: FILE sofattn-c-config.cmake
        DESTINATION "${c_config_dir}")
    write_basic_package_version_file("${PROJECT_BINARY_DIR}/sofattn-c-config-version.cmake"
        COMPATIBILITY SameMajorVersion)
    install(FILES "${PROJECT_BINARY_DIR}/sofattn-c-config-version.cmake" DESTINATION "${c_config_dir}")
    configure_file(cmake/abi/sofattn.pc.in "${PROJECT_BINARY_DIR}/sofattn.pc" @ONLY)
    install(FILES "${PROJECT_BINARY_DIR}/sofattn.pc" DESTINATION "${CMAKE_INSTALL_LIBDIR}/pkgconfig")
endif()
