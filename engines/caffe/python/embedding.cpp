// The way from a program that is not Python's into this module: starts the interpreter in it.
#include <Python.h>
#include <dlfcn.h>
#include <pybind11/pybind11.h>

#include <filesystem>
#include <string>

#include "engines/caffe/python/instance.h"

namespace py = pybind11;

namespace poseidon::caffe::python {
namespace {

void check(const PyStatus& status, PyConfig& config) {
  if (!PyStatus_Exception(status)) return;
  const std::string text = status.err_msg == nullptr ? "it does not say why" : status.err_msg;
  PyConfig_Clear(&config);
  throw PythonComplaint("Python does not start: " + text);
}

// As if `interpreter` had been started: with its environment's packages and PYTHONPATH. Signals stay the program's, and
// what a class prints appears at once, since nothing flushes it in the end.
void start(const char* interpreter) {
  PyConfig config;
  PyConfig_InitPythonConfig(&config);
  config.install_signal_handlers = 0;
  config.buffered_stdio = 0;
  config.parse_argv = 0;
  check(PyConfig_SetBytesString(&config, &config.program_name, interpreter), config);
  check(Py_InitializeFromConfig(&config), config);
  PyConfig_Clear(&config);
  PyEval_SaveThread();  // whoever needs the lock takes it
}

// The folder that has the package poseidon with this module in it.
std::string package_root() {
  Dl_info here{};
  ::dladdr(reinterpret_cast<const void*>(&package_root), &here);
  return std::filesystem::path(here.dli_fname).parent_path().parent_path().parent_path().string();
}

}  // namespace
}  // namespace poseidon::caffe::python

extern "C" __attribute__((visibility("default"))) poseidon::caffe::PythonClasses* poseidon_python_classes(
    const char* interpreter) {
  using poseidon::caffe::PythonComplaint;
  if (Py_IsInitialized() == 0) poseidon::caffe::python::start(interpreter);
  const py::gil_scoped_acquire lock;
  try {
    py::module_::import("sys").attr("path").attr("insert")(0, poseidon::caffe::python::package_root());
    // Classes that were written for Caffe say `import caffe`.
    py::module_::import("poseidon.caffe").attr("install")();
  } catch (const py::error_already_set& error) {
    const std::string text = error.what();  // the exception, and below it where it came from
    throw PythonComplaint(std::string(interpreter) + ": " + text.substr(0, text.find('\n')));
  }
  return &poseidon::caffe::python::classes();
}
