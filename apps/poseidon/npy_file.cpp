#include "apps/poseidon/npy_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <functional>
#include <numeric>
#include <utility>

#include "base/text.h"

namespace poseidon::app {
namespace {

constexpr std::size_t kAlignment = 64;  // the numbers begin at a multiple of it
constexpr std::size_t kFixedBytes = 10; // magic string, version, length of the rest

std::size_t row_bytes_of(const std::vector<std::int64_t>& shape, std::size_t number_bytes) {
  return std::accumulate(shape.begin() + 1, shape.end(), number_bytes, [](std::size_t bytes, std::int64_t axis) { return bytes * static_cast<std::size_t>(axis); });
}

}  // namespace

std::string NpyFile::header(const std::vector<std::int64_t>& shape, std::size_t number_bytes) {
  std::string axes;
  for (const std::int64_t axis : shape) axes += std::to_string(axis) + ", ";
  if (shape.size() > 1) axes.resize(axes.size() - 2);
  std::string text = base::concat("{'descr': '<f", number_bytes, "', 'fortran_order': False, 'shape': (", axes, "), }");
  const std::size_t whole = (kFixedBytes + text.size() + 1 + kAlignment - 1) / kAlignment * kAlignment;
  text.resize(whole - kFixedBytes - 1, ' ');
  text += '\n';
  std::string bytes("\x93NUMPY\x01\x00", 8);
  bytes += static_cast<char>(text.size() & 0xFF);
  bytes += static_cast<char>(text.size() >> 8);
  return bytes + text;
}

Status NpyFile::create(const std::filesystem::path& path, const std::vector<std::int64_t>& shape, std::size_t number_bytes) {
  const std::string head = header(shape, number_bytes);
  const int descriptor = ::open(path.c_str(), O_CREAT | O_TRUNC | O_RDWR | O_CLOEXEC, 0644);
  NpyFile file(descriptor, path, head.size(), row_bytes_of(shape, number_bytes));
  if (descriptor < 0) return file.failed("make");
  const auto bytes = static_cast<off_t>(head.size() + static_cast<std::size_t>(shape.front()) * file.row_bytes_);
  // Not a file with holes: a disk that is too small is known now.
  if (const int failure = ::posix_fallocate(descriptor, 0, bytes); failure != 0) {
    errno = failure;
    return file.failed("find room for");
  }
  if (::pwrite(descriptor, head.data(), head.size(), 0) != static_cast<ssize_t>(head.size())) return file.failed("write");
  return {};
}

Result<NpyFile> NpyFile::open(const std::filesystem::path& path, const std::vector<std::int64_t>& shape, std::size_t number_bytes) {
  NpyFile file(::open(path.c_str(), O_RDWR | O_CLOEXEC), path, header(shape, number_bytes).size(), row_bytes_of(shape, number_bytes));
  if (file.descriptor_ < 0) return file.failed("open");
  return file;
}

NpyFile::NpyFile(NpyFile&& other) noexcept
    : descriptor_(std::exchange(other.descriptor_, -1)), path_(std::move(other.path_)), header_bytes_(other.header_bytes_), row_bytes_(other.row_bytes_) {}

NpyFile::~NpyFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

Error NpyFile::failed(const char* what) const {
  return {ErrorCode::kSystem, base::concat("cannot ", what, " ", path_.string(), ": ", std::strerror(errno))};
}

Status NpyFile::write_rows(std::uint64_t first_row, std::span<const std::byte> bytes) const {
  auto at = static_cast<off_t>(header_bytes_ + first_row * row_bytes_);
  while (!bytes.empty()) {
    const ssize_t n = ::pwrite(descriptor_, bytes.data(), bytes.size(), at);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return failed("write");
    bytes = bytes.subspan(static_cast<std::size_t>(n));
    at += n;
  }
  return {};
}

}  // namespace poseidon::app
