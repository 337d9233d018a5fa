# How every target of the project is made: one function for a folder's library, one for a program, one for tests.
#
# A folder is a target whose link libraries say which folders it may include, so most wrong arrows fail to link;
# tests/architecture_test.py finds the rest.

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/bin)
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE RelWithDebInfo CACHE STRING "Build type" FORCE)
endif()

# Lines in back traces, and no more: what -g says of every template doubles the time that a file with ATen or CLI11 takes to
# compile. The preset debug has it all.
string(REGEX REPLACE "-g( |$)" "-g1\\1" CMAKE_CXX_FLAGS_RELWITHDEBINFO "${CMAKE_CXX_FLAGS_RELWITHDEBINFO}")

find_program(POSEIDON_CCACHE ccache)
if(POSEIDON_CCACHE)
  # Without this ccache passes over everything that uses a precompiled header.
  set(POSEIDON_LAUNCHER ${CMAKE_COMMAND} -E env CCACHE_SLOPPINESS=pch_defines,time_macros ${POSEIDON_CCACHE})
  set(CMAKE_CXX_COMPILER_LAUNCHER ${POSEIDON_LAUNCHER})
  set(CMAKE_C_COMPILER_LAUNCHER ${POSEIDON_LAUNCHER})
endif()

add_library(poseidon_options INTERFACE)
# Options are structs with defaults, filled in by name: what is not named is meant to be the default.
target_compile_options(poseidon_options INTERFACE -Wall -Wextra -Wno-missing-field-initializers -Wshadow -Wnon-virtual-dtor
  -Woverloaded-virtual)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  # It takes default-initialised maps and optionals inside aggregates for uninitialised. The sanitizers watch instead.
  target_compile_options(poseidon_options INTERFACE -Wno-maybe-uninitialized)
endif()
if(POSEIDON_WARNINGS_AS_ERRORS)
  target_compile_options(poseidon_options INTERFACE -Werror)
endif()
if(POSEIDON_SANITIZE)
  # CMake splits lists at semicolons, the compilers at commas.
  string(REPLACE ";" "," sanitizers "${POSEIDON_SANITIZE}")
  target_compile_options(poseidon_options INTERFACE -fsanitize=${sanitizers} -fno-omit-frame-pointer -fno-sanitize-recover=all)
  target_link_options(poseidon_options INTERFACE -fsanitize=${sanitizers})
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND sanitizers MATCHES "thread")
    # g++ warns that TSan does not model fences; we use none.
    target_compile_options(poseidon_options INTERFACE -Wno-tsan)
  endif()
endif()
if(POSEIDON_FUZZ)
  target_compile_options(poseidon_options INTERFACE -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all)
  target_link_options(poseidon_options INTERFACE -fsanitize=address,undefined)
endif()

# poseidon_library(NAME SOURCES file... [PUBLIC target...] [PRIVATE target...])
function(poseidon_library name)
  cmake_parse_arguments(ARG "" "" "SOURCES;PUBLIC;PRIVATE" ${ARGN})
  add_library(poseidon_${name} STATIC ${ARG_SOURCES})
  add_library(poseidon::${name} ALIAS poseidon_${name})
  target_include_directories(poseidon_${name} PUBLIC ${PROJECT_SOURCE_DIR}/include ${PROJECT_SOURCE_DIR}/src)
  target_link_libraries(poseidon_${name} PUBLIC ${ARG_PUBLIC} PRIVATE poseidon_options ${ARG_PRIVATE})
endfunction()

# poseidon_test(NAME SOURCES file... LIBRARIES target... [LABELS label...] [TIMEOUT seconds] [HEADERS precompiled.h | HEADERS_OF test])
#
# The files are compiled with a precompiled header: HEADERS, or that of another test, by default of base_test.
function(poseidon_test name)
  cmake_parse_arguments(ARG "" "TIMEOUT;HEADERS;HEADERS_OF" "SOURCES;LIBRARIES;LABELS" ${ARGN})
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 900)
  endif()
  add_executable(${name} ${ARG_SOURCES})
  target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR}/tests)
  target_link_libraries(${name} PRIVATE ${ARG_LIBRARIES} GTest::gtest GTest::gtest_main poseidon_options)
  if(ARG_HEADERS)
    target_precompile_headers(${name} PRIVATE ${ARG_HEADERS})
  elseif(ARG_HEADERS_OF)
    target_precompile_headers(${name} REUSE_FROM ${ARG_HEADERS_OF})
  else()
    target_precompile_headers(${name} REUSE_FROM base_test)
  endif()
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/tests)
  add_test(NAME ${name} COMMAND ${name})
  set_tests_properties(${name} PROPERTIES TIMEOUT ${ARG_TIMEOUT} LABELS "${ARG_LABELS}")
endfunction()
