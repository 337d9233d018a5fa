#include "engines/caffe/data/lmdb_store.h"

#include <fcntl.h>
#include <lmdb.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <system_error>
#include <utility>
#include <vector>

#include "base/text.h"
#include "engines/caffe/data/record_protocol.h"
#include "engines/caffe/proto/config_error.h"
#include "engines/caffe/proto/system_error.h"

namespace poseidon::caffe {
namespace {

using base::concat;
namespace fs = std::filesystem;

constexpr const char* kDataFile = "data.mdb";
constexpr const char* kLockFile = "lock.mdb";

std::string_view view_of(const MDB_val& value) {
  return {static_cast<const char*>(value.mv_data), value.mv_size};
}
// LMDB reads only.
MDB_val val_of(std::string_view bytes) {
  return {bytes.size(), const_cast<char*>(bytes.data())};
}

// The default handler prints a line that nobody can use; who started us says which record it was.
void die_silently(MDB_env*, const char*) {
  std::abort();
}

}  // namespace

// --- Reading
// ------------------------------------------------------------------------------------------------------------

struct LmdbReader::Handles {
  MDB_env* environment = nullptr;
  MDB_txn* transaction = nullptr;
  MDB_dbi table = 0;
  MDB_cursor* cursor = nullptr;

  ~Handles() {
    if (cursor != nullptr) mdb_cursor_close(cursor);
    if (transaction != nullptr) mdb_txn_abort(transaction);
    if (environment != nullptr) mdb_env_close(environment);
  }
};

namespace {

void require_folder(const fs::path& folder) {
  std::error_code failure;
  const fs::file_status status = fs::status(folder, failure);
  if (status.type() == fs::file_type::not_found) {
    throw ConfigError(concat("there is no data base ", folder.string(),
                             "; a relative source in data_param counts from the folder where the command was started"));
  }
  if (failure) throw ConfigError(concat("cannot read ", folder.string(), ": ", failure.message()));
  if (status.type() != fs::file_type::directory) {
    throw ConfigError(concat(folder.string(), " is a file; an LMDB is a folder with a file ", kDataFile, " in it"));
  }
  const fs::path file = folder / kDataFile;
  if (!fs::exists(file, failure)) {
    const bool leveldb = fs::exists(folder / "CURRENT", failure);
    throw ConfigError(concat(folder.string(), " is not an LMDB: it has no file ", kDataFile,
                             leveldb ? "; it looks like a LevelDB (backend: LEVELDB), which is not read yet" : ""));
  }
  // LMDB would take an empty file for a new data base.
  if (fs::file_size(file, failure) == 0)
    throw ConfigError(concat(file.string(), " is empty; create the data base again"));
}

// LMDB maps the file and follows page numbers. A page that the file has lost is a SIGBUS, so look first.
void require_all_pages(MDB_env* environment, const fs::path& folder) {
  MDB_envinfo info{};
  MDB_stat statistics{};
  mdb_env_info(environment, &info);
  mdb_env_stat(environment, &statistics);
  std::size_t wanted = 0;
  const bool fits = !__builtin_add_overflow(info.me_last_pgno, std::size_t{1}, &wanted) &&
                    !__builtin_mul_overflow(wanted, std::size_t{statistics.ms_psize}, &wanted);
  mdb_filehandle_t file = -1;
  mdb_env_get_fd(environment, &file);
  struct stat status {};
  if (::fstat(file, &status) != 0)
    throw ConfigError(concat("cannot read ", folder.string(), ": ", std::strerror(errno)));
  if (fits && wanted <= static_cast<std::size_t>(status.st_size)) return;
  throw ConfigError(concat(folder.string(), " is truncated: its ", kDataFile, " has ", status.st_size,
                           " bytes and should have ", fits ? std::to_string(wanted) : "more than fit",
                           "; copy or create it again"));
}

std::string open_failure(int code, const fs::path& folder) {
  const std::string file = (folder / kDataFile).string();
  if (code == MDB_INVALID || code == MDB_VERSION_MISMATCH || code == MDB_CORRUPTED) {
    return concat(file, " is not an LMDB file, or it is damaged (", mdb_strerror(code), ")");
  }
  return concat("cannot open ", file, ": ", mdb_strerror(code));
}

}  // namespace

LmdbReader::LmdbReader(const fs::path& folder) : folder_(folder), handles_(std::make_unique<Handles>()) {
  require_folder(folder);
  Handles& h = *handles_;
  int code = mdb_env_create(&h.environment);
  if (code == 0) mdb_env_set_assert(h.environment, &die_silently);
  if (code == 0) code = mdb_env_open(h.environment, folder.c_str(), MDB_RDONLY | MDB_NOLOCK, 0);
  if (code != 0) throw ConfigError(open_failure(code, folder));
  require_all_pages(h.environment, folder);

  MDB_stat statistics{};
  unsigned flags = 0;
  code = mdb_txn_begin(h.environment, nullptr, MDB_RDONLY, &h.transaction);
  if (code == 0) code = mdb_dbi_open(h.transaction, nullptr, 0, &h.table);
  if (code == 0) code = mdb_stat(h.transaction, h.table, &statistics);
  if (code == 0) code = mdb_dbi_flags(h.transaction, h.table, &flags);
  if (code == 0) code = mdb_cursor_open(h.transaction, h.table, &h.cursor);
  if (code != 0) throw ConfigError(open_failure(code, folder));
  if ((flags & MDB_DUPSORT) != 0)
    throw ConfigError(concat(folder.string(), " is an LMDB of another kind: it has several values for a key"));
  if (statistics.ms_entries == 0) throw ConfigError(concat(folder.string(), " is a data base without a single record"));
  count_ = statistics.ms_entries;
  step(true);
}

LmdbReader::~LmdbReader() = default;

void LmdbReader::step(bool to_first) {
  MDB_val key{};
  // A null value: LMDB then leaves the pages of large values alone.
  const int code = mdb_cursor_get(handles_->cursor, &key, nullptr, to_first ? MDB_FIRST : MDB_NEXT);
  if (code == MDB_NOTFOUND) damaged(concat("it should have ", count_, " records and ends there"));
  if (code != 0) damaged(mdb_strerror(code));
  if (!to_first) {
    // Cycles in the tree would have us walk for ever.
    MDB_val before = val_of(key_);
    if (mdb_cmp(handles_->transaction, handles_->table, &before, &key) >= 0) damaged("its keys are out of order");
  }
  key_ = view_of(key);
  position_ = to_first ? 0 : position_ + 1;
}

void LmdbReader::move_to(std::uint64_t position) {
  if (position >= count_) throw std::logic_error(concat("record ", position, " of ", count_));
  if (position < position_) step(true);
  while (position_ < position) step(false);
}

std::string_view LmdbReader::value() const {
  MDB_val key{};
  MDB_val value{};
  const int code = mdb_cursor_get(handles_->cursor, &key, &value, MDB_GET_CURRENT);
  if (code != 0) damaged(mdb_strerror(code));
  return view_of(value);
}

void LmdbReader::damaged(const std::string& what) const {
  throw ConfigError(concat(folder_.string(), " is damaged near record ", position_, " (key ", readable_key(key_),
                           "): ", what, "; create the data base again"));
}

// --- Writing
// ------------------------------------------------------------------------------------------------------------

namespace {

// Committed this often, so that what must be written again when the map grows stays small.
constexpr std::size_t kCommitBytes = std::size_t{64} << 20;
constexpr std::size_t kCommitRecords = 10'000;

bool is_data_base(const fs::path& folder) {
  std::error_code failure;
  if (!fs::is_directory(folder, failure)) return false;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder, failure)) {
    if (entry.path().filename() != kDataFile && entry.path().filename() != kLockFile) return false;
  }
  return !failure && fs::exists(folder / kDataFile, failure);
}

void require_name_is_free(const LmdbWriter::Options& options) {
  std::error_code failure;
  if (!fs::exists(fs::symlink_status(options.folder, failure))) return;
  if (!options.overwrite) {
    throw ConfigError(
        concat(options.folder.string(), " exists already; remove it, choose another name, or give --overwrite"));
  }
  if (!is_data_base(options.folder)) {
    throw ConfigError(
        concat(options.folder.string(), " exists and is not an LMDB, so it is not overwritten; remove it yourself"));
  }
}

fs::path without_trailing_slash(const fs::path& path) {
  return path.has_filename() ? path : path.parent_path();
}

void sync_folder(const fs::path& folder) {
  const int fd = ::open(folder.empty() ? "." : folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return;
  ::fsync(fd);
  ::close(fd);
}

}  // namespace

struct LmdbWriter::Handles {
  MDB_env* environment = nullptr;
  MDB_txn* transaction = nullptr;
  MDB_dbi table = 0;
  std::size_t map_bytes = 0;

  ~Handles() {
    if (transaction != nullptr) mdb_txn_abort(transaction);
    if (environment != nullptr) mdb_env_close(environment);
  }
};

LmdbWriter::TemporaryFolder::~TemporaryFolder() {
  std::error_code ignored;
  if (!path.empty()) fs::remove_all(path, ignored);
}

LmdbWriter::LmdbWriter(Options options) : options_(std::move(options)), handles_(std::make_unique<Handles>()) {
  options_.folder = without_trailing_slash(options_.folder);
  if (options_.folder.filename().empty()) throw ConfigError("the data base needs a name");
  require_name_is_free(options_);
  const fs::path name = concat(".", options_.folder.filename().string(), ".partial-", ::getpid());
  temporary_.path = options_.folder.parent_path() / name;
  std::error_code failure;
  fs::remove_all(temporary_.path, failure);
  if (!fs::create_directory(temporary_.path, failure)) {
    temporary_.path.clear();
    throw SystemError(concat("cannot create ", options_.folder.string(), ": ", failure.message()));
  }
  Handles& h = *handles_;
  h.map_bytes = options_.map_bytes_first;
  int code = mdb_env_create(&h.environment);
  if (code == 0) code = mdb_env_set_mapsize(h.environment, h.map_bytes);
  // Nobody else knows the folder, so there is nothing to lock; and nothing needs to be safe on disk before finish().
  if (code == 0) code = mdb_env_open(h.environment, temporary_.path.c_str(), MDB_NOLOCK | MDB_NOSYNC, 0644);
  if (code != 0) failed(code, "create");
  begin_transaction();
}

LmdbWriter::~LmdbWriter() = default;

std::size_t LmdbWriter::key_bytes_max() const {
  return static_cast<std::size_t>(mdb_env_get_maxkeysize(handles_->environment));
}

void LmdbWriter::begin_transaction() {
  Handles& h = *handles_;
  int code = mdb_txn_begin(h.environment, nullptr, 0, &h.transaction);
  if (code == 0) code = mdb_dbi_open(h.transaction, nullptr, 0, &h.table);
  if (code != 0) failed(code, "write");
}

void LmdbWriter::append(std::string_view key, std::string_view value) {
  if (key.empty() || key.size() > key_bytes_max()) {
    throw ConfigError(concat("the key ", readable_key(key), " has ", key.size(), " bytes; an LMDB takes 1 to ",
                             key_bytes_max(), ", so shorten the path"));
  }
  pending_.emplace_back(key, value);
  pending_bytes_ += key.size() + value.size();
  for (;;) {
    MDB_val k = val_of(key);
    MDB_val v = val_of(value);
    const int code = mdb_put(handles_->transaction, handles_->table, &k, &v, MDB_APPEND);
    if (code == 0) break;
    if (code == MDB_KEYEXIST)
      throw ConfigError(concat("the key ", readable_key(key), " does not come after the one before it"));
    if (code != MDB_MAP_FULL) failed(code, "write");
    grow();
    break;  // growing has written all that was pending
  }
  if (pending_.size() >= kCommitRecords || pending_bytes_ >= kCommitBytes) {
    commit();
    begin_transaction();
  }
}

void LmdbWriter::commit() {
  for (;;) {
    const int code = mdb_txn_commit(std::exchange(handles_->transaction, nullptr));
    if (code == 0) break;
    if (code != MDB_MAP_FULL) failed(code, "write");
    grow();
  }
  pending_.clear();
  pending_bytes_ = 0;
}

// A full map spoils its transaction: enlarge the map, and put what the transaction held into a new one.
void LmdbWriter::grow() {
  Handles& h = *handles_;
  for (;;) {
    if (h.transaction != nullptr) mdb_txn_abort(std::exchange(h.transaction, nullptr));
    h.map_bytes *= 2;
    int code = mdb_env_set_mapsize(h.environment, h.map_bytes);
    if (code != 0) failed(code, "write");
    begin_transaction();
    for (const auto& [key, value] : pending_) {
      MDB_val k = val_of(key);
      MDB_val v = val_of(value);
      code = mdb_put(h.transaction, h.table, &k, &v, MDB_APPEND);
      if (code != 0) break;
    }
    if (code == 0) return;
    if (code != MDB_MAP_FULL) failed(code, "write");
  }
}

void LmdbWriter::finish() {
  seal();
  publish();
}

void LmdbWriter::seal() {
  commit();
  const int code = mdb_env_sync(handles_->environment, 1);
  if (code != 0) failed(code, "write");
  handles_.reset();
}

void LmdbWriter::publish() {
  require_name_is_free(options_);  // somebody may have taken it meanwhile
  sync_folder(temporary_.path);
  const fs::path& folder = options_.folder;
  std::error_code failure;
  if (!fs::exists(folder, failure)) {
    fs::rename(temporary_.path, folder, failure);
    if (!failure) temporary_.path.clear();
  } else if (::renameat2(AT_FDCWD, temporary_.path.c_str(), AT_FDCWD, folder.c_str(), RENAME_EXCHANGE) != 0) {
    // Exchanging the two leaves no moment without a data base under the name; but not every file system can.
    const fs::path old = temporary_.path.string() + "-old";
    fs::rename(folder, old, failure);
    if (!failure) fs::rename(temporary_.path, folder, failure);
    if (!failure) temporary_.path = old;
  }
  if (failure) throw SystemError(concat("cannot write ", folder.string(), ": ", failure.message()));
  sync_folder(folder.parent_path());
}

void LmdbWriter::failed(int code, const char* what) const {
  // LMDB says EIO for a write that the disk took only half of.
  const bool full = code == ENOSPC || code == EIO || code == EDQUOT;
  throw SystemError(concat("cannot ", what, " ", options_.folder.string(), ": ", mdb_strerror(code),
                           full ? "; is the disk full?" : ""));
}

}  // namespace poseidon::caffe
