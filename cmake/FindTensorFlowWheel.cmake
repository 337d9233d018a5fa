# Finds TensorFlow's headers and its framework library inside an installed wheel (`tensorflow`, `tensorflow-cpu`), and defines the target
# tensorflow::framework.
#
#   POSEIDON_PYTHON     the interpreter to ask
#
# Results: TensorFlowWheel_FOUND, TensorFlowWheel_VERSION, tensorflow::framework.

if(NOT TensorFlowWheel_FACTS AND EXISTS "${POSEIDON_PYTHON}")
  # TensorFlow knows best what its operators must be compiled with; it takes seconds to say so, so what it says is kept.
  execute_process(
    COMMAND ${CMAKE_COMMAND} -E env TF_CPP_MIN_LOG_LEVEL=3 CUDA_VISIBLE_DEVICES= "${POSEIDON_PYTHON}" -c "import tensorflow as tf; print(tf.__version__, tf.sysconfig.get_include(), tf.sysconfig.get_lib(), *(f for f in tf.sysconfig.get_compile_flags() if f.startswith('-D')), sep=';', end='')"
    OUTPUT_VARIABLE facts ERROR_QUIET RESULT_VARIABLE failed)
  if(NOT failed)
    set(TensorFlowWheel_FACTS "${facts}" CACHE INTERNAL "Version, headers, libraries and definitions of TensorFlow")
  endif()
endif()

if(TensorFlowWheel_FACTS)
  set(definitions "${TensorFlowWheel_FACTS}")
  list(POP_FRONT definitions TensorFlowWheel_VERSION TensorFlowWheel_INCLUDE_DIR TensorFlowWheel_LIBRARY_DIR)
endif()

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(TensorFlowWheel
  REQUIRED_VARS TensorFlowWheel_LIBRARY_DIR TensorFlowWheel_INCLUDE_DIR
  VERSION_VAR TensorFlowWheel_VERSION)

if(TensorFlowWheel_FOUND AND NOT TARGET tensorflow::framework)
  add_library(tensorflow::framework SHARED IMPORTED)
  set_target_properties(tensorflow::framework PROPERTIES
    IMPORTED_LOCATION "${TensorFlowWheel_LIBRARY_DIR}/libtensorflow_framework.so.2"
    INTERFACE_COMPILE_OPTIONS "${definitions}")
  target_include_directories(tensorflow::framework SYSTEM INTERFACE "${TensorFlowWheel_INCLUDE_DIR}")
endif()
