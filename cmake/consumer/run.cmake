# SPDX-License-Identifier: MIT
# Builds and runs the user's project beside this file. MODE: source_tree or install.
cmake_minimum_required(VERSION 3.25)

function(run)
    execute_process(COMMAND ${ARGN} RESULT_VARIABLE result OUTPUT_VARIABLE output ERROR_VARIABLE output)
    if(NOT result EQUAL 0)
        list(JOIN ARGN " " command)
        message(FATAL_ERROR "${MODE}: failed: ${command}\n${output}")
    endif()
endfunction()

file(REMOVE_RECURSE "${WORK_DIR}") # a stale cache or install could hide a missing file

if(MODE STREQUAL "source_tree")
    set(sofattn_from "-DSOFATTN_SOURCE=${SOURCE_DIR}")
else()
    run(${CMAKE_COMMAND} --install "${BINARY_DIR}" --config "${CONFIG}" --prefix "${WORK_DIR}/prefix")
    set(sofattn_from "-Dsofattn_ROOT=${WORK_DIR}/prefix")
endif()

run(${CMAKE_COMMAND} -S "${CMAKE_CURRENT_LIST_DIR}" -B "${WORK_DIR}/build" -G "${GENERATOR}"
    "-DCMAKE_CXX_COMPILER=${COMPILER}" "-DCMAKE_PREFIX_PATH=${PREFIX_PATH}"
    "-DCMAKE_RUNTIME_OUTPUT_DIRECTORY=${WORK_DIR}/bin" "${sofattn_from}")
run(${CMAKE_COMMAND} --build "${WORK_DIR}/build" --config "${CONFIG}")
find_program(consumer consumer PATHS "${WORK_DIR}/bin" "${WORK_DIR}/bin/${CONFIG}"
    NO_DEFAULT_PATH REQUIRED)
run("${consumer}")
