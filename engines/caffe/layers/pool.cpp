#include "engines/caffe/layers/pool.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/avg_pool2d.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/max_pool2d.h>
#include <ATen/ops/max_pool2d_with_indices.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "base/text.h"
#include "engines/caffe/layers/draws.h"

namespace poseidon::caffe {
namespace {

constexpr Extent kNoDilation = {1, 1};

std::int64_t count_windows(const Layer& layer, const Shape& image, const Window& window, bool round_up,
                           std::size_t axis) {
  const std::int64_t extent = image[axis + 2];
  const std::int64_t room = extent + 2 * window.pad[axis] - window.kernel[axis];
  const std::int64_t stride = window.stride[axis];
  if (room < 0) {
    layer.fail(base::concat("has a kernel of ", window.kernel[axis], axis == 0 ? " rows" : " columns",
                            " for an image of ", extent + 2 * window.pad[axis], ", padding included; bottom \"",
                            layer.bottoms()[0], "\" is ", base::readable_shape(image)));
  }
  const std::int64_t count = (room + (round_up ? stride - 1 : 0)) / stride + 1;
  const bool last_starts_outside = (count - 1) * stride >= extent + window.pad[axis];
  return last_starts_outside ? count - 1 : count;
}

// ATen refuses a pad of more than half the kernel. Then the image is padded by hand, and pooled without.
bool pads_by_hand(const Window& window) {
  return window.pad[0] > window.kernel[0] / 2 || window.pad[1] > window.kernel[1] / 2;
}

at::Tensor padded(const at::Tensor& image, const Extent& pad, double border) {
  return at::constant_pad_nd(image, {pad[1], pad[1], pad[0], pad[0]}, border);
}

// ATen counts as Caffe does, but may have rounded up to a window too many.
at::Tensor cut_to(const at::Tensor& pooled, const Extent& count) {
  if (pooled.size(2) == count[0] && pooled.size(3) == count[1]) return pooled;
  return pooled.narrow(2, 0, count[0]).narrow(3, 0, count[1]);
}

at::Tensor pool_sum(const at::Tensor& image, const WindowGrid& grid) {
  const Window& window = grid.window;
  return cut_to(at::avg_pool2d(image, window.kernel, window.stride, window.pad, grid.round_up,
                               /*count_include_pad=*/true, /*divisor_override=*/1),
                grid.count);
}

// The image with as many zeros behind its last row and column as the windows reach beyond them.
at::Tensor reaching(const at::Tensor& image, const WindowGrid& grid) {
  Extent missing{};
  for (std::size_t axis = 0; axis < 2; ++axis) {
    const std::int64_t reach = (grid.count[axis] - 1) * grid.window.stride[axis] + grid.window.kernel[axis];
    missing[axis] = std::max<std::int64_t>(0, reach - image.size(static_cast<std::int64_t>(axis) + 2));
  }
  return at::constant_pad_nd(image, {0, missing[1], 0, missing[0]}, 0);
}

// For each window, row · width + column of its pixel number `nth`, counted row by row; [records, channels,
// rows·columns].
at::Tensor places_of(const at::Tensor& nth, const WindowGrid& grid, std::int64_t width) {
  const Window& window = grid.window;
  const at::Tensor row_in_window = nth.div(window.kernel[1], "floor");
  const at::Tensor column_in_window = nth - row_in_window * window.kernel[1];
  const at::Tensor first_rows = at::arange(grid.count[0], nth.options()).mul(window.stride[0]).unsqueeze(1);
  const at::Tensor first_columns = at::arange(grid.count[1], nth.options()).mul(window.stride[1]);
  return ((first_rows + row_in_window) * width + first_columns + column_in_window).flatten(2);
}

}  // namespace

PoolMethod read_pool_method(const proto::Message& settings) {
  const std::string name = settings.choice("pool");
  if (name == "AVE") return PoolMethod::kAverage;
  return name == "STOCHASTIC" ? PoolMethod::kStochastic : PoolMethod::kMax;
}

WindowGrid window_grid(const Layer& layer, const Shape& image, const Window& window, bool round_up) {
  return {.window = window,
          .count = {count_windows(layer, image, window, round_up, 0), count_windows(layer, image, window, round_up, 1)},
          .round_up = round_up};
}

Shape pooled_shape(const Shape& image, const WindowGrid& grid) {
  return {image[0], image[1], grid.count[0], grid.count[1]};
}

Maxima pool_maximum(const at::Tensor& image, const WindowGrid& grid, bool with_places) {
  if (pads_by_hand(grid.window)) {
    WindowGrid bare = grid;
    const Extent pad = std::exchange(bare.window.pad, {0, 0});
    const at::Tensor around = padded(image, pad, -std::numeric_limits<double>::infinity());
    Maxima maxima = pool_maximum(around, bare, with_places);
    if (with_places) {
      // Places count through the padded image; back to the image itself.
      const at::Tensor row = maxima.places.div(around.size(3), "floor");
      const at::Tensor column = maxima.places - row * around.size(3);
      maxima.places = (row - pad[0]) * image.size(3) + (column - pad[1]);
    }
    return maxima;
  }
  const Window& window = grid.window;
  if (!with_places) {
    const at::Tensor maxima =
        at::max_pool2d(image, window.kernel, window.stride, window.pad, kNoDilation, grid.round_up);
    return {.values = cut_to(maxima, grid.count), .places = {}};
  }
  const auto [maxima, places] =
      at::max_pool2d_with_indices(image, window.kernel, window.stride, window.pad, kNoDilation, grid.round_up);
  return {.values = cut_to(maxima, grid.count), .places = cut_to(places, grid.count)};
}

at::Tensor pool_average(const at::Tensor& image, const WindowGrid& grid) {
  WindowGrid bare = grid;
  const bool by_hand = pads_by_hand(grid.window);
  const at::Tensor around = by_hand ? padded(image, std::exchange(bare.window.pad, {0, 0}), 0) : image;
  const Window& window = bare.window;
  return cut_to(at::avg_pool2d(around, window.kernel, window.stride, window.pad, grid.round_up,
                               /*count_include_pad=*/true),
                grid.count);
}

at::Tensor pool_by_draw(const at::Tensor& image, const WindowGrid& grid, const at::Tensor& uniform) {
  const Window& window = grid.window;
  at::Tensor places;
  {
    const c10::NoGradGuard no_graph;
    const at::Tensor windows = reaching(image, grid)
                                   .unfold(2, window.kernel[0], window.stride[0])
                                   .unfold(3, window.kernel[1], window.stride[1])
                                   .narrow(2, 0, grid.count[0])
                                   .narrow(3, 0, grid.count[1])
                                   .flatten(4);
    const at::Tensor running = windows.cumsum(-1);
    const at::Tensor wanted = running.select(-1, running.size(-1) - 1) * uniform;
    // The first of equal maxima; and the first pixel, where negative ones keep the sum from being reached. Zeros behind
    // the image add nothing, so the sum is never reached there first.
    const at::Tensor nth = running.ge(wanted.unsqueeze(-1)).to(at::kByte).argmax(-1);
    places = places_of(nth, grid, image.size(3));
  }
  return image.flatten(2).gather(2, places).view(pooled_shape(image.sizes().vec(), grid));
}

at::Tensor pool_by_weight(const at::Tensor& image, const WindowGrid& grid) {
  const at::Tensor sum = pool_sum(image, grid);
  const at::Tensor positive = sum.gt(0);
  // Divided by one where there is nothing to divide by, so that no gradient is infinite.
  const at::Tensor mean = pool_sum(image.square(), grid) / at::where(positive, sum, 1.0);
  return at::where(positive, mean, at::zeros_like(mean));
}

at::Tensor draw_for_pool(const base::RandomStream& stream, const ForwardContext& context, const Shape& pooled,
                         at::ScalarType dtype) {
  const at::Tensor drawn = at::empty(pooled, at::kDouble);
  draw_rows(stream,
            {.iteration = context.iteration,
             .first_row = context.first_row(pooled[0]),
             .rows = pooled[0],
             .row_elements = elements_of(pooled) / std::max<std::int64_t>(1, pooled[0])},
            {drawn.mutable_data_ptr<double>(), static_cast<std::size_t>(drawn.numel())});
  return drawn.to(dtype);
}

}  // namespace poseidon::caffe
