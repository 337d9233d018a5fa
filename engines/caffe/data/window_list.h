// Window files of R-CNN: images, and rectangles in each with the class of what they show and how well they show it.
//
//   # 0                       the image's number, from 0 on
//   images/a.jpg              its path
//   3 375 500                 channels, height, width
//   2                         how many windows follow
//   12 0.83 10 20 110 220     class, overlap with an object of it, x1 y1 x2 y2, the last ones included
//   0 0.1 40 50 60 70
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace poseidon::caffe {

struct Window {
  std::uint32_t image = 0;  // its index
  int label = 0;
  int x1 = 0;
  int y1 = 0;
  int x2 = 0;
  int y2 = 0;
  std::size_t line = 0;  // from 1
};

// From which overlap on a window shows an object, and below which it is background, whose label is 0. Between the two
// it is neither.
struct WindowThresholds {
  float foreground = 0.5F;
  float background = 0.5F;
};

struct WindowList {
  std::vector<std::string> images;  // paths
  std::vector<Window> foreground;
  std::vector<Window> background;
};

// Words may be separated by any blanks, as Caffe reads them; so a path has none. Throws ConfigError naming the line.
WindowList parse_window_list(std::string_view text, const WindowThresholds& thresholds, const std::string& file_name);
WindowList read_window_list(const std::filesystem::path& file, const WindowThresholds& thresholds);

}  // namespace poseidon::caffe
