// What carries the bytes of a link: a TCP socket as it is, or TLS over one (tls_stream.h).
//
// Never blocks: whoever is told that nothing can be done now waits for the socket and asks again. Lane only.
#pragma once

#include <sys/uio.h>

#include <asio/ip/tcp.hpp>

#include <cstddef>
#include <span>

#include "poseidon/error.h"

namespace poseidon::runtime::real {

class Stream {
 public:
  // Makes the socket non-blocking.
  explicit Stream(asio::ip::tcp::socket socket);
  virtual ~Stream() = default;
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  // To wait for, and to close.
  asio::ip::tcp::socket& socket() { return socket_; }
  virtual bool is_encrypted() const { return false; }

  // What comes before the first byte of a frame. False: not done yet; wait until the socket is writable where holds_unsent(),
  // else until it is readable. An error is final: kRefused where another try would end the same way.
  virtual Result<bool> establish() { return true; }

  // Takes bytes, in order, out of the caller's memory, and says how many. 0: none now; wait until the socket is writable.
  virtual Result<std::size_t> write(std::span<const iovec> from);
  // Bytes that were taken may lie here still. True: all of them are the kernel's; false: wait until the socket is writable.
  virtual Result<bool> flush() { return true; }
  virtual bool holds_unsent() const { return false; }

  // Fills the memory, in order, with what has come, and says how far. 0: nothing has; wait until the socket is readable.
  // kPeerLost at the end of the stream.
  virtual Result<std::size_t> read(std::span<const iovec> into);
  // There may be more to read though the socket itself has nothing: ask again instead of waiting.
  virtual bool holds_unread() const { return false; }

  // Tells the other side that the end which follows is meant. What was not flushed is lost.
  virtual void say_goodbye() {}

 private:
  asio::ip::tcp::socket socket_;
};

// For the calls above: `errno` says that the socket has nothing now, or no room.
bool would_block();
// The link broke while `what` ("sending"): kPeerLost, with what errno says.
Error broken_link(const char* what);
// The other side has closed the link.
Error closed_link();

}  // namespace poseidon::runtime::real
