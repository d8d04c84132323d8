# Before installing: notes in NOTES the folders of FOLDERS that are not there yet, so that
# uninstall.cmake removes them, too, and no others.
foreach(folder IN LISTS FOLDERS)
  get_filename_component(at "${folder}" ABSOLUTE BASE_DIR "${CMAKE_INSTALL_PREFIX}")
  # also where DESTDIR is relative: to the working folder, as for what is installed
  get_filename_component(at "$ENV{DESTDIR}${at}" ABSOLUTE)
  while(NOT EXISTS "${at}")
    file(APPEND "${NOTES}" "${at}\n")
    get_filename_component(at "${at}" DIRECTORY)
  endwhile()
endforeach()
