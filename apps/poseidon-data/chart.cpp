#include "apps/poseidon-data/chart.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <iomanip>
#include <nlohmann/json.hpp>
#include <opencv2/imgcodecs.hpp>
#include <opencv2/imgproc.hpp>
#include <sstream>
#include <utility>

#include "base/file.h"
#include "base/text.h"
#include "engines/caffe/proto/config_error.h"
#include "engines/caffe/proto/system_error.h"

namespace poseidon::data {
namespace {

using base::concat;

// Drawn twice as large and then made smaller: OpenCV smooths lines, but not the joints between them.
constexpr int kScale = 2;
constexpr int kWidth = 1000 * kScale;
constexpr int kHeight = 640 * kScale;
constexpr int kLeft = 90 * kScale;
constexpr int kRight = 190 * kScale;  // room for the legend
constexpr int kTop = 60 * kScale;
constexpr int kBottom = 80 * kScale;
constexpr int kFont = cv::FONT_HERSHEY_SIMPLEX;

const cv::Scalar kInk(60, 60, 60);
const cv::Scalar kGrid(225, 225, 225);
const cv::Scalar kIdeal(160, 160, 160);
// Blue, orange, green, vermilion, purple, sky blue: told apart by colour-blind people too (Okabe and Ito, 2008). BGR.
const std::array<cv::Scalar, 6> kColours = {cv::Scalar(178, 114, 0), cv::Scalar(0, 159, 230), cv::Scalar(115, 158, 0),
                                            cv::Scalar(0, 94, 213), cv::Scalar(167, 121, 204), cv::Scalar(233, 180, 86)};

// What an axis shows, and where its lines are.
struct Axis {
  double first = 0;
  double last = 1;
  std::vector<double> marks;
  bool linear = false;

  // How far along the axis a value is, 0 to 1.
  double share_of(double value) const {
    return linear ? (value - first) / (last - first) : std::log2(value / first) / std::log2(last / first);
  }
};

// From a power of two to another, with a mark at each.
Axis doubling_axis(double least, double most) {
  const double first = std::floor(std::log2(least) + 1e-9);
  const double last = std::max(std::ceil(std::log2(most) - 1e-9), first + 1);
  Axis axis{std::exp2(first), std::exp2(last), {}, false};
  for (double e = first; e <= last; ++e) axis.marks.push_back(std::exp2(e));
  return axis;
}

// From one mark to another, 1, 2 or 5 times a power of ten apart, so that there are some five of them.
Axis counting_axis(double least, double most) {
  // Values that are equal but for their last digits would give marks that cannot be told apart.
  const double size = std::max(std::abs(least), std::abs(most));
  const double range = most > least ? std::max({most - least, 1e-9 * size, 1e-100}) : std::max(size, 1.0);
  const double rough = range / 5;
  const double power = std::pow(10, std::floor(std::log10(rough)));
  const double step = power * (rough < 2 * power ? 1 : rough < 5 * power ? 2 : 5);
  const double first = std::floor(least / step + 1e-9);
  const double last = std::max(std::ceil(most / step - 1e-9), first + 1);
  Axis axis{first * step, last * step, {}, true};
  for (double n = first; n <= last; ++n) axis.marks.push_back(n * step);
  return axis;
}

Axis axis_of(const std::vector<double>& values, bool linear) {
  const auto [least, most] = std::minmax_element(values.begin(), values.end());
  return linear ? counting_axis(*least, *most) : doubling_axis(*least, *most);
}

class Canvas {
 public:
  Canvas(Axis x, Axis y) : image_(kHeight, kWidth, CV_8UC3, cv::Scalar(255, 255, 255)), x_(std::move(x)), y_(std::move(y)) {}

  cv::Point at(double x, double y) const {
    return {kLeft + static_cast<int>(std::lround(x_.share_of(x) * (kWidth - kLeft - kRight))),
            kHeight - kBottom - static_cast<int>(std::lround(y_.share_of(y) * (kHeight - kTop - kBottom)))};
  }
  void line(cv::Point from, cv::Point to, const cv::Scalar& colour, int width) {
    cv::line(image_, from, to, colour, width * kScale, cv::LINE_AA);
  }
  // Pieces of a line with as long gaps.
  void dashes(cv::Point from, cv::Point to, const cv::Scalar& colour, int width) {
    const double length = std::hypot(to.x - from.x, to.y - from.y);
    const double step = 8 * kScale;
    const auto along = [&](double way) {
      const double share = std::min(way, length) / length;
      return cv::Point(from.x + static_cast<int>(std::lround((to.x - from.x) * share)),
                       from.y + static_cast<int>(std::lround((to.y - from.y) * share)));
    };
    for (double way = 0; way < length; way += 2 * step) line(along(way), along(way + step), colour, width);
  }
  void dot(cv::Point place, const cv::Scalar& colour) { cv::circle(image_, place, 4 * kScale, colour, cv::FILLED, cv::LINE_AA); }
  // `align` is the share of the text's width that lies left of the place; the text is centred vertically.
  void text(const std::string& words, cv::Point place, double size, double align, const cv::Scalar& colour = kInk) {
    int base_line = 0;
    const cv::Size box = cv::getTextSize(words, kFont, size * kScale, kScale, &base_line);
    const cv::Point start(place.x - static_cast<int>(std::lround(box.width * align)), place.y + box.height / 2);
    cv::putText(image_, words, start, kFont, size * kScale, colour, kScale, cv::LINE_AA);
  }
  // Written upwards.
  void text_upwards(const std::string& words, cv::Point centre, double size) {
    int base_line = 0;
    const cv::Size box = cv::getTextSize(words, kFont, size * kScale, kScale, &base_line);
    const int margin = 4 * kScale;
    cv::Mat level(box.height + base_line + 2 * margin, box.width + 2 * margin, CV_8UC3, cv::Scalar(255, 255, 255));
    cv::putText(level, words, {margin, margin + box.height}, kFont, size * kScale, kInk, kScale, cv::LINE_AA);
    cv::Mat turned;
    cv::rotate(level, turned, cv::ROTATE_90_COUNTERCLOCKWISE);
    const cv::Rect all(0, 0, kWidth, kHeight);
    const cv::Rect place(std::max(0, centre.x - turned.cols / 2), std::max(0, centre.y - turned.rows / 2), turned.cols, turned.rows);
    const cv::Rect seen = place & all;
    turned(cv::Rect(0, 0, seen.width, seen.height)).copyTo(image_(seen));
  }
  cv::Mat finished() const {
    cv::Mat small;
    cv::resize(image_, small, {}, 1.0 / kScale, 1.0 / kScale, cv::INTER_AREA);
    return small;
  }

 private:
  cv::Mat image_;
  Axis x_;
  Axis y_;
};

// 0.25, 8, 1024; without the noise of the last digits.
std::string mark_text(double mark) {
  std::ostringstream text;
  text << std::setprecision(mark == std::floor(mark) && std::abs(mark) < 1e9 ? 10 : 4) << mark;
  return std::move(text).str();
}

void draw_frame(Canvas& canvas, const Chart& chart, const Axis& x, const Axis& y) {
  const cv::Point corner = canvas.at(x.first, y.first);
  const cv::Point end = canvas.at(x.last, y.last);
  for (const double mark : x.marks) {
    const cv::Point foot = canvas.at(mark, y.first);
    canvas.line(foot, {foot.x, end.y}, kGrid, 1);
    canvas.text(mark_text(mark), {foot.x, foot.y + 18 * kScale}, 0.5, 0.5);
  }
  for (const double mark : y.marks) {
    const cv::Point foot = canvas.at(x.first, mark);
    canvas.line(foot, {end.x, foot.y}, kGrid, 1);
    canvas.text(mark_text(mark), {foot.x - 10 * kScale, foot.y}, 0.5, 1);
  }
  canvas.line(corner, {end.x, corner.y}, kInk, 1);
  canvas.line(corner, {corner.x, end.y}, kInk, 1);
  canvas.text(chart.title, {kLeft, kTop / 2}, 0.6, 0);
  canvas.text(chart.x, {(corner.x + end.x) / 2, kHeight - kBottom / 2 + 10 * kScale}, 0.55, 0.5);
  canvas.text_upwards(chart.y, {kLeft / 3, (corner.y + end.y) / 2}, 0.55);
}

}  // namespace

bool can_be_drawn(double value) { return std::abs(value) < 1e100; }

Chart parse_chart(std::string_view json) {
  try {
    const nlohmann::json document = nlohmann::json::parse(json);
    Chart chart{document.value("title", ""), document.value("x", ""), document.value("y", ""), document.value("ideal", ""), {}, false};
    for (const nlohmann::json& entry : document.at("lines")) {
      ChartLine line{entry.value("label", ""), {}};
      for (const nlohmann::json& point : entry.at("points")) line.points.emplace_back(point.at(0), point.at(1));
      chart.lines.push_back(std::move(line));
    }
    return chart;
  } catch (const nlohmann::json::exception& error) {
    throw caffe::ConfigError(concat("no chart: ", error.what()));
  }
}

void draw(const Chart& chart, const std::string& path) {
  std::vector<double> xs;
  std::vector<double> ys;
  for (const ChartLine& line : chart.lines) {
    for (const auto& [x, y] : line.points) {
      const bool is_seen = can_be_drawn(x) && can_be_drawn(y);
      if (!is_seen || (!chart.linear && (x <= 0 || y <= 0))) {
        throw caffe::ConfigError(
            concat("a chart with a point (", x, ", ", y, "); both must be ", is_seen ? "above 0" : "finite"));
      }
      xs.push_back(x);
      ys.push_back(y);
    }
  }
  if (xs.empty()) throw caffe::ConfigError("a chart without points");
  const Axis x = axis_of(xs, chart.linear);
  if (!chart.ideal.empty()) ys.insert(ys.end(), xs.begin(), xs.end());
  const Axis y = axis_of(ys, chart.linear);
  Canvas canvas(x, y);
  draw_frame(canvas, chart, x, y);
  cv::Point legend(kWidth - kRight + 20 * kScale, kTop + 10 * kScale);
  const auto name = [&](const std::string& label, const cv::Scalar& colour, bool is_dashed) {
    const cv::Point end(legend.x + 30 * kScale, legend.y);
    is_dashed ? canvas.dashes(legend, end, colour, 2) : canvas.line(legend, end, colour, 2);
    canvas.text(label, {end.x + 10 * kScale, legend.y}, 0.5, 0);
    legend.y += 24 * kScale;
  };
  if (!chart.ideal.empty()) {
    const auto [least, most] = std::minmax_element(xs.begin(), xs.end());
    canvas.dashes(canvas.at(*least, *least), canvas.at(*most, *most), kIdeal, 2);
    name(chart.ideal, kIdeal, true);
  }
  for (std::size_t l = 0; l < chart.lines.size(); ++l) {
    const cv::Scalar& colour = kColours[l % kColours.size()];
    std::vector<std::pair<double, double>> points = chart.lines[l].points;
    std::sort(points.begin(), points.end());
    for (std::size_t i = 0; i < points.size(); ++i) {
      const cv::Point place = canvas.at(points[i].first, points[i].second);
      if (i > 0) canvas.line(canvas.at(points[i - 1].first, points[i - 1].second), place, colour, 2);
      if (!chart.linear) canvas.dot(place, colour);
    }
    name(chart.lines[l].label, colour, false);
  }
  std::vector<unsigned char> png;
  if (!cv::imencode(".png", canvas.finished(), png)) throw caffe::SystemError("the picture cannot be made a PNG");
  const auto* const bytes = reinterpret_cast<const std::byte*>(png.data());
  if (const Status written = base::write_file_atomically(path, std::span(bytes, png.size())); !written) {
    throw caffe::SystemError(written.error().message);
  }
}

}  // namespace poseidon::data
