#include "engines/torch/gradient_exchange.h"
#include "engines/torch/tensor_view.h"

namespace poseidon::aten {

Model model_of(const std::vector<LayerParameters>& layers) {
  Model model;
  for (const LayerParameters& layer : layers) {
    LayerSpec spec{.name = layer.name, .tensors = {}, .factor_rows = layer.factor_rows};
    for (std::size_t i = 0; i < layer.parameters.size(); ++i) {
      const at::Tensor& parameter = layer.parameters[i];
      spec.tensors.push_back(TensorId{static_cast<std::uint32_t>(model.tensors.size())});
      model.tensors.push_back({layer.parameter_names[i], parameter.sizes().vec(), dtype_of(parameter)});
    }
    model.layers.push_back(std::move(spec));
  }
  return model;
}

}  // namespace poseidon::aten
