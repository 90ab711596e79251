# SPDX-License-Identifier: MIT
# cmake -P readme_test.cmake
# What the READMEs say about files must be true: the program in README.md is examples/01_quickstart.cpp, its
# blocks of C and Python are parts of the lessons, and every path they link to or put in backticks exists.
cmake_minimum_required(VERSION 3.25)

cmake_path(GET CMAKE_CURRENT_LIST_DIR PARENT_PATH root)

# --- finding paths -------------------------------------------------------------------------------

# Sets `missing` to the paths of `text` that do not exist, `found` to how many do. A link is relative to
# `folder`, where the text lies; a name in backticks may also be relative to the repository, to include/
# or to include/sofattn/. It counts as a path if it ends in a slash or in a suffix that our files have.
function(check_paths text folder)
    set(missing)
    set(count 0)

    # Code blocks show output and build folders; brackets and semicolons would break CMake's lists.
    string(REGEX REPLACE "\n```[^`]*\n```" "" text "\n${text}")
    string(REGEX REPLACE "[][;]" "|" text "${text}")

    string(REGEX MATCHALL "\\|\\([^() \n]+\\)" links "${text}")
    foreach(link IN LISTS links)
        string(REGEX REPLACE "^\\|\\(([^#)]*).*$" "\\1" path "${link}")
        if(path STREQUAL "" OR path MATCHES "^[a-z]+:")
            continue()
        elseif(EXISTS "${folder}/${path}")
            math(EXPR count "${count} + 1")
        else()
            list(APPEND missing "${path}")
        endif()
    endforeach()

    string(REGEX MATCHALL "`[^` \n]+`" names "${text}")
    foreach(name IN LISTS names)
        string(REGEX REPLACE "[`<>]" "" path "${name}")
        if(NOT path MATCHES "^\\.?[A-Za-z0-9_][A-Za-z0-9_./-]*(/|\\.(hpp|cpp|cmake|txt|md|json|npy|svg))$"
           OR path MATCHES "^build/")
            continue()
        endif()
        set(exists OFF)
        foreach(base IN ITEMS "${folder}" "${root}" "${root}/include" "${root}/include/sofattn")
            if(EXISTS "${base}/${path}")
                set(exists ON)
            endif()
        endforeach()
        if(exists)
            math(EXPR count "${count} + 1")
        else()
            list(APPEND missing "${path}")
        endif()
    endforeach()

    set(missing "${missing}" PARENT_SCOPE)
    set(found ${count} PARENT_SCOPE)
endfunction()

# A checker that finds nothing would look just as green.
check_paths("`cmake/nowhere.hpp` [a](nowhere.md) ![b](../README.md#part) `README.md` `a / b` [c](https://d/e.md)"
    "${root}/cmake")
if(NOT missing STREQUAL "nowhere.md;cmake/nowhere.hpp" OR NOT found EQUAL 2)
    message(SEND_ERROR "the checker itself: missing `${missing}`, found ${found}")
endif()

# --- the check -----------------------------------------------------------------------------------

file(READ "${root}/README.md" readme)
file(READ "${root}/examples/01_quickstart.cpp" program)
string(FIND "${readme}" "\n```cpp\n${program}```\n" at)
if(at EQUAL -1)
    message(SEND_ERROR "README.md: its program is not examples/01_quickstart.cpp, copy that verbatim")
endif()

# Its blocks in other languages are parts of the lessons.
foreach(pair IN ITEMS "c 02_engine.c" "python 03_engine.py")
    string(REGEX MATCH "^([a-z]+) (.+)$" pair "${pair}")
    set(lesson "${CMAKE_MATCH_2}")
    set(fence "\n```${CMAKE_MATCH_1}\n")
    string(LENGTH "${fence}" fence_length)
    file(READ "${root}/examples/${lesson}" program)
    set(rest "${readme}")
    set(blocks 0)
    while(ON)
        string(FIND "${rest}" "${fence}" at)
        if(at EQUAL -1)
            break()
        endif()
        math(EXPR at "${at} + ${fence_length}")
        string(SUBSTRING "${rest}" ${at} -1 rest)
        string(FIND "${rest}" "```" length)
        string(SUBSTRING "${rest}" 0 ${length} block)
        string(FIND "${program}" "${block}" inside)
        if(inside EQUAL -1)
            message(SEND_ERROR "README.md: a block is no part of examples/${lesson}, copy it verbatim")
        endif()
        math(EXPR blocks "${blocks} + 1")
    endwhile()
    if(blocks EQUAL 0)
        message(SEND_ERROR "README.md shows nothing of examples/${lesson}")
    endif()
endforeach()

set(texts "${root}/README.md")
foreach(folder IN ITEMS include examples bench test cmake)
    file(GLOB_RECURSE of_folder "${root}/${folder}/*.md")
    list(APPEND texts ${of_folder})
endforeach()
set(sum 0)
foreach(path IN LISTS texts)
    file(READ "${path}" text)
    cmake_path(GET path PARENT_PATH folder)
    check_paths("${text}" "${folder}")
    cmake_path(RELATIVE_PATH path BASE_DIRECTORY "${root}" OUTPUT_VARIABLE where)
    foreach(one IN LISTS missing)
        message(SEND_ERROR "${where}: there is no ${one}")
    endforeach()
    math(EXPR sum "${sum} + ${found}")
endforeach()
list(LENGTH texts count)
message(STATUS "${count} texts, ${sum} paths looked at")
