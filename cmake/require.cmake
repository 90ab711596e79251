# SPDX-License-Identifier: MIT

# Finds a package that only our own programs need; says how to go on without it.
macro(sofattn_require package debian_package option)
    find_package(${package} QUIET)
    if(NOT ${package}_FOUND)
        message(FATAL_ERROR
            "${package} not found: install it (Debian: ${debian_package}) or configure with -D${option}=OFF")
    endif()
endmacro()
