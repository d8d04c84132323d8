# ram>cache closed against a cache simulator, for types whose bytes a kernel reads in file order. (The
# simulator counts one miss for a load that touches two new lines: of Q6_K's three streams it sees 6 %
# too few.)
if(OT_SANITIZE) # a simulator cannot run what sanitizers instrument
  return()
endif()
foreach(type Q4_0 Q8_0)
  add_test(NAME cachesim_${type}
           COMMAND sh ${CMAKE_CURRENT_SOURCE_DIR}/cachesim.sh $<TARGET_FILE:onetrip>
                   $<TARGET_FILE:make_tiny> ${type})
  set_tests_properties(cachesim_${type} PROPERTIES SKIP_RETURN_CODE 77 TIMEOUT 300)
endforeach()
