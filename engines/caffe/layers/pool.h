// Pooling over the windows of an image, with Caffe's sizes: what Pooling and SPP share.
//
// Caffe rounds the number of windows up by default, and then takes the last one away where it would start behind the
// image and its padding on the near side. (Without padding Caffe keeps such a window although it holds no pixel, and
// yields the lowest float; it is taken away here too.)
#pragma once

#include <ATen/core/Tensor.h>

#include "engines/caffe/layers/window.h"

namespace poseidon::caffe {

enum class PoolMethod : std::uint8_t { kMax, kAverage, kStochastic };

// From the field `pool` of a PoolingParameter or an SPPParameter.
PoolMethod read_pool_method(const proto::Message& settings);

// Where the windows of an image lie.
struct WindowGrid {
  Window window;
  Extent count{1, 1};
  bool round_up = true;
};

// Throws ConfigError where not even one window fits into the image and its padding.
WindowGrid window_grid(const Layer& layer, const Shape& image, const Window& window, bool round_up);
// [records, channels, count[0], count[1]]
Shape pooled_shape(const Shape& image, const WindowGrid& grid);

// The functions below take images [records, channels, height, width].

struct Maxima {
  at::Tensor values;
  at::Tensor places;  // row · width + column in the image, as int64; undefined unless asked for
};
Maxima pool_maximum(const at::Tensor& image, const WindowGrid& grid, bool with_places);

// The sum over a window divided by those of its pixels that lie inside the padded image: padding counts, and what the
// last window has beyond it does not.
at::Tensor pool_average(const at::Tensor& image, const WindowGrid& grid);

// Stochastic pooling (Zeiler and Fergus, ICLR 2013), without padding: the pixels of a window, none of them negative,
// are the weights of a choice. In training one pixel is drawn with them: the first at which the window's running sum,
// row by row, reaches `uniform` times the whole sum, where `uniform` has the result's shape and is in (0, 1). In
// testing the mean is taken with them: the sum of the squares over the sum.
at::Tensor pool_by_draw(const at::Tensor& image, const WindowGrid& grid, const at::Tensor& uniform);
at::Tensor pool_by_weight(const at::Tensor& image, const WindowGrid& grid);

// Draws what pool_by_draw takes, each record's numbers for its own number in the iteration.
at::Tensor draw_for_pool(const base::RandomStream& stream, const ForwardContext& context, const Shape& pooled,
                         at::ScalarType dtype);

}  // namespace poseidon::caffe
