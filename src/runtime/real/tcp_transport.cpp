#include "runtime/real/tcp_transport.h"

#include <fcntl.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <asio/ip/address.hpp>

#include "base/log.h"
#include "base/text.h"

namespace poseidon::runtime::real {
namespace {

using asio::ip::tcp;

// Strangers that have not proved themselves are closed beyond this: they cost a descriptor each.
constexpr std::size_t kStrangersMax = 64;
// Sent bytes that nobody acknowledges for this long mean a broken link (Linux, TCP_USER_TIMEOUT, milliseconds).
constexpr unsigned int kUnacknowledgedMsMax = 10'000;
constexpr Duration kRetryDelay = std::chrono::milliseconds(50);

// Children of this process must not keep its links open after it has died. Asio does not set the flag itself.
void close_on_exec(int fd) { ::fcntl(fd, F_SETFD, FD_CLOEXEC); }

void tune(tcp::socket& socket) {
  asio::error_code ignored;
  socket.set_option(tcp::no_delay(true), ignored);
  const unsigned int timeout = kUnacknowledgedMsMax;
  ::setsockopt(socket.native_handle(), IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout, sizeof timeout);
}

}  // namespace

// One connect() to a peer: tries its endpoints in turn, again and again, until the deadline.
struct TcpTransport::Attempt : std::enable_shared_from_this<TcpTransport::Attempt> {
  Attempt(asio::io_context& loop, Member to, std::vector<Endpoint> where)
      : peer(to), endpoints(std::move(where)), socket(loop), deadline(loop), retry(loop) {}
  Member peer;
  std::vector<Endpoint> endpoints;
  std::size_t next = 0;
  tcp::socket socket;
  asio::steady_timer deadline;
  asio::steady_timer retry;
  std::shared_ptr<HandshakeLink> handshake;
  Error last_error{ErrorCode::kTimeout, "nobody answered"};
  bool over = false;
};

TcpTransport::TcpTransport(RealLane& lane, TcpOptions options)
    : lane_(lane), options_(std::move(options)), acceptor_(lane.loop()) {}

Result<std::unique_ptr<TcpTransport>> TcpTransport::open(RealLane& lane, TcpOptions options) {
  std::unique_ptr<TcpTransport> transport(new TcpTransport(lane, std::move(options)));
  if (transport->options_.tls) {
    Result<std::shared_ptr<const TlsContext>> tls = TlsContext::create(transport->options_.key, *transport->options_.tls);
    if (!tls) return tls.error();
    transport->tls_ = std::move(*tls);
  }
  if (const Status status = transport->listen(); !status) return status.error();
  lane.post([alive = transport->alive_, raw = transport.get()] {
    if (*alive) raw->accept();
  });
  return transport;
}

TcpTransport::~TcpTransport() {
  *alive_ = false;
  for (const auto& [peer, attempt] : attempts_) {
    attempt->over = true;
    if (attempt->handshake) attempt->handshake->abandon();
  }
  for (const auto& stranger : strangers_) stranger->abandon();
  for (const auto& connection : leaving_) connection->abandon();
  for (const auto& [peer, connection] : std::exchange(connections_, {})) connection->abandon();
}

Status TcpTransport::listen() {
  asio::error_code failed;
  const asio::ip::address address = asio::ip::make_address(options_.listen_host, failed);
  if (failed) return Error{ErrorCode::kInvalid, base::concat("\"", options_.listen_host, "\" is not an IP address to listen on")};
  const tcp::endpoint endpoint(address, options_.listen_port);
  acceptor_.open(endpoint.protocol(), failed);
  if (!failed) {
    close_on_exec(acceptor_.native_handle());
    acceptor_.set_option(tcp::acceptor::reuse_address(true), failed);
  }
  if (!failed) acceptor_.bind(endpoint, failed);
  if (!failed) acceptor_.listen(asio::socket_base::max_listen_connections, failed);
  if (failed) {
    const bool in_use = failed == asio::error::address_in_use;
    return Error{ErrorCode::kSystem,
                 base::concat("cannot listen on ", options_.listen_host, ":", options_.listen_port, ": ", failed.message(),
                              in_use ? "; another program has the port: choose another, or none to have a free one chosen" : "")};
  }
  port_ = acceptor_.local_endpoint().port();
  return {};
}

void TcpTransport::accept() {
  acceptor_.async_accept([this, alive = alive_](const asio::error_code& failed, tcp::socket socket) {
    if (!*alive || failed == asio::error::operation_aborted) return;
    if (failed) {
      // Out of descriptors, most likely: some will be given back.
      base::log::warning("cannot accept a connection: " + failed.message());
      lane_.after(kRetryDelay, [this, alive] {
        if (*alive) accept();
      });
      return;
    }
    close_on_exec(socket.native_handle());
    on_accepted(std::move(socket));
    accept();
  });
}

Status TcpTransport::admit(Member peer, std::uint32_t lane) {
  if (lane != options_.lane) {
    return Error{ErrorCode::kRefused, base::concat("lane ", lane, " was called, and lane ", options_.lane, " listens here")};
  }
  if (connections_.contains(peer)) {
    return Error{ErrorCode::kRefused, base::concat("member ", index(peer), " is connected already")};
  }
  return options_.admits ? options_.admits(peer) : Status{};
}

void TcpTransport::on_accepted(tcp::socket socket) {
  if (strangers_.size() >= kStrangersMax) return;  // closes it
  tune(socket);
  auto handshake = wire::Handshake::acceptor(options_.key, options_.self,
                                             [this](Member peer, std::uint32_t lane) { return admit(peer, lane); });
  auto holder = std::make_shared<std::weak_ptr<HandshakeLink>>();
  auto link = std::make_shared<HandshakeLink>(
      stream_over(std::move(socket), TlsStream::Side::kAcceptor), std::move(handshake), options_.handshake_deadline,
      [this, holder](Result<std::unique_ptr<Stream>> trusted, const wire::Handshake& shake) {
        const auto self = holder->lock();
        if (self) strangers_.erase(self);
        if (!trusted) {
          // Who says nothing only looked whether somebody listens here, as a launcher's agents do.
          const auto level = self && !self->has_heard() ? base::log::Level::kDebug : base::log::Level::kWarning;
          base::log::write(level, "turned a connection away: " + trusted.error().message);
        } else if (!connections_.contains(shake.peer())) {
          adopt(shake.peer(), std::move(*trusted));
        }
      });
  *holder = link;
  strangers_.insert(link);
  link->start();
}

void TcpTransport::connect(Member peer, const std::vector<Endpoint>& endpoints, Duration deadline) {
  auto attempt = std::make_shared<Attempt>(lane_.loop(), peer, endpoints);
  attempts_[peer] = attempt;
  attempt->deadline.expires_after(deadline);
  attempt->deadline.async_wait([this, alive = alive_, attempt](const asio::error_code& cancelled) {
    if (*alive && !cancelled) give_up(attempt, attempt->last_error);
  });
  try_next(attempt);
}

void TcpTransport::give_up(const std::shared_ptr<Attempt>& attempt, const Error& why) {
  if (attempt->over) return;
  attempt->over = true;
  attempt->deadline.cancel();
  attempt->retry.cancel();
  if (attempt->handshake) attempt->handshake->abandon();
  asio::error_code ignored;
  attempt->socket.close(ignored);
  attempts_.erase(attempt->peer);
  std::string where;
  for (const Endpoint& e : attempt->endpoints) where += base::concat(where.empty() ? "" : ", ", e.host, ":", e.port);
  if (listener_.on_down) listener_.on_down(attempt->peer, Error{why.code, base::concat("cannot connect to ", where, ": ", why.message)});
}

void TcpTransport::try_next(const std::shared_ptr<Attempt>& attempt) {
  if (attempt->over) return;
  const Endpoint& where = attempt->endpoints[attempt->next++ % attempt->endpoints.size()];
  const auto try_again = [this, alive = alive_, attempt](Error why) {
    attempt->last_error = std::move(why);
    attempt->retry.expires_after(kRetryDelay);
    attempt->retry.async_wait([this, alive, attempt](const asio::error_code& cancelled) {
      if (*alive && !cancelled) try_next(attempt);
    });
  };
  asio::error_code failed;
  const tcp::endpoint endpoint(asio::ip::make_address(where.host, failed), where.port);
  if (failed) return give_up(attempt, Error{ErrorCode::kInvalid, base::concat("\"", where.host, "\" is not an IP address")});
  attempt->socket = tcp::socket(lane_.loop());
  attempt->socket.open(endpoint.protocol(), failed);
  if (failed) return try_again(Error{ErrorCode::kSystem, failed.message()});
  close_on_exec(attempt->socket.native_handle());
  attempt->socket.async_connect(endpoint, [this, alive = alive_, attempt, try_again](const asio::error_code& refused) {
    if (!*alive || attempt->over) return;
    if (refused) return try_again(Error{ErrorCode::kPeerLost, refused.message()});
    tune(attempt->socket);
    attempt->handshake = std::make_shared<HandshakeLink>(
        stream_over(std::move(attempt->socket), TlsStream::Side::kConnector),
        wire::Handshake::connector(options_.key, options_.self, attempt->peer, options_.lane), options_.handshake_deadline,
        [this, alive, attempt, try_again](Result<std::unique_ptr<Stream>> trusted, const wire::Handshake&) {
          if (!*alive || attempt->over) return;
          attempt->handshake = nullptr;
          if (!trusted && trusted.error().code == ErrorCode::kRefused) return give_up(attempt, trusted.error());
          if (!trusted) return try_again(trusted.error());
          attempt->over = true;
          attempt->deadline.cancel();
          attempts_.erase(attempt->peer);
          adopt(attempt->peer, std::move(*trusted));
        });
    attempt->handshake->start();
  });
}

std::unique_ptr<Stream> TcpTransport::stream_over(tcp::socket socket, TlsStream::Side side) const {
  if (!tls_) return std::make_unique<Stream>(std::move(socket));
  return std::make_unique<TlsStream>(std::move(socket), tls_, side);
}

void TcpTransport::adopt(Member peer, std::unique_ptr<Stream> stream) {
  ConnectionOwner& owner = *this;
  auto connection = std::make_shared<Connection>(std::move(stream), owner, peer, options_.key.job, options_.self);
  connections_[peer] = connection;
  // First the news, so that nobody hears a frame of a peer that is not up yet.
  if (listener_.on_up) listener_.on_up(peer);
  connection->start();
}

void TcpTransport::disconnect(Member peer) {
  const auto found = connections_.find(peer);
  if (found == connections_.end()) return;
  const std::shared_ptr<Connection> connection = found->second;
  connections_.erase(found);
  leaving_.insert(connection);
  connection->finish([this, alive = alive_, connection] {
    if (*alive) leaving_.erase(connection);
  });
}

void TcpTransport::set_epoch(Epoch epoch) {
  epoch_ = epoch;
  const auto connections = connections_;
  for (const auto& [peer, connection] : connections) connection->resume();
}

void TcpTransport::send(Destination to, Frame frame, SentFn on_sent) {
  const auto found = connections_.find(to.peer);
  if (found == connections_.end()) {
    if (on_sent) lane_.post(std::move(on_sent));
    return;
  }
  found->second->send(std::move(frame), epoch_, std::move(on_sent));
}

LinkBytes TcpTransport::link_bytes(Member peer) const {
  const auto found = connections_.find(peer);
  return found == connections_.end() ? LinkBytes{} : found->second->bytes();
}

void TcpTransport::on_frame(Member from, const wire::FrameHeader& header, std::span<const wire::PartHeader> data_parts) {
  if (listener_.on_alive) listener_.on_alive(from);
  if (on_receipt_) on_receipt_(from, data_parts, header.credit);
}

void TcpTransport::on_body(Member from, const wire::FrameHeader& header, std::vector<std::byte> body) {
  const auto handler = body_handlers_.find(header.part.type);
  if (handler != body_handlers_.end()) handler->second(from, header, std::move(body));
}

void TcpTransport::on_closed(Member peer, const Error& why) {
  connections_.erase(peer);
  if (listener_.on_down) listener_.on_down(peer, why);
}

}  // namespace poseidon::runtime::real
