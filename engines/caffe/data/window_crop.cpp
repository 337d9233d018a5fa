#include "engines/caffe/data/window_crop.h"

#include <algorithm>
#include <cmath>

#include "base/text.h"
#include "engines/caffe/proto/config_error.h"

namespace poseidon::caffe {
namespace {

using base::concat;

// Far beyond any image, and still an int; much context around a large window goes further.
constexpr int kFar = 1 << 28;

template <typename T>
int rounded(T value) {
  return static_cast<int>(std::clamp(std::round(value), static_cast<T>(-kFar), static_cast<T>(kFar)));
}

// The window with what is around it, such that when all of it has become crop.side pixels wide and high, the window
// itself lies context_pad pixels from each edge.
template <typename T>
Window with_context(Window window, const WindowCrop& crop) {
  const T scale = static_cast<T>(crop.side) / static_cast<T>(crop.side - 2 * crop.context_pad);
  T half_height = static_cast<T>(window.y2 - window.y1 + 1) / T{2};
  T half_width = static_cast<T>(window.x2 - window.x1 + 1) / T{2};
  const T center_x = static_cast<T>(window.x1) + half_width;
  const T center_y = static_cast<T>(window.y1) + half_height;
  if (crop.square) half_width = half_height = std::max(half_width, half_height);
  window.x1 = rounded(center_x - half_width * scale);
  window.x2 = rounded(center_x + half_width * scale);
  window.y1 = rounded(center_y - half_height * scale);
  window.y2 = rounded(center_y + half_height * scale);
  return window;
}

template <typename T>
Placement place(const Window& window, int image_width, int image_height, const WindowCrop& crop, bool mirrored) {
  const Window wide = with_context<T>(window, crop);
  const int beyond_left = std::max(0, -wide.x1);
  const int beyond_top = std::max(0, -wide.y1);
  const int beyond_right = std::max(0, wide.x2 - image_width + 1);
  const int beyond_bottom = std::max(0, wide.y2 - image_height + 1);
  Placement placed{.cut_x = wide.x1 + beyond_left, .cut_y = wide.y1 + beyond_top};
  placed.cut_width = wide.x2 - beyond_right - placed.cut_x + 1;
  placed.cut_height = wide.y2 - beyond_bottom - placed.cut_y + 1;

  // By which the whole, with what lies beyond the image, becomes the square.
  const T scale_x = static_cast<T>(crop.side) / static_cast<T>(wide.x2 - wide.x1 + 1);
  const T scale_y = static_cast<T>(crop.side) / static_cast<T>(wide.y2 - wide.y1 + 1);
  placed.left = rounded(static_cast<T>(mirrored ? beyond_right : beyond_left) * scale_x);
  placed.top = rounded(static_cast<T>(beyond_top) * scale_y);
  // Rounding may have made it too large.
  placed.width = std::min(rounded(static_cast<T>(placed.cut_width) * scale_x), crop.side - placed.left);
  placed.height = std::min(rounded(static_cast<T>(placed.cut_height) * scale_y), crop.side - placed.top);
  return placed;
}

}  // namespace

Placement place_window(const Window& window, int image_width, int image_height, const WindowCrop& crop, bool mirrored) {
  if (window.x2 >= image_width || window.y2 >= image_height) {
    throw ConfigError(concat("the window from ", window.x1, " ", window.y1, " to ", window.x2, " ", window.y2,
                             " reaches beyond the image, which is ", image_width, " wide and ", image_height, " high"));
  }
  if (crop.context_pad == 0 && !crop.square) {
    return {.cut_x = window.x1,
            .cut_y = window.y1,
            .cut_width = window.x2 - window.x1 + 1,
            .cut_height = window.y2 - window.y1 + 1,
            .width = crop.side,
            .height = crop.side};
  }
  const Placement placed = crop.in_double ? place<double>(window, image_width, image_height, crop, mirrored)
                                          : place<float>(window, image_width, image_height, crop, mirrored);
  if (placed.cut_width < 1 || placed.cut_height < 1 || placed.width < 1 || placed.height < 1) {
    throw ConfigError(concat("the window from ", window.x1, " ", window.y1, " to ", window.x2, " ", window.y2,
                             " leaves not one pixel in a square of ", crop.side));
  }
  return placed;
}

}  // namespace poseidon::caffe
