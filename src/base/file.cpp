#include "base/file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/text.h"

namespace poseidon::base {
namespace {

// Closes on every way out.
class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }
  // The result of close() matters: a full disk may show only there.
  bool close_now() {
    const int fd = fd_;
    fd_ = -1;
    return ::close(fd) == 0;
  }

 private:
  int fd_;
};

Error system_error(const char* what, const std::filesystem::path& path) {
  return Error{errno == ENOENT ? ErrorCode::kNotFound : ErrorCode::kSystem,
               concat("cannot ", what, " ", path.string(), ": ", std::strerror(errno))};
}

bool write_all(int fd, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::write(fd, bytes.data(), bytes.size());
    if (n < 0) {
      if (errno == EINTR) continue;
      return false;
    }
    bytes = bytes.subspan(static_cast<std::size_t>(n));
  }
  return true;
}

}  // namespace

Status write_file_atomically(const std::filesystem::path& path, std::span<const std::byte> bytes, Flush flush) {
  std::filesystem::path temporary = path;
  temporary += concat(".tmp-", ::getpid());
  Descriptor file(::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
  if (file.get() < 0) return system_error("write", path);
  const bool written = write_all(file.get(), bytes) && (flush == Flush::kToSystem || ::fsync(file.get()) == 0);
  if (!written || !file.close_now() || ::rename(temporary.c_str(), path.c_str()) != 0) {
    Error error = system_error("write", path);
    ::unlink(temporary.c_str());
    return error;
  }
  if (flush == Flush::kToSystem) return {};
  // The rename itself is safe on disk only once the folder is.
  const std::filesystem::path folder = path.has_parent_path() ? path.parent_path() : std::filesystem::path(".");
  const Descriptor directory(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (directory.get() >= 0) ::fsync(directory.get());
  return {};
}

Status write_file_atomically(const std::filesystem::path& path, std::string_view text, Flush flush) {
  return write_file_atomically(path, std::as_bytes(std::span(text.data(), text.size())), flush);
}

Result<std::string> read_file(const std::filesystem::path& path, std::size_t bytes_max) {
  const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (file.get() < 0) return system_error("read", path);
  struct stat status {};
  if (::fstat(file.get(), &status) != 0) return system_error("read", path);
  if (!S_ISREG(status.st_mode)) return Error{ErrorCode::kInvalid, concat("cannot read ", path.string(), ": it is not a file")};
  if (static_cast<std::size_t>(status.st_size) > bytes_max) {
    return Error{ErrorCode::kInvalid, concat("cannot read ", path.string(), ": it has ", status.st_size,
                                             " bytes, at most ", bytes_max, " are allowed here")};
  }
  std::string text(static_cast<std::size_t>(status.st_size), '\0');
  std::size_t at = 0;
  while (at < text.size()) {
    const ssize_t n = ::read(file.get(), text.data() + at, text.size() - at);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return system_error("read", path);
    if (n == 0) break;  // it shrank meanwhile
    at += static_cast<std::size_t>(n);
  }
  text.resize(at);
  return text;
}

}  // namespace poseidon::base
