# An outside project finds the installed library, builds the examples against it and trains with them: each scheme with four
# workers gives the losses of one. The program that docs/library.md shows is built and run too.
#
#   cmake -D BUILD=... -D SOURCE=... -D WORK=... -D VERSION=... -D GENERATOR=... -D CC=... -D CXX=... [-D SANITIZE=...] -P package_test.cmake
foreach(name BUILD SOURCE WORK VERSION GENERATOR CC CXX)
  if(NOT ${name})
    message(FATAL_ERROR "-D ${name}=... is missing")
  endif()
endforeach()
set(flags "-Wall -Wextra -Werror")
if(SANITIZE)
  string(REPLACE ";" "," SANITIZE "${SANITIZE}")
  string(APPEND flags " -fsanitize=${SANITIZE}")
endif()

file(REMOVE_RECURSE ${WORK})
file(MAKE_DIRECTORY ${WORK})
set(ENV{TMPDIR} ${WORK})  # the logs of jobs that fail stay there
set(prefix ${WORK}/prefix)
execute_process(COMMAND ${CMAKE_COMMAND} --install ${BUILD} --prefix ${prefix} --component library OUTPUT_QUIET COMMAND_ERROR_IS_FATAL ANY)

function(configure source folder)
  execute_process(
    COMMAND ${CMAKE_COMMAND} -S ${source} -B ${folder} -G ${GENERATOR} -D CMAKE_PREFIX_PATH=${prefix} -D CMAKE_BUILD_TYPE=Release
            -D CMAKE_C_COMPILER=${CC} -D CMAKE_CXX_COMPILER=${CXX} -D CMAKE_C_FLAGS=${flags} -D CMAKE_CXX_FLAGS=${flags} --no-warn-unused-cli ${ARGN}
    OUTPUT_VARIABLE said ERROR_VARIABLE said RESULT_VARIABLE code)
  set(said "${said}" PARENT_SCOPE)
  set(code ${code} PARENT_SCOPE)
endfunction()

# Another minor version than the one that is installed is not found.
set(other ${WORK}/other)
file(WRITE ${other}/CMakeLists.txt "cmake_minimum_required(VERSION 3.25)\nproject(other LANGUAGES CXX)\nfind_package(Poseidon \${WANTED} REQUIRED)\n")
configure(${other} ${other}/build -D WANTED=${VERSION})
if(NOT code EQUAL 0)
  message(FATAL_ERROR "find_package(Poseidon ${VERSION}) does not find what was installed:\n${said}")
endif()
configure(${other} ${other}/build-99 -D WANTED=0.99)
if(code EQUAL 0 OR NOT said MATCHES "version: ${VERSION}")
  message(FATAL_ERROR "find_package(Poseidon 0.99) should have refused ${VERSION}:\n${said}")
endif()

execute_process(COMMAND gunzip -c ${SOURCE}/examples/digits/digits.csv.gz OUTPUT_FILE ${WORK}/digits.csv COMMAND_ERROR_IS_FATAL ANY)

# Do two curves of 200 losses agree, to a relative 1e-9? OUT is set to 0 if so.
function(compare first second out)
  execute_process(
    COMMAND paste ${first} ${second}
    COMMAND awk "{ d = $1 - $2; if (d < 0) d = -d; if (NF != 2 || !($1 > 0) || !(d <= 1e-9 * $1)) bad = 1 } END { exit (bad || NR != 200) }"
    RESULT_VARIABLE differs)
  set(${out} ${differs} PARENT_SCOPE)
endfunction()

foreach(example mlp_cpp mlp_c)
  configure(${SOURCE}/examples/${example} ${WORK}/${example})
  if(NOT code EQUAL 0)
    message(FATAL_ERROR "examples/${example} cannot be configured:\n${said}")
  endif()
  execute_process(COMMAND ${CMAKE_COMMAND} --build ${WORK}/${example} OUTPUT_VARIABLE said ERROR_VARIABLE said RESULT_VARIABLE code)
  if(NOT code EQUAL 0)
    message(FATAL_ERROR "examples/${example} cannot be built:\n${said}")
  endif()
  set(mlp ${WORK}/${example}/mlp --data ${WORK}/digits.csv)
  execute_process(COMMAND ${mlp} --workers 1 --curve ${WORK}/${example}-alone OUTPUT_VARIABLE said COMMAND_ERROR_IS_FATAL ANY)
  # 90 % of the digits that were not trained with; chance would be 10 %.
  if(NOT said MATCHES "test: [0-9]+ of 359 digits right, 9[0-9]\\.")
    message(FATAL_ERROR "examples/${example} has not learnt:\n${said}")
  endif()
  foreach(scheme ps sfb adam block)
    execute_process(COMMAND ${mlp} --workers 4 --scheme ${scheme} --curve ${WORK}/${example}-${scheme} OUTPUT_VARIABLE said COMMAND_ERROR_IS_FATAL ANY)
    compare(${WORK}/${example}-alone ${WORK}/${example}-${scheme} differs)
    if(NOT differs EQUAL 0)
      message(FATAL_ERROR "examples/${example}: the losses of four workers under ${scheme} are not those of one")
    endif()
  endforeach()
  # The comparison sees a difference where there is one.
  execute_process(COMMAND ${mlp} --workers 4 --rate 0.50001 --curve ${WORK}/${example}-other OUTPUT_QUIET COMMAND_ERROR_IS_FATAL ANY)
  compare(${WORK}/${example}-alone ${WORK}/${example}-other differs)
  if(differs EQUAL 0)
    message(FATAL_ERROR "the comparison of losses sees no difference between two learning rates")
  endif()
endforeach()
# Both languages do the same arithmetic in the same order.
compare(${WORK}/mlp_cpp-alone ${WORK}/mlp_c-alone differs)
if(NOT differs EQUAL 0)
  message(FATAL_ERROR "the two examples give different losses")
endif()

# The program that docs/library.md shows.
file(READ ${SOURCE}/docs/library.md guide)
string(FIND "${guide}" "```cpp\n" begin)
string(SUBSTRING "${guide}" ${begin} -1 program)
string(SUBSTRING "${program}" 7 -1 program)
string(FIND "${program}" "```" end)
string(SUBSTRING "${program}" 0 ${end} program)
file(WRITE ${WORK}/shown/shown.cpp "${program}")
file(WRITE ${WORK}/shown/CMakeLists.txt "cmake_minimum_required(VERSION 3.25)
project(shown LANGUAGES CXX)
find_package(Poseidon 0.1 REQUIRED)
add_executable(shown shown.cpp)
target_compile_features(shown PRIVATE cxx_std_20)
target_link_libraries(shown PRIVATE Poseidon::poseidon)
")
configure(${WORK}/shown ${WORK}/shown/build)
execute_process(COMMAND ${CMAKE_COMMAND} --build ${WORK}/shown/build OUTPUT_VARIABLE said ERROR_VARIABLE said RESULT_VARIABLE code)
if(NOT code EQUAL 0)
  message(FATAL_ERROR "the program of docs/library.md cannot be built:\n${said}")
endif()
execute_process(COMMAND ${WORK}/shown/build/shown OUTPUT_VARIABLE said COMMAND_ERROR_IS_FATAL ANY)
if(NOT said STREQUAL "slope 3.000000\n")
  message(FATAL_ERROR "the program of docs/library.md printed:\n${said}")
endif()

# A mistake ends with a sentence and a code, not with a hanging job.
foreach(example mlp_cpp mlp_c)
  execute_process(COMMAND ${WORK}/${example}/mlp --data ${WORK}/nowhere.csv --workers 2 ERROR_VARIABLE said RESULT_VARIABLE code)
  if(NOT code EQUAL 1 OR NOT said MATCHES "mlp: ")
    message(FATAL_ERROR "examples/${example} without data ended with ${code} and said:\n${said}")
  endif()
endforeach()
