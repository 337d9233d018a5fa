// Dropout as Caffe has it: in training each element is zero with probability `dropout_ratio` and otherwise divided by
// one minus it, so that in testing nothing remains to be done.
//
// A row's mask is drawn for (seed, layer, iteration, number of the row in the global batch): N workers drop what one
// would. In sequences [steps, streams, ...] a row is a stream with all its steps, since streams are what workers share
// out.
#include <ATen/ops/empty.h>
#include <ATen/ops/mul.h>

#include "base/text.h"
#include "engines/caffe/layers/draws.h"
#include "engines/caffe/layers/standard_layers.h"

namespace poseidon::caffe {
namespace {

class Dropout final : public Layer {
 public:
  explicit Dropout(const LayerConfig& config)
      : Layer(config, {}), ratio_(message().message("dropout_param").real("dropout_ratio")), stream_(seed(), name()) {
    if (ratio_ < 0 || ratio_ >= 1) {
      fail_at(message().message("dropout_param").position("dropout_ratio"),
              base::concat("has dropout_ratio ", ratio_, "; it must be at least 0 and below 1"));
    }
  }

  std::vector<Shape> top_shapes(const std::vector<Shape>& bottoms) const override { return bottoms; }

  std::vector<at::Tensor> forward(const ForwardContext& context, const std::vector<at::Tensor>& bottoms) override {
    at::Tensor x = bottoms[0];
    if (phase() == Phase::kTest || x.numel() == 0) return {x};
    const at::Tensor mask = draw(context, x);
    return {context.overwrite_bottom ? x.mul_(mask) : at::mul(x, mask)};
  }

 private:
  at::Tensor draw(const ForwardContext& context, const at::Tensor& x) const {
    const std::int64_t rows = x.dim() == 0 ? 1 : x.size(context.record_axis);
    const at::Tensor turned = context.record_axis == 0 ? x : x.transpose(0, context.record_axis);
    const at::Tensor mask = at::empty(turned.sizes(), x.options().requires_grad(false));
    const MaskDraw wanted{.rows = {.iteration = context.iteration,
                                   .first_row = context.first_row(rows),
                                   .rows = rows,
                                   .row_elements = x.numel() / rows},
                          .drop_ratio = ratio_,
                          .kept_value = 1 / (1 - ratio_)};
    if (x.scalar_type() == at::kDouble) {
      draw_mask(stream_, wanted, mask.mutable_data_ptr<double>());
    } else {
      draw_mask(stream_, wanted, mask.mutable_data_ptr<float>());
    }
    return context.record_axis == 0 ? mask : mask.transpose(0, context.record_axis);
  }

  double ratio_;
  base::RandomStream stream_;
};

}  // namespace

std::unique_ptr<Layer> make_dropout(const LayerConfig& config) {
  return std::make_unique<Dropout>(config);
}

}  // namespace poseidon::caffe
