// A blob as pycaffe shows it: values and their gradient in memory that stays where it is while the shape does.
//
// What Python holds of it are arrays over the same memory, so a script writes into a net and reads from it without a
// copy. A smaller shape keeps the memory, as in Caffe; a greater one takes new memory, and arrays from before show the
// old.
#pragma once

#include <ATen/core/Tensor.h>

#include "engines/caffe/layers/layer.h"

namespace poseidon::caffe::python {

class Blob {
 public:
  // Of its own memory, zeros.
  Blob(const Shape& shape, at::ScalarType dtype);
  // Over the memory of a trained array, whose shape nobody changes.
  Blob(const at::Tensor& array, const Shape& shape);

  const Shape& shape() const { return shape_; }
  // Throws ConfigError for a negative extent, and for another shape than a trained array's.
  void reshape(const Shape& shape);

  // Contiguous, without a graph.
  const at::Tensor& data() const { return data_; }
  // Zeros when it is first asked for.
  const at::Tensor& diff();

  // Copies; the blob takes the tensor's shape.
  void assign(const at::Tensor& value);
  void assign_diff(const at::Tensor& value);
  // Shows the tensor's own memory, if it is contiguous.
  void show(const at::Tensor& value);

 private:
  at::Tensor sized(const at::Tensor& memory) const;

  Shape shape_;
  bool is_array_ = false;
  at::Tensor data_memory_;  // of one axis, at least as long as data_
  at::Tensor diff_memory_;  // undefined until somebody asks
  at::Tensor data_;
  at::Tensor diff_;
};

}  // namespace poseidon::caffe::python
