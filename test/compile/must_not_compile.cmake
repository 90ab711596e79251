# SPDX-License-Identifier: MIT
# cmake -D CASE=x.cpp -D COMPILER=c++ -D "INCLUDE_DIRS=a;b" -P must_not_compile.cmake
# Passes if CASE compiles with SOFATTN_OK defined (so nothing but the mistake is wrong) and, without
# it, fails with messages that match every `// expect: <CMake regex>` line of the file.
cmake_minimum_required(VERSION 3.25)

cmake_path(GET CASE FILENAME name)
list(TRANSFORM INCLUDE_DIRS PREPEND -I)
set(compile ${CMAKE_COMMAND} -E env LC_ALL=C "${COMPILER}" -std=c++20 -fsyntax-only ${INCLUDE_DIRS})

execute_process(COMMAND ${compile} -DSOFATTN_OK "${CASE}"
    RESULT_VARIABLE result OUTPUT_VARIABLE output ERROR_VARIABLE output)
if(NOT result EQUAL 0)
    message(FATAL_ERROR "${name}: does not compile even with SOFATTN_OK:\n${output}")
endif()

execute_process(COMMAND ${compile} "${CASE}"
    RESULT_VARIABLE result OUTPUT_VARIABLE output ERROR_VARIABLE output)
if(result EQUAL 0)
    message(FATAL_ERROR "${name}: compiles, and must not")
endif()

# Read as text, not as a list: expectations may hold brackets and semicolons.
file(READ "${CASE}" rest)
set(count 0)
while(rest MATCHES "// expect: ([^\n]+)\n(.*)")
    set(expected "${CMAKE_MATCH_1}")
    set(rest "${CMAKE_MATCH_2}")
    math(EXPR count "${count} + 1")
    if(NOT output MATCHES "${expected}")
        message(FATAL_ERROR "${name}: fails, but says nothing like\n  ${expected}\nIt says:\n${output}")
    endif()
endwhile()
if(count EQUAL 0)
    message(FATAL_ERROR "${name}: has no `// expect: <regex>` line")
endif()
