// What a program from outside may hand in, checked before the engine relies on it.
//
// Inside the house a wrong view is a mistake of ours and ends the process. At the library's door it is a caller's mistake, and
// comes back as kInvalid with a sentence. Pure functions.
#pragma once

#include <span>

#include "poseidon/error.h"
#include "poseidon/session.h"
#include "poseidon/types.h"

namespace poseidon::library {

// Types, shapes, names, and that each tensor belongs to exactly one layer.
Status check_model(const Model& model);
// One view for each tensor of a model that has passed check_model.
Status check_values(const Model& model, std::span<const TensorView> values);
// Of a model that replaces another one, both past check_model: its first tensors are the other's. A value without memory is left out.
Status check_renewal(const Model& present, const Model& next, std::span<const TensorView> values);
// `what` begins the sentence: "the gradient of ip1.weight". `elements` numbers of `dtype` on the host, aligned, at hand now.
Status check_view(const std::string& what, const TensorView& view, std::size_t elements, DType dtype);
// The memory of one submission for a layer of the model.
Status check_dense(const Model& model, TensorId tensor, const DenseGradient& gradient);
Status check_factors(const Model& model, LayerId layer, const FactorGradient& gradient);

}  // namespace poseidon::library
