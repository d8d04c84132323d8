# The example, the symbols, the installed files and the man page.
foreach(example generate ask)
  add_executable(example_${example} ${CMAKE_SOURCE_DIR}/examples/${example}.c)
  target_link_libraries(example_${example} PRIVATE onetrip_shared)
endforeach()

add_test(NAME example
         COMMAND sh ${CMAKE_CURRENT_SOURCE_DIR}/example.sh $<TARGET_FILE:example_generate>
                 $<TARGET_FILE:example_ask>
                 $<TARGET_FILE:onetrip> $<TARGET_FILE:make_tiny>)
add_test(NAME symbols
         COMMAND sh ${CMAKE_CURRENT_SOURCE_DIR}/symbols.sh $<TARGET_FILE:onetrip_shared>
                 ${CMAKE_SOURCE_DIR}/include/onetrip.h)
add_test(NAME manual
         COMMAND sh ${CMAKE_CURRENT_SOURCE_DIR}/manual.sh $<TARGET_FILE:onetrip>
                 ${CMAKE_SOURCE_DIR}/docs/onetrip.1)
# Under a sanitizer the installed library would need its runtime; the plain build shows the same.
if(NOT OT_SANITIZE)
  add_test(NAME install
           COMMAND sh ${CMAKE_CURRENT_SOURCE_DIR}/install.sh ${CMAKE_COMMAND} ${CMAKE_BINARY_DIR}
                   ${CMAKE_SOURCE_DIR} ${CMAKE_C_COMPILER} ${CMAKE_INSTALL_PREFIX}
                   ${CMAKE_INSTALL_LIBDIR} $<TARGET_FILE:make_tiny>)
endif()
set_tests_properties(example symbols manual PROPERTIES TIMEOUT 120)
# Tools refuse what they do not know.
add_test(NAME kernels_part COMMAND $<TARGET_FILE:onetrip-kernels> --only gem)
add_test(NAME make_tiny_option COMMAND $<TARGET_FILE:make_tiny> --help)
set_tests_properties(kernels_part make_tiny_option PROPERTIES WILL_FAIL TRUE)
