// A plan file: one plan, or a sequence.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "plan/partition.h"
#include "plan/plan.h"
#include "plan/plan_sequence.h"

using namespace poseidon;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const Model model = {{{"ip1.weight", {500, 800}, DType::kFloat32}, {"ip1.bias", {500}, DType::kFloat32}},
                              {{"ip1", {TensorId{0}, TensorId{1}}, 16}}};
  const Result<plan::PlanSequence> plans =
      plan::parse_plan_sequence(std::string_view(reinterpret_cast<const char*>(data), size), model, 4);
  if (!plans) return 0;
  // What is accepted can be carried out.
  for (const plan::PlanVersion& version : *plans) {
    plan::partition(model, version.plan);
    plan::partition_factors(500, 800, version.plan.layers[0], 4);
  }
  if (!(plan::parse_plan_sequence(plan::to_json(*plans), model, 4).value() == *plans)) std::abort();
  return 0;
}
