// Data bases of records by key: what readers, tools and tests want of them, whichever library keeps them.
//
// Two kinds are Caffe's: LMDB (lmdb_store.h) and LevelDB (leveldb_store.h). Which one a folder is can be seen from its
// files. Both libraries trust what they read, so a damaged data base may end the process: readers live in a child
// process that may die (record_reader.h).
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "engines/caffe/data/backend.h"

namespace poseidon::caffe {

// Called now and then by what may take long.
using BusyFn = std::function<void()>;

// Walks the records in the order of their keys. All functions throw ConfigError where the walk shows damage.
class StoreReader {
 public:
  virtual ~StoreReader() = default;
  StoreReader(const StoreReader&) = delete;
  StoreReader& operator=(const StoreReader&) = delete;

  // How many records there are, at least 1; nothing while that is unknown, since a LevelDB shows it at its end only.
  virtual std::optional<std::uint64_t> known_count() const = 0;
  // The same; finds it out where it is unknown, which means to read the whole data base.
  virtual std::uint64_t count() = 0;
  // The place of the record that the cursor is on, 0 to count() - 1.
  virtual std::uint64_t position() const = 0;
  // Moves to that place, forward, or from the first record on where it lies behind the cursor.
  void move_to(std::uint64_t position) {
    seek(position, [] {});
  }
  // Moves to the record of that index, modulo the number of records.
  virtual void seek(std::uint64_t index, const BusyFn& on_busy) = 0;

  // Of the record that the cursor is on; both are valid until it moves. Touching the value is what may end the process.
  virtual std::string_view key() const = 0;
  virtual std::string_view value() const = 0;

 protected:
  StoreReader() = default;
  // How many records are walked over between two calls of BusyFn.
  static constexpr std::uint64_t kBusyEvery = 256;
};

// Writes a new data base under a temporary name beside its own, and gives it its name when all is on the disk: what is
// interrupted leaves nothing under the name. Functions throw SystemError where the disk takes nothing.
class StoreWriter {
 public:
  // Without finish() or publish(), removes what was written.
  virtual ~StoreWriter() = default;
  StoreWriter(const StoreWriter&) = delete;
  StoreWriter& operator=(const StoreWriter&) = delete;

  // The longest key that it takes.
  virtual std::size_t key_bytes_max() const = 0;
  // Keys must come in ascending order. Throws ConfigError for a key that is too long or out of order.
  virtual void append(std::string_view key, std::string_view value) = 0;
  // Writes everything to the disk and gives the data base its name: seal() and publish().
  void finish() {
    seal();
    publish();
  }
  // The two by themselves, for several data bases that are to appear together or not at all.
  virtual void seal() = 0;
  virtual void publish() = 0;

 protected:
  StoreWriter() = default;
};

// What the folder is, by the names of its files; nothing where it is no data base. Throws ConfigError where there is no
// such folder.
std::optional<Backend> backend_of(const std::filesystem::path& folder);

// Opens whatever the folder is. Throws ConfigError: no such folder, no data base in it, not the kind that is wanted, an
// empty one, one that is truncated.
std::unique_ptr<StoreReader> open_store(const std::filesystem::path& folder,
                                        std::optional<Backend> wanted = std::nullopt);

struct NewStore {
  std::filesystem::path folder;
  Backend backend = Backend::kLmdb;
  bool overwrite = false;  // replace an older data base of this name, of any kind; refused otherwise
};
// Throws ConfigError where the name is taken.
std::unique_ptr<StoreWriter> create_store(const NewStore& store);

}  // namespace poseidon::caffe
