#include "engines/caffe/data/leveldb_store.h"

#include <leveldb/db.h>
#include <leveldb/env.h>
#include <leveldb/helpers/memenv.h>
#include <leveldb/write_batch.h>

#include <exception>
#include <thread>
#include <vector>

#include "base/text.h"
#include "engines/caffe/data/record_protocol.h"
#include "engines/caffe/proto/config_error.h"
#include "engines/caffe/proto/system_error.h"

namespace poseidon::caffe {
namespace {

using base::concat;
namespace fs = std::filesystem;

leveldb::Slice slice_of(std::string_view bytes) {
  return {bytes.data(), bytes.size()};
}
std::string_view view_of(const leveldb::Slice& slice) {
  return {slice.data(), slice.size()};
}

// The library's log of what it does, which nobody reads.
class NoLog final : public leveldb::Logger {
 public:
  void Logv(const char*, std::va_list) override {}
};

// The real files, which nobody changes: what the library writes is kept in memory.
class UntouchedFiles final : public leveldb::EnvWrapper {
 public:
  UntouchedFiles() : EnvWrapper(leveldb::Env::Default()), memory_(leveldb::NewMemEnv(leveldb::Env::Default())) {}

  leveldb::Status NewSequentialFile(const std::string& name, leveldb::SequentialFile** file) override {
    return holder_of(name).NewSequentialFile(name, file);
  }
  leveldb::Status NewRandomAccessFile(const std::string& name, leveldb::RandomAccessFile** file) override {
    return holder_of(name).NewRandomAccessFile(name, file);
  }
  // A thread of the library's compacts tables when it finds too many; that would draw the whole data base into memory.
  // Refused its first file, it gives up for good, and reading goes on.
  leveldb::Status NewWritableFile(const std::string& name, leveldb::WritableFile** file) override {
    if (std::this_thread::get_id() != opener_) return leveldb::Status::NotSupported("only opening writes");
    return memory_->NewWritableFile(name, file);
  }
  leveldb::Status NewAppendableFile(const std::string& name, leveldb::WritableFile**) override {
    return leveldb::Status::NotSupported(name);
  }
  bool FileExists(const std::string& name) override { return holder_of(name).FileExists(name); }
  leveldb::Status GetChildren(const std::string& folder, std::vector<std::string>* names) override {
    std::vector<std::string> own;
    memory_->GetChildren(folder, &own);
    const leveldb::Status status = target()->GetChildren(folder, names);
    names->insert(names->end(), own.begin(), own.end());
    return status;
  }
  leveldb::Status RemoveFile(const std::string& name) override {
    return memory_->FileExists(name) ? memory_->RemoveFile(name) : leveldb::Status::OK();
  }
  leveldb::Status CreateDir(const std::string&) override { return leveldb::Status::OK(); }
  leveldb::Status RemoveDir(const std::string&) override { return leveldb::Status::OK(); }
  leveldb::Status GetFileSize(const std::string& name, std::uint64_t* bytes) override {
    return holder_of(name).GetFileSize(name, bytes);
  }
  leveldb::Status RenameFile(const std::string& from, const std::string& to) override {
    return memory_->RenameFile(from, to);
  }
  leveldb::Status LockFile(const std::string&, leveldb::FileLock** lock) override {
    *lock = new leveldb::FileLock;
    return leveldb::Status::OK();
  }
  leveldb::Status UnlockFile(leveldb::FileLock* lock) override {
    delete lock;
    return leveldb::Status::OK();
  }

 private:
  leveldb::Env& holder_of(const std::string& name) { return memory_->FileExists(name) ? *memory_ : *target(); }

  std::unique_ptr<leveldb::Env> memory_;
  std::thread::id opener_ = std::this_thread::get_id();
};

}  // namespace

bool is_file_of_leveldb(std::string_view name) {
  for (const std::string_view whole : {kLevelDbFile, "LOCK", "LOG", "LOG.old"}) {
    if (name == whole) return true;
  }
  return name.starts_with("MANIFEST-") || name.ends_with(".ldb") || name.ends_with(".sst") || name.ends_with(".log");
}

// --- Reading
// ------------------------------------------------------------------------------------------------------------

struct LevelDbReader::Handles {
  UntouchedFiles files;
  NoLog log;
  std::unique_ptr<leveldb::DB> data_base;
  std::unique_ptr<leveldb::Iterator> cursor;
};

// A damaged data base may have the library ask for more memory than there is. It then leaves its locks locked, and
// closing the data base would wait for them for ever; so it stays as it is, for the rest of a process that reads
// nothing more.
template <typename Action>
void LevelDbReader::unless_out_of_memory(const Action& action) {
  try {
    action();
  } catch (const ConfigError&) {
    throw;
  } catch (const std::exception& error) {
    static_cast<void>(handles_.release());
    throw ConfigError(concat(folder_.string(), " is damaged near record ", position_,
                             ": it wants more memory than there is (", error.what(), "); create the data base again"));
  }
}

LevelDbReader::LevelDbReader(const fs::path& folder) : folder_(folder), handles_(std::make_unique<Handles>()) {
  unless_out_of_memory([this] { open(); });
}

void LevelDbReader::open() {
  leveldb::Options options;
  options.env = &handles_->files;
  options.info_log = &handles_->log;
  options.paranoid_checks = true;
  leveldb::DB* data_base = nullptr;
  const leveldb::Status status = leveldb::DB::Open(options, folder_.string(), &data_base);
  handles_->data_base.reset(data_base);
  if (!status.ok()) {
    throw ConfigError(concat("the LevelDB ", folder_.string(), " cannot be read: ", status.ToString(),
                             "; it is damaged, or files of it are missing: copy or create it again"));
  }
  rewind();
  if (!handles_->cursor->Valid())
    throw ConfigError(concat(folder_.string(), " is a data base without a single record"));
}

LevelDbReader::~LevelDbReader() = default;

std::uint64_t LevelDbReader::count() {
  if (!count_) {
    const std::uint64_t place = position_;
    unless_out_of_memory([this] {
      while (step()) {
      }
    });
    move_to(place);
  }
  return *count_;
}

// Also where an earlier step has left the records.
void LevelDbReader::rewind() {
  leveldb::ReadOptions options;
  options.verify_checksums = true;
  options.fill_cache = false;
  handles_->cursor.reset(handles_->data_base->NewIterator(options));
  handles_->cursor->SeekToFirst();
  position_ = 0;
  if (!handles_->cursor->status().ok()) damaged(handles_->cursor->status().ToString());
}

bool LevelDbReader::step() {
  leveldb::Iterator& cursor = *handles_->cursor;
  last_key_ = view_of(cursor.key());
  cursor.Next();
  if (cursor.Valid()) {
    // Tables that overlap where they must not would have us walk in circles.
    if (view_of(cursor.key()) <= last_key_) damaged("its keys are out of order");
    ++position_;
    return true;
  }
  // The library passes over what it cannot read, and tells at the end.
  if (!cursor.status().ok()) damaged(cursor.status().ToString());
  if (count_.value_or(position_ + 1) != position_ + 1) damaged("it had more records before");
  count_ = position_ + 1;
  return false;
}

void LevelDbReader::seek(std::uint64_t index, const BusyFn& on_busy) {
  unless_out_of_memory([&] { walk_to(index, on_busy); });
}

void LevelDbReader::walk_to(std::uint64_t index, const BusyFn& on_busy) {
  if (count_) index %= *count_;
  if (index < position_ || !handles_->cursor->Valid()) rewind();
  while (position_ < index) {
    if (position_ % kBusyEvery == 0) on_busy();
    if (step()) continue;
    index %= *count_;
    rewind();
  }
}

std::string_view LevelDbReader::key() const {
  return view_of(handles_->cursor->key());
}

std::string_view LevelDbReader::value() const {
  if (!handles_->cursor->status().ok()) damaged(handles_->cursor->status().ToString());
  return view_of(handles_->cursor->value());
}

void LevelDbReader::damaged(const std::string& what) const {
  throw ConfigError(concat(folder_.string(), " is damaged near record ", position_, " (key ", readable_key(last_key_),
                           "): ", what, "; create the data base again"));
}

// --- Writing
// ------------------------------------------------------------------------------------------------------------

namespace {

// As many records at a time as Caffe's tools write, or as many bytes: a batch lies in memory.
constexpr std::size_t kBatchRecords = 1000;
constexpr std::size_t kBatchBytes = std::size_t{16} << 20;

}  // namespace

struct LevelDbWriter::Handles {
  NoLog log;
  std::unique_ptr<leveldb::DB> data_base;
  leveldb::WriteBatch batch;
  std::size_t batch_records = 0;

  leveldb::Status open(const fs::path& folder, bool create) {
    leveldb::Options options;
    options.info_log = &log;
    options.create_if_missing = options.error_if_exists = create;
    leveldb::DB* opened = nullptr;
    const leveldb::Status status = leveldb::DB::Open(options, folder.string(), &opened);
    data_base.reset(opened);
    return status;
  }
};

namespace {

void require(const leveldb::Status& status, const fs::path& folder) {
  if (status.ok()) return;
  const std::string text = status.ToString();
  throw SystemError(concat("cannot write ", folder.string(), ": ", text,
                           text.find("No space") == text.npos ? "" : "; is the disk full?"));
}

}  // namespace

LevelDbWriter::LevelDbWriter(const Options& options)
    : folder_(options.folder, options.overwrite), handles_(std::make_unique<Handles>()) {
  require(handles_->open(folder_.temporary(), true), folder_.name());
}

LevelDbWriter::~LevelDbWriter() = default;

// LevelDB has no limit; the pipe to a trainer has.
std::size_t LevelDbWriter::key_bytes_max() const {
  return kKeyBytesMax;
}

void LevelDbWriter::append(std::string_view key, std::string_view value) {
  if (key.empty() || key.size() > key_bytes_max()) {
    throw ConfigError(concat("the key ", readable_key(key), " has ", key.size(), " bytes; keys have 1 to ",
                             key_bytes_max(), ", so shorten the path"));
  }
  if (!last_key_.empty() && key <= last_key_)
    throw ConfigError(concat("the key ", readable_key(key), " does not come after the one before it"));
  last_key_ = key;
  handles_->batch.Put(slice_of(key), slice_of(value));
  ++handles_->batch_records;
  if (handles_->batch_records >= kBatchRecords || handles_->batch.ApproximateSize() >= kBatchBytes) write_pending();
}

void LevelDbWriter::write_pending() {
  require(handles_->data_base->Write({}, &handles_->batch), folder_.name());
  handles_->batch.Clear();
  handles_->batch_records = 0;
}

void LevelDbWriter::seal() {
  write_pending();
  // The last records are in the log, which each reader would have to turn into a table in its memory. Opening the data
  // base once more does it for all of them.
  handles_->data_base.reset();
  require(handles_->open(folder_.temporary(), false), folder_.name());
  handles_.reset();
  folder_.sync_files();
}

}  // namespace poseidon::caffe
