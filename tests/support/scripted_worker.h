// A worker that trains a small model by script, in any world.
//
// The "training" is arithmetic that depends on everything going right: each gradient is a fixed function of (rank, iteration,
// tensor, element) and of the present parameters, so one lost, doubled or misplaced sum changes every later number.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "plan/plan.h"
#include "poseidon/session.h"
#include "runtime/runtime.h"

namespace poseidon::test {

struct TrainingScript {
  Model model;
  plan::Plan plan;
  int iterations = 3;
  std::uint64_t problem = 1;           // which gradients
  double absent_probability = 0;       // that a worker has no gradient of a dense layer's tensor
  double short_batch_probability = 0;  // that a worker has fewer rows of factors than announced
  bool allocate = false;               // every second tensor's gradient lies in Session::allocate's memory
  // Time that one layer's forward or backward takes at most; each draw differs.
  runtime::Duration layer_time_max = std::chrono::microseconds(200);
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

 private:
  runtime::Duration compute_time();
  bool layer_ready(std::size_t layer) const;
  void forward(std::size_t layer);
  void backward(std::size_t layers_left);
  void submit(std::size_t layer);
  void submit_factors(std::size_t layer);
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
  Iteration iteration_ = 0;
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
