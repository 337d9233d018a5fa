#include "engines/caffe/tools/convert_images.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdio>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <thread>
#include <utility>

#include "base/philox.h"
#include "base/text.h"
#include "engines/caffe/data/image_file.h"
#include "engines/caffe/data/image_list.h"
#include "engines/caffe/data/record_store.h"
#include "engines/caffe/proto/config_error.h"
#include "engines/caffe/proto/datum.h"

namespace poseidon::caffe {
namespace {

using base::concat;

// Images that are decoded side by side before they are written in order: enough for many threads, little memory.
constexpr std::size_t kBatch = 256;

// One image after decoding, or why there is none.
struct Decoded {
  std::string record;  // a Datum
  std::string extents;
  std::size_t pixels = 0;
  std::optional<std::string> failure;
};

std::string key_of(std::size_t place, const std::string& path) {
  std::array<char, 24> number{};
  std::snprintf(number.data(), number.size(), "%08zu_", place);
  return number.data() + path;
}

void require_sensible(const ConvertImagesOptions& options) {
  const auto file_is = [](const std::filesystem::path& path, std::filesystem::file_type type) {
    std::error_code failure;
    return std::filesystem::status(path, failure).type() == type;
  };
  if ((options.resize_width > 0) != (options.resize_height > 0)) {
    throw ConfigError(
        "--resize-width and --resize-height belong together: give both, or none to keep the images' sizes");
  }
  if (!options.encode_type.empty() && !can_encode(options.encode_type)) {
    throw ConfigError(concat("images cannot be written as \"", options.encode_type,
                             "\"; --encode-type takes png, jpg, bmp and the like"));
  }
  if (options.check_size && (options.encoded || !options.encode_type.empty())) {
    throw ConfigError("--check-size compares pixels, which encoded images do not show; leave one of the two out");
  }
  if (!file_is(options.root, std::filesystem::file_type::directory)) {
    throw ConfigError(
        concat("there is no folder ", options.root.string(), "; it is where the paths of the list begin"));
  }
}

// What an encoded image is kept as: what was asked for, or the kind of the file.
std::string encoding_of(const ConvertImagesOptions& options, const ListedImage& image) {
  if (!options.encode_type.empty()) return options.encode_type;
  if (!options.encoded) return "";
  const std::string extension = std::filesystem::path(image.path).extension().string();
  if (extension.size() < 2) {
    throw ConfigError(concat(image.path, ": has no extension that says what kind of image it is; give --encode-type"));
  }
  return extension.substr(1);
}

Decoded decode(const ConvertImagesOptions& options, const ListedImage& image) {
  Decoded decoded;
  try {
    const ImageOptions how{options.gray, {options.resize_width, options.resize_height}, encoding_of(options, image)};
    const proto::Datum datum = read_image(options.root / image.path, how, image.label);
    decoded.extents =
        datum.encoded ? "encoded" : concat("[", datum.channels, ", ", datum.height, ", ", datum.width, "]");
    decoded.pixels = datum.bytes.size();
    decoded.record = proto::datum_bytes(datum);
  } catch (const ConfigError& error) {
    decoded.failure = concat(options.list.string(), ":", image.line, ": ", error.what());
  }
  return decoded;
}

std::vector<Decoded> decode_side_by_side(const ConvertImagesOptions& options, std::span<const ListedImage> images) {
  std::vector<Decoded> decoded(images.size());
  std::atomic<std::size_t> next{0};
  const auto work = [&] {
    for (std::size_t i = next++; i < images.size(); i = next++) decoded[i] = decode(options, images[i]);
  };
  const unsigned cores = std::max(1U, std::thread::hardware_concurrency());
  const std::size_t threads = std::min<std::size_t>(options.threads == 0 ? cores : options.threads, images.size());
  std::vector<std::jthread> helpers;
  for (std::size_t i = 1; i < threads; ++i) helpers.emplace_back(work);
  work();
  helpers.clear();
  return decoded;
}

// Writes records in order, and counts what it sees.
class Conversion {
 public:
  Conversion(const ConvertImagesOptions& options, const std::function<void(const std::string&)>& on_skip)
      : options_(options),
        on_skip_(on_skip),
        writer_(create_store({options.database, options.backend, options.overwrite})) {}

  void write(std::size_t place, const ListedImage& image, const Decoded& decoded) {
    if (decoded.failure) {
      if (!options_.skip_unreadable)
        throw ConfigError(*decoded.failure + "; --skip-unreadable passes over such images");
      on_skip_(*decoded.failure);
      ++report_.skipped;
      return;
    }
    if (report_.written == 0) {
      report_.extents = decoded.extents;
      first_pixels_ = decoded.pixels;
    }
    if (options_.check_size && decoded.pixels != first_pixels_) {
      throw ConfigError(concat(options_.list.string(), ":", image.line, ": ", image.path, " is ", decoded.extents,
                               " and the images before are ", report_.extents,
                               "; give --resize-width and --resize-height, or leave out --check-size"));
    }
    if (decoded.extents != report_.extents) report_.extents = "of several sizes";
    writer_->append(key_of(place, image.path), decoded.record);
    labels_.insert(image.label);
    ++report_.written;
  }

  ConvertImagesReport finish() {
    if (report_.written == 0)
      throw ConfigError(concat(options_.list.string(), ": not one image could be read, so no data base is made"));
    writer_->finish();
    report_.labels = labels_.size();
    return report_;
  }

 private:
  const ConvertImagesOptions& options_;
  const std::function<void(const std::string&)>& on_skip_;
  std::unique_ptr<StoreWriter> writer_;
  ConvertImagesReport report_;
  std::size_t first_pixels_ = 0;
  std::set<int> labels_;
};

}  // namespace

ConvertImagesReport convert_images(const ConvertImagesOptions& options, const ProgressFn& on_progress,
                                   const std::function<void(const std::string&)>& on_skip) {
  require_sensible(options);
  std::vector<ListedImage> images = read_image_list(options.list);
  if (options.shuffle) shuffle(std::span(images), base::RandomStream(options.seed, "convert-images"), 0);

  Conversion conversion(options, on_skip);
  for (std::size_t begin = 0; begin < images.size(); begin += kBatch) {
    on_progress({begin, images.size()});
    const std::span<const ListedImage> batch =
        std::span(images).subspan(begin, std::min(kBatch, images.size() - begin));
    const std::vector<Decoded> decoded = decode_side_by_side(options, batch);
    for (std::size_t i = 0; i < batch.size(); ++i) conversion.write(begin + i, batch[i], decoded[i]);
  }
  return conversion.finish();
}

}  // namespace poseidon::caffe
