#include "engines/caffe/data/image_file.h"

#include <algorithm>
#include <cctype>
#include <opencv2/core.hpp>
#include <opencv2/core/utils/logger.hpp>
#include <opencv2/imgcodecs.hpp>
#include <opencv2/imgproc.hpp>
#include <optional>
#include <utility>
#include <vector>

#include "base/file.h"
#include "base/text.h"
#include "engines/caffe/data/jpeg.h"
#include "engines/caffe/proto/config_error.h"

namespace poseidon::caffe {
namespace {

using base::concat;

// Larger files are no photographs but mistakes.
constexpr std::size_t kFileBytesMax = std::size_t{1} << 30;

// Empty where OpenCV must be asked.
cv::Mat decode_jpeg(std::string_view bytes, int mode) {
  thread_local JpegDecoder decoder;
  const std::optional<JpegHeader> header = decoder.open(bytes);
  if (!header) return {};
  const bool gray = mode == cv::IMREAD_GRAYSCALE || (mode == cv::IMREAD_UNCHANGED && header->channels == 1);
  if (!decoder.start(gray ? JpegPixels::kGray : JpegPixels::kBlueFirst)) return {};
  cv::Mat image(header->height, header->width, gray ? CV_8UC1 : CV_8UC3);
  for (int row = 0; row < header->height; ++row) {
    if (!decoder.read(image.ptr(row))) return {};
  }
  if (!decoder.finish()) return {};
  return image;
}

cv::Mat decode(std::string_view bytes, int mode, std::string_view where) {
  cv::Mat image;
  try {
    // OpenCV reads only.
    const cv::Mat raw(1, static_cast<int>(bytes.size()), CV_8UC1, const_cast<char*>(bytes.data()));
    image = decode_jpeg(bytes, mode);
    if (image.empty() && !bytes.empty()) image = cv::imdecode(raw, mode);
  } catch (const cv::Exception& error) {
    throw ConfigError(concat(where, ": cannot be decoded: ", error.err));
  }
  if (image.empty()) throw ConfigError(concat(where, ": is no image that can be decoded (", bytes.size(), " bytes)"));
  if (image.depth() != CV_8U)
    throw ConfigError(concat(where, ": has more than 8 bits a channel, which a record cannot hold"));
  return image;
}

// Interleaved pixels to planes.
proto::Datum planes_of(const cv::Mat& image) {
  proto::Datum datum;
  datum.channels = image.channels();
  datum.height = image.rows;
  datum.width = image.cols;
  datum.bytes.resize(datum.count());
  const std::size_t plane = image.total();
  std::vector<cv::Mat> planes;
  for (int channel = 0; channel < datum.channels; ++channel) {
    planes.emplace_back(image.rows, image.cols, CV_8UC1,
                        datum.bytes.data() + static_cast<std::size_t>(channel) * plane);
  }
  cv::split(image, planes);
  return datum;
}

int mode_of(ImageColor color) {
  switch (color) {
    case ImageColor::kColor:
      return cv::IMREAD_COLOR;
    case ImageColor::kGray:
      return cv::IMREAD_GRAYSCALE;
    case ImageColor::kAsStored:
      return cv::IMREAD_UNCHANGED;
  }
  return cv::IMREAD_UNCHANGED;
}

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return text;
}

bool is_of_kind(const std::filesystem::path& file, const std::string& encoding) {
  const std::string extension = lower(file.extension().string());
  const auto normal = [](const std::string& kind) { return kind == ".jpeg" ? std::string(".jpg") : kind; };
  return normal(extension) == normal("." + lower(encoding));
}

std::string encode(const cv::Mat& image, const std::string& encoding, const std::string& where) {
  std::vector<unsigned char> bytes;
  try {
    if (cv::imencode("." + encoding, image, bytes)) return {bytes.begin(), bytes.end()};
  } catch (const cv::Exception& error) {
    throw ConfigError(concat(where, ": cannot be encoded as ", encoding, ": ", error.err));
  }
  throw ConfigError(concat(where, ": cannot be encoded as ", encoding));
}

}  // namespace

proto::Datum decode_image(std::string_view file_bytes, ImageColor color, std::string_view where) {
  return planes_of(decode(file_bytes, mode_of(color), where));
}

std::string decode_datum(std::string_view datum, ImageColor color, const std::string& where) {
  const proto::Datum encoded = proto::parse_datum(datum, where);
  proto::Datum plain = decode_image(encoded.bytes, color, where);
  plain.label = encoded.label;
  return proto::datum_bytes(std::move(plain));
}

proto::Datum read_image(const std::filesystem::path& file, const ImageOptions& options, int label) {
  Result<std::string> bytes = base::read_file(file, kFileBytesMax);
  if (!bytes) throw ConfigError(bytes.error().message);
  cv::Mat image = decode(*bytes, options.gray ? cv::IMREAD_GRAYSCALE : cv::IMREAD_COLOR, file.string());
  const bool resized = options.resize.width > 0 && options.resize.height > 0;
  proto::Datum datum;
  if (!options.encoding.empty() && !resized && !options.gray && is_of_kind(file, options.encoding)) {
    datum.encoded = true;
    datum.bytes = std::move(bytes).value();
  } else {
    if (resized) {
      cv::Mat other;
      cv::resize(image, other, cv::Size(options.resize.width, options.resize.height), 0, 0, cv::INTER_LINEAR);
      image = other;
    }
    if (options.encoding.empty()) {
      datum = planes_of(image);
    } else {
      datum.encoded = true;
      datum.bytes = encode(image, options.encoding, file.string());
    }
  }
  datum.label = label;
  return datum;
}

bool can_encode(const std::string& encoding) {
  try {
    return cv::haveImageWriter("x." + encoding);
  } catch (const cv::Exception&) {
    return false;
  }
}

void prepare_image_library() {
  cv::utils::logging::setLogLevel(cv::utils::logging::LOG_LEVEL_SILENT);
  // OpenCV also prints each exception before it throws it.
  cv::redirectError([](int, const char*, const char*, const char*, int, void*) { return 0; });
  cv::setNumThreads(1);
}

}  // namespace poseidon::caffe
