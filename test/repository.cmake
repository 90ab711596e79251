# SPDX-License-Identifier: MIT
# Tests of the repository itself: who includes whom, what READMEs say, format, and a user's build.

add_test(NAME repository.includes
    COMMAND ${CMAKE_COMMAND} -D "INCLUDE_DIR=${PROJECT_SOURCE_DIR}/include"
        -P "${PROJECT_SOURCE_DIR}/cmake/check_includes.cmake")
add_test(NAME repository.includes_self_test
    COMMAND ${CMAKE_COMMAND} -D "WORK_DIR=${CMAKE_CURRENT_BINARY_DIR}/check_includes"
        -P "${PROJECT_SOURCE_DIR}/cmake/check_includes_test.cmake")

add_test(NAME repository.readme
    COMMAND ${CMAKE_COMMAND} -P "${PROJECT_SOURCE_DIR}/cmake/readme_test.cmake")

add_test(NAME repository.format
    COMMAND ${CMAKE_COMMAND} -P "${PROJECT_SOURCE_DIR}/cmake/format.cmake")
set_tests_properties(repository.format PROPERTIES SKIP_REGULAR_EXPRESSION "format: skipped")

foreach(mode source_tree install)
    add_test(NAME consumer.${mode}
        COMMAND ${CMAKE_COMMAND}
            -D "MODE=${mode}"
            -D "SOURCE_DIR=${PROJECT_SOURCE_DIR}"
            -D "BINARY_DIR=${PROJECT_BINARY_DIR}"
            -D "WORK_DIR=${CMAKE_CURRENT_BINARY_DIR}/consumer_${mode}"
            -D "CONFIG=$<CONFIG>"
            -D "GENERATOR=${CMAKE_GENERATOR}"
            -D "COMPILER=${CMAKE_CXX_COMPILER}"
            -D "PREFIX_PATH=${CMAKE_PREFIX_PATH}"
            -P "${PROJECT_SOURCE_DIR}/cmake/consumer/run.cmake")
endforeach()
