// A TCP connection that is not trusted yet: runs the handshake under a deadline and then hands the socket on.
//
// Reads exactly the frames of the handshake, so nothing of what follows them is lost. Lane only.
#pragma once

#include <asio/ip/tcp.hpp>
#include <asio/steady_timer.hpp>

#include <functional>
#include <memory>
#include <vector>

#include "runtime/runtime.h"
#include "wire/handshake.h"

namespace poseidon::runtime::real {

class HandshakeLink : public std::enable_shared_from_this<HandshakeLink> {
 public:
  // The socket if the other side proved itself, else why not. Called once, unless abandoned before.
  using DoneFn = std::function<void(Result<asio::ip::tcp::socket> socket, const wire::Handshake& handshake)>;

  HandshakeLink(asio::ip::tcp::socket socket, wire::Handshake handshake, Duration deadline, DoneFn done);
  void start();
  void abandon();

 private:
  void read_header();
  void read_body(const wire::FrameHeader& header);
  void on_frame(const wire::FrameHeader& header);
  void write_then(std::vector<std::byte> bytes, std::function<void()> then);
  void end(Result<asio::ip::tcp::socket> result);

  asio::ip::tcp::socket socket_;
  wire::Handshake handshake_;
  DoneFn done_;
  asio::steady_timer deadline_;
  std::array<std::byte, wire::kHeaderBytes> header_{};
  std::vector<std::byte> body_;
  std::vector<std::byte> out_;
};

}  // namespace poseidon::runtime::real
