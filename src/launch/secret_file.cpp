#include "launch/secret_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "base/text.h"

namespace poseidon::launch {

Result<SecretFile> SecretFile::create(std::span<const std::byte> secret) {
  const char* const folder = std::getenv("XDG_RUNTIME_DIR");
  std::string path = base::concat(folder != nullptr ? folder : "/tmp", "/poseidon-secret-XXXXXX");
  const int fd = ::mkostemp(path.data(), O_CLOEXEC);  // mode 0600
  if (fd < 0) return Error{ErrorCode::kSystem, base::concat("cannot make a file for the job's secret, ", path, ": ", std::strerror(errno))};
  const bool written = ::write(fd, secret.data(), secret.size()) == static_cast<ssize_t>(secret.size());
  SecretFile file(path);
  if (::close(fd) != 0 || !written) return Error{ErrorCode::kSystem, base::concat("cannot write the job's secret to ", path, ": is the disk full?")};
  return file;
}

SecretFile::SecretFile(std::string path) : path_(std::move(path)) {}

SecretFile::SecretFile(SecretFile&& other) noexcept : path_(std::exchange(other.path_, {})) {}

SecretFile::~SecretFile() {
  if (!path_.empty()) ::unlink(path_.c_str());
}

}  // namespace poseidon::launch
