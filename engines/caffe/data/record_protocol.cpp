#include "engines/caffe/data/record_protocol.h"

#include <sys/uio.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "base/text.h"

namespace poseidon::caffe {

std::array<char, kFrameHeaderBytes> encode_frame_header(const FrameHeader& header) {
  std::array<char, kFrameHeaderBytes> bytes{};
  std::memcpy(bytes.data(), &header.kind, 4);
  std::memcpy(bytes.data() + 4, &header.key_bytes, 4);
  std::memcpy(bytes.data() + 8, &header.index, 8);
  std::memcpy(bytes.data() + 16, &header.value_bytes, 8);
  return bytes;
}

Result<FrameHeader> decode_frame_header(std::string_view bytes) {
  if (bytes.size() != kFrameHeaderBytes) {
    return Error{ErrorCode::kCorruptFrame,
                 base::concat("a frame header has ", kFrameHeaderBytes, " bytes, not ", bytes.size())};
  }
  std::uint32_t kind = 0;
  FrameHeader header;
  std::memcpy(&kind, bytes.data(), 4);
  std::memcpy(&header.key_bytes, bytes.data() + 4, 4);
  std::memcpy(&header.index, bytes.data() + 8, 8);
  std::memcpy(&header.value_bytes, bytes.data() + 16, 8);
  if (kind < 1 || kind > 4) return Error{ErrorCode::kCorruptFrame, base::concat("there is no frame of kind ", kind)};
  header.kind = static_cast<FrameKind>(kind);
  if (header.key_bytes > kKeyBytesMax || header.value_bytes > kValueBytesMax) {
    return Error{ErrorCode::kCorruptFrame, base::concat("a key of ", header.key_bytes, " bytes with a value of ",
                                                        header.value_bytes, " is too long")};
  }
  return header;
}

bool write_frame(int descriptor, FrameKind kind, std::uint64_t index, std::string_view key, std::string_view value) {
  std::array<char, kFrameHeaderBytes> header =
      encode_frame_header({kind, static_cast<std::uint32_t>(key.size()), index, value.size()});
  // writev reads only.
  std::array<iovec, 3> parts = {iovec{header.data(), header.size()}, iovec{const_cast<char*>(key.data()), key.size()},
                                iovec{const_cast<char*>(value.data()), value.size()}};
  std::size_t part = 0;
  while (part < parts.size()) {
    const ssize_t written = ::writev(descriptor, &parts[part], static_cast<int>(parts.size() - part));
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return false;
    auto left = static_cast<std::size_t>(written);
    while (part < parts.size() && left >= parts[part].iov_len) left -= parts[part++].iov_len;
    if (part < parts.size()) {
      parts[part].iov_base = static_cast<char*>(parts[part].iov_base) + left;
      parts[part].iov_len -= left;
    }
  }
  return true;
}

std::string readable_key(std::string_view key) {
  constexpr std::size_t kShown = 80;
  std::string text;
  for (const char c : key.substr(0, kShown)) {
    if (c >= 0x20 && c < 0x7F) {
      text += c;
      continue;
    }
    std::array<char, 5> escaped{};
    std::snprintf(escaped.data(), escaped.size(), "\\x%02x", static_cast<unsigned>(static_cast<unsigned char>(c)));
    text += escaped.data();
  }
  return key.size() > kShown ? text + "..." : text;
}

}  // namespace poseidon::caffe
