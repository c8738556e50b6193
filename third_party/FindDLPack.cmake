# Finds DLPack's header (version 1.2 or later: with the C exchange API) in an installed Python wheel.
#
# Looks in apache-tvm-ffi (tvm_ffi/include/dlpack/dlpack.h), then torch (torch/include/ATen/dlpack.h), of the Python that
# find_package(Python) found, without importing either. DLPack_INCLUDE_DIR overrides.
#
# Defines: DLPack::DLPack (interface target, provides <dlpack/dlpack.h>), DLPack_FOUND, DLPack_VERSION.
include(FindPackageHandleStandardArgs)

if(NOT DLPack_INCLUDE_DIR)
  if(NOT Python_EXECUTABLE)
    find_package(Python COMPONENTS Interpreter QUIET)
  endif()
  set(_dlpack_program [=[
import importlib.util, pathlib
for package, place in (("tvm_ffi", "include/dlpack/dlpack.h"), ("torch", "include/ATen/dlpack.h")):
    spec = importlib.util.find_spec(package)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        header = pathlib.Path(folder) / place
        if header.is_file() and "DLPackExchangeAPI" in header.read_text(encoding="utf-8"):
            print(header.as_posix())
            raise SystemExit
]=])
  execute_process(COMMAND "${Python_EXECUTABLE}" -c "${_dlpack_program}"
    OUTPUT_VARIABLE _dlpack_header OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
  if(_dlpack_header)
    # torch ships the header outside a folder of its name: present either under <dlpack/dlpack.h>.
    configure_file("${_dlpack_header}" "${CMAKE_BINARY_DIR}/third_party/include/dlpack/dlpack.h" COPYONLY)
    set(DLPack_INCLUDE_DIR "${CMAKE_BINARY_DIR}/third_party/include")
  endif()
endif()

if(DLPack_INCLUDE_DIR AND EXISTS "${DLPack_INCLUDE_DIR}/dlpack/dlpack.h")
  file(STRINGS "${DLPack_INCLUDE_DIR}/dlpack/dlpack.h" _dlpack_lines REGEX "^#define DLPACK_M(AJOR|INOR)_VERSION ")
  string(REGEX MATCH "MAJOR_VERSION ([0-9]+)" _ "${_dlpack_lines}")
  set(DLPack_VERSION "${CMAKE_MATCH_1}")
  string(REGEX MATCH "MINOR_VERSION ([0-9]+)" _ "${_dlpack_lines}")
  string(APPEND DLPack_VERSION ".${CMAKE_MATCH_1}")
endif()

find_package_handle_standard_args(DLPack REQUIRED_VARS DLPack_INCLUDE_DIR VERSION_VAR DLPack_VERSION)

if(DLPack_FOUND AND NOT TARGET DLPack::DLPack)
  add_library(DLPack::DLPack INTERFACE IMPORTED)
  target_include_directories(DLPack::DLPack INTERFACE "${DLPack_INCLUDE_DIR}")
endif()
