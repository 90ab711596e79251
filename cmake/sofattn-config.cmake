# SPDX-License-Identifier: MIT
# Installed: what find_package(sofattn) runs.
include(CMakeFindDependencyMacro)
find_dependency(Boost 1.74)
include("${CMAKE_CURRENT_LIST_DIR}/sofattn-xsimd.cmake")
include("${CMAKE_CURRENT_LIST_DIR}/sofattn-targets.cmake")
