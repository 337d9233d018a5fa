#include "engines/caffe/net/net.h"

#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <chrono>
#include <stdexcept>
#include <utility>

#include "base/checksum.h"
#include "base/text.h"
#include "engines/caffe/net/debug_info.h"
#include "engines/caffe/proto/config_error.h"

namespace poseidon::caffe {
namespace {

// A span of the calling thread, told to the listener if there is one.
class Span {
 public:
  Span(base::EventListener* events, Iteration iteration, std::string_view name)
      : events_(events), iteration_(iteration), name_(name) {
    tell(base::EventKind::kSpanBegin);
  }
  ~Span() { tell(base::EventKind::kSpanEnd); }
  Span(const Span&) = delete;
  Span& operator=(const Span&) = delete;

 private:
  void tell(base::EventKind kind) const {
    if (events_ == nullptr) return;
    events_->record({.kind = kind,
                     .time = std::chrono::steady_clock::now().time_since_epoch(),
                     .iteration = iteration_,
                     .name = name_});
  }

  base::EventListener* events_;
  Iteration iteration_;
  std::string_view name_;
};

std::span<const std::byte> bytes_of(const at::Tensor& tensor) {
  return {static_cast<const std::byte*>(tensor.const_data_ptr()), tensor.nbytes()};
}

// What ATen refuses, the layer should have: its own words, with the layer's name.
std::vector<at::Tensor> forward_layer(Layer& layer, const ForwardContext& context,
                                      const std::vector<at::Tensor>& bottoms) {
  try {
    return layer.forward(context, bottoms);
  } catch (const c10::Error& error) {
    throw std::runtime_error(
        base::concat("layer \"", layer.name(), "\" (", layer.type(), "): ", error.what_without_backtrace()));
  }
}

// Settings that are each well, and together more than the machine has.
[[noreturn]] void fail_to_make(const proto::Message& layer, std::string_view why) {
  throw ConfigError(base::concat(layer.position().text(), ": layer \"", layer.text("name"), "\" (", layer.text("type"),
                                 ") cannot be made: ", why, "; are its numbers as large as they should be?"));
}

}  // namespace

Net::Net(const proto::Message& net, const LayerRegistry& registry, NetOptions options)
    : name_(net.text("name")),
      options_(std::move(options)),
      wiring_(layers_for(net, options_.state)),
      force_backward_(net.flag("force_backward")),
      debug_info_(net.flag("debug_info")) {
  const std::vector<proto::Message>& layers = wiring_.layers();
  if (layers.empty()) {
    throw ConfigError(base::concat(net.position().text(), ": the net has no layers in phase ", to_string(phase())));
  }
  for (std::size_t i = 0; i < layers.size(); ++i) {
    try {
      add_layer(layers[i], registry, i);
    } catch (const c10::Error& error) {
      fail_to_make(layers[i], error.what_without_backtrace());
    } catch (const std::bad_alloc&) {
      fail_to_make(layers[i], "out of memory");
    }
  }
  arrays_.finish();
  if (phase() == Phase::kTrain) check_gradients();
  list_parameters();
  find_sequences();
  plan_memory();
  list_outputs();
  records_per_batch_ = std::max<std::size_t>(1, records_per_batch_);
}

void Net::add_layer(const proto::Message& message, const LayerRegistry& registry, std::size_t index) {
  LayerConfig config = layer_config(message, phase(), options_.seed, dtype());
  config.worker = options_.worker;
  Step step;
  step.layer = registry.create(config);
  step.forward_span = base::concat("forward ", config.name);
  Layer& layer = *step.layer;
  // Names key random draws and the arrays of trained models.
  if (const Step* const other = find_layer(layer.name()); other != nullptr) {
    layer.fail_at(message.position("name"), base::concat("has the name of another layer of this phase, at ",
                                                         other->layer->message().position("name").text()));
  }
  step.bottoms = wiring_.read(layer, index);
  std::vector<Shape> shapes;
  for (const std::size_t bottom : step.bottoms) shapes.push_back(blobs()[bottom].shape);
  step.tops = wiring_.make(layer, index, layer.setup(shapes));
  const Step* const twin = options_.share_with == nullptr ? nullptr : options_.share_with->find_layer(layer.name());
  arrays_.bind(layer, index, twin == nullptr ? nullptr : twin->layer.get());
  read_gradient_settings(step);
  has_loss_ =
      has_loss_ || std::any_of(step.loss_weights.begin(), step.loss_weights.end(), [](double w) { return w != 0; });
  if (records_per_batch_ == 0) records_per_batch_ = layer.records_per_batch();
  steps_.push_back(std::move(step));
}

void Net::read_gradient_settings(Step& step) const {
  const Layer& layer = *step.layer;
  const proto::Message& message = layer.message();
  step.loss_weights.assign(layer.tops().size(), 0);
  if (layer.is_loss()) step.loss_weights[0] = 1;
  if (const std::vector<double> weights = message.reals("loss_weight"); !weights.empty()) {
    if (weights.size() != layer.tops().size()) {
      layer.fail_at(message.position("loss_weight"),
                    base::concat("has ", weights.size(), " loss_weight for ", layer.tops().size(),
                                 " tops; give one each, or none"));
    }
    step.loss_weights = weights;
  }
  step.stops_gradient.assign(layer.bottoms().size(), false);
  if (const std::vector<bool> propagate = message.flags("propagate_down"); !propagate.empty()) {
    if (propagate.size() != layer.bottoms().size()) {
      layer.fail_at(message.position("propagate_down"),
                    base::concat("has ", propagate.size(), " propagate_down for ", layer.bottoms().size(),
                                 " bottoms; give one each, or none"));
    }
    for (std::size_t i = 0; i < propagate.size(); ++i) step.stops_gradient[i] = !propagate[i];
  }
}

// A layer that cannot be differentiated with respect to a bottom may not stand between a loss and a trained array.
void Net::check_gradients() const {
  std::vector<bool> trains(blobs().size(), false);  // by blob: it depends on an array that is trained
  for (const Step& step : steps_) {
    const std::vector<Parameter>& own = step.layer->parameters();
    bool any = std::any_of(own.begin(), own.end(), [](const Parameter& p) { return p.value.requires_grad(); });
    for (std::size_t i = 0; i < step.bottoms.size(); ++i) {
      any = any || (trains[step.bottoms[i]] && !step.stops_gradient[i]);
    }
    for (const std::size_t top : step.tops) trains[top] = any;
  }
  std::vector<bool> under_loss(blobs().size(), false);
  for (auto step = steps_.rbegin(); step != steps_.rend(); ++step) {
    bool any = false;
    for (std::size_t i = 0; i < step->tops.size(); ++i) {
      any = any || step->loss_weights[i] != 0 || under_loss[step->tops[i]];
    }
    for (std::size_t i = 0; any && i < step->bottoms.size(); ++i) {
      const std::size_t bottom = step->bottoms[i];
      if (step->stops_gradient[i] || !trains[bottom]) continue;
      under_loss[bottom] = true;
      if (step->layer->differentiable(i)) continue;
      step->layer->fail_at(step->layer->message().position("bottom", i),
                           base::concat("has no gradient for bottom \"", blobs()[bottom].name,
                                        "\", on which arrays are to be trained through it; propagate_down: false, one "
                                        "for each bottom, ends the gradient there"));
    }
  }
}

void Net::list_parameters() {
  for (std::size_t i = 0; i < steps_.size(); ++i) {
    Step& step = steps_[i];
    aten::LayerParameters owned{.name = step.layer->name(), .parameter_names = {}, .parameters = {}};
    std::vector<std::size_t> numbers;
    bool alone = true;  // nobody else's gradients come into the layer's arrays
    for (const std::size_t number : arrays_.of_layer(i)) {
      const NetArray& array = arrays()[number];
      alone = alone && array.users.size() == 1;
      if (!array.trained() || array.owner != i) continue;
      if (std::find(numbers.begin(), numbers.end(), number) != numbers.end()) continue;
      owned.parameter_names.push_back(array.name);
      owned.parameters.push_back(array.value);
      numbers.push_back(number);
    }
    if (numbers.empty()) continue;
    step.takes_factors = alone && step.layer->factor_rows() > 0 && arrays()[numbers[0]].parameter == 0;
    owned.factor_rows = step.takes_factors ? step.layer->factor_rows() : 0;
    step.takes_rows = alone && step.layer->touched_rows() > 0 && arrays()[numbers[0]].parameter == 0;
    owned.touched_rows = step.takes_rows ? step.layer->touched_rows() : 0;
    step.id = LayerId{static_cast<std::uint32_t>(parameters_.size())};
    parameters_.push_back(std::move(owned));
    trained_.push_back(std::move(numbers));
  }
  for (std::size_t i = 0; i < steps_.size(); ++i) {
    for (const std::size_t number : arrays_.of_layer(i)) {
      const NetArray& array = arrays()[number];
      if (!array.trained()) continue;
      std::vector<LayerId>& settles = steps_[i].settles;
      const LayerId owner = steps_[array.owner].id;
      if (std::find(settles.begin(), settles.end(), owner) == settles.end()) settles.push_back(owner);
    }
  }
}

// The blobs of recurrent layers are [steps, streams, ...]; and so is what begins with the same two extents at the other
// side of a layer, and of the next one, and so on.
void Net::find_sequences() {
  std::vector<bool> is_sequence(blobs().size(), false);
  bool changed = false;
  const auto mark = [&](std::size_t blob) {
    changed = changed || !is_sequence[blob];
    is_sequence[blob] = true;
  };
  const auto alike = [&](std::size_t one, std::size_t other) {
    const Shape& a = blobs()[one].shape;
    const Shape& b = blobs()[other].shape;
    return a.size() >= 2 && b.size() >= 2 && a[0] == b[0] && a[1] == b[1];
  };
  do {
    changed = false;
    for (const Step& step : steps_) {
      std::vector<std::size_t> around = step.tops;
      if (step.layer->takes_sequences()) around.insert(around.end(), step.bottoms.begin(), step.bottoms.begin() + 2);
      if (step.layer->takes_sequences()) std::for_each(around.begin(), around.end(), mark);
      around.insert(around.end(), step.bottoms.begin(), step.bottoms.end());
      for (const std::size_t one : around) {
        for (const std::size_t other : around) {
          if (is_sequence[one] && alike(one, other)) mark(other);
        }
      }
    }
  } while (changed);
  for (Step& step : steps_) {
    if (!step.bottoms.empty() && is_sequence[step.bottoms[0]]) step.record_axis = 1;
  }
}

void Net::plan_memory() {
  for (std::size_t i = 0; i < blobs().size() && !options_.keep_blobs; ++i) {
    if (!blobs()[i].readers.empty()) steps_[blobs()[i].readers.back()].frees.push_back(i);
  }
  for (Step& step : steps_) {
    const Layer& layer = *step.layer;
    if (layer.bottoms().empty() || layer.tops().empty() || layer.bottoms()[0] != layer.tops()[0]) continue;
    const Blob& bottom = blobs()[step.bottoms[0]];
    const Step& maker = steps_[bottom.maker];
    const auto top =
        static_cast<std::size_t>(std::find(maker.tops.begin(), maker.tops.end(), step.bottoms[0]) - maker.tops.begin());
    step.overwrites = bottom.readers.size() == 1 && !maker.layer->keeps_tops() && maker.loss_weights[top] == 0 &&
                      std::count(step.bottoms.begin(), step.bottoms.end(), step.bottoms[0]) == 1;
  }
}

void Net::list_outputs() {
  for (const std::size_t blob : wiring_.outputs()) {
    const Step& maker = steps_[blobs()[blob].maker];
    const auto top = std::find(maker.tops.begin(), maker.tops.end(), blob) - maker.tops.begin();
    outputs_.push_back({.name = blobs()[blob].name,
                        .shape = blobs()[blob].shape,
                        .loss_weight = maker.loss_weights[static_cast<std::size_t>(top)],
                        .blob = blob,
                        .value = {}});
  }
}

at::Tensor Net::forward(const Pass& pass) {
  const at::AutoGradMode graph(phase() == Phase::kTrain);
  loss_.reset();
  iteration_ = pass.iteration;
  values_.assign(blobs().size(), at::Tensor());
  for (const Step& step : steps_) {
    const std::vector<at::Tensor> tops = run_step(step, pass);
    add_losses(step, tops);
    for (std::size_t i = 0; i < tops.size(); ++i) values_[step.tops[i]] = tops[i];
    for (const std::size_t blob : step.frees) values_[blob].reset();
  }
  for (Output& output : outputs_) {
    // Without its graph, which holds the activations.
    output.value = values_[output.blob] = values_[output.blob].detach();
  }
  return loss_.defined() ? loss_.detach() : loss_;
}

std::vector<at::Tensor> Net::run_step(const Step& step, const Pass& pass) {
  if (pass.exchange != nullptr) {
    for (const LayerId layer : step.settles) pass.exchange->settle(layer);
  }
  const Span span(options_.events, pass.iteration, step.forward_span);
  std::vector<at::Tensor> bottoms;
  for (std::size_t i = 0; i < step.bottoms.size(); ++i) {
    const at::Tensor& value = values_[step.bottoms[i]];
    bottoms.push_back(step.stops_gradient[i] ? value.detach() : value);
  }
  ForwardContext context = context_for(step, pass);
  context.overwrite_bottom = step.overwrites;
  const bool tells = pass.debug_info.value_or(debug_info_);
  if (tells) tell_backward(step, bottoms);  // before the layer may overwrite a bottom, which makes it another one
  std::vector<at::Tensor> tops = forward_layer(*step.layer, context, bottoms);
  if (tells) tell_forward(step, tops);
  return tops;
}

std::vector<at::Tensor> Net::run(const Step& step, const Pass& pass, const std::vector<at::Tensor>& bottoms) const {
  return forward_layer(*step.layer, context_for(step, pass), bottoms);
}

ForwardContext Net::context_for(const Step& step, const Pass& pass) const {
  const std::size_t own_records = step.layer->records_per_batch();
  // A second source of another batch size is as far through its records as the first one.
  const auto own = [&](std::uint64_t records) {
    return own_records == 0 ? records : records / records_per_batch_ * own_records;
  };
  return {.iteration = pass.iteration,
          .first_record = own(pass.first_record),
          .records = own_records == 0 ? records_per_batch_ : own_records,
          .record_stride = own(pass.record_stride),
          .workers = pass.exchange,
          .sync_batch_norm = options_.sync_batch_norm,
          .exchange = step.takes_factors ? pass.exchange : nullptr,
          .layer = step.id,
          .sparse_gradient = step.takes_rows && pass.exchange != nullptr && pass.exchange->takes_rows(step.id),
          .record_axis = step.record_axis};
}

void Net::add_losses(const Step& step, const std::vector<at::Tensor>& tops) {
  for (std::size_t i = 0; i < tops.size(); ++i) {
    if (step.loss_weights[i] == 0) continue;
    const at::Tensor sum = tops[i].dim() == 0 ? tops[i] : tops[i].sum();
    const at::Tensor term = step.loss_weights[i] == 1 ? sum : sum * step.loss_weights[i];
    loss_ = loss_.defined() ? loss_ + term : term;
  }
}

void Net::backward() {
  if (!loss_.defined() || !loss_.requires_grad()) {
    throw ConfigError(base::concat("net \"", name_, "\" cannot be trained: ",
                                   has_loss_ ? "its loss depends on no array with an lr_mult other than 0"
                                             : "no layer of phase TRAIN has a loss_weight"));
  }
  const Span span(options_.events, iteration_, "backward");
  const at::Tensor loss = std::exchange(loss_, at::Tensor());
  torch::autograd::backward({loss}, {});
}

at::Tensor Net::blob(const std::string& name) const {
  const std::size_t number = wiring_.find(name);
  if (number < values_.size() && values_[number].defined()) return values_[number];
  std::vector<std::string> names;
  for (const Blob& blob : blobs()) names.push_back(blob.name);
  throw ConfigError(
      number < blobs().size()
          ? base::concat("blob \"", name, "\" of net \"", name_, "\" is not kept: it is no output")
          : base::concat("net \"", name_, "\" has no blob \"", name, "\"", base::did_you_mean(name, names)));
}

void Net::feed(const std::string& blob, const at::Tensor& value) {
  for (const Step& step : steps_) {
    for (std::size_t i = 0; i < step.tops.size(); ++i) {
      if (step.layer->tops()[i] == blob && step.layer->feed(i, value)) return;
    }
  }
  throw ConfigError(base::concat("net \"", name_, "\" has no Input layer with a top \"", blob, "\""));
}

void Net::finish() {
  for (const Step& step : steps_) step.layer->finish();
}

const Step* Net::find_layer(const std::string& layer) const {
  const auto found =
      std::find_if(steps_.begin(), steps_.end(), [&](const Step& s) { return s.layer->name() == layer; });
  return found == steps_.end() ? nullptr : &*found;
}

std::string Net::digest() const {
  base::Sha256 sum;
  for (const NetArray& array : arrays()) {
    sum.update(base::concat(array.name, base::readable_shape(array.shape)));
    sum.update(bytes_of(array.value));
  }
  return base::to_hex(sum.finish());
}

}  // namespace poseidon::caffe
