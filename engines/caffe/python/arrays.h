// Between tensors and NumPy's arrays.
#pragma once

#include <ATen/core/Tensor.h>
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

namespace poseidon::caffe::python {

// An array over the tensor's own memory, which it keeps alive. The tensor is contiguous.
pybind11::array array_over(const at::Tensor& tensor);
// A copy of what may become an array of numbers.
at::Tensor tensor_from(const pybind11::handle& array, at::ScalarType dtype);

}  // namespace poseidon::caffe::python
