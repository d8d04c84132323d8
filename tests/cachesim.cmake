# ram>cache closed against a cache simulator, for a type of each kind of block.
foreach(type Q4_0 Q6_K)
  add_test(NAME cachesim_${type}
           COMMAND sh ${CMAKE_CURRENT_SOURCE_DIR}/cachesim.sh $<TARGET_FILE:onetrip>
                   $<TARGET_FILE:make_tiny> ${type})
  set_tests_properties(cachesim_${type} PROPERTIES SKIP_RETURN_CODE 77 TIMEOUT 300)
endforeach()
