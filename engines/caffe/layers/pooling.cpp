// Pooling over windows of an image, with Caffe's sizes.
//
// Caffe rounds the number of windows up by default, and then takes the last one away where it would start behind the
// image and its padding on the near side. (Without padding Caffe keeps such a window although it holds no pixel, and
// yields the lowest float; it is taken away here too.) AVE divides by the pixels of the window that lie inside the
// padded image, so padding counts and what the last window has beyond it does not.
//
// ATen counts the same way, but refuses a pad of more than half the kernel. Then the image is padded by hand, and
// pooled without.
#include <ATen/ops/avg_pool2d.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/max_pool2d.h>
#include <ATen/ops/max_pool2d_with_indices.h>
#include <ATen/ops/mean.h>

#include <limits>

#include "base/text.h"
#include "engines/caffe/layers/standard_layers.h"
#include "engines/caffe/layers/window.h"

namespace poseidon::caffe {
namespace {

class Pooling final : public Layer {
 public:
  explicit Pooling(const LayerConfig& config)
      : Layer(config, {.tops_max = is_max(config) ? std::size_t{2} : std::size_t{1}}),
        settings_(message().message("pooling_param")),
        max_(is_max(config)),
        global_(settings_.flag("global_pooling")),
        round_up_(settings_.choice("round_mode") == "CEIL"),
        window_(read_pooling_window(*this, settings_)) {
    if (settings_.choice("pool") == "STOCHASTIC") {
      fail_at(settings_.position("pool"), "has pool STOCHASTIC, which is not supported yet; there are MAX and AVE");
    }
  }

  std::vector<Shape> top_shapes(const std::vector<Shape>& bottoms) const override {
    const Shape& bottom = bottoms[0];
    if (bottom.size() != 4) {
      fail(base::concat("wants images [records, channels, height, width]; ", describe_bottom(0, bottom)));
    }
    const Window window = window_for(bottom);
    return std::vector<Shape>(tops().size(),
                              {bottom[0], bottom[1], windows(bottom, window, 0), windows(bottom, window, 1)});
  }

  // The backward pass needs the input and the places of the maxima.
  bool keeps_tops() const override { return false; }

  std::vector<at::Tensor> forward(const ForwardContext&, const std::vector<at::Tensor>& bottoms) override {
    const at::Tensor& image = bottoms[0];
    if (global_ && !max_) return {image.mean({2, 3}, /*keepdim=*/true)};
    const Shape bottom = image.sizes().vec();
    const Window window = window_for(bottom);
    const Extent size = {windows(bottom, window, 0), windows(bottom, window, 1)};
    if (window.pad[0] > window.kernel[0] / 2 || window.pad[1] > window.kernel[1] / 2) {
      return pool_padded_by_hand(image, window, size);
    }
    return pool(image, window, size);
  }

 private:
  static bool is_max(const LayerConfig& config) {
    return config.message.message("pooling_param").choice("pool") == "MAX";
  }

  Window window_for(const Shape& image) const {
    Window window = window_;
    if (global_) window.kernel = {image[2], image[3]};
    return window;
  }

  std::int64_t windows(const Shape& image, const Window& window, std::size_t axis) const {
    const std::int64_t extent = image[axis + 2];
    const std::int64_t room = extent + 2 * window.pad[axis] - window.kernel[axis];
    const std::int64_t stride = window.stride[axis];
    if (room < 0) {
      fail(base::concat("has a kernel of ", window.kernel[axis], axis == 0 ? " rows" : " columns", " for an image of ",
                        extent + 2 * window.pad[axis], ", padding included; ", describe_bottom(0, image)));
    }
    const std::int64_t count = (room + (round_up_ ? stride - 1 : 0)) / stride + 1;
    const bool last_starts_outside = (count - 1) * stride >= extent + window.pad[axis];
    return last_starts_outside ? count - 1 : count;
  }

  // Rounds up and takes away what is too much, unless ATen's own size is right as it is.
  std::vector<at::Tensor> pool(const at::Tensor& image, const Window& window, const Extent& size) const {
    const auto fit = [&](const at::Tensor& pooled) {
      if (pooled.size(2) == size[0] && pooled.size(3) == size[1]) return pooled;
      return pooled.narrow(2, 0, size[0]).narrow(3, 0, size[1]);
    };
    const Extent dilation = {1, 1};
    if (!max_) {
      return {
          fit(at::avg_pool2d(image, window.kernel, window.stride, window.pad, round_up_, /*count_include_pad=*/true))};
    }
    if (tops().size() == 1) {
      return {fit(at::max_pool2d(image, window.kernel, window.stride, window.pad, dilation, round_up_))};
    }
    const auto [maxima, places] =
        at::max_pool2d_with_indices(image, window.kernel, window.stride, window.pad, dilation, round_up_);
    return {fit(maxima), fit(places).to(dtype())};
  }

  std::vector<at::Tensor> pool_padded_by_hand(const at::Tensor& image, Window window, const Extent& size) const {
    const double border = max_ ? -std::numeric_limits<double>::infinity() : 0;
    const Extent pad = std::exchange(window.pad, {0, 0});
    const at::Tensor padded = at::constant_pad_nd(image, {pad[1], pad[1], pad[0], pad[0]}, border);
    std::vector<at::Tensor> tops = pool(padded, window, size);
    if (tops.size() == 2) {
      // Places count through the padded image; back to the image itself.
      const at::Tensor row = tops[1].div(padded.size(3), "floor");
      const at::Tensor column = tops[1] - row * padded.size(3);
      tops[1] = (row - pad[0]) * image.size(3) + (column - pad[1]);
    }
    return tops;
  }

  proto::Message settings_;
  bool max_;
  bool global_;
  bool round_up_;
  Window window_;
};

}  // namespace

std::unique_ptr<Layer> make_pooling(const LayerConfig& config) {
  return std::make_unique<Pooling>(config);
}

}  // namespace poseidon::caffe
