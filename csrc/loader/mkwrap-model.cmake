# mkwrap_add_model(<target> <file>): a target that links a program directly with a compiled library.
#
# The program finds the library where it lies now. A library has no soname, because it may be renamed freely, and CMake
# would turn the plain path of such a file into -l<name>; hence the linker flag.
function(mkwrap_add_model name file)
  cmake_path(ABSOLUTE_PATH file NORMALIZE OUTPUT_VARIABLE path)
  add_library(${name} INTERFACE IMPORTED)
  set_target_properties(${name} PROPERTIES INTERFACE_LINK_DEPENDS "${path}")
  target_link_libraries(${name} INTERFACE mkwrap::mkwrap "-Wl,${path}")
endfunction()
