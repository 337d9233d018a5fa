#include "engines/caffe/data/record_store.h"

#include <system_error>

#include "base/text.h"
#include "engines/caffe/data/leveldb_store.h"
#include "engines/caffe/data/lmdb_store.h"
#include "engines/caffe/proto/config_error.h"

namespace poseidon::caffe {

using base::concat;
namespace fs = std::filesystem;

std::optional<Backend> backend_of(const fs::path& folder) {
  std::error_code failure;
  const fs::file_status status = fs::status(folder, failure);
  if (status.type() == fs::file_type::not_found) {
    throw ConfigError(concat("there is no data base ", folder.string(),
                             "; a relative source in data_param counts from the folder where the command was started"));
  }
  if (failure) throw ConfigError(concat("cannot read ", folder.string(), ": ", failure.message()));
  if (status.type() != fs::file_type::directory) {
    throw ConfigError(concat(folder.string(), " is a file; a data base is a folder with files in it: an LMDB has ",
                             kLmdbFile, ", a LevelDB has ", kLevelDbFile));
  }
  if (fs::exists(folder / kLmdbFile, failure)) return Backend::kLmdb;
  if (fs::exists(folder / kLevelDbFile, failure)) return Backend::kLevelDb;
  return std::nullopt;
}

std::unique_ptr<StoreReader> open_store(const fs::path& folder, std::optional<Backend> wanted) {
  const std::optional<Backend> found = backend_of(folder);
  if (!found) {
    throw ConfigError(concat(folder.string(), " is no data base: it has neither a file ", kLmdbFile,
                             ", as an LMDB has, nor a file ", kLevelDbFile, ", as a LevelDB has"));
  }
  if (wanted && *wanted != *found) {
    const std::string_view right = *found == Backend::kLmdb ? "LMDB" : "LEVELDB";
    throw ConfigError(concat(folder.string(), " is ", *found == Backend::kLmdb ? "an " : "a ", to_string(*found),
                             " and was to be read as ", *wanted == Backend::kLmdb ? "an " : "a ", to_string(*wanted),
                             "; write backend: ", right, " in data_param (where none is written it is LEVELDB)",
                             ", or --backend ", flag_of(*found)));
  }
  if (*found == Backend::kLmdb) return std::make_unique<LmdbReader>(folder);
  return std::make_unique<LevelDbReader>(folder);
}

std::unique_ptr<StoreWriter> create_store(const NewStore& store) {
  if (store.backend == Backend::kLmdb) {
    return std::make_unique<LmdbWriter>(LmdbWriter::Options{store.folder, store.overwrite});
  }
  return std::make_unique<LevelDbWriter>(LevelDbWriter::Options{store.folder, store.overwrite});
}

}  // namespace poseidon::caffe
