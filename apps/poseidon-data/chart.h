// A line chart: of how something grows as something doubles, with logarithmic axes, or of how something goes on, with linear
// ones.
//
// The former is read from JSON:
//   {"title": "...", "x": "nodes", "y": "speed-up", "ideal": "ideal",
//    "lines": [{"label": "10Gbit", "points": [[1, 1], [2, 1.98], ...]}, ...]}
// "ideal", where given, is the name of the line y = x.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace poseidon::data {

struct ChartLine {
  std::string label;
  std::vector<std::pair<double, double>> points;  // can_be_drawn; above 0 on logarithmic axes
};

struct Chart {
  std::string title;
  std::string x;
  std::string y;
  std::string ideal;  // may be empty
  std::vector<ChartLine> lines;
  bool linear = false;  // axes that count instead of doubling, and lines without dots
};

// No infinity, nothing like it, and a number.
bool can_be_drawn(double value);

// Throws caffe::ConfigError, saying what is wrong with the text.
Chart parse_chart(std::string_view json);

// Writes a PNG. Throws caffe::ConfigError for a chart without points, caffe::SystemError where the file cannot be written.
void draw(const Chart& chart, const std::string& path);

}  // namespace poseidon::data
