// The choice of schemes for a model of 300 layers, a third of them fully connected: made once when a job starts.
#include <benchmark/benchmark.h>

#include <string>

#include "plan/choose.h"
#include "plan/partition.h"

namespace poseidon {
namespace {

Model model_of_300_layers() {
  Model model;
  const auto add = [&](const std::string& name, std::vector<std::int64_t> weight, std::size_t factor_rows) {
    const std::int64_t outputs = weight[0];
    const auto first = static_cast<std::uint32_t>(model.tensors.size());
    model.tensors.push_back({name + ".weight", std::move(weight), DType::kFloat32});
    model.tensors.push_back({name + ".bias", {outputs}, DType::kFloat32});
    model.layers.push_back({name, {TensorId{first}, TensorId{first + 1}}, factor_rows});
  };
  for (int i = 0; i < 300; ++i) {
    const std::string name = "layer" + std::to_string(i);
    if (i % 3 == 0) {
      add(name, {1'024 + 8 * i, 4'096}, 32);
    } else {
      add(name, {64 + i, 64 + i, 3, 3}, 0);
    }
  }
  return model;
}

void plan_choose(benchmark::State& state) {
  const Model model = model_of_300_layers();
  for (auto _ : state) benchmark::DoNotOptimize(plan::choose(model, static_cast<int>(state.range(0)), {}, {}));
  state.SetItemsProcessed(state.iterations() * static_cast<std::int64_t>(model.layers.size()));
}
BENCHMARK(plan_choose)->Name("plan/choose")->Arg(8)->Arg(60)->Arg(1'024);

void plan_partition(benchmark::State& state) {
  const Model model = model_of_300_layers();
  const int workers = static_cast<int>(state.range(0));
  const plan::Plan plan = plan::plan_of(plan::choose(model, workers, {}, {}).value(), workers);
  for (auto _ : state) benchmark::DoNotOptimize(plan::partition(model, plan));
  state.SetItemsProcessed(state.iterations() * static_cast<std::int64_t>(model.layers.size()));
}
BENCHMARK(plan_partition)->Name("plan/partition")->Arg(8)->Arg(60);

}  // namespace
}  // namespace poseidon
