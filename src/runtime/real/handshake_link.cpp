#include "runtime/real/handshake_link.h"

#include <sys/socket.h>

#include <array>

#include "base/text.h"

namespace poseidon::runtime::real {
namespace {

// How the first record of TLS begins: a handshake (RFC 8446, 5.1). A frame begins with 'P'.
constexpr std::byte kTlsHandshake{22};
constexpr std::byte kTlsAlert{21};
// A first message is far shorter.
constexpr std::size_t kUnreadBytesMax = 4096;

}  // namespace

HandshakeLink::HandshakeLink(std::unique_ptr<Stream> stream, wire::Handshake handshake, Duration deadline, DoneFn done)
    : stream_(std::move(stream)), handshake_(std::move(handshake)), done_(std::move(done)),
      deadline_(stream_->socket().get_executor(), deadline), in_(wire::kHeaderBytes), out_(handshake_.start()) {}

void HandshakeLink::start() {
  deadline_.async_wait([self = shared_from_this()](const asio::error_code& cancelled) {
    if (!cancelled) self->end(Error{ErrorCode::kTimeout, "the other side did not finish the handshake in time"});
  });
  go_on();
}

void HandshakeLink::abandon() {
  done_ = nullptr;
  deadline_.cancel();
  asio::error_code ignored;
  if (stream_) stream_->socket().close(ignored);
}

void HandshakeLink::end(Result<std::unique_ptr<Stream>> result) {
  deadline_.cancel();
  if (!done_) return;
  if (!result) {
    asio::error_code ignored;
    stream_->socket().close(ignored);
  }
  std::exchange(done_, nullptr)(std::move(result), handshake_);
}

void HandshakeLink::wait() {
  const auto again = [self = shared_from_this()](const asio::error_code& failed) {
    if (!failed && self->done_) self->go_on();
  };
  const bool must_write = stream_->holds_unsent() || (is_established_ && out_done_ < out_.size());
  stream_->socket().async_wait(must_write ? asio::ip::tcp::socket::wait_write : asio::ip::tcp::socket::wait_read, again);
}

void HandshakeLink::go_on() {
  while (done_) {
    const Result<Step> done = step();
    if (!done) return end(done.error());
    if (*done == Step::kMustWait) return wait();
    if (handshake_.finished() && out_done_ == out_.size() && !stream_->holds_unsent()) return end(std::move(stream_));
  }
}

Result<HandshakeLink::Step> HandshakeLink::step() {
  if (!has_heard_) {
    if (const Status fits = check_first_byte(); !fits) return fits.error();
  }
  if (!is_established_) {
    const Result<bool> established = stream_->establish();
    if (!established) return established.error();
    is_established_ = *established;
    return is_established_ ? Step::kUnderWay : Step::kMustWait;
  }
  const Result<bool> flushed = stream_->flush();
  if (!flushed) return flushed.error();
  if (!*flushed) return Step::kMustWait;
  if (out_done_ < out_.size()) return send();
  if (refused_) return *refused_;
  return receive();
}

Status HandshakeLink::check_first_byte() {
  std::byte first{};
  const int fd = stream_->socket().native_handle();
  if (::recv(fd, &first, 1, MSG_PEEK | MSG_DONTWAIT) != 1) return {};
  has_heard_ = true;
  const bool is_tls = first == kTlsHandshake || first == kTlsAlert;
  if (is_tls == stream_->is_encrypted()) return {};
  // Bytes that are neither are left to those who know.
  if (stream_->is_encrypted() && first != std::byte{'P'}) return {};
  const char* const remedy = ": give --tls to all processes of a job, or to none";
  const std::string with = base::concat("the other side speaks TLS, and this one without it", remedy);
  const std::string without = base::concat("the other side speaks without TLS, and this one with it", remedy);
  if (!handshake_.connects()) {
    // In the clear, as the other side sees this one. First what it has sent is taken in: with bytes unread the system would
    // throw the answer away.
    std::array<std::byte, kUnreadBytesMax> unread;
    static_cast<void>(::recv(fd, unread.data(), unread.size(), MSG_DONTWAIT));
    const std::vector<std::byte> answer = handshake_.refusal(is_tls ? without : with);
    static_cast<void>(::send(fd, answer.data(), answer.size(), MSG_NOSIGNAL | MSG_DONTWAIT));
  }
  return Error{ErrorCode::kRefused, is_tls ? with : without};
}

Result<HandshakeLink::Step> HandshakeLink::send() {
  const iovec rest{out_.data() + out_done_, out_.size() - out_done_};
  const Result<std::size_t> n = stream_->write({&rest, 1});
  if (!n) return n.error();
  out_done_ += *n;
  return *n == 0 ? Step::kMustWait : Step::kUnderWay;
}

Result<HandshakeLink::Step> HandshakeLink::receive() {
  if (in_filled_ < in_.size()) {
    const iovec rest{in_.data() + in_filled_, in_.size() - in_filled_};
    const Result<std::size_t> n = stream_->read({&rest, 1});
    if (!n) return Error{n.error().code, n.error().message + " before it had proved itself"};
    in_filled_ += *n;
    return *n == 0 ? Step::kMustWait : Step::kUnderWay;
  }
  if (!header_) {
    const Result<wire::FrameHeader> header = wire::decode_header(std::span<const std::byte, wire::kHeaderBytes>(in_.data(), wire::kHeaderBytes));
    if (!header) return header.error();
    if (!wire::is_handshake(header->part.type)) return Error{ErrorCode::kCorruptFrame, "a frame came before the handshake was over"};
    header_ = *header;
    in_.resize(header->part.bytes);  // decode_header() has bounded it
    in_filled_ = 0;
    return Step::kUnderWay;
  }
  if (const Status status = on_frame(); !status) return status.error();
  return Step::kUnderWay;
}

Status HandshakeLink::on_frame() {
  Result<std::vector<std::byte>> answer = handshake_.on_frame(*header_, in_);
  if (!answer && handshake_.farewell().empty()) return answer.error();
  if (!answer) refused_ = answer.error();
  out_ = answer ? std::move(*answer) : handshake_.farewell();
  out_done_ = 0;
  header_.reset();
  in_.resize(wire::kHeaderBytes);
  in_filled_ = 0;
  return {};
}

}  // namespace poseidon::runtime::real
