#include "engines/caffe/python/kept_net.h"

#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>

#include "base/text.h"
#include "engines/caffe/proto/config_error.h"

namespace poseidon::caffe::python {

KeptNet::KeptNet(Net& net) : net_(net), graphs_(net.steps().size()) {
  list_blobs();
  list_arrays();
  find_gradients();
  next_.record_stride = net.records_per_batch();
}

void KeptNet::list_blobs() {
  is_remade_.assign(net_.blobs().size(), false);
  std::map<std::string, std::size_t> latest;
  for (std::size_t making = 0; making < net_.blobs().size(); ++making) {
    const caffe::Blob& made = net_.blobs()[making];
    if (const auto before = latest.find(made.name); before != latest.end()) is_remade_[before->second] = true;
    latest[made.name] = making;
    if (!blobs_.contains(made.name)) {
      names_.push_back(made.name);
      blobs_.emplace(made.name, std::make_shared<Blob>(made.shape, net_.dtype()));
    }
    // A loss is where a backward pass begins.
    if (const double weight = loss_weight(making); weight != 0) blob_of(making)->diff().fill_(weight);
  }
}

void KeptNet::list_arrays() {
  for (const NetArray& array : net_.arrays()) arrays_.push_back(std::make_shared<Blob>(array.value, array.shape));
  for (std::size_t step = 0; step < net_.steps().size(); ++step) {
    std::vector<std::shared_ptr<Blob>>& own = arrays_of_.emplace_back();
    for (const std::size_t number : net_.arrays_of(step)) own.push_back(arrays_[number]);
  }
}

void KeptNet::find_gradients() {
  const bool all = net_.force_backward() || !net_.has_loss();
  wants_.assign(net_.blobs().size(), all);
  for (const Step& step : net_.steps()) {
    const std::vector<Parameter>& own = step.layer->parameters();
    bool any = std::any_of(own.begin(), own.end(), [](const Parameter& p) { return p.value.requires_grad(); });
    for (std::size_t i = 0; i < step.bottoms.size(); ++i) {
      any = any || (wants_[step.bottoms[i]] && !step.stops_gradient[i]);
    }
    for (const std::size_t top : step.tops) wants_[top] = all || any;
  }
}

double KeptNet::loss_weight(std::size_t making) const {
  const Step& maker = net_.steps()[net_.blobs()[making].maker];
  const auto top = std::find(maker.tops.begin(), maker.tops.end(), making) - maker.tops.begin();
  return maker.loss_weights[static_cast<std::size_t>(top)];
}

void KeptNet::reshape() {
  for (const Step& step : net_.steps()) {
    if (step.layer->type() == "Input") continue;
    std::vector<Shape> bottoms;
    for (const std::size_t bottom : step.bottoms) bottoms.push_back(blob_of(bottom)->shape());
    const std::vector<Shape> tops = step.layer->top_shapes(bottoms);
    for (std::size_t i = 0; i < tops.size(); ++i) blob_of(step.tops[i])->reshape(tops[i]);
  }
}

// The blobs' own memory, which a script may look at and write into. Where a later layer works in place of a blob, what
// was in it before must be kept for this layer's gradient.
std::vector<at::Tensor> KeptNet::leaves_of(std::size_t index) const {
  const Step& step = net_.steps()[index];
  std::vector<at::Tensor> leaves;
  for (std::size_t i = 0; i < step.bottoms.size(); ++i) {
    const std::size_t bottom = step.bottoms[i];
    const at::Tensor& data = blob_of(bottom)->data();
    leaves.push_back(is_remade_[bottom] ? data.clone() : data.variable_data());
    if (wants_[bottom] && !step.stops_gradient[i] && step.layer->differentiable(i)) leaves.back().requires_grad_();
  }
  return leaves;
}

double KeptNet::forward(const Pass& pass, std::size_t first, std::size_t last) {
  const at::AutoGradMode graph(true);
  double loss = 0;
  bool reads = false;
  for (std::size_t index = first; index <= last; ++index) {
    const Step& step = net_.steps()[index];
    if (step.layer->type() == "Input") continue;
    reads = reads || step.layer->records_per_batch() > 0;
    graphs_[index] = {};
    Graph made{.bottoms = leaves_of(index), .tops = {}};
    made.tops = net_.run(step, pass, made.bottoms);
    for (std::size_t i = 0; i < made.tops.size(); ++i) {
      Blob& top = *blob_of(step.tops[i]);
      const bool same_shape = top.shape() == made.tops[i].sizes();
      top.assign(made.tops[i]);
      if (step.loss_weights[i] == 0) continue;
      if (!same_shape) top.diff().fill_(step.loss_weights[i]);
      loss += step.loss_weights[i] * top.data().sum().item<double>();
    }
    graphs_[index] = std::move(made);
  }
  next_ = {.iteration = pass.iteration + 1,
           .first_record = pass.first_record + (reads ? pass.record_stride : 0),
           .record_stride = pass.record_stride};
  return loss;
}

double KeptNet::forward_next(std::size_t first, std::size_t last) {
  return forward(Pass(next_), first, last);
}

void KeptNet::backward(std::size_t first, std::size_t last) {
  std::vector<bool> written(net_.blobs().size(), false);
  for (std::size_t index = last + 1; index-- > first;) run_backward(index, written, last);
}

void KeptNet::run_backward(std::size_t index, std::vector<bool>& written, std::size_t last) {
  const Step& step = net_.steps()[index];
  const Graph& graph = graphs_[index];
  std::vector<at::Tensor> tops;
  std::vector<at::Tensor> gradients;
  for (std::size_t i = 0; i < graph.tops.size(); ++i) {
    const std::size_t making = step.tops[i];
    if (!graph.tops[i].requires_grad()) continue;
    const std::vector<std::size_t>& readers = net_.blobs()[making].readers;
    const bool read_here = std::any_of(readers.begin(), readers.end(), [&](std::size_t r) { return r <= last; });
    // Its readers had no gradient for it, and what is in its memory is of another pass.
    if (read_here && !written[making]) blob_of(making)->diff().fill_(loss_weight(making));
    tops.push_back(graph.tops[i]);
    gradients.push_back(blob_of(making)->diff().clone());
  }
  if (tops.empty()) return;
  std::vector<at::Tensor> variables;
  std::vector<std::size_t> makings;
  for (std::size_t i = 0; i < graph.bottoms.size(); ++i) {
    if (!graph.bottoms[i].requires_grad()) continue;
    variables.push_back(graph.bottoms[i]);
    makings.push_back(step.bottoms[i]);
  }
  const std::vector<Parameter>& own = step.layer->parameters();
  std::vector<std::size_t> trained;
  for (std::size_t i = 0; i < own.size(); ++i) {
    if (!own[i].value.requires_grad()) continue;
    variables.push_back(own[i].value);
    trained.push_back(i);
  }
  if (variables.empty()) return;
  // Kept for a script that goes backward again, from another top or with other gradients.
  const std::vector<at::Tensor> results = torch::autograd::grad(tops, variables, gradients, /*retain_graph=*/true,
                                                                /*create_graph=*/false, /*allow_unused=*/true);
  for (std::size_t i = 0; i < makings.size(); ++i) {
    if (results[i].defined()) add_gradient(makings[i], results[i], written);
  }
  for (std::size_t i = 0; i < trained.size(); ++i) {
    const at::Tensor& gradient = results[makings.size() + i];
    Blob& array = *arrays_of_[index][trained[i]];
    if (gradient.defined()) array.diff().add_(gradient.view(array.shape()));
  }
}

// The first reader's gradient takes the place of what another pass has left, the others' are added.
void KeptNet::add_gradient(std::size_t making, const at::Tensor& gradient, std::vector<bool>& written) {
  Blob& blob = *blob_of(making);
  if (written[making]) {
    blob.diff().add_(gradient);
  } else {
    const double weight = loss_weight(making);
    blob.assign_diff(weight == 0 ? gradient : gradient.add(weight));
  }
  written[making] = true;
}

void KeptNet::clear_array_diffs() {
  for (const std::shared_ptr<Blob>& array : arrays_) array->diff().zero_();
}

void KeptNet::share_with(const KeptNet& other) {
  const c10::NoGradGuard no_graph;
  for (std::size_t index = 0; index < net_.steps().size(); ++index) {
    const Layer& own = *net_.steps()[index].layer;
    const Step* const theirs = other.net_.find_layer(own.name());
    if (theirs == nullptr) continue;
    const std::vector<Parameter>& arrays = theirs->layer->parameters();
    if (arrays.size() != own.parameters().size()) {
      own.fail(base::concat("has ", own.parameters().size(), " arrays, and its like in the other net ", arrays.size()));
    }
    for (std::size_t i = 0; i < arrays.size(); ++i) {
      if (arrays[i].shape != own.parameters()[i].shape) {
        own.fail(base::concat("has its array ", i, " as ", base::readable_shape(own.parameters()[i].shape),
                              ", and the other net has it as ", base::readable_shape(arrays[i].shape)));
      }
    }
    for (std::size_t i = 0; i < arrays.size(); ++i) {
      at::Tensor mine = own.parameters()[i].value;
      // All who hold the array see it in its new memory.
      mine.set_data(arrays[i].value.variable_data().view(mine.sizes()));
    }
  }
  for (std::size_t i = 0; i < arrays_.size(); ++i) *arrays_[i] = Blob(net_.arrays()[i].value, net_.arrays()[i].shape);
}

}  // namespace poseidon::caffe::python
