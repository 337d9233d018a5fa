// LevelDB data bases: a folder of tables, with a log of what was written last and a manifest that names them. Caffe's
// default, and slower to read by several workers than an LMDB: keys and values lie together, so passing over a record
// reads it, and how many there are is known only to who has read them all.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

#include "engines/caffe/data/new_folder.h"
#include "engines/caffe/data/record_store.h"

namespace poseidon::caffe {

// The file by which a LevelDB is known.
constexpr const char* kLevelDbFile = "CURRENT";
bool is_file_of_leveldb(std::string_view name);

// The library takes a lock when it opens a data base, and writes into it: what is in the log becomes a table. This
// reader keeps such files in its own memory and takes no lock, so it needs no right to write, and any number of readers
// may run at once; somebody who writes at the same time may not. Every block's checksum is tested.
class LevelDbReader final : public StoreReader {
 public:
  // Throws ConfigError where the folder is no LevelDB, is damaged or has no record.
  explicit LevelDbReader(const std::filesystem::path& folder);
  ~LevelDbReader() override;

  std::optional<std::uint64_t> known_count() const override { return count_; }
  std::uint64_t count() override;
  std::uint64_t position() const override { return position_; }
  void seek(std::uint64_t index, const BusyFn& on_busy) override;
  std::string_view key() const override;
  std::string_view value() const override;

 private:
  struct Handles;

  template <typename Action>
  void unless_out_of_memory(const Action& action);
  void open();
  void walk_to(std::uint64_t index, const BusyFn& on_busy);
  void rewind();
  // False behind the last record: then count_ is known.
  bool step();
  [[noreturn]] void damaged(const std::string& what) const;

  std::filesystem::path folder_;
  std::unique_ptr<Handles> handles_;
  std::optional<std::uint64_t> count_;
  std::uint64_t position_ = 0;
  std::string last_key_;
};

class LevelDbWriter final : public StoreWriter {
 public:
  struct Options {
    std::filesystem::path folder;
    bool overwrite = false;  // replace an older data base of this name; refused otherwise
  };
  explicit LevelDbWriter(const Options& options);
  ~LevelDbWriter() override;

  std::size_t key_bytes_max() const override;
  void append(std::string_view key, std::string_view value) override;
  void seal() override;
  void publish() override { folder_.publish(); }

 private:
  struct Handles;

  void write_pending();

  NewFolder folder_;
  std::unique_ptr<Handles> handles_;  // after the folder, so that it is closed before that is removed
  std::string last_key_;
};

}  // namespace poseidon::caffe
