// A plan file.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "plan/partition.h"
#include "plan/plan.h"

using namespace poseidon;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const Model model = {{{"ip1.weight", {500, 800}, DType::kFloat32}, {"ip1.bias", {500}, DType::kFloat32}},
                              {{"ip1", {TensorId{0}, TensorId{1}}, 16}}};
  const Result<plan::Plan> plan = plan::parse_plan(std::string_view(reinterpret_cast<const char*>(data), size), model, 4);
  if (!plan) return 0;
  // What is accepted can be carried out.
  plan::partition(model, *plan);
  plan::partition_factors(500, 800, plan->layers[0], 4);
  if (!(plan::parse_plan(plan::to_json(*plan), model, 4).value() == *plan)) std::abort();
  return 0;
}
