#include "engines/caffe/data/window_list.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>

#include "base/file.h"
#include "base/text.h"
#include "engines/caffe/proto/config_error.h"

namespace poseidon::caffe {
namespace {

using base::concat;

// A list of 200 million windows.
constexpr std::size_t kListBytesMax = std::size_t{8} << 30;
constexpr std::string_view kBlanks = " \t\r\n\v\f";
// Caffe keeps coordinates as floats, which have all whole numbers up to this one.
constexpr int kCoordinateMax = 1 << 24;

class Words {
 public:
  Words(std::string_view text, const std::string& file_name) : text_(text), file_name_(file_name) { pass_blanks(); }

  bool at_end() const { return place_ == text_.size(); }
  std::size_t line() const { return line_; }

  std::string_view next(std::string_view what) {
    if (at_end()) fail(concat("the file ends where ", what, " should be; it is truncated"));
    word_line_ = line_;
    const std::size_t end = std::min(text_.find_first_of(kBlanks, place_), text_.size());
    const std::string_view word = text_.substr(place_, end - place_);
    place_ = end;
    pass_blanks();
    return word;
  }
  template <typename Number>
  Number number(std::string_view what, Number least, Number most) {
    const std::string_view word = next(what);
    Number value{};
    const auto [end, failure] = std::from_chars(word.data(), word.data() + word.size(), value);
    const bool in_range = failure == std::errc{} && end == word.data() + word.size() && value >= least && value <= most;
    if (!in_range) fail(concat("\"", word.substr(0, 80), "\" is not ", what));
    return value;
  }
  // About the word that came last.
  [[noreturn]] void fail(const std::string& text) const {
    throw ConfigError(concat(file_name_, ":", word_line_, ": ", text));
  }

 private:
  void pass_blanks() {
    const std::size_t end = std::min(text_.find_first_not_of(kBlanks, place_), text_.size());
    line_ += static_cast<std::size_t>(std::count(text_.begin() + static_cast<std::ptrdiff_t>(place_),
                                                 text_.begin() + static_cast<std::ptrdiff_t>(end), '\n'));
    place_ = end;
  }

  std::string_view text_;
  const std::string& file_name_;
  std::size_t place_ = 0;
  std::size_t line_ = 1;
  std::size_t word_line_ = 1;
};

void read_window(Words& words, const WindowThresholds& thresholds, WindowList& into) {
  Window window{.image = static_cast<std::uint32_t>(into.images.size() - 1), .line = words.line()};
  window.label = words.number<int>("a window's class (a whole number)", 0, kCoordinateMax);
  const float overlap = words.number<float>("a window's overlap (a number)", -std::numeric_limits<float>::max(),
                                            std::numeric_limits<float>::max());
  for (int* const coordinate : {&window.x1, &window.y1, &window.x2, &window.y2}) {
    *coordinate = words.number<int>("a window's x1, y1, x2 or y2 (a whole number, from 0 on)", 0, kCoordinateMax);
  }
  if (window.x2 < window.x1 || window.y2 < window.y1) {
    words.fail(concat("a window from ", window.x1, " ", window.y1, " to ", window.x2, " ", window.y2,
                      " has nothing in it; its corners are x1 y1 x2 y2, upper left first"));
  }
  if (overlap >= thresholds.foreground) {
    if (window.label == 0) {
      words.fail(concat("a window with an overlap of ", overlap, ", from fg_threshold (", thresholds.foreground,
                        ") on, shows an object, and class 0 is the background's"));
    }
    into.foreground.push_back(window);
  } else if (overlap < thresholds.background) {
    window.label = 0;
    into.background.push_back(window);
  }
}

}  // namespace

WindowList parse_window_list(std::string_view text, const WindowThresholds& thresholds, const std::string& file_name) {
  Words words(text, file_name);
  WindowList list;
  while (!words.at_end()) {
    if (words.next("#") != "#") words.fail("an image begins with # and its number");
    const auto number =
        words.number<std::size_t>("the number of an image", 0, std::numeric_limits<std::uint32_t>::max());
    if (number != list.images.size()) {
      words.fail(concat("image ", number, " comes where image ", list.images.size(),
                        " should be; images are numbered 0, 1, 2, ..."));
    }
    list.images.emplace_back(words.next("the path of an image"));
    // Windows are always read in colour.
    if (const int channels = words.number<int>("the number of channels", 1, kCoordinateMax); channels != 3) {
      words.fail(concat("an image of ", channels, " channels; images are read with three"));
    }
    words.number<int>("the image's height", 1, kCoordinateMax);
    words.number<int>("the image's width", 1, kCoordinateMax);
    const auto windows = words.number<std::size_t>("the number of windows", 0, kListBytesMax);
    for (std::size_t i = 0; i < windows; ++i) read_window(words, thresholds, list);
  }
  if (list.images.empty()) throw ConfigError(concat(file_name, ": lists no image"));
  return list;
}

WindowList read_window_list(const std::filesystem::path& file, const WindowThresholds& thresholds) {
  const Result<std::string> text = base::read_file(file, kListBytesMax);
  if (!text) throw ConfigError(text.error().message);
  return parse_window_list(*text, thresholds, file.string());
}

}  // namespace poseidon::caffe
