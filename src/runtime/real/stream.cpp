#include "runtime/real/stream.h"

#include <sys/socket.h>

#include <cerrno>
#include <cstring>

#include "base/text.h"

namespace poseidon::runtime::real {

bool would_block() { return errno == EAGAIN || errno == EWOULDBLOCK; }

Error broken_link(const char* what) {
  return Error{ErrorCode::kPeerLost, base::concat("the connection failed while ", what, ": ", std::strerror(errno))};
}

Error closed_link() { return Error{ErrorCode::kPeerLost, "the connection was closed by the other side"}; }

Stream::Stream(asio::ip::tcp::socket socket) : socket_(std::move(socket)) {
  asio::error_code ignored;
  socket_.non_blocking(true, ignored);
}

Result<std::size_t> Stream::write(std::span<const iovec> from) {
  msghdr message{};
  message.msg_iov = const_cast<iovec*>(from.data());
  message.msg_iovlen = from.size();
  ssize_t n = 0;
  do {
    n = ::sendmsg(socket_.native_handle(), &message, MSG_NOSIGNAL | MSG_DONTWAIT);
  } while (n < 0 && errno == EINTR);
  if (n >= 0) return static_cast<std::size_t>(n);
  if (would_block()) return std::size_t{0};
  return broken_link("sending");
}

Result<std::size_t> Stream::read(std::span<const iovec> into) {
  ssize_t n = 0;
  do {
    n = ::readv(socket_.native_handle(), into.data(), static_cast<int>(into.size()));
  } while (n < 0 && errno == EINTR);
  if (n > 0) return static_cast<std::size_t>(n);
  if (n == 0) return closed_link();
  if (would_block()) return std::size_t{0};
  return broken_link("receiving");
}

}  // namespace poseidon::runtime::real
