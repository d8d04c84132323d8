# The NEON kernels, cross-compiled and run under qemu, where both are installed.
add_test(NAME kernel_aarch64 COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/kernel_aarch64.sh ${CMAKE_SOURCE_DIR}
                                     ${CMAKE_CURRENT_BINARY_DIR}/aarch64)
set_tests_properties(kernel_aarch64 PROPERTIES TIMEOUT 600 SKIP_RETURN_CODE 77)
