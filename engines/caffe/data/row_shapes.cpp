#include "engines/caffe/data/row_shapes.h"

#include <algorithm>
#include <charconv>

namespace poseidon::caffe {

std::string row_shapes_text(const std::vector<std::vector<std::int64_t>>& shapes) {
  std::string text;
  for (std::size_t i = 0; i < shapes.size(); ++i) {
    if (i > 0) text += ',';
    for (std::size_t axis = 0; axis < shapes[i].size(); ++axis) {
      if (axis > 0) text += 'x';
      text += std::to_string(shapes[i][axis]);
    }
  }
  return text;
}

std::vector<std::vector<std::int64_t>> parse_row_shapes(std::string_view text) {
  std::vector<std::vector<std::int64_t>> shapes(1);
  while (!text.empty()) {
    if (text.front() == ',') shapes.emplace_back();
    if (text.front() == ',' || text.front() == 'x') {
      text.remove_prefix(1);
      continue;
    }
    std::int64_t extent = 0;
    const char* const end = std::from_chars(text.data(), text.data() + text.size(), extent).ptr;
    shapes.back().push_back(extent);
    text.remove_prefix(std::max<std::size_t>(1, static_cast<std::size_t>(end - text.data())));
  }
  return shapes;
}

}  // namespace poseidon::caffe
