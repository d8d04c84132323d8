# Each fuzz target runs on its committed corpus in the normal suite, with a plain main instead of
# the fuzzer. A target without a corpus fails.
file(GLOB FUZZ_TARGETS CONFIGURE_DEPENDS fuzz/fuzz_*.c)
foreach(source IN LISTS FUZZ_TARGETS)
  get_filename_component(name ${source} NAME_WE)
  add_executable(replay_${name} ${source} fuzz/replay.c)
  target_include_directories(replay_${name} PRIVATE ${CMAKE_SOURCE_DIR}/src ${CMAKE_CURRENT_SOURCE_DIR})
  target_compile_definitions(replay_${name} PRIVATE _GNU_SOURCE)
  target_link_libraries(replay_${name} PRIVATE onetrip_static)
  add_test(NAME replay_${name}
           COMMAND replay_${name} ${CMAKE_CURRENT_SOURCE_DIR}/fuzz/corpus/${name})
  set_tests_properties(replay_${name} PROPERTIES TIMEOUT 300)
endforeach()
