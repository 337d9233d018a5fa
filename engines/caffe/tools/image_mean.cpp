#include "engines/caffe/tools/image_mean.h"

#include <numeric>
#include <string>

#include "base/text.h"
#include "engines/caffe/data/record_reader.h"
#include "engines/caffe/proto/config_error.h"
#include "engines/caffe/proto/datum.h"

namespace poseidon::caffe {
namespace {

using base::concat;

constexpr std::size_t kTellEvery = 100;

std::string extents(const proto::Datum& datum) {
  return concat("[", datum.channels, ", ", datum.height, ", ", datum.width, "]");
}

void add(const proto::Datum& datum, std::vector<double>& sums) {
  if (datum.floats.empty()) {
    for (std::size_t i = 0; i < sums.size(); ++i) sums[i] += static_cast<unsigned char>(datum.bytes[i]);
  } else {
    for (std::size_t i = 0; i < sums.size(); ++i) sums[i] += static_cast<double>(datum.floats[i]);
  }
}

}  // namespace

ImageMean image_mean(const std::filesystem::path& database, std::optional<Backend> backend,
                     const ProgressFn& on_progress) {
  RecordReader reader({.source = database, .backend = backend, .program = {}});
  // Of a LevelDB it is known only when its first record comes again.
  const std::size_t expected = reader.size().value_or(0);
  const std::string first_key = reader.peek().key;
  std::size_t records = 0;
  proto::Datum first;
  std::vector<double> sums;
  do {
    if (records % kTellEvery == 0) on_progress({records, expected});
    const Record record = reader.next();
    const std::string place = concat(database.string(), ": record ", records, " (key ", record.key, ")");
    const proto::Datum datum = proto::parse_datum(record.value, place);
    if (records == 0) {
      first = datum;
      sums.assign(datum.count(), 0);
    }
    if (datum.channels != first.channels || datum.height != first.height || datum.width != first.width) {
      throw ConfigError(concat(place, ": is ", extents(datum), " and the first image is ", extents(first),
                               "; a mean image needs images of one size"));
    }
    add(datum, sums);
    ++records;
  } while (reader.peek().key != first_key);

  ImageMean mean{.image = {.shape = {1, first.channels, first.height, first.width}, .values = {}},
                 .channels = {},
                 .records = records};
  const auto count = static_cast<double>(records);
  std::vector<float> values;
  for (const double sum : sums) values.push_back(static_cast<float>(sum / count));
  const std::size_t plane = sums.size() / static_cast<std::size_t>(first.channels);
  for (auto begin = sums.begin(); begin != sums.end(); begin += static_cast<std::ptrdiff_t>(plane)) {
    const double sum = std::accumulate(begin, begin + static_cast<std::ptrdiff_t>(plane), 0.0);
    mean.channels.push_back(sum / count / static_cast<double>(plane));
  }
  mean.image.values = std::move(values);
  return mean;
}

}  // namespace poseidon::caffe
