# SPDX-License-Identifier: MIT
# Target sofattn::xsimd: the headers of xsimd, 8.1 or newer. Not find_package(xsimd), whose target in
# Debian wants to link a library of xtl that is only headers, too.

if(NOT TARGET sofattn::xsimd)
    find_path(SOFATTN_XSIMD_INCLUDE_DIR xsimd/xsimd.hpp DOC "Folder that holds xsimd/xsimd.hpp")
    if(NOT SOFATTN_XSIMD_INCLUDE_DIR)
        message(FATAL_ERROR "xsimd not found: install it (Debian: libxsimd-dev) or set "
            "SOFATTN_XSIMD_INCLUDE_DIR to the folder that holds xsimd/xsimd.hpp")
    endif()
    add_library(sofattn::xsimd INTERFACE IMPORTED GLOBAL)
    set_target_properties(sofattn::xsimd PROPERTIES
        INTERFACE_INCLUDE_DIRECTORIES "${SOFATTN_XSIMD_INCLUDE_DIR}")
endif()
