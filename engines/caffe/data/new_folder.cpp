#include "engines/caffe/data/new_folder.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <string>
#include <system_error>

#include "base/text.h"
#include "engines/caffe/data/leveldb_store.h"
#include "engines/caffe/data/lmdb_store.h"
#include "engines/caffe/proto/config_error.h"
#include "engines/caffe/proto/system_error.h"

namespace poseidon::caffe {
namespace {

using base::concat;
namespace fs = std::filesystem;

// A folder that holds a data base and nothing else, so that nothing else is lost with it.
bool is_data_base(const fs::path& folder) {
  std::error_code failure;
  if (!fs::is_directory(folder, failure)) return false;
  bool lmdb = true;
  bool leveldb = true;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder, failure)) {
    const std::string name = entry.path().filename().string();
    lmdb = lmdb && is_file_of_lmdb(name);
    leveldb = leveldb && is_file_of_leveldb(name);
  }
  if (failure) return false;
  return (lmdb && fs::exists(folder / kLmdbFile, failure)) || (leveldb && fs::exists(folder / kLevelDbFile, failure));
}

void require_free(const fs::path& folder, bool overwrite) {
  std::error_code failure;
  if (!fs::exists(fs::symlink_status(folder, failure))) return;
  if (!overwrite) {
    throw ConfigError(concat(folder.string(), " exists already; remove it, choose another name, or give --overwrite"));
  }
  if (!is_data_base(folder)) {
    throw ConfigError(
        concat(folder.string(), " exists and is no data base, so it is not overwritten; remove it yourself"));
  }
}

void sync(const fs::path& path, int flags) {
  const int fd = ::open(path.empty() ? "." : path.c_str(), O_RDONLY | O_CLOEXEC | flags);
  if (fd < 0) return;
  const int code = ::fsync(fd) == 0 ? 0 : errno;
  ::close(fd);
  if (code != 0) throw SystemError(concat("cannot write ", path.string(), ": ", std::strerror(code)));
}

}  // namespace

NewFolder::NewFolder(const fs::path& name, bool overwrite)
    : name_(name.has_filename() ? name : name.parent_path()), overwrite_(overwrite) {
  if (name_.filename().empty()) throw ConfigError("the data base needs a name");
  require_free(name_, overwrite_);
  temporary_ = name_.parent_path() / concat(".", name_.filename().string(), ".partial-", ::getpid());
  std::error_code failure;
  fs::remove_all(temporary_, failure);
  if (!fs::create_directory(temporary_, failure)) {
    temporary_.clear();
    throw SystemError(concat("cannot create ", name_.string(), ": ", failure.message()));
  }
}

NewFolder::~NewFolder() {
  std::error_code ignored;
  if (!temporary_.empty()) fs::remove_all(temporary_, ignored);
}

void NewFolder::sync_files() const {
  for (const fs::directory_entry& entry : fs::directory_iterator(temporary_)) sync(entry.path(), 0);
}

void NewFolder::publish() {
  require_free(name_, overwrite_);  // somebody may have taken it meanwhile
  sync(temporary_, O_DIRECTORY);
  std::error_code failure;
  if (!fs::exists(name_, failure)) {
    fs::rename(temporary_, name_, failure);
    if (!failure) temporary_.clear();
  } else if (::renameat2(AT_FDCWD, temporary_.c_str(), AT_FDCWD, name_.c_str(), RENAME_EXCHANGE) != 0) {
    // Exchanging the two leaves no moment without a data base under the name; but not every file system can.
    const fs::path old = temporary_.string() + "-old";
    fs::rename(name_, old, failure);
    if (!failure) fs::rename(temporary_, name_, failure);
    if (!failure) temporary_ = old;
  }
  if (failure) throw SystemError(concat("cannot write ", name_.string(), ": ", failure.message()));
  sync(name_.parent_path(), O_DIRECTORY);
}

}  // namespace poseidon::caffe
