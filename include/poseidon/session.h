// A worker's door to the engine: hand over gradients as they appear, get their sums over all workers.
//
// The engine is told of each gradient the moment it exists and calls back when its sum over the workers has arrived; in
// between the caller computes. What it promises for a given plan: the sum is taken in the order of ranks, so it is the same
// in every bit whatever the order of arrival. The sum is a plain sum; dividing by `Synced::contributors` is left to the
// caller, who can fold it into the learning rate.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>

#include "poseidon/error.h"
#include "poseidon/export.h"
#include "poseidon/types.h"

namespace poseidon {

// How one layer is synchronised.
enum class Scheme : std::uint8_t {
  kPs,     // parameter server: dense gradients to the servers that own their chunks, sums back
  kSfb,    // sufficient factors to every peer, which multiplies them itself
  kAdam,   // sufficient factors to one owner, the full matrix back
  kBlock,  // the matrix is cut into a grid of blocks with one owner each; owners get the factors that their block needs
};
POSEIDON_API std::string_view to_string(Scheme scheme);

// The end of one synchronisation.
struct Synced {
  std::optional<Error> error;      // set: there is no sum, and the memory's contents are undefined
  Iteration iteration = 0;
  std::uint32_t contributors = 0;  // workers in the sum; 0 when none had a gradient, and then the memory is untouched
  std::uint64_t samples = 0;       // samples of all contributors, as they were declared
  DeviceEvent ready;               // a device stream must wait for this before it reads the sum
};
using SyncedFn = std::function<void(const Synced&)>;

// One worker's dense gradient of one tensor. The sum replaces it in place.
struct DenseGradient {
  TensorView gradient;       // borrowed until the callback; when that has an error, until the session is gone
  DeviceEvent ready;         // the gradient may be read after this
  std::uint32_t samples = 1;
  std::uint32_t contributors = 1;  // workers whose sum it is already; more than one only from an engine that combines before it sends
};

// One worker's gradient of a factor layer: dW = Uᵀ V.
struct FactorGradient {
  TensorView outputs;          // U [rows, M]: errors at the layer's output; borrowed until `hold` is released
  TensorView inputs;           // V [rows, N]: the layer's input; likewise
  std::size_t rows = 0;        // at most LayerSpec::factor_rows
  std::shared_ptr<void> hold;  // keeps the two alive; released once their last byte has left
  TensorView weight;           // [M, N]: the sum arrives here; borrowed like a dense gradient
  TensorView bias;             // [M], or empty where the layer has none: the column sum of all U arrives here
  DeviceEvent ready;
  std::uint32_t samples = 1;
};

class Session {
 public:
  virtual ~Session() = default;

  // This worker's, from 0 to workers() - 1.
  virtual Rank rank() const = 0;
  // P: how many train together in this epoch.
  virtual int workers() const = 0;
  // The scheme that the plan in force gives a layer. Anything but kPs: call submit_factors, never submit, for its tensors.
  virtual Scheme scheme(LayerId layer) const = 0;

  // Hands over a dense gradient. This and the next two may be called from any thread and return at once. Each tensor (or factor
  // layer) takes one submission per iteration, in order of iterations, and the next only after the callback of the last.
  // Callbacks run on the engine's lane, exactly once, also after an error: they must be quick and must not wait.
  virtual void submit(TensorId tensor, Iteration iteration, const DenseGradient& gradient, SyncedFn on_synced) = 0;
  // The layer's own tensors, weight and bias, come back together in one callback.
  virtual void submit_factors(LayerId layer, Iteration iteration, const FactorGradient& gradient, SyncedFn on_synced) = 0;
  // This worker has no gradient of the tensor in this iteration. The others' sum, if any, arrives in `destination`.
  virtual void submit_absent(TensorId tensor, Iteration iteration, TensorView destination, SyncedFn on_synced) = 0;

  // Memory that the engine can move without copying: aligned host memory, shared with the other workers of this host where they
  // combine their gradients first. Gradients, and the weight and bias of a FactorGradient, that lie in it are summed in place.
  // Allocate once and use it for every iteration: what is freed is given back to the system, and others map it anew.
  virtual Result<std::shared_ptr<std::byte>> allocate(std::size_t bytes, Device device) = 0;
};

}  // namespace poseidon
