#include "runtime/real/handshake_link.h"

#include <asio/read.hpp>
#include <asio/write.hpp>

#include "base/text.h"

namespace poseidon::runtime::real {

HandshakeLink::HandshakeLink(asio::ip::tcp::socket socket, wire::Handshake handshake, Duration deadline, DoneFn done)
    : socket_(std::move(socket)), handshake_(std::move(handshake)), done_(std::move(done)),
      deadline_(socket_.get_executor(), deadline) {}

void HandshakeLink::start() {
  deadline_.async_wait([self = shared_from_this()](const asio::error_code& cancelled) {
    if (!cancelled) self->end(Error{ErrorCode::kTimeout, "the other side did not finish the handshake in time"});
  });
  std::vector<std::byte> first = handshake_.start();
  if (first.empty()) {
    read_header();
  } else {
    write_then(std::move(first), [this] { read_header(); });
  }
}

void HandshakeLink::abandon() {
  done_ = nullptr;
  deadline_.cancel();
  asio::error_code ignored;
  socket_.close(ignored);
}

void HandshakeLink::end(Result<asio::ip::tcp::socket> result) {
  deadline_.cancel();
  if (!done_) return;
  if (!result) {
    asio::error_code ignored;
    socket_.close(ignored);
  }
  std::exchange(done_, nullptr)(std::move(result), handshake_);
}

void HandshakeLink::write_then(std::vector<std::byte> bytes, std::function<void()> then) {
  out_ = std::move(bytes);
  asio::async_write(socket_, asio::buffer(out_),
                    [self = shared_from_this(), then = std::move(then)](const asio::error_code& failed, std::size_t) {
                      if (failed) return self->end(Error{ErrorCode::kPeerLost, "the connection failed: " + failed.message()});
                      then();
                    });
}

void HandshakeLink::read_header() {
  asio::async_read(socket_, asio::buffer(header_), [self = shared_from_this()](const asio::error_code& failed, std::size_t) {
    if (failed) return self->end(Error{ErrorCode::kPeerLost, "the other side closed the connection before it had proved itself"});
    const Result<wire::FrameHeader> header = wire::decode_header(self->header_);
    if (!header) return self->end(header.error());
    if (!wire::is_handshake(header->part.type)) {
      return self->end(Error{ErrorCode::kCorruptFrame, "a frame came before the handshake was over"});
    }
    self->read_body(*header);
  });
}

void HandshakeLink::read_body(const wire::FrameHeader& header) {
  body_.resize(header.part.bytes);  // decode_header() has bounded it
  asio::async_read(socket_, asio::buffer(body_),
                   [self = shared_from_this(), header](const asio::error_code& failed, std::size_t) {
                     if (failed) return self->end(Error{ErrorCode::kPeerLost, "the connection failed: " + failed.message()});
                     self->on_frame(header);
                   });
}

void HandshakeLink::on_frame(const wire::FrameHeader& header) {
  Result<std::vector<std::byte>> answer = handshake_.on_frame(header, body_);
  if (!answer) {
    const Error error = answer.error();
    if (handshake_.farewell().empty()) return end(error);
    return write_then(handshake_.farewell(), [this, error] { end(error); });
  }
  const auto go_on = [this] {
    if (handshake_.finished()) {
      end(std::move(socket_));
    } else {
      read_header();
    }
  };
  if (answer->empty()) return go_on();
  write_then(std::move(*answer), go_on);
}

}  // namespace poseidon::runtime::real
