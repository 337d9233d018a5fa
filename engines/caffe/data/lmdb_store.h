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

namespace poseidon::caffe {

// Walks the records in the order of their keys. Opens read-only and without LMDB's lock file, so it needs no right to
// write and any number of readers may run at once; somebody who writes at the same time may not.
class LmdbReader {
 public:
  // Throws ConfigError: no such folder, no data base in it, one of another kind, an empty one, one that is truncated.
  explicit LmdbReader(const std::filesystem::path& folder);
  ~LmdbReader();
  LmdbReader(const LmdbReader&) = delete;
  LmdbReader& operator=(const LmdbReader&) = delete;

  std::uint64_t count() const { return count_; }  // at least 1
  // The place of the record that the cursor is on, 0 to count() - 1.
  std::uint64_t position() const { return position_; }

  // Moves forward to that place, from the first record where it lies behind the cursor. Reads the pages of keys only,
  // not those of large values. Throws ConfigError where the walk shows damage: keys out of order, too few records.
  void move_to(std::uint64_t position);

  // Of the record that the cursor is on; both are valid until it moves. Touching the value is what may end the process.
  std::string_view key() const { return key_; }
  std::string_view value() const;

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

// Writes a new data base under a temporary name beside its own, and gives it its name when all is on the disk: what is
// interrupted leaves nothing under the name.
class LmdbWriter {
 public:
  struct Options {
    std::filesystem::path folder;
    bool overwrite = false;  // replace an older data base of this name; refused otherwise
    // Address space only: the file is as long as what is in it. Doubled whenever it does not do.
    std::size_t map_bytes_first = std::size_t{1} << 30;
  };
  // Throws ConfigError where the name is taken; SystemError, as all functions here, where the disk takes nothing.
  explicit LmdbWriter(Options options);
  // Without finish() or publish(), removes what was written.
  ~LmdbWriter();
  LmdbWriter(const LmdbWriter&) = delete;
  LmdbWriter& operator=(const LmdbWriter&) = delete;

  // The longest key that LMDB takes.
  std::size_t key_bytes_max() const;
  // Keys must come in ascending order. Throws ConfigError for a key that is too long or out of order.
  void append(std::string_view key, std::string_view value);
  // Writes everything to the disk and gives the data base its name: seal() and publish().
  void finish();
  // The two by themselves, for several data bases that are to appear together or not at all.
  void seal();
  void publish();

 private:
  struct Handles;

  struct TemporaryFolder {
    std::filesystem::path path;  // empty: nothing to remove
    ~TemporaryFolder();
  };

  void begin_transaction();
  void commit();
  void grow();
  [[noreturn]] void failed(int code, const char* what) const;

  Options options_;
  TemporaryFolder temporary_;
  std::unique_ptr<Handles> handles_;  // after the folder, so that it is closed before that is removed
  std::vector<std::pair<std::string, std::string>>
      pending_;  // since the last commit: written again when the map must grow
  std::size_t pending_bytes_ = 0;
};

}  // namespace poseidon::caffe
