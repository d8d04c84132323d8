# What test_exhausted preloads into the program. A sanitizer brings an allocator of its own.
if(OT_SANITIZE)
  target_compile_definitions(test_exhausted PRIVATE EXHAUST_OBJECT="")
else()
  add_library(exhaust MODULE preload/exhaust.c)
  set_target_properties(exhaust PROPERTIES C_VISIBILITY_PRESET default)
  target_compile_definitions(test_exhausted PRIVATE EXHAUST_OBJECT="$<TARGET_FILE:exhaust>")
  add_dependencies(test_exhausted exhaust)
endif()
