#include "engines/caffe/net/debug_info.h"

#include "base/log.h"
#include "base/text.h"

namespace poseidon::caffe {
namespace {

double mean_size(const at::Tensor& values) {
  if (!values.defined() || values.numel() == 0) return 0;
  return values.detach().to(at::kDouble).abs().mean().item<double>();
}

std::string array_name(const Layer& layer, std::size_t number) {
  const std::string& name = layer.parameters()[number].share_name;
  return name.empty() ? std::to_string(number) : name;
}

}  // namespace

void tell_forward(const Step& step, const std::vector<at::Tensor>& tops) {
  const Layer& layer = *step.layer;
  for (std::size_t i = 0; i < tops.size(); ++i) {
    base::log::info(
        base::concat("[Forward] Layer ", layer.name(), ", top blob ", layer.tops()[i], " data: ", mean_size(tops[i])));
  }
  for (std::size_t i = 0; i < layer.parameters().size(); ++i) {
    base::log::info(base::concat("[Forward] Layer ", layer.name(), ", param blob ", array_name(layer, i),
                                 " data: ", mean_size(layer.parameters()[i].value)));
  }
}

void tell_backward(const Step& step, const std::vector<at::Tensor>& bottoms) {
  const Layer& layer = *step.layer;
  for (std::size_t i = 0; i < bottoms.size(); ++i) {
    if (!bottoms[i].requires_grad()) continue;
    const std::string line =
        base::concat("[Backward] Layer ", layer.name(), ", bottom blob ", layer.bottoms()[i], " diff: ");
    bottoms[i].register_hook(
        [line](const at::Tensor& gradient) { base::log::info(base::concat(line, mean_size(gradient))); });
  }
}

void tell_update(const NetArray& array, const at::Tensor& gradient_sum, double divisor) {
  base::log::info(base::concat("[Update] ", array.name, " data: ", mean_size(array.value),
                               "; diff: ", mean_size(gradient_sum) / divisor));
}

}  // namespace poseidon::caffe
