// One step of a net: what every type of layer has in common.
//
// A layer knows its settings, its arrays and its arithmetic, which is ATen's with autograd: one graph per iteration,
// and no backward pass written by hand where autograd derives it. It does not know its neighbours, the solver or the
// other workers: what it must know of them comes in with each ForwardContext, as numbers of records. So a net of N
// workers with b records each computes what one worker computes with N·b.
//
// Life of a layer: the constructor reads the settings (mistakes in them are ConfigErrors), `setup` takes the shapes of
// the bottoms, declares the arrays and tells the shapes of the tops, somebody gives the arrays their values (`fill`, or
// a net that shares them), and then `forward` runs any number of times. All on one thread.
#pragma once

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engines/caffe/layers/filler.h"
#include "engines/caffe/proto/message.h"
#include "poseidon/types.h"

namespace poseidon::aten {
class GradientExchange;
}

namespace poseidon::caffe {

enum class Phase : std::uint8_t { kTrain, kTest };
std::string_view to_string(Phase phase);  // "TRAIN", "TEST"

using Shape = std::vector<std::int64_t>;
std::int64_t elements_of(const Shape& shape);

// Which worker of a training a layer is made for, where each reads data of its own. A program alone is the only one.
struct WorkerPlace {
  std::uint64_t rank = 0;
  std::uint64_t workers = 1;
};

// What a layer is made from.
struct LayerConfig {
  proto::Message message;  // the whole LayerParameter
  std::string name;
  std::string type;  // "Convolution"
  std::vector<std::string> bottoms;
  std::vector<std::string> tops;
  Phase phase = Phase::kTrain;
  std::uint64_t seed = 1;  // equal on all workers
  at::ScalarType dtype = at::kFloat;
  WorkerPlace worker = {};
};
// Takes names and blobs from the message; a phase that the layer itself states goes before the net's.
LayerConfig layer_config(const proto::Message& layer, Phase phase, std::uint64_t seed, at::ScalarType dtype);

// One array that a layer trains (or keeps).
struct Parameter {
  std::string name;  // "conv1.weight"
  Shape shape;       // as the layer computes with it
  Filler filler;
  at::Tensor initial = {};  // the first values, where no filler draws them
  // As the prototxt states them; 1 where it does not, unless another layer that shares the array states them.
  std::optional<double> lr_mult;
  std::optional<double> decay_mult;
  std::string share_name;        // layers that give the same name share one array; empty: it has none
  // Forward passes change it, and no gradient does (BatchNorm's averages): each worker has its own, and their mean is
  // everybody's before tests and snapshots.
  bool is_statistic = false;
  bool share_any_shape = false;  // PERMISSIVE: sharing asks only for the same number of elements
  proto::Position position;      // for errors: its `param` entry, else its layer
  at::Tensor value;              // a leaf; of the owner's shape where it is shared
};

// What a layer must know of one forward pass. Records are numbered over the whole training: with P workers of batch b,
// iteration i's global batch is records [i·P·b, (i+1)·P·b), and worker k's batch the k-th part of it.
struct ForwardContext {
  Iteration iteration = 0;
  std::uint64_t first_record = 0;   // the number of this batch's first record
  std::uint64_t records = 1;        // records in this batch
  std::uint64_t record_stride = 0;  // the next batch is expected to begin at first_record + record_stride

  // All workers of the training, for what a layer must know of the global batch (GradientExchange::gather); null where
  // it computes alone, as in tests.
  aten::GradientExchange* workers = nullptr;
  bool sync_batch_norm = false;  // normalise over the batches of all workers

  bool has_other_workers() const;

  // In blobs with `rows` rows in this batch, where a record may have several (regions of an image, steps of a
  // sequence): the number of the first one among those of the whole training, and how many all workers have together.
  std::uint64_t first_row(std::int64_t rows) const { return first_record * static_cast<std::uint64_t>(rows) / records; }
  std::uint64_t rows_of_all(std::int64_t rows) const {
    return std::max(record_stride, records) * static_cast<std::uint64_t>(rows) / records;
  }

  // Set when the layer may hand its weight's gradient over as factors (GradientExchange::linear), under this id.
  aten::GradientExchange* exchange = nullptr;
  LayerId layer{};

  // The gradient of parameters()[0] shall be sparse: the rows that the batch touches (Layer::touched_rows).
  bool sparse_gradient = false;

  // The axis of the first bottom along which records lie: 1 in sequences [steps, streams, ...].
  std::int64_t record_axis = 0;

  // The layer's top has its bottom's name, nobody else reads that bottom, and autograd does not need it: the layer may
  // compute in its memory.
  bool overwrite_bottom = false;
};

// How many bottoms and tops a type of layer takes.
struct BlobCounts {
  static constexpr std::size_t kAny = std::numeric_limits<std::size_t>::max();
  std::size_t bottoms_min = 1;
  std::size_t bottoms_max = 1;
  std::size_t tops_min = 1;
  std::size_t tops_max = 1;
  bool one_top_per_bottom = false;
  bool automatic_tops = false;  // tops that the prototxt does not name are made up, as Caffe does for losses
};

class Layer {
 public:
  virtual ~Layer() = default;
  Layer(const Layer&) = delete;
  Layer& operator=(const Layer&) = delete;

  const std::string& name() const { return config_.name; }
  const std::string& type() const { return config_.type; }
  const std::vector<std::string>& bottoms() const { return config_.bottoms; }
  const std::vector<std::string>& tops() const { return config_.tops; }
  const proto::Message& message() const { return config_.message; }
  Phase phase() const { return config_.phase; }
  at::ScalarType dtype() const { return config_.dtype; }

  // Once: checks the bottoms' shapes, declares the arrays, returns the tops' shapes.
  std::vector<Shape> setup(const std::vector<Shape>& bottoms);
  // The tops' shapes for other bottoms than at `setup`.
  virtual std::vector<Shape> top_shapes(const std::vector<Shape>& bottoms) const = 0;

  // In the order of Caffe's blobs: weight, bias. Whoever builds the net may replace values.
  std::vector<Parameter>& parameters() { return parameters_; }
  const std::vector<Parameter>& parameters() const { return parameters_; }
  // Draws the initial value of one array: the same on every worker, whatever the number of threads.
  void fill(Parameter& parameter) const;

  virtual std::vector<at::Tensor> forward(const ForwardContext& context, const std::vector<at::Tensor>& bottoms) = 0;

  // Does the first top count as a loss where the prototxt gives no loss_weight?
  virtual bool is_loss() const { return false; }
  // False for a bottom whose gradient Caffe ends the program over: a net that needs it to train an array is refused.
  // Where Caffe's backward pass yields nothing instead, this is true, and the gradient ends in `forward`.
  virtual bool differentiable(std::size_t /*bottom*/) const { return true; }
  // May autograd or the layer itself still need the tops after `forward`? False allows the next layer to overwrite
  // them.
  virtual bool keeps_tops() const { return true; }
  // At most so many rows per batch make up the gradient of parameters()[0] as a sum of outer products [outputs] x
  // [inputs]; 0 where it has no such form. Valid after `setup`.
  virtual std::size_t factor_rows() const { return 0; }
  // At most so many rows of parameters()[0] does a batch touch: the gradient of all others is zero, and that of these
  // can be had sparse. 0 where a batch touches all. Valid after `setup`.
  virtual std::size_t touched_rows() const { return 0; }
  // Records per batch, for layers where data enters the net; else 0.
  virtual std::size_t records_per_batch() const { return 0; }
  // Is the first bottom a sequence [steps, streams, ...], with marks [steps, streams] as the second one, and are the
  // tops sequences?
  virtual bool takes_sequences() const { return false; }
  // What a forward pass leaves for the next one, beside arrays: tensors [streams, ...]. A snapshot has them. `carry`
  // puts them back; those of other shapes than this layer's are dropped, and sequences begin anew.
  virtual std::vector<at::Tensor> carried_state() const { return {}; }
  virtual void carry(const std::vector<at::Tensor>& /*state*/) {}
  // After the last forward pass of a run, where it ended well: completes what the layer writes. Throws SystemError where
  // the disk does not take it.
  virtual void finish() {}
  // Gives a top its value, in a layer that takes it from the program (Input). Others return false.
  virtual bool feed(std::size_t top, const at::Tensor& value);

  // Throws ConfigError: position, layer, text. The second form points at a field of `message` (e.g. "kernel_size").
  [[noreturn]] void fail(std::string_view text) const;
  [[noreturn]] void fail_at(const proto::Position& position, std::string_view text) const;

 protected:
  // Checks the numbers of bottoms and tops and completes automatic ones.
  Layer(LayerConfig config, const BlobCounts& counts);

  // What a type with arrays does in `setup`: calls of add_parameter, in the order of Caffe's blobs.
  virtual void declare_parameters(const std::vector<Shape>& /*bottoms*/) {}
  void add_parameter(std::string_view suffix, Shape shape, const Filler& filler);
  // A parameter's array in the shape that the layer declared.
  at::Tensor array(std::size_t parameter) const;

  std::uint64_t seed() const { return config_.seed; }
  const WorkerPlace& worker() const { return config_.worker; }
  // An axis counted from the end where it is negative, as a number from 0 to axes-1.
  std::size_t canonical_axis(std::int64_t axis, const Shape& shape) const;
  // "bottom "data" is [64, 1, 28, 28]"
  std::string describe_bottom(std::size_t bottom, const Shape& shape) const;

 private:
  LayerConfig config_;
  std::vector<Parameter> parameters_;
};

}  // namespace poseidon::caffe
