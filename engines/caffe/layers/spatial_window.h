// The window that slides over any number of axes: what Convolution, Deconvolution and Im2col share of their settings.
#pragma once

#include <cstdint>
#include <vector>

#include "engines/caffe/layers/layer.h"

namespace poseidon::caffe {

// One value for each spatial axis.
struct SpatialWindow {
  std::vector<std::int64_t> kernel;
  std::vector<std::int64_t> stride;
  std::vector<std::int64_t> pad;
  std::vector<std::int64_t> dilation;

  std::size_t axes() const { return kernel.size(); }
  // How many elements the kernel has in all.
  std::int64_t taps() const { return elements_of(kernel); }
  // How far the kernel reaches along an axis: from its first to behind its last tap.
  std::int64_t reach(std::size_t axis) const { return dilation[axis] * (kernel[axis] - 1) + 1; }
};

// From a ConvolutionParameter, whose kernel_size, stride, pad and dilation are one value for all axes or one each, or,
// for two axes, whose fields with _h and _w stand in for them. Without any axis nothing need be said.
SpatialWindow read_spatial_window(const Layer& layer, const proto::Message& settings, std::size_t axes);

// Where a bottom has its channels: axes before them count records, axes behind them are spatial.
struct SpatialShape {
  std::int64_t records = 1;
  std::int64_t channels = 1;
  std::vector<std::int64_t> extents;  // of the spatial axes
};
SpatialShape split_at_channels(const Shape& shape, std::size_t channel_axis);
// The shape with other channels and extents.
Shape with_channels(const Shape& shape, std::size_t channel_axis, std::int64_t channels,
                    const std::vector<std::int64_t>& extents);

// At how many places along each axis the window fits. Throws ConfigError where there is none.
std::vector<std::int64_t> places(const Layer& layer, const SpatialWindow& window, std::size_t bottom,
                                 const Shape& shape, std::size_t channel_axis);

}  // namespace poseidon::caffe
