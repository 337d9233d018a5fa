#include "engines/caffe/tools/partition_data.h"

#include <algorithm>
#include <memory>
#include <string>

#include "base/text.h"
#include "engines/caffe/data/record_reader.h"
#include "engines/caffe/data/record_store.h"
#include "engines/caffe/proto/config_error.h"

namespace poseidon::caffe {
namespace {

using base::concat;

constexpr std::size_t kTellEvery = 1000;

std::size_t records_of_part(std::size_t part, std::size_t records, const PartitionDataOptions& options) {
  return records / options.parts + (part < records % options.parts ? 1 : 0);
}

// The records first, first + step, ...: from a child, since reading a damaged data base may end the process that does
// it, and who has begun to write must live to remove that again.
RecordReader every(std::size_t step, std::size_t first, const PartitionDataOptions& options) {
  return RecordReader({.source = options.database,
                       .backend = options.backend,
                       .first = first,
                       .take = 1,
                       .skip = step - 1,
                       .verbatim = true,
                       .program = {}});
}

// Of a LevelDB it is known only when its first record comes again.
std::size_t count_records(const PartitionDataOptions& options, const ProgressFn& on_progress) {
  RecordReader reader = every(1, 0, options);
  if (reader.size()) return *reader.size();
  const std::string first_key = reader.peek().key;
  std::size_t records = 0;
  do {
    if (records % kTellEvery == 0) on_progress({records, 0});
    static_cast<void>(reader.next());
    ++records;
  } while (reader.peek().key != first_key);
  return records;
}

std::filesystem::path name_of(std::size_t part, const PartitionDataOptions& options) {
  std::string name = (options.name.empty() ? options.database : options.name).string();
  while (name.size() > 1 && name.back() == '/') name.pop_back();
  return concat(name, "_", part);
}

}  // namespace

std::vector<DataPart> partition_data(const PartitionDataOptions& options, const ProgressFn& on_progress) {
  const std::size_t records = count_records(options, on_progress);
  const Backend backend = *backend_of(options.database);
  if (options.parts < 1 || options.parts > records) {
    throw ConfigError(concat(options.database.string(), " has ", records, " records, which cannot be cut into ",
                             options.parts, " parts"));
  }
  std::vector<DataPart> parts;
  std::vector<std::unique_ptr<StoreWriter>> writers;  // sealed, without their names yet
  std::size_t done = 0;
  RecordReader reader = every(options.in_turn ? options.parts : 1, 0, options);
  // One part after the other, also in turn: a writer keeps what it has not committed in memory, and walking over
  // records of an LMDB reads their keys only.
  for (std::size_t part = 0; part < options.parts; ++part) {
    if (options.in_turn && part > 0) reader = every(options.parts, part, options);
    parts.push_back({name_of(part, options), records_of_part(part, records, options)});
    StoreWriter& writer = *writers.emplace_back(create_store({parts.back().database, backend, options.overwrite}));
    for (std::size_t i = 0; i < parts.back().records; ++i, ++done) {
      if (done % kTellEvery == 0) on_progress({done, records});
      const Record record = reader.next();
      writer.append(record.key, record.value);
    }
    writer.seal();
  }
  for (const std::unique_ptr<StoreWriter>& writer : writers) writer->publish();
  return parts;
}

}  // namespace poseidon::caffe
