// A model description, and what the planner makes of it.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "plan/bound.h"
#include "plan/model_description.h"
#include "plan/plan.h"

using namespace poseidon;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const Result<plan::ModelDescription> description =
      plan::parse_model_description(std::string_view(reinterpret_cast<const char*>(data), size));
  if (!description) return 0;
  const plan::DescribedModel described = plan::model_of(*description, 32);
  if (described.model.layers.empty()) std::abort();  // what has nothing to train is refused
  std::uint64_t numbers = 0;
  for (const TensorSpec& tensor : described.model.tensors) numbers += tensor.elements();
  if (numbers != description->parameters()) std::abort();
  for (const LayerSpec& layer : described.model.layers) {
    if (const auto factors = plan::factor_size(described.model, layer)) plan::scheme_costs(*factors, 8);
  }
  return 0;
}
