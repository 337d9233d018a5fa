// A data base in several parts, one for each of some machines.
#pragma once

#include <cstddef>
#include <filesystem>
#include <optional>
#include <vector>

#include "engines/caffe/data/backend.h"
#include "engines/caffe/tools/progress.h"

namespace poseidon::caffe {

struct PartitionDataOptions {
  std::filesystem::path database;
  std::size_t parts = 1;
  // Record i goes to part i mod parts. Otherwise a part is a run of records, and the first (records mod parts) of them
  // have one more than the others.
  bool in_turn = false;
  std::filesystem::path name;  // the parts are called NAME_0, NAME_1, ...; empty: as the data base
  bool overwrite = false;
  // What kind the data base must be; without, whatever it is. The parts are of its kind.
  std::optional<Backend> backend = std::nullopt;
};

struct DataPart {
  std::filesystem::path database;
  std::size_t records = 0;
};

// Records keep their keys and bytes. All parts appear, or none. Throws ConfigError where a part would be empty, and for
// a data base that cannot be used: one that is damaged is named with the record. SystemError as RecordReader does, and
// where the disk takes nothing.
std::vector<DataPart> partition_data(const PartitionDataOptions& options, const ProgressFn& on_progress);

}  // namespace poseidon::caffe
