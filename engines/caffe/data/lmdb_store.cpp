#include "engines/caffe/data/lmdb_store.h"

#include <lmdb.h>
#include <sys/stat.h>

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

bool is_file_of_lmdb(std::string_view name) {
  return name == kLmdbFile || name == "lock.mdb";
}

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

// LMDB would take an empty file for a new data base.
void require_not_empty(const fs::path& file) {
  std::error_code failure;
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
  throw ConfigError(concat(folder.string(), " is truncated: its ", kLmdbFile, " has ", status.st_size,
                           " bytes and should have ", fits ? std::to_string(wanted) : "more than fit",
                           "; copy or create it again"));
}

std::string open_failure(int code, const fs::path& folder) {
  const std::string file = (folder / kLmdbFile).string();
  if (code == MDB_INVALID || code == MDB_VERSION_MISMATCH || code == MDB_CORRUPTED) {
    return concat(file, " is not an LMDB file, or it is damaged (", mdb_strerror(code), ")");
  }
  return concat("cannot open ", file, ": ", mdb_strerror(code));
}

}  // namespace

LmdbReader::LmdbReader(const fs::path& folder) : folder_(folder), handles_(std::make_unique<Handles>()) {
  require_not_empty(folder / kLmdbFile);
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

void LmdbReader::seek(std::uint64_t index, const BusyFn& on_busy) {
  const std::uint64_t position = index % count_;
  if (position < position_) step(true);
  while (position_ < position) {
    if (position_ % kBusyEvery == 0) on_busy();
    step(false);
  }
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

LmdbWriter::LmdbWriter(const Options& options)
    : folder_(options.folder, options.overwrite), handles_(std::make_unique<Handles>()) {
  Handles& h = *handles_;
  h.map_bytes = options.map_bytes_first;
  int code = mdb_env_create(&h.environment);
  if (code == 0) code = mdb_env_set_mapsize(h.environment, h.map_bytes);
  // Nobody else knows the folder, so there is nothing to lock; and nothing needs to be safe on disk before finish().
  if (code == 0) code = mdb_env_open(h.environment, folder_.temporary().c_str(), MDB_NOLOCK | MDB_NOSYNC, 0644);
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

void LmdbWriter::seal() {
  commit();
  const int code = mdb_env_sync(handles_->environment, 1);
  if (code != 0) failed(code, "write");
  handles_.reset();
}

void LmdbWriter::failed(int code, const char* what) const {
  // LMDB says EIO for a write that the disk took only half of.
  const bool full = code == ENOSPC || code == EIO || code == EDQUOT;
  throw SystemError(concat("cannot ", what, " ", folder_.name().string(), ": ", mdb_strerror(code),
                           full ? "; is the disk full?" : ""));
}

}  // namespace poseidon::caffe
