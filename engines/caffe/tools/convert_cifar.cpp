#include "engines/caffe/tools/convert_cifar.h"

#include <array>
#include <cstdio>
#include <memory>
#include <string>
#include <system_error>
#include <vector>

#include "base/file.h"
#include "base/text.h"
#include "engines/caffe/data/record_store.h"
#include "engines/caffe/proto/config_error.h"
#include "engines/caffe/proto/datum.h"

namespace poseidon::caffe {
namespace {

using base::concat;

constexpr std::size_t kSide = 32;
constexpr std::size_t kImageBytes = 3 * kSide * kSide;
constexpr std::size_t kRecordBytes = 1 + kImageBytes;
constexpr int kLabels = 10;
constexpr std::size_t kTrainBatches = 5;
constexpr std::size_t kBatches = kTrainBatches + 1;

std::string read_batch(const std::filesystem::path& file) {
  Result<std::string> bytes = base::read_file(file);
  if (!bytes) throw ConfigError(concat(bytes.error().message, "; the binary version of CIFAR-10 has it"));
  if (bytes->empty() || bytes->size() % kRecordBytes != 0) {
    throw ConfigError(concat(file.string(), ": has ", bytes->size(), " bytes, and a batch of CIFAR-10 has ",
                             kRecordBytes, " for each image; it is truncated, or another data set"));
  }
  return std::move(*bytes);
}

// Appends the images of a batch behind the `records` that the data base has, and returns how many it has then.
std::size_t append_batch(StoreWriter& writer, const std::filesystem::path& file, std::size_t records) {
  const std::string batch = read_batch(file);
  proto::Datum datum;
  datum.channels = 3;
  datum.height = datum.width = static_cast<int>(kSide);
  for (std::size_t place = 0; place < batch.size(); place += kRecordBytes) {
    datum.label = static_cast<unsigned char>(batch[place]);
    if (datum.label >= kLabels) {
      throw ConfigError(concat(file.string(), ": image ", place / kRecordBytes, " has the label ", datum.label,
                               "; those of CIFAR-10 are 0 to 9"));
    }
    datum.bytes.assign(batch, place + 1, kImageBytes);
    std::array<char, 24> key{};
    std::snprintf(key.data(), key.size(), "%05zu", records++);
    writer.append(key.data(), proto::datum_bytes(datum));
  }
  return records;
}

}  // namespace

ConvertCifarReport convert_cifar(const ConvertCifarOptions& options, const ProgressFn& on_progress) {
  std::error_code failure;
  if (!std::filesystem::is_directory(options.output, failure)) {
    throw ConfigError(concat("there is no folder ", options.output.string(), " to make the data bases in"));
  }
  const std::string_view kind = flag_of(options.backend);
  ConvertCifarReport report{options.output / concat("cifar10_train_", kind),
                            options.output / concat("cifar10_test_", kind)};
  const std::unique_ptr<StoreWriter> train = create_store({report.train, options.backend, options.overwrite});
  const std::unique_ptr<StoreWriter> test = create_store({report.test, options.backend, options.overwrite});
  for (std::size_t i = 0; i < kTrainBatches; ++i) {
    on_progress({i, kBatches});
    report.train_records =
        append_batch(*train, options.input / concat("data_batch_", i + 1, ".bin"), report.train_records);
  }
  on_progress({kTrainBatches, kBatches});
  report.test_records = append_batch(*test, options.input / "test_batch.bin", 0);
  train->seal();
  test->seal();
  train->publish();
  test->publish();
  return report;
}

}  // namespace poseidon::caffe
