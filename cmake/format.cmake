# SPDX-License-Identifier: MIT
# cmake [-D FIX=ON] -P format.cmake
# Checks (or fixes) the format of all sources. Another clang-format than the pinned one would
# disagree about files that nobody touched, so without it the check is skipped.
cmake_minimum_required(VERSION 3.25)

set(version 14)
cmake_path(GET CMAKE_CURRENT_LIST_DIR PARENT_PATH root)

find_program(formatter NAMES clang-format-${version} clang-format)
if(formatter)
    execute_process(COMMAND "${formatter}" --version OUTPUT_VARIABLE found)
endif()
if(NOT formatter OR NOT found MATCHES "version ${version}\\.")
    message(NOTICE "format: skipped, it takes clang-format ${version}")
    return()
endif()

set(sources)
foreach(folder include test bench examples cmake)
    file(GLOB_RECURSE of_folder "${root}/${folder}/*.hpp" "${root}/${folder}/*.cpp"
        "${root}/${folder}/*.h" "${root}/${folder}/*.c")
    list(APPEND sources ${of_folder})
endforeach()

if(FIX)
    set(mode -i)
else()
    set(mode --dry-run -Werror)
endif()
execute_process(COMMAND "${formatter}" ${mode} --style=file ${sources} RESULT_VARIABLE result)
if(NOT result EQUAL 0)
    message(FATAL_ERROR "format: run `./dev format`")
endif()
