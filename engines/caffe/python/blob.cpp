#include "engines/caffe/python/blob.h"

#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>

#include <algorithm>

#include "base/text.h"
#include "engines/caffe/proto/config_error.h"

namespace poseidon::caffe::python {

Blob::Blob(const Shape& shape, at::ScalarType dtype) : data_memory_(at::zeros({0}, at::TensorOptions(dtype))) {
  reshape(shape);
}

Blob::Blob(const at::Tensor& array, const Shape& shape)
    : shape_(shape), is_array_(true), data_memory_(array.detach().view({-1})), data_(data_memory_.view(shape)) {}

void Blob::reshape(const Shape& shape) {
  if (data_.defined() && shape == shape_) return;
  if (is_array_) {
    throw ConfigError(base::concat("a trained array of shape ", base::readable_shape(shape_), " cannot become ",
                                   base::readable_shape(shape), "; change the layer's settings instead"));
  }
  if (std::any_of(shape.begin(), shape.end(), [](std::int64_t extent) { return extent < 0; })) {
    throw ConfigError(base::concat("a blob cannot have the shape ", base::readable_shape(shape)));
  }
  shape_ = shape;
  data_ = sized(data_memory_);
  if (data_.numel() > data_memory_.numel()) data_memory_ = data_.view({-1});
  if (!diff_memory_.defined()) return;
  diff_ = sized(diff_memory_);
  if (diff_.numel() > diff_memory_.numel()) diff_memory_ = diff_.view({-1});
}

at::Tensor Blob::sized(const at::Tensor& memory) const {
  const std::int64_t elements = elements_of(shape_);
  if (elements > memory.numel()) return at::zeros(shape_, memory.options());
  return memory.slice(0, 0, elements).view(shape_);
}

const at::Tensor& Blob::diff() {
  if (!diff_memory_.defined()) {
    diff_memory_ = at::zeros({data_.numel()}, data_.options());
    diff_ = diff_memory_.view(shape_);
  }
  return diff_;
}

void Blob::assign(const at::Tensor& value) {
  const c10::NoGradGuard no_graph;
  reshape(value.sizes().vec());
  data_.copy_(value);
}

void Blob::assign_diff(const at::Tensor& value) {
  const c10::NoGradGuard no_graph;
  diff();
  diff_.copy_(value.view(shape_));
}

void Blob::show(const at::Tensor& value) {
  shape_ = value.sizes().vec();
  data_ = value.detach().contiguous();
  data_memory_ = data_.view({-1});
  diff_memory_.reset();
  diff_.reset();
}

}  // namespace poseidon::caffe::python
