// A worker that trains a small model by script, in any world.
//
// The "training" is arithmetic that depends on everything going right: each gradient is a fixed function of (rank, iteration,
// tensor, element) and of the present parameters, so one lost, doubled or misplaced sum changes every later number.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "plan/plan_sequence.h"
#include "poseidon/session.h"
#include "runtime/runtime.h"

namespace poseidon::test {

// In which order a worker hands in its gradients.
enum class SubmitOrder {
  kBackward,  // the last layer first, as a backward pass does
  kShuffled,  // in an order of its own, another one each iteration
  kFree,      // each tensor by itself: the next iteration's follows when the sum is in, whatever becomes of the other tensors
};

struct TrainingScript {
  Model model;
  plan::Plan plan;
  plan::PlanSequence later;            // the plans after it, for train_alone(); the session knows its own
  Iteration first = 0;                 // the iteration to begin with
  int iterations = 3;                  // up to which to train
  std::uint64_t problem = 1;           // which gradients
  double absent_probability = 0;       // that a worker has no gradient of a dense layer's tensor
  double short_batch_probability = 0;  // that a worker has fewer rows of factors than announced
  SubmitOrder order = SubmitOrder::kBackward;
  std::optional<std::size_t> slow_rank;  // takes 20 times as long as the others
  bool allocate = false;                 // every second tensor's gradient lies in Session::allocate's memory
  // Time that one layer's forward or backward takes at most; each draw differs.
  runtime::Duration layer_time_max = std::chrono::microseconds(200);
  std::vector<runtime::Duration> forward_times;  // if given: of each layer, always; its backward takes twice as long
};

// The values to begin with: right at rank 0 only, so that the broadcast must bring them to the others.
std::vector<std::vector<float>> initial_values(const TrainingScript& script, std::size_t rank);
std::vector<TensorView> views_of(std::vector<std::vector<float>>& values);

// Lane only.
class ScriptedWorker {
 public:
  // `values` are the parameters, changed in place. All references outlive the worker.
  ScriptedWorker(const TrainingScript& script, std::size_t rank, runtime::Runtime& runtime, Session& session,
                 std::vector<std::vector<float>>& values, std::uint64_t time_seed);

  // Trains all iterations, then `on_end`, with what went wrong if anything did.
  void start(std::function<void(std::optional<Error>)> on_end);

  // Asked before each iteration; it begins when `then(true)` is called, and with `then(false)` training ends.
  using GateFn = std::function<void(Iteration iteration, std::function<void(bool)> then)>;
  void set_gate(GateFn gate) { gate_ = std::move(gate); }
  // Calls `done` once all sums have come.
  void settle(std::function<void()> done);
  // Of the forward passes, for sums.
  runtime::Duration waited() const { return waited_; }

 private:
  void next_iteration();
  runtime::Duration compute_time(std::size_t layer, int passes);
  bool all_ready() const;
  // Now: its scheme may be another one after a change of plan.
  bool travels_as_factors(std::size_t layer) const;
  bool layer_ready(std::size_t layer) const;
  void forward(std::size_t layer);
  void backward(std::size_t layers_left);
  // Hands in all tensors of the layer, or only `one` of a dense layer's.
  void submit(std::size_t layer, Iteration iteration, std::optional<TensorId> one = {});
  void submit_factors(std::size_t layer, Iteration iteration);
  // SubmitOrder::kFree: a layer of factors, or one tensor of another, goes through all iterations.
  void go_alone(std::size_t layer, std::optional<TensorId> one, Iteration iteration);
  void update(const std::vector<std::size_t>& tensors, const Synced& synced);

  const TrainingScript& script_;
  std::size_t rank_;
  runtime::Runtime& runtime_;
  Session& session_;
  std::vector<std::vector<float>>& values_;
  std::mt19937_64 random_;
  std::vector<std::shared_ptr<std::byte>> memory_;  // by tensor: of its gradient
  std::vector<std::span<float>> gradients_;         // by tensor
  std::vector<bool> ready_;
  std::optional<std::size_t> waiting_for_;
  runtime::Time waiting_since_{};
  runtime::Duration waited_{};
  GateFn gate_;
  std::function<void()> settled_;
  Iteration iteration_ = 0;
  std::vector<std::size_t> order_;                   // of this iteration's layers, from its back
  std::vector<std::function<void()>> go_on_;         // SubmitOrder::kFree: by tensor, what follows its sum
  std::size_t alone_ = 0;                            // SubmitOrder::kFree: how many have not ended
  std::function<void(std::optional<Error>)> on_end_;
};

// The same training by one loop without any engine, in double precision and rank order: the independent answer.
std::vector<std::vector<double>> train_alone(const TrainingScript& script);

// A net of the usual shapes, with sizes drawn from `seed`: convolutions, two or three fully connected layers, biases.
Model random_model(std::uint64_t seed, std::size_t large_tensor_bytes_max);
// `scheme` for every layer that can, ps for the others.
plan::Plan uniform_plan(const Model& model, int workers, Scheme scheme);
// A random scheme for each layer.
plan::Plan random_plan(const Model& model, int workers, std::uint64_t seed);

}  // namespace poseidon::test
