// Instances of the classes of Python layers: what layers/python_layer.h asks for, by way of pybind11.
#pragma once

#include "engines/caffe/layers/python_layer.h"

namespace poseidon::caffe::python {

// Of this process, which runs an interpreter. Its functions may be called with or without the interpreter's lock.
PythonClasses& classes();

}  // namespace poseidon::caffe::python
