# The binary interface of libposeidon.so is what abi.txt says: the layout of the C structs, and the symbols that are shown.
#
#   cmake -D DUMP=... -D LIBRARY=... -D NM=... -D WORK=... -P abi_test.cmake
#
# A difference is a decision: append to a struct or add a function, raise POSEIDON_ABI_VERSION, and copy the file that is named
# in the message over tests/capi/abi.txt. What is there already must not change within a SONAME.
foreach(name DUMP LIBRARY NM WORK)
  if(NOT ${name})
    message(FATAL_ERROR "-D ${name}=... is missing")
  endif()
endforeach()

execute_process(COMMAND ${DUMP} OUTPUT_VARIABLE layout COMMAND_ERROR_IS_FATAL ANY)
execute_process(COMMAND ${NM} -D --defined-only --with-symbol-versions ${LIBRARY} OUTPUT_VARIABLE table COMMAND_ERROR_IS_FATAL ANY)
string(REGEX MATCHALL "[^\n]+" lines "${table}")
set(symbols "")
foreach(line IN LISTS lines)
  string(REGEX REPLACE "^[0-9a-f]+ +[A-Za-z] +" "" symbol "${line}")
  list(APPEND symbols "symbol ${symbol}\n")
endforeach()
list(SORT symbols)
list(JOIN symbols "" symbols)

set(found "${layout}${symbols}")
file(WRITE ${WORK}/abi.txt "${found}")
file(READ ${CMAKE_CURRENT_LIST_DIR}/abi.txt wanted)
if(NOT found STREQUAL wanted)
  execute_process(COMMAND diff -u ${CMAKE_CURRENT_LIST_DIR}/abi.txt ${WORK}/abi.txt OUTPUT_VARIABLE difference)
  message(FATAL_ERROR "the binary interface has changed (now it is ${WORK}/abi.txt):\n${difference}")
endif()

# Each struct of the header is in the dump with all its fields, so that none is forgotten there.
file(READ ${CMAKE_CURRENT_LIST_DIR}/../../include/poseidon/poseidon.h header)
string(REGEX MATCHALL "typedef struct poseidon_[a-z_]+ {" structs "${header}")
list(LENGTH structs count)
if(count LESS 12)
  message(FATAL_ERROR "only ${count} structs were found in poseidon.h")
endif()
foreach(text IN LISTS structs)
  string(REGEX REPLACE "typedef struct (poseidon_[a-z_]+) {" "\\1" name "${text}")
  if(NOT wanted MATCHES "struct ${name} ")
    message(FATAL_ERROR "${name} of poseidon.h is not in tests/capi/abi_dump.c")
  endif()
endforeach()
