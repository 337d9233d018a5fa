// Pooling over windows of an image: MAX, AVE and STOCHASTIC.
#include <ATen/ops/mean.h>

#include "base/text.h"
#include "engines/caffe/layers/pool.h"
#include "engines/caffe/layers/standard_layers.h"

namespace poseidon::caffe {
namespace {

class Pooling final : public Layer {
 public:
  explicit Pooling(const LayerConfig& config)
      : Layer(config, {.tops_max = is_max(config) ? std::size_t{2} : std::size_t{1}}),
        settings_(message().message("pooling_param")),
        method_(read_pool_method(settings_)),
        global_(settings_.flag("global_pooling")),
        round_up_(settings_.choice("round_mode") == "CEIL"),
        window_(read_pooling_window(*this, settings_)),
        stream_(seed(), name()) {
    if (method_ == PoolMethod::kStochastic && window_.pad != Extent{0, 0}) {
      fail_at(settings_.position("pool"), "has pool STOCHASTIC and a pad; only MAX and AVE can pad");
    }
  }

  std::vector<Shape> top_shapes(const std::vector<Shape>& bottoms) const override {
    const Shape& bottom = bottoms[0];
    if (bottom.size() != 4) {
      fail(base::concat("wants images [records, channels, height, width]; ", describe_bottom(0, bottom)));
    }
    return std::vector<Shape>(tops().size(), pooled_shape(bottom, grid_for(bottom)));
  }

  // The backward pass needs the input and the places of the maxima.
  bool keeps_tops() const override { return false; }

  std::vector<at::Tensor> forward(const ForwardContext& context, const std::vector<at::Tensor>& bottoms) override {
    const at::Tensor& image = bottoms[0];
    const WindowGrid grid = grid_for(image.sizes().vec());
    switch (method_) {
      case PoolMethod::kMax: {
        const Maxima maxima = pool_maximum(image, grid, tops().size() == 2);
        if (tops().size() == 1) return {maxima.values};
        return {maxima.values, maxima.places.to(dtype())};
      }
      case PoolMethod::kAverage:
        return {global_ ? image.mean({2, 3}, /*keepdim=*/true) : pool_average(image, grid)};
      case PoolMethod::kStochastic:
        break;
    }
    if (phase() == Phase::kTest) return {pool_by_weight(image, grid)};
    return {pool_by_draw(
        image, grid, draw_for_pool(stream_, context, pooled_shape(image.sizes().vec(), grid), image.scalar_type()))};
  }

 private:
  static bool is_max(const LayerConfig& config) {
    return read_pool_method(config.message.message("pooling_param")) == PoolMethod::kMax;
  }

  WindowGrid grid_for(const Shape& image) const {
    Window window = window_;
    if (global_) window.kernel = {image[2], image[3]};
    return window_grid(*this, image, window, round_up_);
  }

  proto::Message settings_;
  PoolMethod method_;
  bool global_;
  bool round_up_;
  Window window_;
  base::RandomStream stream_;
};

}  // namespace

std::unique_ptr<Layer> make_pooling(const LayerConfig& config) {
  return std::make_unique<Pooling>(config);
}

}  // namespace poseidon::caffe
