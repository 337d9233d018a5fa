#include "engines/caffe/data/image_list.h"

#include <algorithm>
#include <charconv>

#include "base/file.h"
#include "base/text.h"
#include "engines/caffe/proto/config_error.h"

namespace poseidon::caffe {
namespace {

using base::concat;

constexpr std::string_view kBlanks = " \t";
// A list of 100 million paths.
constexpr std::size_t kListBytesMax = std::size_t{8} << 30;

}  // namespace

std::vector<ListedImage> parse_image_list(std::string_view text, const std::string& file_name) {
  std::vector<ListedImage> images;
  for (std::size_t number = 1; !text.empty(); ++number) {
    const std::size_t length = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, length);
    text.remove_prefix(std::min(length + 1, text.size()));
    const std::size_t end = line.find_last_not_of(" \t\r");
    if (end == std::string_view::npos) continue;
    line = line.substr(0, end + 1);
    const std::size_t blank = line.find_last_of(kBlanks);
    int label = 0;
    const char* label_begin = blank == std::string_view::npos ? line.data() : line.data() + blank + 1;
    const char* line_end = line.data() + line.size();
    const auto [stopped, failure] = std::from_chars(label_begin, line_end, label);
    if (blank == std::string_view::npos || failure != std::errc{} || stopped != line_end) {
      throw ConfigError(concat(file_name, ":", number, ": \"", line.substr(0, 80),
                               "\" is not a path, a blank and a label (a whole number)"));
    }
    const std::size_t path_end = line.substr(0, blank).find_last_not_of(kBlanks);
    if (path_end == std::string_view::npos)
      throw ConfigError(concat(file_name, ":", number, ": there is no path before the label"));
    images.push_back({std::string(line.substr(0, path_end + 1)), label, number});
  }
  if (images.empty()) throw ConfigError(concat(file_name, ": lists no image"));
  return images;
}

std::vector<ListedImage> read_image_list(const std::filesystem::path& file) {
  const Result<std::string> text = base::read_file(file, kListBytesMax);
  if (!text) throw ConfigError(text.error().message);
  return parse_image_list(*text, file.string());
}

}  // namespace poseidon::caffe
