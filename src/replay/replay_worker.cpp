#include "replay/replay_worker.h"

#include <cmath>

#include "base/check.h"

namespace poseidon::replay {
namespace {

runtime::Duration duration(double seconds) { return runtime::Duration(std::llround(seconds * 1e9)); }

}  // namespace

double Workload::forward_seconds(const plan::DescribedLayer& layer) const {
  return static_cast<double>(batch) * layer.forward_flops / flops_per_second();
}

double Workload::backward_seconds(const plan::DescribedLayer& layer) const {
  return static_cast<double>(batch) * layer.backward_flops / flops_per_second();
}

Result<Scratch> Scratch::allocate(Session& session, const Model& model) {
  std::size_t largest = 0;
  for (const TensorSpec& tensor : model.tensors) largest = std::max(largest, tensor.bytes());
  for (const LayerSpec& layer : model.layers) {
    if (layer.factor_rows == 0) continue;
    for (const std::int64_t extent : model.tensors[index(layer.tensors[0])].shape) {
      largest = std::max(largest, layer.factor_rows * static_cast<std::size_t>(extent) * sizeof(float));
    }
  }
  Result<std::shared_ptr<std::byte>> memory = session.allocate(largest, {});
  if (!memory) return memory.error();
  return Scratch(std::move(*memory));
}

ReplayCompute::ReplayCompute(Device& device, runtime::Runtime& runtime, runtime::Compute& real, const Workload& workload,
                             const Model& model)
    : device_(device), runtime_(runtime), real_(real), flops_per_second_(workload.flops_per_second()),
      held_flops_(model.tensors.size(), 0) {
  for (const LayerSpec& layer : model.layers) {
    if (layer.factor_rows == 0) continue;
    const TensorSpec& weight = model.tensors[index(layer.tensors[0])];
    held_flops_[index(layer.tensors[0])] = 2.0 * static_cast<double>(layer.factor_rows) * static_cast<double>(weight.elements());
  }
}

void ReplayCompute::product(runtime::ProductJob job, runtime::ComputeDoneFn done) {
  if (!job.weight) return real_.product(std::move(job), std::move(done));  // a probe of the arithmetic, not a layer's
  const double flops = 2.0 * static_cast<double>(job.rows) * static_cast<double>(job.m) * static_cast<double>(job.n);
  const double held = held_flops_[index(*job.weight)];
  device_.run(runtime_.now(), duration(std::max(0.0, flops - held) / flops_per_second_),
              [done = std::move(done)](runtime::Time) { done(std::nullopt); });
}

ReplayWorker::ReplayWorker(runtime::Runtime& runtime, Session& session, Device& device, const Workload& workload,
                           const plan::DescribedModel& model, Scratch scratch, Overlap overlap)
    : runtime_(runtime), session_(session), device_(device), model_(model), scratch_(std::move(scratch)), overlap_(overlap),
      batch_(workload.batch) {
  for (const plan::DescribedLayer& described : workload.description.layers) {
    layers_.push_back({duration(workload.forward_seconds(described)), duration(workload.backward_seconds(described)), {}, 0, {}});
  }
  for (std::size_t l = 0; l < model.layer_of.size(); ++l) layers_[model.layer_of[l]].trained = l;
}

void ReplayWorker::run(IterationFn done) {
  POSEIDON_CHECK(!done_, "an iteration while another runs");
  if (failed_) return done(*failed_);
  done_ = std::move(done);
  times_ = {};
  if (overlap_ == Overlap::kFull || all_ready()) return begin_forward(runtime_.now());
  waiting_for_.reset();
  waiting_since_ = runtime_.now();
  waiting_ = [this](runtime::Time at) { begin_forward(at); };
}

void ReplayWorker::begin_forward(runtime::Time at) {
  times_.begin = at;
  forward(0, at);
}

// Layers that need nothing are passed in one go; the device keeps the time.
void ReplayWorker::forward(std::size_t number, runtime::Time at) {
  if (number == layers_.size()) return backward(layers_.size(), at);
  Layer& layer = layers_[number];
  if (layer.tensors_left > 0) {
    waiting_for_ = number;
    waiting_since_ = at;
    waiting_ = [this, number](runtime::Time ready) { forward(number, ready); };
    return;
  }
  device_.run(at, layer.forward, [this, number](runtime::Time ended) { forward(number + 1, ended); });
}

void ReplayWorker::backward(std::size_t layers_left, runtime::Time at) {
  if (layers_left == 0) {
    if (overlap_ == Overlap::kNone) {
      for (std::size_t number = layers_.size(); number-- > 0;) submit(layers_[number]);
    }
    times_.backward_end = at;
    ++next_;
    const IterationFn done = std::exchange(done_, nullptr);
    return done(times_);
  }
  device_.run(at, layers_[layers_left - 1].backward, [this, layers_left](runtime::Time ended) {
    if (overlap_ != Overlap::kNone) submit(layers_[layers_left - 1]);
    backward(layers_left - 1, ended);
  });
}

void ReplayWorker::submit(Layer& layer) {
  if (!layer.trained) return;
  const LayerSpec& spec = model_.model.layers[*layer.trained];
  const LayerId id{static_cast<std::uint32_t>(*layer.trained)};
  const auto samples = static_cast<std::uint32_t>(batch_);
  const auto view_of = [&](TensorId tensor) {
    const TensorSpec& of = model_.model.tensors[index(tensor)];
    return scratch_.view(of.bytes(), of.dtype);
  };
  const auto on_sum = [this, &layer](const Synced& synced) { on_synced(layer, synced); };
  ++layers_left_;
  if (session_.scheme(id) == Scheme::kPs) {
    layer.tensors_left = spec.tensors.size();
    for (const TensorId tensor : spec.tensors) {
      session_.submit(tensor, next_, {.gradient = view_of(tensor), .ready = {}, .samples = samples}, on_sum);
    }
    return;
  }
  layer.tensors_left = 1;
  const TensorSpec& weight = model_.model.tensors[index(spec.tensors[0])];
  const auto factor = [&](std::int64_t columns) {
    return scratch_.view(spec.factor_rows * static_cast<std::size_t>(columns) * bytes_of(weight.dtype), weight.dtype);
  };
  session_.submit_factors(id, next_,
                          {.outputs = factor(weight.shape[0]),
                           .inputs = factor(weight.shape[1]),
                           .rows = spec.factor_rows,
                           .hold = nullptr,
                           .weight = view_of(spec.tensors[0]),
                           .bias = spec.tensors.size() > 1 ? view_of(spec.tensors[1]) : TensorView{},
                           .ready = {},
                           .samples = samples},
                          on_sum);
}

void ReplayWorker::on_synced(Layer& layer, const Synced& synced) {
  if (synced.error) {
    if (failed_) return;
    failed_ = synced.error;
    waiting_ = nullptr;
    if (const auto done = std::exchange(done_, nullptr)) done(*failed_);
    if (const auto settled = std::exchange(settled_, nullptr)) settled(failed_);
    return;
  }
  if (--layer.tensors_left > 0) return;
  --layers_left_;
  const bool goes_on = waiting_ && (waiting_for_ ? &layers_[*waiting_for_] == &layer : all_ready());
  if (goes_on) {
    const runtime::Time now = runtime_.now();
    const runtime::Duration wait = now - waiting_since_;
    times_.waited += wait;
    if (wait > times_.longest) {
      times_.longest = wait;
      times_.longest_for = static_cast<std::size_t>(&layer - layers_.data());
    }
    std::exchange(waiting_, nullptr)(now);
  }
  if (all_ready() && settled_) std::exchange(settled_, nullptr)(std::nullopt);
}

void ReplayWorker::settle(std::function<void(const std::optional<Error>&)> done) {
  if (failed_ || all_ready()) return done(failed_);
  settled_ = std::move(done);
}

}  // namespace poseidon::replay
