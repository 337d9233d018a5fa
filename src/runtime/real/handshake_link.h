// A link that is not trusted yet: brings up its stream, runs the handshake, both under one deadline, and then hands the stream on.
//
// Reads exactly the frames of the handshake, so nothing of what follows them is lost. Lane only.
#pragma once

#include <asio/steady_timer.hpp>

#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "runtime/real/stream.h"
#include "runtime/runtime.h"
#include "wire/handshake.h"

namespace poseidon::runtime::real {

class HandshakeLink : public std::enable_shared_from_this<HandshakeLink> {
 public:
  // The stream if the other side proved itself, else why not. Called once, unless abandoned before.
  using DoneFn = std::function<void(Result<std::unique_ptr<Stream>> stream, const wire::Handshake& handshake)>;

  HandshakeLink(std::unique_ptr<Stream> stream, wire::Handshake handshake, Duration deadline, DoneFn done);
  void start();
  void abandon();
  // Whether the other side has said anything.
  bool has_heard() const { return has_heard_; }

 private:
  enum class Step { kUnderWay, kMustWait };

  // As far as it goes without waiting.
  void go_on();
  Result<Step> step();
  // Whether the first byte that has come fits the stream: TLS where this side speaks TLS, a frame where it does not.
  Status check_first_byte();
  Result<Step> send();
  Result<Step> receive();
  Status on_frame();
  void wait();
  void end(Result<std::unique_ptr<Stream>> result);

  std::unique_ptr<Stream> stream_;
  wire::Handshake handshake_;
  DoneFn done_;
  asio::steady_timer deadline_;
  bool has_heard_ = false;         // the other side's first byte
  bool is_established_ = false;    // the stream
  std::optional<Error> refused_;   // ends with this, once the farewell is out
  std::vector<std::byte> in_;      // the header of the frame that comes, then its body
  std::size_t in_filled_ = 0;
  std::optional<wire::FrameHeader> header_;
  std::vector<std::byte> out_;
  std::size_t out_done_ = 0;
};

}  // namespace poseidon::runtime::real
