# The tokenizer vectors are packed in one archive, which CMake itself unpacks.
file(ARCHIVE_EXTRACT INPUT ${CMAKE_CURRENT_SOURCE_DIR}/data/tokenizer/vectors.tar.xz
     DESTINATION ${CMAKE_CURRENT_BINARY_DIR}/tokenizer)
foreach(name test_tokenizer test_chat)
  target_compile_definitions(${name} PRIVATE
                             TOKENIZER_DATA="${CMAKE_CURRENT_BINARY_DIR}/tokenizer")
endforeach()
# Texts of tokens that change between two looks at them: at an allocation in between.
target_link_options(test_rewritten PRIVATE -Wl,--wrap=mem_calloc)
