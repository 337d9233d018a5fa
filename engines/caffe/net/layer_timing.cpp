#include "engines/caffe/net/layer_timing.h"

#include <ATen/ops/full_like.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <chrono>
#include <optional>

#include "engines/caffe/proto/config_error.h"

namespace poseidon::caffe {
namespace {

template <typename Action>
double milliseconds_of(const Action& action) {
  const auto begin = std::chrono::steady_clock::now();
  action();
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count();
}

Spread spread_of(std::vector<double> times) {
  if (times.empty()) return {};
  std::sort(times.begin(), times.end());
  const std::size_t middle = times.size() / 2;
  const double median = times.size() % 2 == 1 ? times[middle] : (times[middle - 1] + times[middle]) / 2;
  return {.median_ms = median, .min_ms = times.front(), .max_ms = times.back()};
}

// One pass, with the graph cut in front of each layer.
class CutPass {
 public:
  CutPass(const Net& net, const Pass& pass)
      : net_(net),
        pass_(pass),
        values_(net.blobs().size()),
        gradients_(net.blobs().size()),
        bottoms_(net.steps().size()) {}

  double forward(std::size_t index) {
    const Step& step = net_.steps()[index];
    for (std::size_t i = 0; i < step.bottoms.size(); ++i) {
      const at::Tensor& value = values_[step.bottoms[i]];
      at::Tensor leaf = value.detach();
      if (value.requires_grad() && !step.stops_gradient[i]) leaf.requires_grad_();
      bottoms_[index].push_back(leaf);
    }
    std::vector<at::Tensor> tops;
    const double time = milliseconds_of([&] { tops = net_.run(step, pass_, bottoms_[index]); });
    for (std::size_t i = 0; i < tops.size(); ++i) {
      values_[step.tops[i]] = tops[i];
      if (step.loss_weights[i] != 0) gradients_[step.tops[i]] = at::full_like(tops[i], step.loss_weights[i]);
    }
    return time;
  }

  // Nothing where no gradient comes from above, or none is wanted below.
  std::optional<double> backward(std::size_t index) {
    const Step& step = net_.steps()[index];
    std::vector<at::Tensor> tops;
    std::vector<at::Tensor> gradients;
    for (const std::size_t top : step.tops) {
      if (!gradients_[top].defined() || !values_[top].requires_grad()) continue;
      tops.push_back(values_[top]);
      gradients.push_back(gradients_[top]);
    }
    if (tops.empty()) return std::nullopt;
    std::vector<at::Tensor> variables;
    std::vector<std::size_t> blobs;
    for (std::size_t i = 0; i < step.bottoms.size(); ++i) {
      if (!bottoms_[index][i].requires_grad()) continue;
      variables.push_back(bottoms_[index][i]);
      blobs.push_back(step.bottoms[i]);
    }
    for (const Parameter& parameter : step.layer->parameters()) {
      if (parameter.value.requires_grad()) variables.push_back(parameter.value);
    }
    if (variables.empty()) return std::nullopt;
    std::vector<at::Tensor> results;
    const double time = milliseconds_of([&] {
      results = torch::autograd::grad(tops, variables, gradients, /*retain_graph=*/false, /*create_graph=*/false,
                                      /*allow_unused=*/true);
    });
    for (std::size_t i = 0; i < blobs.size(); ++i) {
      at::Tensor& sum = gradients_[blobs[i]];
      if (results[i].defined()) sum = sum.defined() ? sum + results[i] : results[i];
    }
    return time;
  }

 private:
  const Net& net_;
  Pass pass_;
  std::vector<at::Tensor> values_;                // per blob, with the graph of its maker alone
  std::vector<at::Tensor> gradients_;             // per blob
  std::vector<std::vector<at::Tensor>> bottoms_;  // per step: leaves
};

struct Times {
  std::vector<double> forward;
  std::vector<double> backward;
};

Pass pass_number(const Net& net, int iteration) {
  const std::uint64_t records = net.records_per_batch();
  return {.iteration = static_cast<Iteration>(iteration),
          .first_record = static_cast<std::uint64_t>(iteration) * records,
          .record_stride = records};
}

void time_cut_pass(const Net& net, const Pass& pass, std::vector<Times>& times) {
  CutPass cut(net, pass);
  for (std::size_t i = 0; i < times.size(); ++i) times[i].forward.push_back(cut.forward(i));
  for (std::size_t i = times.size(); i-- > 0;) {
    if (const std::optional<double> time = cut.backward(i)) times[i].backward.push_back(*time);
  }
}

void time_whole_pass(Net& net, const Pass& pass, Times& times) {
  times.forward.push_back(milliseconds_of([&] { net.forward(pass); }));
  if (!net.has_loss() || net.parameters().empty() || net.phase() == Phase::kTest) return;
  times.backward.push_back(milliseconds_of([&] { net.backward(); }));
  for (const aten::LayerParameters& layer : net.parameters()) {
    for (const at::Tensor& parameter : layer.parameters) parameter.mutable_grad().reset();
  }
}

}  // namespace

NetTime time_layers(Net& net, int iterations) {
  std::vector<Times> layers(net.steps().size());
  Times whole;
  for (int i = 0; i <= iterations; ++i) {
    if (i == 1) {
      layers.assign(net.steps().size(), {});
      whole = {};
    }
    time_cut_pass(net, pass_number(net, 2 * i), layers);
    time_whole_pass(net, pass_number(net, 2 * i + 1), whole);
  }
  NetTime time{.layers = {}, .forward = spread_of(whole.forward), .backward = spread_of(whole.backward)};
  for (std::size_t i = 0; i < layers.size(); ++i) {
    const Layer& layer = *net.steps()[i].layer;
    time.layers.push_back({.name = layer.name(),
                           .type = layer.type(),
                           .forward = spread_of(layers[i].forward),
                           .backward = spread_of(layers[i].backward)});
  }
  return time;
}

}  // namespace poseidon::caffe
