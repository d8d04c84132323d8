# The house's level table and limits of style, checked on the sources themselves.
add_test(NAME levels COMMAND sh ${CMAKE_CURRENT_SOURCE_DIR}/levels.sh ${CMAKE_SOURCE_DIR})
