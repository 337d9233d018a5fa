#include "engines/caffe/python/arrays.h"

#include <ATen/ops/empty.h>

#include <cstring>
#include <memory>

namespace poseidon::caffe::python {

namespace py = pybind11;

py::array array_over(const at::Tensor& tensor) {
  auto owner = std::make_unique<at::Tensor>(tensor);
  const py::capsule base(owner.get(), [](void* kept) { delete static_cast<at::Tensor*>(kept); });
  const at::Tensor& kept = *owner.release();
  const py::dtype dtype = kept.scalar_type() == at::kDouble ? py::dtype::of<double>() : py::dtype::of<float>();
  const std::vector<py::ssize_t> shape(kept.sizes().begin(), kept.sizes().end());
  return py::array(dtype, shape, kept.mutable_data_ptr(), base);
}

template <typename Scalar>
at::Tensor copied(const py::handle& array, at::ScalarType dtype) {
  const auto values = py::array_t<Scalar, py::array::c_style | py::array::forcecast>::ensure(array);
  if (!values) throw py::error_already_set();
  const std::vector<std::int64_t> shape(values.shape(), values.shape() + values.ndim());
  at::Tensor tensor = at::empty(shape, at::TensorOptions(dtype));
  const auto bytes = static_cast<std::size_t>(values.nbytes());
  if (bytes > 0) std::memcpy(tensor.mutable_data_ptr(), values.data(), bytes);
  return tensor;
}

at::Tensor tensor_from(const py::handle& array, at::ScalarType dtype) {
  return dtype == at::kDouble ? copied<double>(array, dtype) : copied<float>(array, dtype);
}

}  // namespace poseidon::caffe::python
