#include "session/wire_engine.h"

#include <utility>

#include "base/check.h"

namespace poseidon::session {
namespace {

void end(const SyncedFn& on_synced, Iteration iteration, const Error& error) {
  on_synced({.error = error, .iteration = iteration, .contributors = 0, .samples = 0, .ready = {}});
}

}  // namespace

WireEngine::WireEngine(runtime::Runtime& runtime, std::unique_ptr<Engine> inner, Model model, bool priorities)
    : runtime_(runtime), model_(std::move(model)), wire_(inner->plan().wire.value()), layer_of_(model_.tensors.size(), 0),
      conversions_(runtime), inner_(std::move(inner)) {
  for (std::size_t l = 0; l < model_.layers.size() && priorities; ++l) {
    for (const TensorId tensor : model_.layers[l].tensors) layer_of_[index(tensor)] = static_cast<std::uint32_t>(l);
  }
}

WireEngine::~WireEngine() { *alive_ = false; }

std::unique_ptr<Engine> WireEngine::around(runtime::Runtime& runtime, std::unique_ptr<Engine> inner, const Model& model,
                                           bool priorities) {
  if (!inner->plan().wire || inner->workers() == 1) return inner;
  return std::make_unique<WireEngine>(runtime, std::move(inner), model, priorities);
}

void WireEngine::on_lane(runtime::Task task) {
  runtime_.post([alive = alive_, task = std::move(task)] {
    if (*alive) task();
  });
}

bool WireEngine::narrows(TensorId tensor) const { return model_.tensors[index(tensor)].dtype == DType::kFloat32; }

Conversions::Urgency WireEngine::urgency(TensorId tensor, Iteration iteration) const { return {iteration, layer_of_[index(tensor)]}; }

WireEngine::Buffer WireEngine::buffer(std::size_t elements, const TensorView& like) {
  if (like.data == nullptr) return nullptr;
  const std::size_t bytes = elements * bytes_of(wire_);
  base::AlignedBytes memory;
  if (const auto spare = buffers_->spare.find(bytes); spare != buffers_->spare.end()) {
    memory = std::move(spare->second);
    buffers_->spare.erase(spare);
  } else {
    memory = base::make_aligned(bytes);
    buffers_->bytes += bytes;
  }
  return Buffer(memory.release(), [buffers = buffers_, bytes](std::byte* block) { buffers->spare.emplace(bytes, block); });
}

TensorView WireEngine::narrow_view(const TensorView& wide, const Buffer& buffer) const {
  return {buffer.get(), wide.bytes / bytes_of(DType::kFloat32) * bytes_of(wire_), wire_, wide.device};
}

Conversion WireEngine::narrowing(const TensorView& wide, const Buffer& buffer) const {
  return {.narrows = true, .narrow = wire_, .from = wide.data, .to = buffer.get(), .elements = wide.bytes / bytes_of(DType::kFloat32)};
}

Conversion WireEngine::widening(const TensorView& wide, const Buffer& buffer) const {
  return {.narrows = false, .narrow = wire_, .from = buffer.get(), .to = wide.data, .elements = wide.bytes / bytes_of(DType::kFloat32)};
}

SyncedFn WireEngine::widened(TensorId tensor, std::vector<Conversion> work, std::vector<Buffer> buffers, SyncedFn on_synced) {
  return [this, tensor, work = std::move(work), buffers = std::move(buffers), on_synced = std::move(on_synced)](const Synced& synced) {
    // Without contributors there is no sum, and the memory stays as it is.
    if (synced.error || synced.contributors == 0) return on_synced(synced);
    conversions_.add(urgency(tensor, synced.iteration), work, [synced, buffers, on_synced](const std::optional<Error>& error) {
      if (error) return end(on_synced, synced.iteration, *error);
      on_synced(synced);
    });
  };
}

void WireEngine::submit(TensorId tensor, Iteration iteration, const DenseGradient& gradient, SyncedFn on_synced) {
  if (!narrows(tensor)) return inner_->submit(tensor, iteration, gradient, std::move(on_synced));
  on_lane([this, tensor, iteration, gradient, on_synced = std::move(on_synced)]() mutable {
    submit_now(tensor, iteration, gradient, std::move(on_synced));
  });
}

void WireEngine::submit_now(TensorId tensor, Iteration iteration, const DenseGradient& gradient, SyncedFn on_synced) {
  const TensorSpec& spec = model_.tensors[index(tensor)];
  const TensorView& wide = gradient.gradient;
  POSEIDON_CHECK(wide.bytes == spec.bytes(), spec.name, ": a gradient of ", wide.bytes, " bytes, the tensor has ", spec.bytes());
  const Buffer narrow = buffer(spec.elements(), wide);
  SyncedFn back = widened(tensor, {widening(wide, narrow)}, {narrow}, on_synced);
  conversions_.add(urgency(tensor, iteration), {narrowing(wide, narrow)},
                   [this, tensor, iteration, view = narrow_view(wide, narrow), samples = gradient.samples,
                    contributors = gradient.contributors, on_synced = std::move(on_synced), back = std::move(back)](const std::optional<Error>& error) {
                     if (error) return end(on_synced, iteration, *error);
                     inner_->submit(tensor, iteration, {.gradient = view, .ready = {}, .samples = samples, .contributors = contributors}, back);
                   });
}

void WireEngine::submit_absent(TensorId tensor, Iteration iteration, TensorView destination, SyncedFn on_synced) {
  if (!narrows(tensor)) return inner_->submit_absent(tensor, iteration, destination, std::move(on_synced));
  on_lane([this, tensor, iteration, destination, on_synced = std::move(on_synced)]() mutable {
    const Buffer narrow = buffer(model_.tensors[index(tensor)].elements(), destination);
    inner_->submit_absent(tensor, iteration, narrow_view(destination, narrow),
                          widened(tensor, {widening(destination, narrow)}, {narrow}, std::move(on_synced)));
  });
}

void WireEngine::submit_factors(LayerId layer, Iteration iteration, const FactorGradient& gradient, SyncedFn on_synced) {
  const TensorId weight = model_.layers[index(layer)].tensors[0];
  if (!narrows(weight)) return inner_->submit_factors(layer, iteration, gradient, std::move(on_synced));
  on_lane([this, layer, iteration, gradient, on_synced = std::move(on_synced)]() mutable {
    submit_factors_now(layer, iteration, std::move(gradient), std::move(on_synced));
  });
}

void WireEngine::submit_factors_now(LayerId layer, Iteration iteration, FactorGradient gradient, SyncedFn on_synced) {
  const LayerSpec& spec = model_.layers[index(layer)];
  POSEIDON_CHECK(gradient.rows <= spec.factor_rows, "layer ", spec.name, ": ", gradient.rows, " rows of factors, ", spec.factor_rows,
                 " were announced");
  const TensorSpec& weight = model_.tensors[index(spec.tensors[0])];
  // For as many rows as there can be, so that every iteration's fit.
  const auto extent = [&](std::size_t axis) { return spec.factor_rows * static_cast<std::size_t>(weight.shape[axis]); };
  const Buffer u = buffer(extent(0), gradient.outputs);
  const Buffer v = buffer(extent(1), gradient.inputs);
  const Buffer weight_sum = buffer(weight.elements(), gradient.weight);
  const Buffer bias_sum = buffer(gradient.bias.bytes / bytes_of(DType::kFloat32), gradient.bias);
  FactorGradient narrow = gradient;
  narrow.outputs = narrow_view(gradient.outputs, u);
  narrow.inputs = narrow_view(gradient.inputs, v);
  narrow.weight = narrow_view(gradient.weight, weight_sum);
  narrow.bias = narrow_view(gradient.bias, bias_sum);
  narrow.ready = {};
  // Whoever sends the last byte lets go of this; the buffers themselves are given back here.
  narrow.hold = std::shared_ptr<void>(nullptr, [&runtime = runtime_, u, v](void*) { runtime.post([u, v] {}); });
  SyncedFn back = widened(spec.tensors[0], {widening(gradient.weight, weight_sum), widening(gradient.bias, bias_sum)},
                          {weight_sum, bias_sum}, on_synced);
  conversions_.add(urgency(spec.tensors[0], iteration), {narrowing(gradient.outputs, u), narrowing(gradient.inputs, v)},
                   [this, layer, iteration, hold = std::move(gradient.hold), narrow = std::move(narrow),
                    on_synced = std::move(on_synced), back = std::move(back)](const std::optional<Error>& error) mutable {
                     hold.reset();
                     if (error) return end(on_synced, iteration, *error);
                     inner_->submit_factors(layer, iteration, narrow, back);
                   });
}

void WireEngine::fail(const Error& error) {
  inner_->fail(error);
  conversions_.fail(error);
}

}  // namespace poseidon::session
