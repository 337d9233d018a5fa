// SPP, spatial pyramid pooling (He et al., ECCV 2014): on level l the image is pooled into 2^l by 2^l bins, and all
// levels' results lie one behind the other in one vector for each record. A pyramid of one level is Caffe's global
// pooling instead, and keeps its axes.
//
// Windows, padding and sizes of each level are Caffe's: kernel and stride are extent / 2^l rounded up, and what is then
// missing at the end is padded half on each side, rounded up. Where that makes a pad as large as the kernel, which
// happens in small images, Caffe refuses the level, and so does Poseidon.
#include <ATen/ops/cat.h>

#include "base/text.h"
#include "engines/caffe/layers/pool.h"
#include "engines/caffe/layers/standard_layers.h"

namespace poseidon::caffe {
namespace {

// The last level then has 32,768 bins along an axis: more than images have pixels.
constexpr std::int64_t kLevelsMax = 16;

class Spp final : public Layer {
 public:
  explicit Spp(const LayerConfig& config)
      : Layer(config, {}),
        settings_(message().message("spp_param")),
        method_(read_pool_method(settings_)),
        levels_(settings_.integer("pyramid_height")) {
    if (levels_ < 1 || levels_ > kLevelsMax) {
      fail_at(settings_.position("pyramid_height"),
              base::concat("needs pyramid_height, from 1 to ", kLevelsMax, "; it is ", levels_));
    }
    for (std::int64_t level = 0; level < levels_; ++level) {
      streams_.emplace_back(seed(), base::concat(name(), ".level", level));
    }
  }

  std::vector<Shape> top_shapes(const std::vector<Shape>& bottoms) const override {
    const Shape& bottom = bottoms[0];
    if (bottom.size() != 4 || bottom[2] < 1 || bottom[3] < 1) {
      fail(base::concat("wants images [records, channels, height, width]; ", describe_bottom(0, bottom)));
    }
    if (levels_ == 1) return {pooled_shape(bottom, level_grid(bottom, 0))};
    std::int64_t features = 0;
    for (std::int64_t level = 0; level < levels_; ++level) {
      const WindowGrid grid = level_grid(bottom, level);
      features += bottom[1] * grid.count[0] * grid.count[1];
    }
    return {{bottom[0], features}};
  }

  // The levels' results are copied into it.
  bool keeps_tops() const override { return false; }

  std::vector<at::Tensor> forward(const ForwardContext& context, const std::vector<at::Tensor>& bottoms) override {
    if (levels_ == 1) return {pooled(context, bottoms[0], 0)};
    std::vector<at::Tensor> levels;
    for (std::int64_t level = 0; level < levels_; ++level) {
      levels.push_back(pooled(context, bottoms[0], level).flatten(1));
    }
    return {at::cat(levels, 1)};
  }

 private:
  WindowGrid level_grid(const Shape& image, std::int64_t level) const {
    Window window;
    for (std::size_t axis = 0; axis < 2; ++axis) {
      const std::int64_t extent = image[axis + 2];
      const std::int64_t bins = std::int64_t{1} << level;
      window.kernel[axis] = (extent + bins - 1) / bins;
      window.stride[axis] = window.kernel[axis];
      window.pad[axis] = (window.kernel[axis] * bins - extent + 1) / 2;
      if (window.pad[axis] >= window.kernel[axis]) {
        fail_at(settings_.position("pyramid_height"),
                base::concat("has a level of ", bins, " bins, too many for ", extent, axis == 0 ? " rows" : " columns",
                             ": windows of ", window.kernel[axis], " would need a padding of ", window.pad[axis], "; ",
                             describe_bottom(0, image)));
      }
    }
    if (method_ == PoolMethod::kStochastic && window.pad != Extent{0, 0}) {
      fail_at(settings_.position("pool"),
              base::concat("has pool STOCHASTIC, which cannot pad, and ", std::int64_t{1} << level,
                           " bins that do not divide the image; ", describe_bottom(0, image)));
    }
    return window_grid(*this, image, window, /*round_up=*/true);
  }

  at::Tensor pooled(const ForwardContext& context, const at::Tensor& image, std::int64_t level) const {
    const Shape shape = image.sizes().vec();
    const WindowGrid grid = level_grid(shape, level);
    if (method_ == PoolMethod::kMax) return pool_maximum(image, grid, /*with_places=*/false).values;
    if (method_ == PoolMethod::kAverage) return pool_average(image, grid);
    if (phase() == Phase::kTest) return pool_by_weight(image, grid);
    const base::RandomStream& stream = streams_[static_cast<std::size_t>(level)];
    return pool_by_draw(image, grid, draw_for_pool(stream, context, pooled_shape(shape, grid), image.scalar_type()));
  }

  proto::Message settings_;
  PoolMethod method_;
  std::int64_t levels_;
  std::vector<base::RandomStream> streams_;  // per level
};

}  // namespace

std::unique_ptr<Layer> make_spp(const LayerConfig& config) {
  return std::make_unique<Spp>(config);
}

}  // namespace poseidon::caffe
