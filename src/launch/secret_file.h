// The job's secret in a file that only this user can read, gone with the job.
#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "poseidon/error.h"

namespace poseidon::launch {

constexpr std::size_t kSecretBytes = 32;

class SecretFile {
 public:
  // In XDG_RUNTIME_DIR, or /tmp. kSystem where it cannot be written.
  static Result<SecretFile> create(std::span<const std::byte> secret);
  ~SecretFile();
  SecretFile(SecretFile&& other) noexcept;
  SecretFile& operator=(SecretFile&&) = delete;
  const std::string& path() const { return path_; }

 private:
  explicit SecretFile(std::string path);
  std::string path_;
};

}  // namespace poseidon::launch
