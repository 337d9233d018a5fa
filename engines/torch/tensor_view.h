// ATen's tensors in the engine's terms.
#pragma once

#include <ATen/core/Tensor.h>

#include "poseidon/types.h"

namespace poseidon::aten {

// Throws c10::Error for types that the engine has no name for.
DType dtype_of(const at::Tensor& tensor);
at::ScalarType scalar_type_of(DType dtype);

// Borrows the memory of a contiguous host tensor; throws c10::Error for others.
TensorView view_of(const at::Tensor& tensor);

}  // namespace poseidon::aten
