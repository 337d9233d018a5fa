#include "engines/caffe/tools/partition_data.h"

#include <algorithm>
#include <memory>
#include <string>

#include "base/text.h"
#include "engines/caffe/data/record_store.h"
#include "engines/caffe/proto/config_error.h"

namespace poseidon::caffe {
namespace {

using base::concat;

constexpr std::size_t kTellEvery = 1000;

// Which records a part has: first, first + step, ..., `count` of them.
struct Run {
  std::size_t first = 0;
  std::size_t step = 1;
  std::size_t count = 0;
};

Run run_of(std::size_t part, std::size_t records, const PartitionDataOptions& options) {
  const std::size_t least = records / options.parts;
  const std::size_t longer = records % options.parts;  // so many parts have one more, both ways
  const std::size_t count = least + (part < longer ? 1 : 0);
  if (options.in_turn) return {part, options.parts, count};
  return {part * least + std::min(part, longer), 1, count};
}

std::filesystem::path name_of(std::size_t part, const PartitionDataOptions& options) {
  std::string name = (options.name.empty() ? options.database : options.name).string();
  while (name.size() > 1 && name.back() == '/') name.pop_back();
  return concat(name, "_", part);
}

}  // namespace

std::vector<DataPart> partition_data(const PartitionDataOptions& options, const ProgressFn& on_progress) {
  const std::unique_ptr<StoreReader> reader = open_store(options.database, options.backend);
  const Backend backend = *backend_of(options.database);
  const std::size_t records = reader->count();
  if (options.parts < 1 || options.parts > records) {
    throw ConfigError(concat(options.database.string(), " has ", records, " records, which cannot be cut into ",
                             options.parts, " parts"));
  }
  std::vector<DataPart> parts;
  std::vector<std::unique_ptr<StoreWriter>> writers;  // sealed, without their names yet
  std::size_t done = 0;
  // One part after the other, also in turn: a writer keeps what it has not committed in memory, and walking over
  // records reads their keys only.
  for (std::size_t part = 0; part < options.parts; ++part) {
    const Run run = run_of(part, records, options);
    parts.push_back({name_of(part, options), run.count});
    StoreWriter& writer = *writers.emplace_back(create_store({parts.back().database, backend, options.overwrite}));
    for (std::size_t i = 0; i < run.count; ++i, ++done) {
      if (done % kTellEvery == 0) on_progress({done, records});
      reader->move_to(run.first + i * run.step);
      writer.append(reader->key(), reader->value());
    }
    writer.seal();
  }
  for (const std::unique_ptr<StoreWriter>& writer : writers) writer->publish();
  return parts;
}

}  // namespace poseidon::caffe
