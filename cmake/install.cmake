# SPDX-License-Identifier: MIT
include(CMakePackageConfigHelpers)
include(GNUInstallDirs)

set(config_dir "${CMAKE_INSTALL_DATADIR}/cmake/sofattn") # share/: nothing here depends on the machine

install(TARGETS sofattn EXPORT sofattn-targets FILE_SET HEADERS)
install(EXPORT sofattn-targets NAMESPACE sofattn:: DESTINATION "${config_dir}")

write_basic_package_version_file("${PROJECT_BINARY_DIR}/sofattn-config-version.cmake"
    COMPATIBILITY SameMinorVersion # below 1.0 a minor version may break users
    ARCH_INDEPENDENT)
install(FILES
    "${PROJECT_SOURCE_DIR}/cmake/sofattn-config.cmake"
    "${PROJECT_SOURCE_DIR}/cmake/sofattn-xsimd.cmake"
    "${PROJECT_BINARY_DIR}/sofattn-config-version.cmake"
    DESTINATION "${config_dir}")
install(FILES "${PROJECT_SOURCE_DIR}/LICENSE" DESTINATION "${CMAKE_INSTALL_DOCDIR}")
