#include "engines/caffe/layers/loss_normalization.h"

#include <algorithm>
#include <string>

#include "engines/torch/gradient_exchange.h"

namespace poseidon::caffe {
namespace {

using Mode = LossNormalization::Mode;

Mode read_mode(const proto::Message& loss, Mode unstated) {
  if (!loss.has("normalization")) {
    if (!loss.has("normalize")) return unstated;
    return loss.flag("normalize") ? Mode::kValid : Mode::kBatchSize;
  }
  const std::string mode = loss.choice("normalization");
  if (mode == "FULL") return Mode::kFull;
  if (mode == "BATCH_SIZE") return Mode::kBatchSize;
  if (mode == "NONE") return Mode::kNone;
  return Mode::kValid;
}

// What does not depend on the labels' values. VALID is here for labels of which none is ignored.
std::int64_t count(Mode mode, const at::Tensor& labels) {
  switch (mode) {
    case Mode::kFull:
    case Mode::kValid:
      return labels.numel();
    case Mode::kBatchSize:
      return labels.size(0);
    case Mode::kNone:
      break;
  }
  return 1;
}

}  // namespace

LossNormalization::LossNormalization(const proto::Message& loss_param, Mode unstated)
    : mode_(read_mode(loss_param, unstated)) {
  if (loss_param.has("ignore_label")) ignored_ = loss_param.integer("ignore_label");
}

at::Tensor LossNormalization::divided(const at::Tensor& sum, const at::Tensor& labels,
                                      const ForwardContext& context) const {
  if (mode_ == Mode::kValid && ignored_) {
    const at::Tensor own = labels.ne(*ignored_).sum();
    if (!context.has_other_workers()) return sum / own.clamp_min(1);
    double all = 0;
    for (const at::Tensor& count : context.workers->gather(own.to(at::kDouble))) all += count.item<double>();
    return sum * (context.workers->workers() / std::max(1.0, all));
  }
  // What nothing divides is the sum over all workers' records, of which workers' losses have the mean.
  if (mode_ == Mode::kNone && context.has_other_workers()) return sum * context.workers->workers();
  return sum / static_cast<double>(std::max<std::int64_t>(1, count(mode_, labels)));
}

}  // namespace poseidon::caffe
