// A worker without a framework: walks a model description forward and backward, waits each layer's compute time, and
// synchronises tensors and factors of the right sizes through a Session. What it measures is the engine alone.
//
// The same state machine runs on real event loops and in virtual time. Compute times are the layer's share of the FLOPs of
// batch / samples_per_second seconds, times the dilation (a run in which the network is D times slower and computing D times
// longer stands in for links D times faster).
//
// Reconstruction is computation: a product of factors occupies the device for its operations at the model's own rate, beyond
// what the layer's own backward pass already holds (2 K M N of them: the weight gradient that it does not compute).
//
// Lane only.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "plan/model_description.h"
#include "poseidon/session.h"
#include "replay/device.h"
#include "runtime/compute.h"
#include "runtime/runtime.h"

namespace poseidon::replay {

// What of the communication may happen beside computation.
enum class Overlap : std::uint8_t {
  kFull,      // gradients leave at once, and the next forward pass waits per layer
  kBackward,  // gradients leave at once, and the next forward pass waits for all of them (the published WFBP)
  kNone,      // gradients leave when the backward pass has ended, and the next forward pass waits for all of them
};

struct Workload {
  plan::ModelDescription description;
  std::int64_t batch = 1;             // samples of one worker
  double samples_per_second = 1;      // of one worker alone
  double dilation = 1;

  double iteration_seconds() const { return dilation * static_cast<double>(batch) / samples_per_second; }
  double flops_per_second() const { return description.flops() * samples_per_second / dilation; }
  double forward_seconds(const plan::DescribedLayer& layer) const;
  double backward_seconds(const plan::DescribedLayer& layer) const;
};

// Memory for tensors and factors, all of them the same: replayed gradients have sizes, not values.
class Scratch {
 public:
  // Size-only: views without memory, for virtual time.
  static Scratch size_only() { return Scratch(nullptr); }
  // `session` allocates as much as the largest tensor or factor of the model takes.
  static Result<Scratch> allocate(Session& session, const Model& model);
  TensorView view(std::size_t bytes, DType dtype) const { return {memory_.get(), bytes, dtype, {}}; }

 private:
  explicit Scratch(std::shared_ptr<std::byte> memory) : memory_(std::move(memory)) {}
  std::shared_ptr<std::byte> memory_;
};

// Charges the device for the products of layers, and does not compute them; everything else is passed on.
class ReplayCompute : public runtime::Compute {
 public:
  // All outlive this.
  ReplayCompute(Device& device, runtime::Runtime& runtime, runtime::Compute& real, const Workload& workload, const Model& model);
  void sum(runtime::SumJob job, runtime::ComputeDoneFn done) override { real_.sum(std::move(job), std::move(done)); }
  void product(runtime::ProductJob job, runtime::ComputeDoneFn done) override;

 private:
  Device& device_;
  runtime::Runtime& runtime_;
  runtime::Compute& real_;
  double flops_per_second_;
  std::vector<double> held_flops_;  // by tensor: what the layer's own backward pass holds
};

struct IterationTimes {
  runtime::Time begin{};         // of the forward pass
  runtime::Time backward_end{};
  runtime::Duration waited{};    // by the forward pass, for sums
  runtime::Duration longest{};   // of these waits
  std::size_t longest_for = 0;   // the layer that it was for: its place in the description
};

class ReplayWorker {
 public:
  // `model` is what model_of() makes of the description. All references outlive the worker.
  ReplayWorker(runtime::Runtime& runtime, Session& session, Device& device, const Workload& workload,
               const plan::DescribedModel& model, Scratch scratch, Overlap overlap);

  // Runs the next iteration; `done` when its backward pass has ended, or with the error that ended the job. Sums may still be
  // on their way then: the next iteration waits for them.
  using IterationFn = std::function<void(const Result<IterationTimes>& times)>;
  void run(IterationFn done);
  // When all sums have come.
  void settle(std::function<void(const std::optional<Error>& error)> done);

 private:
  struct Layer {
    runtime::Duration forward{};
    runtime::Duration backward{};
    std::optional<std::size_t> trained;  // its place in the model's layers
    std::size_t tensors_left = 0;        // sums that have not come
    runtime::Time ready{};               // when the last came
  };

  void forward(std::size_t layer, runtime::Time at);
  void backward(std::size_t layers_left, runtime::Time at);
  void begin_forward(runtime::Time at);
  void submit(Layer& layer);
  void on_synced(Layer& layer, const Synced& synced);
  bool all_ready() const { return layers_left_ == 0; }
  void wake();

  runtime::Runtime& runtime_;
  Session& session_;
  Device& device_;
  const plan::DescribedModel& model_;
  Scratch scratch_;
  Overlap overlap_;
  std::int64_t batch_;
  std::vector<Layer> layers_;
  std::size_t layers_left_ = 0;              // whose sums have not all come
  runtime::Time last_ready_{};
  Iteration next_ = 0;
  IterationTimes times_;
  IterationFn done_;
  std::function<void(runtime::Time at)> waiting_;    // what a sum may let go on
  std::optional<std::size_t> waiting_for_;           // the layer, or nothing: all
  runtime::Time waiting_since_{};
  std::function<void(const std::optional<Error>&)> settled_;
  std::optional<Error> failed_;
};

}  // namespace poseidon::replay
