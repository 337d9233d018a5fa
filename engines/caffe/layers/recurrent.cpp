// Recurrent layers: RNN, LSTM, and LSTMUnit, which is a single step of an LSTM.
//
// A bottom x is [T, N, ...]: T steps of N streams. `cont` [T, N] is 0 where a stream begins a sequence and 1 where it
// goes on; the state before a beginning counts as zero. A third bottom [N, ...], if there is one, is seen at every
// step. Arrays are those of Caffe's unrolled nets, in the order of their first use, so that its models fit.
//
// Unless the state is exposed as bottoms and tops, a layer keeps the state after its last step for the next batch,
// whose streams go on where `cont` says so; the gradient ends there. As in Caffe, each net (training, testing) has a
// state of its own, and it starts as zeros; unlike Caffe's, snapshots have it. Streams, not steps, are what workers
// share out: with N streams each, P workers compute what one computes with P·N.
#include <ATen/ops/linear.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tanh.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

#include "base/text.h"
#include "engines/caffe/layers/standard_layers.h"

namespace poseidon::caffe {
namespace {

struct LstmState {
  at::Tensor hidden;  // [..., H]
  at::Tensor cell;
};

// With the inputs of the gates [..., 4 H] in Caffe's order: input, forget, output, and the candidate (Hochreiter and
// Schmidhuber 1997, with the forget gate of Gers et al. 2000).
LstmState lstm_step(const at::Tensor& cell, const at::Tensor& gates, const at::Tensor& cont) {
  const std::vector<at::Tensor> parts = gates.chunk(4, -1);
  const at::Tensor kept = cont * at::sigmoid(parts[1]) * cell;
  const at::Tensor next = kept + at::sigmoid(parts[0]) * at::tanh(parts[3]);
  return {.hidden = at::sigmoid(parts[2]) * at::tanh(next), .cell = next};
}

// What RNN and LSTM have in common: everything but a step.
class Recurrent : public Layer {
 public:
  std::vector<Shape> top_shapes(const std::vector<Shape>& bottoms) const override {
    check_sequence(bottoms[0], bottoms[1]);
    const std::int64_t streams = bottoms[0][1];
    if (has_static() && (bottoms[2].empty() || bottoms[2][0] != streams)) {
      fail(base::concat("wants what all steps see as [", streams, ", ...]; ", describe_bottom(2, bottoms[2])));
    }
    const Shape state = {1, streams, outputs_};
    for (std::size_t i = first_state(); i < bottoms.size(); ++i) {
      if (bottoms[i] == state) continue;
      fail(base::concat("wants its state as ", base::readable_shape(state), "; ", describe_bottom(i, bottoms[i])));
    }
    std::vector<Shape> tops(this->tops().size(), state);
    tops[0] = {bottoms[0][0], streams, outputs_};
    return tops;
  }

  bool differentiable(std::size_t bottom) const override { return bottom != 1; }
  bool takes_sequences() const override { return true; }

  std::vector<at::Tensor> carried_state() const override {
    if (exposed_ || !carried_.empty()) return carried_;
    const at::Tensor zeros = at::zeros({streams_, outputs_}, at::TensorOptions().dtype(dtype()));
    return std::vector<at::Tensor>(states_, zeros);
  }
  void carry(const std::vector<at::Tensor>& state) override {
    const auto fits = [&](const at::Tensor& one) {
      return one.dim() == 2 && one.size(1) == outputs_ && one.sizes() == state[0].sizes();
    };
    carried_.clear();
    if (!exposed_ && state.size() == states_ && std::all_of(state.begin(), state.end(), fits)) carried_ = state;
  }

  std::vector<at::Tensor> forward(const ForwardContext&, const std::vector<at::Tensor>& bottoms) override {
    // No gradient goes to the marks of sequences, in Caffe neither.
    const std::vector<at::Tensor> cont = bottoms[1].detach().unsqueeze(2).unbind();
    const std::vector<at::Tensor> inputs = inputs_of_steps(bottoms).unbind();
    std::vector<at::Tensor> state = first_state_of(bottoms);
    std::vector<at::Tensor> hidden;
    for (std::size_t t = 0; t < inputs.size(); ++t) {
      step(inputs[t], cont[t], state);
      hidden.push_back(state[0]);
    }
    std::vector<at::Tensor> tops = {outputs_of(at::stack(hidden))};
    if (exposed_) {
      for (const at::Tensor& last : state) tops.push_back(last.unsqueeze(0));
      return tops;
    }
    carried_.clear();
    for (const at::Tensor& last : state) carried_.push_back(last.detach());
    return tops;
  }

 protected:
  // `states`: how many tensors [N, H] go from step to step. The first of them is the hidden state h.
  Recurrent(const LayerConfig& config, std::size_t states, std::int64_t gates)
      : Layer(config, counts(config, states)),
        settings_(message().message("recurrent_param")),
        outputs_(settings_.integer("num_output")),
        exposed_(settings_.flag("expose_hidden")),
        states_(states),
        gates_(gates) {
    if (outputs_ < 1) fail_at(settings_.position("num_output"), "needs num_output, at least 1");
  }

  // The arrays that come after those of the inputs.
  virtual void declare_step() = 0;
  // From the state before a step to the state after it, given W x + b of the step and `cont` [N, 1].
  virtual void step(const at::Tensor& input, const at::Tensor& cont, std::vector<at::Tensor>& state) const = 0;
  // The top, from the hidden states of all steps [T, N, H].
  virtual at::Tensor outputs_of(const at::Tensor& hidden) const { return hidden; }

  std::int64_t outputs() const { return outputs_; }
  void add_weight(std::string_view name, std::int64_t rows, std::int64_t columns) {
    add_parameter(name, {rows, columns}, read_filler(settings_.message("weight_filler")));
  }
  void add_bias(std::string_view name, std::int64_t rows) {
    add_parameter(name, {rows}, read_filler(settings_.message("bias_filler")));
  }
  // The number of the first array that declare_step has added.
  std::size_t step_arrays() const { return has_static() ? 3 : 2; }

 private:
  static BlobCounts counts(const LayerConfig& config, std::size_t states) {
    const bool exposed = config.message.message("recurrent_param").flag("expose_hidden");
    const std::size_t more = exposed ? states : 0;
    return {.bottoms_min = 2 + more, .bottoms_max = 3 + more, .tops_min = 1 + more, .tops_max = 1 + more};
  }

  bool has_static() const { return first_state() == 3; }
  // Which bottom is the first one of the state.
  std::size_t first_state() const { return bottoms().size() - (exposed_ ? states_ : 0); }

  void check_sequence(const Shape& x, const Shape& cont) const {
    if (x.size() < 2 || x[0] < 1) {
      fail(base::concat("wants sequences [steps, streams, ...] with at least one step; ", describe_bottom(0, x)));
    }
    if (cont != Shape{x[0], x[1]}) {
      fail(base::concat("wants a mark for each step of each stream, ", base::readable_shape(Shape{x[0], x[1]}), "; ",
                        describe_bottom(1, cont)));
    }
    if (!parameters().empty() && elements_behind(x, 2) != parameters()[0].shape[1]) {
      fail(base::concat("has a weight for ", parameters()[0].shape[1], " inputs a step; ", describe_bottom(0, x)));
    }
  }

  static std::int64_t elements_behind(const Shape& shape, std::ptrdiff_t axis) {
    return elements_of(Shape(shape.begin() + axis, shape.end()));
  }

  void declare_parameters(const std::vector<Shape>& bottoms) override {
    streams_ = bottoms[0][1];
    const std::string inputs(input_name());
    add_weight(base::concat("W_", inputs), gates_ * outputs_, elements_behind(bottoms[0], 2));
    add_bias(bias_name(), gates_ * outputs_);
    if (has_static()) {
      add_weight(base::concat("W_", inputs, "_static"), gates_ * outputs_, elements_behind(bottoms[2], 1));
    }
    declare_step();
  }
  virtual std::string_view input_name() const = 0;
  virtual std::string_view bias_name() const = 0;

  // W x + b for all steps at once: [T, N, gates H].
  at::Tensor inputs_of_steps(const std::vector<at::Tensor>& bottoms) const {
    const auto flat = [](const at::Tensor& x, std::int64_t rows, const at::Tensor& weight) {
      return x.reshape({rows, weight.size(1)});
    };
    const std::int64_t steps = bottoms[0].size(0);
    const std::int64_t streams = bottoms[0].size(1);
    const at::Tensor inputs = at::linear(flat(bottoms[0], steps * streams, array(0)), array(0), array(1))
                                  .view({steps, streams, gates_ * outputs_});
    return has_static() ? inputs + at::linear(flat(bottoms[2], streams, array(2)), array(2)) : inputs;
  }

  std::vector<at::Tensor> first_state_of(const std::vector<at::Tensor>& bottoms) const {
    const Shape shape = {bottoms[0].size(1), outputs_};
    if (exposed_) {
      std::vector<at::Tensor> given;
      for (std::size_t i = first_state(); i < bottoms.size(); ++i) given.push_back(bottoms[i].reshape(shape));
      return given;
    }
    // A batch of another number of streams has nothing to do with the last one.
    if (!carried_.empty() && carried_[0].sizes() == shape) return carried_;
    return std::vector<at::Tensor>(states_, at::zeros(shape, bottoms[0].options()));
  }

  proto::Message settings_;
  std::int64_t outputs_;
  bool exposed_;
  std::size_t states_;
  std::int64_t gates_;               // how many vectors of `outputs_` the inputs of a step are brought to
  std::int64_t streams_ = 0;         // as they were at `setup`
  std::vector<at::Tensor> carried_;  // the state after the last batch; empty before the first
};

// h_t = tanh(W_hh h_{t-1} + W_xh x_t + b_h), and the top o_t = tanh(W_ho h_t + b_o), all of num_output elements.
class Rnn final : public Recurrent {
 public:
  explicit Rnn(const LayerConfig& config) : Recurrent(config, /*states=*/1, /*gates=*/1) {}

 private:
  std::string_view input_name() const override { return "xh"; }
  std::string_view bias_name() const override { return "b_h"; }

  void declare_step() override {
    add_weight("W_hh", outputs(), outputs());
    add_weight("W_ho", outputs(), outputs());
    add_bias("b_o", outputs());
  }

  void step(const at::Tensor& input, const at::Tensor& cont, std::vector<at::Tensor>& state) const override {
    state[0] = at::tanh(at::linear(cont * state[0], array(step_arrays())) + input);
  }

  at::Tensor outputs_of(const at::Tensor& hidden) const override {
    return at::tanh(at::linear(hidden, array(step_arrays() + 1), array(step_arrays() + 2)));
  }
};

// The gates' inputs are W_hc h_{t-1} + W_xc x_t + b_c, and the top is h.
class Lstm final : public Recurrent {
 public:
  explicit Lstm(const LayerConfig& config) : Recurrent(config, /*states=*/2, kGates) {}

 private:
  static constexpr std::int64_t kGates = 4;

  std::string_view input_name() const override { return "xc"; }
  std::string_view bias_name() const override { return "b_c"; }
  void declare_step() override { add_weight("W_hc", kGates * outputs(), outputs()); }

  void step(const at::Tensor& input, const at::Tensor& cont, std::vector<at::Tensor>& state) const override {
    const at::Tensor gates = at::linear(cont * state[0], array(step_arrays())) + input;
    auto [hidden, cell] = lstm_step(state[1], gates, cont);
    state = {hidden, cell};
  }
};

// Bottoms: the cell before the step [1, N, H], the inputs of the gates [1, N, 4 H], `cont` [1, N]. Tops: the cell after
// the step, and the hidden state.
class LstmUnit final : public Layer {
 public:
  explicit LstmUnit(const LayerConfig& config)
      : Layer(config, {.bottoms_min = 3, .bottoms_max = 3, .tops_min = 2, .tops_max = 2}) {}

  std::vector<Shape> top_shapes(const std::vector<Shape>& bottoms) const override {
    const Shape& cell = bottoms[0];
    if (cell.size() != 3 || cell[0] != 1) {
      fail(base::concat("wants a cell [1, streams, num_output]; ", describe_bottom(0, cell)));
    }
    if (bottoms[1] != Shape{1, cell[1], 4 * cell[2]}) {
      fail(base::concat("wants the inputs of four gates, ", base::readable_shape(Shape{1, cell[1], 4 * cell[2]}), "; ",
                        describe_bottom(1, bottoms[1])));
    }
    if (bottoms[2] != Shape{1, cell[1]}) {
      fail(base::concat("wants a mark for each stream, ", base::readable_shape(Shape{1, cell[1]}), "; ",
                        describe_bottom(2, bottoms[2])));
    }
    return {cell, cell};
  }

  bool differentiable(std::size_t bottom) const override { return bottom != 2; }

  std::vector<at::Tensor> forward(const ForwardContext&, const std::vector<at::Tensor>& bottoms) override {
    const LstmState next = lstm_step(bottoms[0], bottoms[1], bottoms[2].detach().unsqueeze(2));
    return {next.cell, next.hidden};
  }
};

}  // namespace

std::unique_ptr<Layer> make_lstm(const LayerConfig& config) {
  return std::make_unique<Lstm>(config);
}

std::unique_ptr<Layer> make_lstm_unit(const LayerConfig& config) {
  return std::make_unique<LstmUnit>(config);
}

std::unique_ptr<Layer> make_rnn(const LayerConfig& config) {
  return std::make_unique<Rnn>(config);
}

}  // namespace poseidon::caffe
