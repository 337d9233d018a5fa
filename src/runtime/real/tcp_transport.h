// Transport over TCP, as it is or with TLS 1.3: one trusted connection for each peer, both directions on it. A member with several
// lanes has one for each, listening at a port of its own.
//
// Lane only, but for open() and port().
#pragma once

#include <asio/ip/tcp.hpp>

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <vector>

#include "runtime/real/connection.h"
#include "runtime/real/handshake_link.h"
#include "runtime/real/lane.h"
#include "runtime/real/tls_stream.h"

namespace poseidon::runtime::real {

struct TcpOptions {
  wire::JobKey key;
  Member self{0};
  std::uint32_t lane = 0;         // of this member and of all its peers: one connection for each pair and lane
  std::string listen_host = "127.0.0.1";
  std::uint16_t listen_port = 0;  // 0: the system chooses
  // All links are TLS, and a peer without it is turned away. All members of a job agree on this.
  std::optional<TlsOptions> tls;
  // Who may connect. Called after the peer has proved that it knows the secret.
  std::function<Status(Member peer)> admits;
  // A handshake takes four messages, TLS's three more; 5 s allow for a host that is very busy.
  Duration handshake_deadline = std::chrono::seconds(5);
};

class TcpTransport : public Transport, private ConnectionOwner {
 public:
  // Listens at once. kSystem when the address cannot be had (a port in use), or no TLS. Destroy it on its lane or after the lane.
  static Result<std::unique_ptr<TcpTransport>> open(RealLane& lane, TcpOptions options);
  ~TcpTransport() override;

  std::uint16_t port() const { return port_; }

  Member self() const override { return options_.self; }
  void set_listener(PeerListener listener) override { listener_ = std::move(listener); }
  void connect(Member peer, const std::vector<Endpoint>& endpoints, Duration deadline) override;
  void disconnect(Member peer) override;
  void set_epoch(Epoch epoch) override;
  void send(Destination to, Frame frame, SentFn on_sent) override;
  SinkId expect(Member from, const Tag& tag, Sink sink) override { return sinks_.expect(from, tag, std::move(sink)); }
  void revoke(SinkId sink) override { sinks_.revoke(sink); }
  void set_acceptor(wire::FrameType type, AcceptFn accept) override { sinks_.set_acceptor(type, std::move(accept)); }
  void set_body_handler(wire::FrameType type, BodyFn handle) override { body_handlers_[type] = std::move(handle); }
  void set_receipt_handler(ReceiptFn handle) override { on_receipt_ = std::move(handle); }
  Region register_memory(const Region& region) override { return region; }
  LinkBytes link_bytes(Member peer) const override;

 private:
  struct Attempt;  // to connect

  TcpTransport(RealLane& lane, TcpOptions options);
  Status listen();
  void accept();
  void on_accepted(asio::ip::tcp::socket socket);
  void try_next(const std::shared_ptr<Attempt>& attempt);
  void give_up(const std::shared_ptr<Attempt>& attempt, const Error& why);
  std::unique_ptr<Stream> stream_over(asio::ip::tcp::socket socket, TlsStream::Side side) const;
  void adopt(Member peer, std::unique_ptr<Stream> stream);
  Status admit(Member peer, std::uint32_t lane);

  SinkTable& sinks() override { return sinks_; }
  Epoch epoch() const override { return epoch_; }
  void on_frame(Member from, const wire::FrameHeader& header, std::span<const wire::PartHeader> data_parts) override;
  void on_body(Member from, const wire::FrameHeader& header, std::vector<std::byte> body) override;
  void on_closed(Member peer, const Error& why) override;

  RealLane& lane_;
  TcpOptions options_;
  std::shared_ptr<const TlsContext> tls_;  // null: without
  asio::ip::tcp::acceptor acceptor_;
  std::uint16_t port_ = 0;
  Epoch epoch_{0};
  SinkTable sinks_;
  std::map<wire::FrameType, BodyFn> body_handlers_;
  ReceiptFn on_receipt_;
  PeerListener listener_;
  std::map<Member, std::shared_ptr<Connection>> connections_;
  std::set<std::shared_ptr<Connection>> leaving_;     // have bytes to get rid of
  std::set<std::shared_ptr<HandshakeLink>> strangers_;  // that called us
  std::map<Member, std::shared_ptr<Attempt>> attempts_;
  // Handlers of the event loop may outlive the transport; they look here first.
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace poseidon::runtime::real
