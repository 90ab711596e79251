# SPDX-License-Identifier: MIT
# The Python module sofattn, over libsofattn: one build serves all machines, as the library chooses its
# instruction set when it is loaded. A working copy has it in <build>/python; `pip install` (see
# cmake/python/README.md) installs the component `python`.
#
# It is left out, with a notice, where something that it needs is missing.
function(sofattn_find_python)
    # The first interpreter that has numpy: another one first in PATH may be somebody's bare one.
    set(candidates "${Python_EXECUTABLE}")
    if(NOT Python_EXECUTABLE)
        find_program(in_path python3 NO_CACHE)
        set(candidates "${in_path}" /usr/bin/python3)
    endif()
    foreach(candidate IN LISTS candidates)
        execute_process(COMMAND "${candidate}" -c "import numpy" RESULT_VARIABLE failed
            OUTPUT_QUIET ERROR_QUIET)
        if(failed EQUAL 0)
            set(Python_EXECUTABLE "${candidate}" CACHE FILEPATH "Python that the module is for")
            return()
        endif()
    endforeach()
endfunction()

sofattn_find_python()
set(missing)
if(NOT Python_EXECUTABLE)
    list(APPEND missing "numpy (Debian: python3-numpy)")
else()
    find_package(Python 3.9 QUIET COMPONENTS Interpreter Development.Module)
    if(NOT Python_Development.Module_FOUND)
        list(APPEND missing "Python's headers (Debian: python3-dev)")
    else()
        find_package(pybind11 2.10 QUIET CONFIG)
    endif()
endif()
if(NOT pybind11_FOUND)
    list(APPEND missing "pybind11 (Debian: pybind11-dev)")
endif()
if(NOT TARGET sofattn_c)
    list(APPEND missing "libsofattn (-DSOFATTN_BUILD_LIBRARY=ON)")
endif()
if(SOFATTN_SANITIZE AND CMAKE_CXX_COMPILER_ID MATCHES Clang)
    list(APPEND missing "GCC, for sanitizers: Clang's runtime is in no shared library that Python could load")
endif()
if(SOFATTN_SANITIZE STREQUAL "thread")
    list(APPEND missing "a build without ThreadSanitizer, of which Python knows nothing")
endif()
if(missing)
    list(JOIN missing ", " SOFATTN_PYTHON_MISSING)
    message(NOTICE "The Python module is not built: it takes ${SOFATTN_PYTHON_MISSING}")
    return()
endif()

set(python_source "${PROJECT_SOURCE_DIR}/cmake/python")
set(SOFATTN_PYTHON_DIR "${PROJECT_BINARY_DIR}/python")
set(extensions _core)

pybind11_add_module(sofattn_python_core MODULE NO_EXTRAS "${python_source}/src/module.cpp")
target_link_libraries(sofattn_python_core PRIVATE sofattn_c sofattn::strict)
set_target_properties(sofattn_python_core PROPERTIES OUTPUT_NAME _core)

# The hardware report is that of sofattn-hw, which reads and writes JSON.
find_package(nlohmann_json QUIET)
if(nlohmann_json_FOUND)
    list(APPEND extensions _hardware)
    pybind11_add_module(sofattn_python_hardware MODULE NO_EXTRAS "${python_source}/src/hardware.cpp"
        "${PROJECT_SOURCE_DIR}/examples/hw/report.cpp" "${PROJECT_SOURCE_DIR}/examples/hw/settings.cpp")
    target_include_directories(sofattn_python_hardware PRIVATE "${PROJECT_SOURCE_DIR}/examples")
    target_link_libraries(sofattn_python_hardware
        PRIVATE sofattn::sofattn nlohmann_json::nlohmann_json sofattn::strict)
    set_target_properties(sofattn_python_hardware PROPERTIES OUTPUT_NAME _hardware)
else()
    message(NOTICE "The Python module has no sofattn.hardware: it takes nlohmann-json "
        "(Debian: nlohmann-json3-dev)")
endif()

set(pure __init__.py _core.pyi _hardware.pyi py.typed)
list(TRANSFORM pure PREPEND "${python_source}/sofattn/" OUTPUT_VARIABLE pure_sources)
list(TRANSFORM pure PREPEND "${SOFATTN_PYTHON_DIR}/sofattn/" OUTPUT_VARIABLE pure_copies)
add_custom_command(OUTPUT ${pure_copies}
    COMMAND ${CMAKE_COMMAND} -E copy ${pure_sources} "${SOFATTN_PYTHON_DIR}/sofattn/"
    DEPENDS ${pure_sources} VERBATIM)
add_custom_target(sofattn_python ALL DEPENDS ${pure_copies})
foreach(extension IN LISTS extensions)
    string(REGEX REPLACE "^_" "sofattn_python_" target "${extension}")
    add_dependencies(sofattn_python ${target})
    target_compile_features(${target} PRIVATE cxx_std_20)
    set_target_properties(${target} PROPERTIES
        LIBRARY_OUTPUT_DIRECTORY "${SOFATTN_PYTHON_DIR}/sofattn"
        CXX_VISIBILITY_PRESET hidden VISIBILITY_INLINES_HIDDEN ON
        INSTALL_RPATH "$ORIGIN") # beside it lies the library
    # Not part of an installation of headers and library.
    install(TARGETS ${target} LIBRARY DESTINATION . COMPONENT python EXCLUDE_FROM_ALL)
endforeach()
install(FILES ${pure_sources} DESTINATION . COMPONENT python EXCLUDE_FROM_ALL)
install(FILES "$<TARGET_FILE:sofattn_c>" DESTINATION . RENAME "$<TARGET_SONAME_FILE_NAME:sofattn_c>"
    COMPONENT python EXCLUDE_FROM_ALL)
