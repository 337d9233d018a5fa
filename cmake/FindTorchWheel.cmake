# Finds libtorch inside an installed `torch` wheel and defines the target torch::torch.
#
# The wheel brings a CMake package of its own, but the one in a CUDA wheel insists on a CUDA toolkit, and it defines an
# empty protobuf::libprotobuf. We need only the headers, libtorch, libtorch_cpu and libc10, so we ask the Python of the
# virtual environment where the wheel lies and take the rest from its folders.
#
#   TorchWheel_ROOT     the folder `torch` in site-packages; found through POSEIDON_PYTHON when empty
#   POSEIDON_PYTHON     the interpreter to ask; by default the one that pip builds for, or .venv/bin/python of the source tree
#
# Results: TorchWheel_FOUND, TorchWheel_VERSION, TorchWheel_LIBRARY_DIR, TorchWheel_CUDA (TRUE for a CUDA wheel), torch::torch.

set(default_python "${PROJECT_SOURCE_DIR}/.venv/bin/python")
if(SKBUILD)
  set(default_python "${Python_EXECUTABLE}")
endif()
set(POSEIDON_PYTHON "${default_python}" CACHE FILEPATH "Python interpreter that has torch installed")

if(NOT TorchWheel_ROOT AND EXISTS "${POSEIDON_PYTHON}")
  # find_spec looks the package up without importing it, which would take seconds and, for CUDA, need its libraries.
  execute_process(
    COMMAND "${POSEIDON_PYTHON}" -c "import importlib.util, os; s = importlib.util.find_spec('torch'); print(os.path.dirname(s.origin) if s else '', end='')"
    OUTPUT_VARIABLE TorchWheel_ROOT ERROR_QUIET)
endif()

if(TorchWheel_ROOT AND EXISTS "${TorchWheel_ROOT}/version.py")
  file(STRINGS "${TorchWheel_ROOT}/version.py" torch_version_line REGEX "^__version__ *=")
  string(REGEX MATCH "[0-9]+\\.[0-9]+\\.[0-9]+[^'\"]*" TorchWheel_VERSION "${torch_version_line}")
  set(TorchWheel_INCLUDE_DIR "${TorchWheel_ROOT}/include")
  set(TorchWheel_LIBRARY_DIR "${TorchWheel_ROOT}/lib")
  if(EXISTS "${TorchWheel_LIBRARY_DIR}/libtorch_cuda.so")
    set(TorchWheel_CUDA TRUE)
  else()
    set(TorchWheel_CUDA FALSE)
  endif()
endif()

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(TorchWheel
  REQUIRED_VARS TorchWheel_LIBRARY_DIR TorchWheel_INCLUDE_DIR
  VERSION_VAR TorchWheel_VERSION
  REASON_FAILURE_MESSAGE "no torch in ${POSEIDON_PYTHON}: run scripts/setup, or give -DPOSEIDON_PYTHON=/path/to/python")

if(TorchWheel_FOUND AND NOT TARGET torch::torch)
  add_library(torch::torch INTERFACE IMPORTED GLOBAL)  # also for tests/
  # System headers: their warnings are not ours. The wheel also carries old copies of protobuf's and fmt's headers, so a
  # file that includes torch may include neither of these.
  target_include_directories(torch::torch SYSTEM INTERFACE
    ${TorchWheel_INCLUDE_DIR} ${TorchWheel_INCLUDE_DIR}/torch/csrc/api/include)
  # libtorch registers its kernels when it is loaded, without a symbol that we name: it must not be dropped as unneeded.
  # A CUDA wheel's libtorch_cpu wants libcudart and friends from the nvidia-* packages beside it, which its own RUNPATH
  # finds at run time; the linker need not see them.
  target_link_libraries(torch::torch INTERFACE
    -Wl,--no-as-needed ${TorchWheel_LIBRARY_DIR}/libtorch.so ${TorchWheel_LIBRARY_DIR}/libtorch_cpu.so -Wl,--as-needed
    ${TorchWheel_LIBRARY_DIR}/libc10.so)
  target_link_options(torch::torch INTERFACE -Wl,-rpath,${TorchWheel_LIBRARY_DIR} -Wl,--allow-shlib-undefined)
endif()
