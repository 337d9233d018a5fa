// Convolution of images: tops [records, num_output, height, width].
#include <ATen/ops/conv2d.h>

#include "base/text.h"
#include "engines/caffe/layers/standard_layers.h"
#include "engines/caffe/layers/window.h"

namespace poseidon::caffe {
namespace {

class Convolution final : public Layer {
 public:
  explicit Convolution(const LayerConfig& config)
      : Layer(config, {.bottoms_max = BlobCounts::kAny, .one_top_per_bottom = true}),
        settings_(message().message("convolution_param")),
        window_(read_convolution_window(*this, settings_)),
        outputs_(settings_.integer("num_output")),
        groups_(settings_.integer("group")),
        has_bias_(settings_.flag("bias_term")) {
    if (outputs_ < 1) fail_at(settings_.position("num_output"), "needs num_output, at least 1");
    if (groups_ < 1 || outputs_ % groups_ != 0) {
      fail_at(settings_.position("group"),
              base::concat("has num_output ", outputs_, ", which ", groups_, " groups do not divide"));
    }
    if (settings_.integer("axis") != 1) {
      fail_at(settings_.position("axis"), base::concat("has axis ", settings_.integer("axis"),
                                                       "; only images [records, channels, height, width] with "
                                                       "axis 1 are supported yet"));
    }
  }

  std::vector<Shape> top_shapes(const std::vector<Shape>& bottoms) const override {
    std::vector<Shape> tops;
    for (std::size_t i = 0; i < bottoms.size(); ++i) {
      check_bottom(i, bottoms[i], bottoms[0]);
      tops.push_back({bottoms[i][0], outputs_, top_extent(i, bottoms[i], 0), top_extent(i, bottoms[i], 1)});
    }
    return tops;
  }

  // ATen's convolution keeps its input and weight for the backward pass, not its output.
  bool keeps_tops() const override { return false; }

  std::vector<at::Tensor> forward(const ForwardContext&, const std::vector<at::Tensor>& bottoms) override {
    const at::Tensor weight = array(0);
    const at::Tensor bias = has_bias_ ? array(1) : at::Tensor();
    std::vector<at::Tensor> tops;
    for (const at::Tensor& bottom : bottoms) {
      tops.push_back(at::conv2d(bottom, weight, bias, window_.stride, window_.pad, window_.dilation, groups_));
    }
    return tops;
  }

 private:
  void declare_parameters(const std::vector<Shape>& bottoms) override {
    add_parameter("weight", {outputs_, bottoms[0][1] / groups_, window_.kernel[0], window_.kernel[1]},
                  read_filler(settings_.message("weight_filler")));
    if (has_bias_) add_parameter("bias", {outputs_}, read_filler(settings_.message("bias_filler")));
  }

  void check_bottom(std::size_t bottom, const Shape& shape, const Shape& first) const {
    if (shape.size() != 4) {
      fail(base::concat("wants images [records, channels, height, width]; ", describe_bottom(bottom, shape)));
    }
    const std::int64_t channels = parameters().empty() ? first[1] : parameters()[0].shape[1] * groups_;
    if (shape[1] != channels) {
      fail(base::concat("has a weight for ", channels, " channels; ", describe_bottom(bottom, shape)));
    }
    if (channels % groups_ != 0) {
      fail_at(
          settings_.position("group"),
          base::concat("has ", groups_, " groups, which do not divide its channels: ", describe_bottom(bottom, shape)));
    }
  }

  std::int64_t top_extent(std::size_t bottom, const Shape& shape, std::size_t axis) const {
    const std::int64_t padded = shape[axis + 2] + 2 * window_.pad[axis];
    const std::int64_t reach = window_.dilation[axis] * (window_.kernel[axis] - 1) + 1;
    if (reach > padded) {
      fail(base::concat("has a kernel that reaches over ", reach, axis == 0 ? " rows" : " columns",
                        " of an image with ", padded, ", padding included; ", describe_bottom(bottom, shape)));
    }
    return (padded - reach) / window_.stride[axis] + 1;
  }

  proto::Message settings_;
  Window window_;
  std::int64_t outputs_;
  std::int64_t groups_;
  bool has_bias_;
};

}  // namespace

std::unique_ptr<Layer> make_convolution(const LayerConfig& config) {
  return std::make_unique<Convolution>(config);
}

}  // namespace poseidon::caffe
