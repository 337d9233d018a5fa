// Convolution, Deconvolution and Im2col, over any number of spatial axes.
//
// A bottom is [records..., channels, extents...], with the channels on `axis`. ATen has one operation for both
// convolutions over one to three spatial axes. Over none, where each record is convolved by itself, there is a kernel
// of one element on an axis of one; over more than three the windows are laid out side by side and multiplied, which is
// what force_nd_im2col asks for: it changes no result, and is read without effect.
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/convolution.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <utility>

#include "base/text.h"
#include "engines/caffe/layers/spatial_window.h"
#include "engines/caffe/layers/standard_layers.h"

namespace poseidon::caffe {
namespace {

using Extents = std::vector<std::int64_t>;

constexpr std::size_t kAxesOfAten = 3;

Extents joined(Extents first, const Extents& second) {
  first.insert(first.end(), second.begin(), second.end());
  return first;
}

// The windows of x [records, channels, extents...], as a view: [records, channels, taps..., places...]. A negative pad
// cuts off.
at::Tensor windows_of(const at::Tensor& x, const SpatialWindow& window) {
  const auto axes = static_cast<std::int64_t>(window.axes());
  Extents pads;  // two for each axis, the last axis first
  for (auto pad = window.pad.rbegin(); pad != window.pad.rend(); ++pad) pads.insert(pads.end(), 2, *pad);
  const bool is_padded = std::any_of(pads.begin(), pads.end(), [](std::int64_t pad) { return pad != 0; });
  at::Tensor view = is_padded ? at::constant_pad_nd(x, pads, 0) : x;
  Extents order = {0, 1};
  for (std::int64_t axis = 0; axis < axes; ++axis) {
    const auto i = static_cast<std::size_t>(axis);
    view = view.unfold(2 + axis, window.reach(i), window.stride[i]);  // puts what the kernel reaches over at the end
    view = view.slice(-1, 0, window.reach(i), window.dilation[i]);
    order.push_back(2 + axes + axis);
  }
  for (std::int64_t axis = 0; axis < axes; ++axis) order.push_back(2 + axis);
  return view.permute(order);
}

// [records, outputs, places in a row], for a weight [outputs, channels / groups, taps...].
at::Tensor product_of_windows(const at::Tensor& x, const at::Tensor& weight, const SpatialWindow& window,
                              std::int64_t groups) {
  const at::Tensor windows = windows_of(x, window);
  const std::int64_t outputs = weight.size(0);
  const std::int64_t inputs = weight.numel() / outputs;
  std::int64_t places = 1;
  for (std::int64_t axis = 2 + static_cast<std::int64_t>(window.axes()); axis < windows.dim(); ++axis) {
    places *= windows.size(axis);
  }
  const at::Tensor columns = windows.reshape({x.size(0), groups, inputs, places});
  const at::Tensor rows = weight.reshape({groups, outputs / groups, inputs});
  return at::matmul(rows, columns).reshape({x.size(0), outputs, places});
}

// The adjoint of a convolution is a convolution again: of the bottom with `stride - 1` zeros between its elements, with
// the kernel turned round and its inputs and outputs exchanged.
at::Tensor transposed_product_of_windows(const at::Tensor& x, const at::Tensor& weight, const SpatialWindow& window,
                                         std::int64_t groups) {
  const std::size_t axes = window.axes();
  Extents extents = {x.size(0), x.size(1)};
  for (std::size_t axis = 0; axis < axes; ++axis) {
    extents.push_back((x.size(2 + static_cast<std::int64_t>(axis)) - 1) * window.stride[axis] + 1);
  }
  const at::Tensor spread = at::zeros(extents, x.options());
  at::Tensor places = spread;
  Extents turned_axes;
  SpatialWindow whole = window;
  for (std::size_t axis = 0; axis < axes; ++axis) {
    const auto dimension = static_cast<std::int64_t>(axis) + 2;
    places = places.slice(dimension, 0, extents[axis + 2], window.stride[axis]);
    turned_axes.push_back(dimension + 1);
    whole.pad[axis] = window.reach(axis) - 1 - window.pad[axis];
    whole.stride[axis] = 1;
  }
  places.copy_(x);
  const std::int64_t outputs = weight.size(1);  // of a group
  const at::Tensor turned = weight.reshape(joined({groups, weight.size(0) / groups, outputs}, window.kernel))
                                .transpose(1, 2)
                                .flip(turned_axes)
                                .reshape(joined({groups * outputs, weight.size(0) / groups}, window.kernel));
  return product_of_windows(spread, turned, whole, groups);
}

// What Convolution and Deconvolution have in common.
class ConvolutionLayer : public Layer {
 public:
  std::vector<Shape> top_shapes(const std::vector<Shape>& bottoms) const override {
    const std::size_t axis = canonical_axis(settings_.integer("axis"), bottoms[0]);
    const SpatialWindow window = read_spatial_window(*this, settings_, bottoms[0].size() - axis - 1);
    std::vector<Shape> tops;
    for (std::size_t i = 0; i < bottoms.size(); ++i) {
      check_bottom(i, bottoms[i], bottoms[0], axis);
      tops.push_back(with_channels(bottoms[i], axis, outputs_, top_extents(window, i, bottoms[i], axis)));
    }
    return tops;
  }

  // ATen's convolution keeps its input and weight for the backward pass, not its output.
  bool keeps_tops() const override { return false; }

  std::vector<at::Tensor> forward(const ForwardContext&, const std::vector<at::Tensor>& bottoms) override {
    std::vector<at::Tensor> tops;
    for (std::size_t i = 0; i < bottoms.size(); ++i) tops.push_back(apply(i, bottoms[i]));
    return tops;
  }

 protected:
  ConvolutionLayer(const LayerConfig& config, bool is_transposed)
      : Layer(config, {.bottoms_max = BlobCounts::kAny, .one_top_per_bottom = true}),
        settings_(message().message("convolution_param")),
        is_transposed_(is_transposed),
        outputs_(settings_.integer("num_output")),
        groups_(settings_.integer("group")),
        has_bias_(settings_.flag("bias_term")) {
    if (outputs_ < 1) fail_at(settings_.position("num_output"), "needs num_output, at least 1");
    if (groups_ < 1 || outputs_ % groups_ != 0) {
      fail_at(settings_.position("group"),
              base::concat("has num_output ", outputs_, ", which ", groups_, " groups do not divide"));
    }
  }

 private:
  virtual Extents top_extents(const SpatialWindow& window, std::size_t bottom, const Shape& shape,
                              std::size_t axis) const = 0;

  // The weight is [outputs, channels / groups, taps...], or [channels, outputs / groups, taps...] for Deconvolution,
  // which is the convolution that would lead from its top to its bottom.
  void declare_parameters(const std::vector<Shape>& bottoms) override {
    axis_ = canonical_axis(settings_.integer("axis"), bottoms[0]);
    window_ = read_spatial_window(*this, settings_, bottoms[0].size() - axis_ - 1);
    channels_ = bottoms[0][axis_];
    const Extents sides =
        is_transposed_ ? Extents{channels_, outputs_ / groups_} : Extents{outputs_, channels_ / groups_};
    add_parameter("weight", joined(sides, window_.kernel), read_filler(settings_.message("weight_filler")));
    if (has_bias_) add_parameter("bias", {outputs_}, read_filler(settings_.message("bias_filler")));
  }

  void check_bottom(std::size_t bottom, const Shape& shape, const Shape& first, std::size_t axis) const {
    if (shape.size() != first.size()) {
      fail(base::concat("wants bottoms with as many axes: ", describe_bottom(0, first), ", ",
                        describe_bottom(bottom, shape)));
    }
    const std::int64_t channels = parameters().empty() ? first[axis] : channels_;
    if (shape[axis] != channels) {
      fail(base::concat("has a weight for ", channels, " channels; ", describe_bottom(bottom, shape)));
    }
    if (channels < 1 || channels % groups_ != 0) {
      fail_at(
          settings_.position("group"),
          base::concat("has ", groups_, " groups, which do not divide its channels: ", describe_bottom(bottom, shape)));
    }
  }

  // Without views of the usual shapes: the next layer may work in the top's memory, which autograd makes dear in a
  // view.
  at::Tensor apply(std::size_t number, const at::Tensor& bottom) const {
    const Shape shape = bottom.sizes().vec();
    const SpatialShape split = split_at_channels(shape, axis_);
    const Shape flat = joined({split.records, split.channels}, split.extents);
    const Shape top = with_channels(shape, axis_, outputs_, top_extents(window_, number, shape, axis_));
    const at::Tensor x = shape == flat ? bottom : bottom.reshape(flat);
    const at::Tensor y = window_.axes() > kAxesOfAten ? by_windows(x) : by_aten(x);
    return y.sizes() == top ? y : y.reshape(top);
  }

  at::Tensor by_aten(const at::Tensor& x) const {
    const at::Tensor bias = has_bias_ ? array(1) : at::Tensor();
    const bool has_axes = window_.axes() > 0;
    const Extents ones = {1};
    const Extents zeros = has_axes ? Extents(window_.axes(), 0) : Extents{0};
    return at::convolution(has_axes ? x : x.unsqueeze(2), has_axes ? array(0) : array(0).unsqueeze(2), bias,
                           has_axes ? window_.stride : ones, has_axes ? window_.pad : zeros,
                           has_axes ? window_.dilation : ones, is_transposed_, zeros, groups_);
  }

  at::Tensor by_windows(const at::Tensor& x) const {
    const at::Tensor y = is_transposed_ ? transposed_product_of_windows(x, array(0), window_, groups_)
                                        : product_of_windows(x, array(0), window_, groups_);
    return has_bias_ ? y + array(1).unsqueeze(1) : y;
  }

  proto::Message settings_;
  bool is_transposed_;
  std::int64_t outputs_;
  std::int64_t groups_;
  bool has_bias_;

  // From the bottoms, in setup.
  std::size_t axis_ = 1;
  std::int64_t channels_ = 0;
  SpatialWindow window_;
};

class Convolution final : public ConvolutionLayer {
 public:
  explicit Convolution(const LayerConfig& config) : ConvolutionLayer(config, /*is_transposed=*/false) {}

 private:
  Extents top_extents(const SpatialWindow& window, std::size_t bottom, const Shape& shape,
                      std::size_t axis) const override {
    return places(*this, window, bottom, shape, axis);
  }
};

class Deconvolution final : public ConvolutionLayer {
 public:
  explicit Deconvolution(const LayerConfig& config) : ConvolutionLayer(config, /*is_transposed=*/true) {}

 private:
  Extents top_extents(const SpatialWindow& window, std::size_t bottom, const Shape& shape,
                      std::size_t axis) const override {
    Extents extents;
    for (std::size_t i = 0; i < window.axes(); ++i) {
      const std::int64_t whole = window.stride[i] * (shape[axis + 1 + i] - 1) + window.reach(i);
      if (whole - 2 * window.pad[i] < 1) {
        fail(base::concat("makes ", whole, " elements along axis ", axis + 1 + i, " and has a pad of ", window.pad[i],
                          " to take away on either side: ", describe_bottom(bottom, shape)));
      }
      extents.push_back(whole - 2 * window.pad[i]);
    }
    return extents;
  }
};

// The elements under the kernel at each of its places, as channels: [records..., channels x taps, places...].
class Im2col final : public Layer {
 public:
  explicit Im2col(const LayerConfig& config) : Layer(config, {}), settings_(message().message("convolution_param")) {}

  std::vector<Shape> top_shapes(const std::vector<Shape>& bottoms) const override {
    const Shape& bottom = bottoms[0];
    const std::size_t axis = canonical_axis(settings_.integer("axis"), bottom);
    const SpatialWindow window = read_spatial_window(*this, settings_, bottom.size() - axis - 1);
    return {with_channels(bottom, axis, bottom[axis] * window.taps(), places(*this, window, 0, bottom, axis))};
  }

  std::vector<at::Tensor> forward(const ForwardContext&, const std::vector<at::Tensor>& bottoms) override {
    const Shape bottom = bottoms[0].sizes().vec();
    const std::size_t axis = canonical_axis(settings_.integer("axis"), bottom);
    const SpatialShape split = split_at_channels(bottom, axis);
    const SpatialWindow window = read_spatial_window(*this, settings_, split.extents.size());
    const at::Tensor x = bottoms[0].reshape(joined({split.records, split.channels}, split.extents));
    return {windows_of(x, window).reshape(top_shapes({bottom})[0])};
  }

 private:
  proto::Message settings_;
};

}  // namespace

std::unique_ptr<Layer> make_convolution(const LayerConfig& config) {
  return std::make_unique<Convolution>(config);
}

std::unique_ptr<Layer> make_deconvolution(const LayerConfig& config) {
  return std::make_unique<Deconvolution>(config);
}

std::unique_ptr<Layer> make_im2col(const LayerConfig& config) {
  return std::make_unique<Im2col>(config);
}

}  // namespace poseidon::caffe
