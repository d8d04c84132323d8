# Before installing: notes in NOTES the folders of FOLDERS that are not there yet, so that
# uninstall.cmake removes them, too, and no others.
foreach(folder IN LISTS FOLDERS)
  get_filename_component(at "${folder}" ABSOLUTE BASE_DIR "${CMAKE_INSTALL_PREFIX}")
  set(at "$ENV{DESTDIR}${at}")
  while(NOT EXISTS "${at}")
    file(APPEND "${NOTES}" "${at}\n")
    get_filename_component(at "${at}" DIRECTORY)
  endwhile()
endforeach()
