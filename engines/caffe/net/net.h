// A net: layers in the order of the prototxt, wired by the names of their blobs, run forward and differentiated as one
// graph.
//
// The forward pass asks the exchange for each layer's arrays just before the layer needs them, so it waits for no more
// than that; the backward pass is autograd's, and hands each gradient over where it appears. The net knows neither
// solver nor peers: which records it computes comes in with each Pass.
//
// Activations live as long as a layer to come, or autograd, needs them, unless `keep_blobs` asks for all.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/event.h"
#include "engines/caffe/layers/registry.h"
#include "engines/caffe/net/net_arrays.h"
#include "engines/caffe/net/net_state.h"
#include "engines/caffe/net/wiring.h"
#include "engines/torch/gradient_exchange.h"

namespace poseidon::caffe {

class Net;

struct NetOptions {
  NetState state = {};
  at::ScalarType dtype = at::kFloat;  // or kDouble
  std::uint64_t seed = 1;             // equal on all workers
  WorkerPlace worker = {};            // whose part of data that are not shared the net reads
  bool sync_batch_norm = false;       // BatchNorm normalises over the batches of all workers of a pass's exchange
  const Net* share_with = nullptr;    // take the arrays of layers of the same name from this net; it outlives this one
  base::EventListener* events = nullptr;  // told of spans, whose names it may read while this net lives; may be null
  bool keep_blobs = false;                // blob() knows all blobs, not only the outputs
};

// Which records a forward pass computes, and with whom. Counted in records of the net's first layer that has any.
struct Pass {
  Iteration iteration = 0;
  std::uint64_t first_record = 0;
  std::uint64_t record_stride = 0;             // the next pass is expected to begin so many records later
  aten::GradientExchange* exchange = nullptr;  // settles the arrays layer by layer; null: they are as they should be
  // Log the sizes of values and gradients (debug_info.h); where nothing is said, as the net's own debug_info says.
  std::optional<bool> debug_info = {};
};

// A blob that no layer reads: what the net is for.
struct Output {
  std::string name;
  Shape shape;
  double loss_weight = 0;
  std::size_t blob = 0;  // its number
  at::Tensor value;      // of the last forward pass, without its graph; undefined before the first
};

// One layer in its place.
struct Step {
  std::unique_ptr<Layer> layer;
  std::vector<std::size_t> bottoms;  // numbers of blobs
  std::vector<std::size_t> tops;
  std::vector<double> loss_weights;  // per top; 0: no loss
  std::vector<bool> stops_gradient;  // per bottom: `propagate_down: false`
  std::vector<LayerId> settles;      // the owners of the trained arrays that it uses
  LayerId id{};                      // as owner of trained arrays
  bool takes_factors = false;        // its weight's gradient may travel as factors
  bool takes_rows = false;           // the rows of its table that a batch touches may
  bool overwrites = false;           // may compute in its first bottom's memory
  std::int64_t record_axis = 0;      // of its first bottom
  std::vector<std::size_t> frees;    // blobs that nobody reads any more after it
  std::string forward_span;          // "forward conv1"
};

class Net {
 public:
  // Builds all layers for the state's phase and gives their arrays values. Throws ConfigError.
  Net(const proto::Message& net, const LayerRegistry& registry, NetOptions options);

  const std::string& name() const { return name_; }
  Phase phase() const { return options_.state.phase; }
  at::ScalarType dtype() const { return options_.dtype; }

  // Runs all layers and returns the weighted sum of the losses (of no axes; undefined when the net has none).
  at::Tensor forward(const Pass& pass);
  // Differentiates what the last forward pass returned, once. Throws ConfigError when no array is trained by the loss.
  void backward();
  // In the order of their making.
  const std::vector<Output>& outputs() const { return outputs_; }
  // A blob of the last forward pass: an output, or any with keep_blobs. Throws ConfigError for a name that is none.
  at::Tensor blob(const std::string& name) const;
  // Gives an Input layer's blob its value. Throws ConfigError for another blob, or another shape.
  void feed(const std::string& blob, const at::Tensor& value);

  // Who runs a net says with this that the run is over, and well: layers complete the files that they write. Throws
  // SystemError where one cannot.
  void finish();

  bool has_loss() const { return has_loss_; }
  // The prototxt asks for the gradients of all blobs, whether or not an array is trained by them.
  bool force_backward() const { return force_backward_; }
  // Per batch, of the first layer where data enters; 1 where none says.
  std::size_t records_per_batch() const { return records_per_batch_; }

  // All arrays of the net, trained or not, each once.
  const std::vector<NetArray>& arrays() const { return arrays_.all(); }
  // The numbers of the arrays that the layer of a step uses, in the layer's order.
  const std::vector<std::size_t>& arrays_of(std::size_t step) const { return arrays_.of_layer(step); }
  // What an exchange must know: the layers with trained arrays in the order of the forward pass, so a layer's index is
  // its LayerId; and which of arrays() each of them is.
  const std::vector<aten::LayerParameters>& parameters() const { return parameters_; }
  std::size_t array_of(LayerId layer, std::size_t parameter) const { return trained_[index(layer)][parameter]; }
  // SHA-256 over the names, shapes and bytes of all arrays, in hexadecimal.
  std::string digest() const;

  // The parts of forward(), for who wants to stand between the layers (timing).
  const std::vector<Step>& steps() const { return steps_; }
  const std::vector<Blob>& blobs() const { return wiring_.blobs(); }
  const Step* find_layer(const std::string& layer) const;
  // One layer by itself; never overwrites its bottoms.
  std::vector<at::Tensor> run(const Step& step, const Pass& pass, const std::vector<at::Tensor>& bottoms) const;

 private:
  void add_layer(const proto::Message& message, const LayerRegistry& registry, std::size_t index);
  void read_gradient_settings(Step& step) const;
  void check_gradients() const;
  void list_parameters();
  void find_sequences();
  void plan_memory();
  void list_outputs();
  std::vector<at::Tensor> run_step(const Step& step, const Pass& pass);
  ForwardContext context_for(const Step& step, const Pass& pass) const;
  void add_losses(const Step& step, const std::vector<at::Tensor>& tops);

  std::string name_;
  NetOptions options_;
  Wiring wiring_;
  NetArrays arrays_;
  std::vector<Step> steps_;
  std::vector<aten::LayerParameters> parameters_;
  std::vector<std::vector<std::size_t>> trained_;  // per LayerId and parameter, the number of the array
  std::size_t records_per_batch_ = 0;
  bool has_loss_ = false;
  bool force_backward_ = false;
  bool debug_info_ = false;

  std::vector<at::Tensor> values_;  // per blob: of the pass that runs, and what is kept of it
  std::vector<Output> outputs_;
  at::Tensor loss_;          // with its graph, until backward()
  Iteration iteration_ = 0;  // of the last forward pass
};

}  // namespace poseidon::caffe
