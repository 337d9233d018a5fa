// Scenarios of models that are renewed, and of tensors that count their iterations for themselves.
#include <algorithm>
#include <chrono>
#include <future>
#include <string>
#include <thread>
#include <vector>

#include "scenarios.h"

namespace capi_test {

namespace {

int32_t scheme_of(poseidon_cluster* cluster, uint32_t layer) {
  int32_t scheme = -1;
  return poseidon_scheme_of(cluster, layer, &scheme) == POSEIDON_OK ? scheme : -1;
}

}  // namespace

// Under scheme sfb, by two. The model is known from iteration 10 on; one more tensor joins it, and then numbers begin at 4 again.
Wrong renewal() {
  Layer layer;
  REQUIRE(layer.join({.provisional = true}) == POSEIDON_OK);
  poseidon_cluster*& cluster = layer.cluster;
  const int rank = poseidon_rank(cluster);
  const std::string first_plan = poseidon_plan(cluster);
  const char* const kept_plan = poseidon_plan(cluster);
  REQUIRE(scheme_of(cluster, 0) == POSEIDON_PS);  // nothing but dense gradients before it is renewed
  for (uint64_t iteration : {0, 1, 12}) {
    std::fill(layer.weight_sum.begin(), layer.weight_sum.end(), rank + 1);
    REQUIRE(submit(cluster, 0, iteration, layer.weight_sum) == POSEIDON_OK && poseidon_wait(cluster, 0, nullptr) == POSEIDON_OK);
    REQUIRE(layer.weight_sum == std::vector<double>(12, 3));
  }

  // What has been trained stays, though it is not alike here; only the new tensor's values travel.
  layer.weight.assign(12, rank);
  std::vector<double> late(3, rank == 0 ? 3.5 : -7);
  REQUIRE(layer.renew(10, {.values = false, .late = &late}) == POSEIDON_OK);
  REQUIRE(late == std::vector<double>(3, 3.5) && layer.weight == std::vector<double>(12, rank));
  REQUIRE(scheme_of(cluster, 0) == POSEIDON_SFB && scheme_of(cluster, 1) == POSEIDON_PS);
  REQUIRE(kept_plan == first_plan && poseidon_plan(cluster) != first_plan);
  int32_t go = 0;
  REQUIRE(poseidon_begin(cluster, 10, &go) == POSEIDON_OK && go == 1);
  std::vector<double> gradient(3, rank + 1);
  REFUSES(submit(cluster, 2, 9, gradient), "late was submitted for iteration 9, but the present model is trained from iteration 10 on");
  REFUSES(submit(cluster, 3, 10, gradient), "there is no tensor 3, the model has 3");
  REQUIRE(submit(cluster, 2, 10, gradient) == POSEIDON_OK);
  const std::vector<double> u(6, 1);
  const std::vector<double> v(8, 2);
  REQUIRE(layer.submit_factors(11, u.data(), v.data(), 2) == POSEIDON_OK);
  REQUIRE(poseidon_wait(cluster, 0, nullptr) == POSEIDON_OK && poseidon_wait(cluster, 2, nullptr) == POSEIDON_OK);
  REQUIRE(layer.weight_sum == std::vector<double>(12, 8) && gradient == std::vector<double>(3, 3));

  // Once more, with rank 0's values for all but the last.
  layer.weight.assign(12, rank == 0 ? 0.25 : -7);
  REQUIRE(layer.renew(4, {.late = &late}) == POSEIDON_OK);
  REQUIRE(layer.weight == std::vector<double>(12, 0.25));
  gradient.assign(3, rank + 1);
  REQUIRE(submit(cluster, 2, 4, gradient) == POSEIDON_OK && poseidon_wait(cluster, 2, nullptr) == POSEIDON_OK);
  REQUIRE(gradient == std::vector<double>(3, 3));
  // And without any values.
  layer.weight.assign(12, rank);
  REQUIRE(layer.renew(5, {.values = false, .has_late = true}) == POSEIDON_OK && layer.weight == std::vector<double>(12, rank));
  gradient.assign(3, rank + 1);
  REQUIRE(submit(cluster, 2, 6, gradient) == POSEIDON_OK && poseidon_wait(cluster, 2, nullptr) == POSEIDON_OK);
  REQUIRE(gradient == std::vector<double>(3, 3));
  // On one host nothing is sent for a sum.
  const bool grouped = std::string(poseidon_plan(cluster)).find("\"hosts\"") != std::string::npos;
  poseidon_traffic traffic = POSEIDON_INIT(poseidon_traffic);
  REQUIRE(poseidon_get_tensor_traffic(cluster, 2, &traffic) == POSEIDON_OK && (grouped || traffic.bytes_sent > 0));
  REQUIRE(poseidon_leave(cluster) == POSEIDON_OK);
  return "";
}

Wrong renewal_mistakes() {
  Layer layer;
  REQUIRE(layer.join() == POSEIDON_OK);
  poseidon_cluster* const cluster = layer.cluster;
  std::vector<double> late(3);
  const auto refused = [&](const std::string& text, auto change) -> Wrong {
    const int code = layer.with_options({.late = &late}, [&](poseidon_join_options options, auto& tensors, auto& layers) {
      change(options, tensors, layers);
      return poseidon_renew(cluster, &options, 1);
    });
    REQUIRE(code == POSEIDON_INVALID);
    return std::string(poseidon_last_error()).find(text) == std::string::npos ? "expected: " + text + ", it was: " + poseidon_last_error() : "";
  };
  const int64_t other_shape[] = {4, 3};
  std::vector<char> crooked(4 * sizeof(double));
  for (const Wrong& wrong : {
           refused("the next model has 1 tensors, so that it lacks ip.bias [3] float64",
                   [](auto& options, auto&, auto& layers) { options.tensor_count = options.layer_count = layers[0].tensor_count = 1; }),
           refused("tensor 0 of the next model is ip.weight [4, 3] float64, and of the present one ip.weight [3, 4] float64",
                   [&](auto&, auto& tensors, auto& layers) {
                     tensors[0].shape = other_shape;
                     layers[0].factor_rows = 0;
                   }),
           refused("tensor 1 of the next model is ip.bias [3] float32",
                   [](auto&, auto& tensors, auto& layers) {
                     tensors[1].dtype = POSEIDON_FLOAT32;
                     layers[0].factor_rows = 0;
                   }),
           refused("tensor 1 of the next model is another [3]", [](auto&, auto& tensors, auto&) { tensors[1].name = "another"; }),
           refused("the value of late is not aligned to 8 bytes", [&](auto&, auto& tensors, auto&) { tensors[2].values = crooked.data() + 4; }),
           refused("late is in no layer", [](auto& options, auto&, auto&) { options.layer_count = 1; }),
       }) {
    if (!wrong.empty()) return wrong;
  }
  REFUSES(poseidon_renew(cluster, nullptr, 1), "a null pointer to a poseidon_join_options");
  REFUSES(poseidon_renew(nullptr, nullptr, 1), "a null pointer to a cluster");

  // A sum that has not been taken, or has not come: rank 1 hands its part in only when rank 0 has seen that.
  poseidon_part parts[2] = {POSEIDON_INIT(poseidon_part), POSEIDON_INIT(poseidon_part)};
  const bool waits = poseidon_rank(cluster) == 0;
  poseidon_gradient gradient = POSEIDON_INIT(poseidon_gradient);
  gradient.gradient = layer.bias_sum.data();
  std::promise<void> called;
  const auto on_synced = [](void* user, const poseidon_synced*) { static_cast<std::promise<void>*>(user)->set_value(); };
  if (waits) {
    REQUIRE(submit(cluster, 0, 0, layer.weight_sum) == POSEIDON_OK);
    REFUSES(layer.renew(1, {}), "poseidon_wait has not taken the sum of ip.weight");
    REQUIRE(poseidon_submit(cluster, 1, 0, &gradient, on_synced, &called) == POSEIDON_OK);
  }
  REQUIRE(poseidon_gather(cluster, nullptr, 0, parts, 2) == POSEIDON_OK);
  if (!waits) REQUIRE(submit(cluster, 0, 0, layer.weight_sum) == POSEIDON_OK);
  REQUIRE(poseidon_wait(cluster, 0, nullptr) == POSEIDON_OK);
  if (waits) REFUSES(layer.renew(1, {}), "the sum of ip.bias of iteration 0 has not been called back");
  REQUIRE(poseidon_gather(cluster, nullptr, 0, parts, 2) == POSEIDON_OK);
  if (!waits) REQUIRE(submit(cluster, 1, 0, layer.bias_sum) == POSEIDON_OK && poseidon_wait(cluster, 1, nullptr) == POSEIDON_OK);
  if (waits) called.get_future().wait();
  // Everything is as it was.
  REQUIRE(layer.renew(1, {.late = &late}) == POSEIDON_OK);
  REQUIRE(poseidon_leave(cluster) == POSEIDON_OK);
  return "";
}

// Rank 1 has no values where rank 0 has some.
Wrong renewed_unlike() {
  Layer layer;
  REQUIRE(layer.join() == POSEIDON_OK);
  REQUIRE(layer.renew(1, {.values = poseidon_rank(layer.cluster) == 0}) == POSEIDON_INVALID);
  REQUIRE(std::string(poseidon_last_error()).find("has some for ip.weight") != std::string::npos);
  return "";
}

namespace {

// One of several tensors that the workers hand in side by side.
struct Runner {
  poseidon_cluster* cluster;
  uint32_t tensor;
  std::vector<double> gradient;

  // Rank r gives (r + 1) (tensor + 1) (iteration + 1) in each place.
  double part(int rank, uint64_t iteration) const {
    return (rank + 1.0) * (static_cast<double>(tensor) + 1.0) * (static_cast<double>(iteration) + 1.0);
  }
  Wrong run(uint64_t first, uint64_t end) {
    for (uint64_t iteration = first; iteration < end; ++iteration) {
      std::fill(gradient.begin(), gradient.end(), part(poseidon_rank(cluster), iteration));
      REQUIRE(submit(cluster, tensor, iteration, gradient) == POSEIDON_OK && poseidon_wait(cluster, tensor, nullptr) == POSEIDON_OK);
      double sum = 0;
      for (int rank = 0; rank < poseidon_workers(cluster); ++rank) sum += part(rank, iteration);
      REQUIRE(gradient == std::vector<double>(gradient.size(), sum));
    }
    return "";
  }
};

}  // namespace

Wrong tensors_for_themselves() {
  constexpr uint32_t kTensors = 3;
  constexpr int64_t kElements = 60'000;
  std::vector<std::vector<double>> values(kTensors, std::vector<double>(kElements));
  const std::vector<std::string> names = {"first", "middle", "last"};
  std::vector<poseidon_tensor> tensors(kTensors, POSEIDON_INIT(poseidon_tensor));
  std::vector<poseidon_layer> layers(kTensors, POSEIDON_INIT(poseidon_layer));
  const uint32_t ids[kTensors] = {0, 1, 2};
  for (uint32_t t = 0; t < kTensors; ++t) {
    tensors[t].name = layers[t].name = names[t].c_str();
    tensors[t].shape = &kElements;
    tensors[t].dimensions = 1;
    tensors[t].dtype = POSEIDON_FLOAT64;
    tensors[t].values = values[t].data();
    layers[t].tensors = ids + t;
    layers[t].tensor_count = 1;
  }
  poseidon_join_options options = POSEIDON_INIT(poseidon_join_options);
  options.tensors = tensors.data();
  options.layers = layers.data();
  options.tensor_count = options.layer_count = kTensors;
  poseidon_cluster* cluster = nullptr;
  REQUIRE(poseidon_join(&options, &cluster) == POSEIDON_OK);
  std::vector<Runner> runners;
  for (uint32_t t = 0; t < kTensors; ++t) runners.push_back({cluster, t, std::vector<double>(kElements)});

  // One after the other: the last tensor goes through five iterations before the first has had any.
  struct Turn {
    size_t tensor;
    uint64_t first;
    uint64_t end;
  };
  for (const Turn& turn : {Turn{2, 0, 5}, Turn{1, 0, 2}, Turn{0, 0, 1}, Turn{2, 5, 6}}) {
    if (const Wrong wrong = runners[turn.tensor].run(turn.first, turn.end); !wrong.empty()) return wrong;
  }
  // Side by side, each in a thread of its own, which begin in another order on each worker.
  const uint64_t begins[kTensors] = {1, 2, 6};
  const uint64_t ends[kTensors] = {3, 12, 7};
  std::vector<Wrong> wrongs(kTensors);
  std::vector<std::thread> threads;
  for (uint32_t i = 0; i < kTensors; ++i) {
    const uint32_t t = (i + static_cast<uint32_t>(poseidon_rank(cluster))) % kTensors;
    threads.emplace_back([&, t] { wrongs[t] = runners[t].run(begins[t], ends[t]); });
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  for (std::thread& thread : threads) thread.join();
  for (const Wrong& wrong : wrongs) {
    if (!wrong.empty()) return wrong;
  }
  REQUIRE(poseidon_leave(cluster) == POSEIDON_OK);
  poseidon_close(cluster);
  return "";
}

}  // namespace capi_test
