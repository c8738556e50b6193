# R3, R6, R8: the C++ side built with a sanitizer: loader, tests and the host code of the models they load.
include(CheckCXXSourceRuns)

# sanitized(<name> <flags> <test>…): defines the tests <name>_<test>, and those that use fifty models, unless programs with the
# sanitizer do not run on this machine.
function(sanitized name flags)
  set(CMAKE_REQUIRED_FLAGS "${flags}")
  check_cxx_source_runs("#include <thread>\nint main() { std::thread([] {}).join(); }" MKWRAP_RUNS_${name})
  if(NOT MKWRAP_RUNS_${name})
    message(STATUS "mkwrap: programs built with ${flags} do not run here; their tests are left out")
    return()
  endif()
  set(models "${CMAKE_CURRENT_BINARY_DIR}/models-${name}")
  add_custom_command(
    OUTPUT "${models}/00_add.so"
    COMMAND "${CMAKE_COMMAND}" -E env "PYTHONPATH=${PROJECT_SOURCE_DIR}:${PROJECT_SOURCE_DIR}/python"
      "${Python_EXECUTABLE}" "${CMAKE_CURRENT_SOURCE_DIR}/make_models.py" "${models}" "${flags}" "${PTXAS}"
    DEPENDS make_models.py ${_compiler}
    COMMENT "Making fifty models with ${flags}"
    VERBATIM)
  add_custom_target(models_${name} DEPENDS "${models}/00_add.so")
  file(GLOB loader CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/csrc/loader/*.cpp")
  add_library(loader_${name} STATIC ${loader})
  target_compile_options(loader_${name} PUBLIC ${flags} -g -O1)
  target_link_options(loader_${name} PUBLIC ${flags})
  target_include_directories(loader_${name} PUBLIC "${PROJECT_SOURCE_DIR}/csrc" "${PROJECT_SOURCE_DIR}/csrc/include")
  target_link_libraries(loader_${name} PUBLIC CUDADriver::headers Threads::Threads ${CMAKE_DL_LIBS})
  foreach(test IN LISTS ARGN ITEMS many_models_test weights_test)
    add_executable(${name}_${test} ${test}.cpp)
    target_link_libraries(${name}_${test} PRIVATE loader_${name})
    add_dependencies(${name}_${test} test_libraries models_${name} fake_driver)
    if(test MATCHES "^dynamic_")
      add_test(NAME ${name}_${test} COMMAND ${name}_${test} "${models}/dynamic")
    elseif(test IN_LIST ARGN)
      add_test(NAME ${name}_${test} COMMAND ${name}_${test} "${LIBRARIES}")
    else()
      add_test(NAME ${name}_${test} COMMAND ${name}_${test} "${models}")
    endif()
    set_tests_properties(${name}_${test} PROPERTIES TIMEOUT 120 ENVIRONMENT
      "LD_LIBRARY_PATH=${FAKE};ASAN_OPTIONS=allocator_may_return_null=1;TSAN_OPTIONS=allocator_may_return_null=1")
  endforeach()
endfunction()

sanitized(address -fsanitize=address,undefined
  dlopen_test dynamic_test dynamic_cuda_test launch_test faults_test shared_models_test)
sanitized(thread -fsanitize=thread dynamic_test shared_models_test)
if(TARGET loader_address)
  add_executable(address_mutation_test mutation_test.cpp)
  target_link_libraries(address_mutation_test PRIVATE loader_address)
  add_dependencies(address_mutation_test test_libraries)
  add_test(NAME address_mutation_test COMMAND address_mutation_test "${LIBRARIES}" 100000)
  set_tests_properties(address_mutation_test PROPERTIES TIMEOUT 120)
endif()
