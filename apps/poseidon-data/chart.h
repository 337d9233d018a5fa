// A line chart of how something grows as something doubles: both axes are logarithmic.
//
// Read from JSON:
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
  std::vector<std::pair<double, double>> points;  // above 0
};

struct Chart {
  std::string title;
  std::string x;
  std::string y;
  std::string ideal;  // may be empty
  std::vector<ChartLine> lines;
};

// Throws caffe::ConfigError, saying what is wrong with the text.
Chart parse_chart(std::string_view json);

// Writes a PNG. Throws caffe::ConfigError for a chart without points, caffe::SystemError where the file cannot be written.
void draw(const Chart& chart, const std::string& path);

}  // namespace poseidon::data
