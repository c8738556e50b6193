# Finds cuda.h, the CUDA driver's header. Nothing is linked: the driver is opened at run time.
#
# Input:  CUDADriver_ROOT, or the triton wheel of the Python in use (triton/backends/nvidia/include), or a CUDA toolkit.
# Output: CUDADriver_FOUND, CUDADriver_INCLUDE_DIR, CUDADriver_VERSION, target CUDADriver::headers.
include(FindPackageHandleStandardArgs)

if(NOT CUDADriver_INCLUDE_DIR)
  find_package(Python COMPONENTS Interpreter QUIET)
  if(Python_EXECUTABLE)
    # find_spec, not an import: importing triton takes a second and looks for a driver.
    execute_process(
      COMMAND "${Python_EXECUTABLE}" -c
              "import importlib.util as u; s = u.find_spec('triton'); print((list(s.submodule_search_locations) if s else [''])[0])"
      OUTPUT_VARIABLE _cuda_driver_triton OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
  endif()
  find_path(CUDADriver_INCLUDE_DIR cuda.h
    HINTS "${_cuda_driver_triton}/backends/nvidia/include"
    PATHS /usr/local/cuda/include ENV CUDA_HOME
    PATH_SUFFIXES include)
endif()

if(CUDADriver_INCLUDE_DIR)
  file(STRINGS "${CUDADriver_INCLUDE_DIR}/cuda.h" _cuda_driver_line REGEX "^#define[ \t]+CUDA_VERSION[ \t]+[0-9]+")
  string(REGEX MATCH "[0-9]+$" CUDADriver_VERSION "${_cuda_driver_line}")
endif()

find_package_handle_standard_args(CUDADriver
  REQUIRED_VARS CUDADriver_INCLUDE_DIR
  VERSION_VAR CUDADriver_VERSION)
mark_as_advanced(CUDADriver_INCLUDE_DIR)

if(CUDADriver_FOUND AND NOT TARGET CUDADriver::headers)
  add_library(CUDADriver::headers INTERFACE IMPORTED)
  target_include_directories(CUDADriver::headers INTERFACE "${CUDADriver_INCLUDE_DIR}")
endif()
