// Which part of an image a window becomes, and where in the square that a net sees: R-CNN's warping, with Caffe's
// formulas (Girshick et al., CVPR 2014, appendix A).
#pragma once

#include "engines/caffe/data/window_list.h"

namespace poseidon::caffe {

struct WindowCrop {
  int side = 0;            // of the square
  int context_pad = 0;     // of its pixels on each side show what is around the window
  bool square = false;     // the least square around the window, else the window itself, warped
  bool in_double = false;  // reckon in double, as nets of doubles do, else in float
};

// All in whole pixels. What is cut out is brought to [height, width] and put into the square at (top, left).
struct Placement {
  int cut_x = 0;
  int cut_y = 0;
  int cut_width = 0;
  int cut_height = 0;
  int left = 0;
  int top = 0;
  int width = 0;
  int height = 0;
};

// For an image of these extents. What reaches beyond the image stays empty. Throws ConfigError where the window, or
// with its context all of what is wanted, is not in the image, or nothing of it would be left.
Placement place_window(const Window& window, int image_width, int image_height, const WindowCrop& crop, bool mirrored);

}  // namespace poseidon::caffe
