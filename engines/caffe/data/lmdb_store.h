// LMDB data bases: Caffe's usual way to keep records, a folder with one memory-mapped file data.mdb in it.
//
// LMDB trusts its file. Reading a damaged one can end the process (SIGBUS beyond the end of the file, SIGSEGV or an
// assertion for pointers that lead nowhere), so a reader lives in a child process that may die (record_reader.h);
// whatever can be noticed before is an error here.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engines/caffe/data/new_folder.h"
#include "engines/caffe/data/record_store.h"

namespace poseidon::caffe {

// The file by which an LMDB is known.
constexpr const char* kLmdbFile = "data.mdb";
bool is_file_of_lmdb(std::string_view name);

// Opens read-only and without LMDB's lock file, so it needs no right to write and any number of readers may run at
// once; somebody who writes at the same time may not.
class LmdbReader final : public StoreReader {
 public:
  // Throws ConfigError: an LMDB of another kind, an empty one, one that is truncated.
  explicit LmdbReader(const std::filesystem::path& folder);
  ~LmdbReader() override;

  std::optional<std::uint64_t> known_count() const override { return count_; }
  std::uint64_t count() override { return count_; }
  std::uint64_t position() const override { return position_; }
  // Reads the pages of keys only, not those of large values.
  void seek(std::uint64_t index, const BusyFn& on_busy) override;
  std::string_view key() const override { return key_; }
  std::string_view value() const override;

 private:
  struct Handles;

  void step(bool to_first);
  [[noreturn]] void damaged(const std::string& what) const;

  std::filesystem::path folder_;
  std::unique_ptr<Handles> handles_;
  std::uint64_t count_ = 0;
  std::uint64_t position_ = 0;
  std::string_view key_;  // in the map
};

class LmdbWriter final : public StoreWriter {
 public:
  struct Options {
    std::filesystem::path folder;
    bool overwrite = false;  // replace an older data base of this name; refused otherwise
    // Address space only: the file is as long as what is in it. Doubled whenever it does not do.
    std::size_t map_bytes_first = std::size_t{1} << 30;
  };
  explicit LmdbWriter(const Options& options);
  ~LmdbWriter() override;

  std::size_t key_bytes_max() const override;
  void append(std::string_view key, std::string_view value) override;
  void seal() override;
  void publish() override { folder_.publish(); }

 private:
  struct Handles;

  void begin_transaction();
  void commit();
  void grow();
  [[noreturn]] void failed(int code, const char* what) const;

  NewFolder folder_;
  std::unique_ptr<Handles> handles_;  // after the folder, so that it is closed before that is removed
  std::vector<std::pair<std::string, std::string>>
      pending_;  // since the last commit: written again when the map must grow
  std::size_t pending_bytes_ = 0;
};

}  // namespace poseidon::caffe
