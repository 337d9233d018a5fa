#include "engines/caffe/tools/convert_mnist.h"

#include <array>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <set>
#include <string>
#include <string_view>

#include "base/file.h"
#include "base/text.h"
#include "engines/caffe/data/record_protocol.h"
#include "engines/caffe/data/record_store.h"
#include "engines/caffe/proto/config_error.h"
#include "engines/caffe/proto/datum.h"

namespace poseidon::caffe {
namespace {

using base::concat;

constexpr std::uint32_t kImagesMagic = 2051;
constexpr std::uint32_t kLabelsMagic = 2049;
constexpr std::size_t kImagesHeaderBytes = 16;
constexpr std::size_t kLabelsHeaderBytes = 8;
// The largest data set of this kind, EMNIST by class, has 0.5 GiB.
constexpr std::size_t kFileBytesMax = std::size_t{8} << 30;
// How often progress is told.
constexpr std::size_t kTellEvery = 1000;

std::uint64_t number_at(std::string_view bytes, std::size_t place) {
  std::uint64_t number = 0;
  for (std::size_t i = 0; i < 4; ++i) number = number << 8 | static_cast<unsigned char>(bytes[place + i]);
  return number;
}

// One of the two files, and what is said of it where it is wrong.
struct Kind {
  const char* what;
  std::uint32_t magic;
  std::size_t header_bytes;
};

std::string read_idx(const std::filesystem::path& file, const Kind& kind) {
  Result<std::string> bytes = base::read_file(file, kFileBytesMax);
  if (!bytes) throw ConfigError(bytes.error().message);
  if (bytes->starts_with("\x1F\x8B")) throw ConfigError(concat(file.string(), ": is compressed; gunzip it first"));
  if (bytes->size() < kind.header_bytes) {
    throw ConfigError(concat(file.string(), ": is no file of ", kind.what, ": it has ", bytes->size(),
                             " bytes, fewer than ", kind.header_bytes));
  }
  const std::uint64_t magic = number_at(*bytes, 0);
  if (magic == kind.magic) return std::move(*bytes);
  const bool swapped = magic == kImagesMagic || magic == kLabelsMagic;
  throw ConfigError(concat(file.string(), ": is no file of ", kind.what, ": its magic number is ", magic,
                           " and should be ", kind.magic, swapped ? "; the images come first, then the labels" : ""));
}

void require_bytes(const std::filesystem::path& file, std::uint64_t wanted, std::uint64_t given,
                   const std::string& of) {
  if (wanted == given) return;
  throw ConfigError(concat(file.string(), ": has ", given, " bytes and should have ", wanted, " for ", of,
                           given < wanted ? "; it is truncated, get it again" : ""));
}

}  // namespace

ConvertMnistReport convert_mnist(const ConvertMnistOptions& options, const ProgressFn& on_progress) {
  const std::string images = read_idx(options.images, {"images", kImagesMagic, kImagesHeaderBytes});
  const std::string labels = read_idx(options.labels, {"labels", kLabelsMagic, kLabelsHeaderBytes});
  ConvertMnistReport report{number_at(images, 4), number_at(images, 8), number_at(images, 12), 0};
  if (const std::uint64_t label_count = number_at(labels, 4); label_count != report.records) {
    throw ConfigError(concat(options.images.string(), " has ", report.records, " images, and ", options.labels.string(),
                             " has ", label_count, " labels"));
  }
  // Each is below 2^32, so only the third factor can overflow.
  const std::uint64_t pixels = report.rows * report.columns;
  if (report.records == 0 || pixels == 0 || pixels > kValueBytesMax) {
    throw ConfigError(concat(options.images.string(), ": has ", report.records, " images of ", report.rows, " x ",
                             report.columns, " pixels, of which no data base can be made"));
  }
  require_bytes(options.images, kImagesHeaderBytes + report.records * pixels, images.size(),
                concat(report.records, " images of ", report.rows, " x ", report.columns));
  require_bytes(options.labels, kLabelsHeaderBytes + report.records, labels.size(), concat(report.records, " labels"));

  const std::unique_ptr<StoreWriter> writer = create_store({options.database, options.backend, options.overwrite});
  std::set<int> seen;
  proto::Datum datum;
  datum.channels = 1;
  datum.height = static_cast<int>(report.rows);
  datum.width = static_cast<int>(report.columns);
  for (std::size_t i = 0; i < report.records; ++i) {
    if (i % kTellEvery == 0) on_progress({i, report.records});
    datum.bytes.assign(images, kImagesHeaderBytes + i * pixels, pixels);
    datum.label = static_cast<unsigned char>(labels[kLabelsHeaderBytes + i]);
    seen.insert(datum.label);
    std::array<char, 24> key{};
    std::snprintf(key.data(), key.size(), "%08zu", i);
    writer->append(key.data(), proto::datum_bytes(datum));
  }
  writer->finish();
  report.labels = seen.size();
  return report;
}

}  // namespace poseidon::caffe
