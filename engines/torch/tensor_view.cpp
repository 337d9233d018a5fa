#include "engines/torch/tensor_view.h"

#include <c10/util/Exception.h>

namespace poseidon::aten {

DType dtype_of(const at::Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case at::kFloat:
      return DType::kFloat32;
    case at::kDouble:
      return DType::kFloat64;
    case at::kBFloat16:
      return DType::kBFloat16;
    case at::kHalf:
      return DType::kFloat16;
    default:
      TORCH_CHECK(false, "a trained array must be a float type, this one is ", tensor.scalar_type());
  }
}

at::ScalarType scalar_type_of(DType dtype) {
  switch (dtype) {
    case DType::kFloat32:
      return at::kFloat;
    case DType::kFloat64:
      return at::kDouble;
    case DType::kBFloat16:
      return at::kBFloat16;
    case DType::kFloat16:
      return at::kHalf;
  }
  return at::kFloat;
}

TensorView view_of(const at::Tensor& tensor) {
  TORCH_CHECK(tensor.is_contiguous() && tensor.device().is_cpu(), "only contiguous tensors in host memory can be viewed");
  return {static_cast<std::byte*>(tensor.data_ptr()), tensor.nbytes(), dtype_of(tensor), {}};
}

}  // namespace poseidon::aten
