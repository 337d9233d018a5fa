// What the tests of the real transport share: members on loopback, and somebody between them.
#pragma once

#include <gtest/gtest.h>
#include <poll.h>

#include <asio/write.hpp>

#include <algorithm>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/checksum.h"
#include "runtime/real/tcp_transport.h"

namespace poseidon::runtime::real {

// A kind of link to run a test over.
struct Link {
  std::string name;
  std::optional<TlsOptions> tls;
};

// One member with its own lane. Everything is done on the lane; `wait` lets a test wait for what happens there.
class Node {
 public:
  Node(Member self, const wire::JobKey& key, TcpOptions options = {}) : lane_("test lane") {
    options.key = key;
    options.self = self;
    transport_ = std::move(TcpTransport::open(lane_, std::move(options)).value());
    run([&] {
      transport_->set_listener({.on_up = [this](Member peer) { note("up " + std::to_string(index(peer))); },
                                .on_down = [this](Member peer, const Error& why) { note("down " + std::to_string(index(peer)) + " " + why.message); },
                                .on_alive = {}});
      transport_->set_epoch(Epoch{1});
    });
  }
  ~Node() {
    run([&] { transport_.reset(); });
  }
  void run(const Task& task) { lane_.run(task); }
  TcpTransport& transport() { return *transport_; }
  std::uint16_t port() const { return transport_->port(); }
  void note(const std::string& text) {
    const std::lock_guard lock(mutex_);
    notes_.push_back(text);
    changed_.notify_all();
  }
  // True when a note that contains `text` is there within 10 s.
  bool wait(const std::string& text) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::seconds(10), [&] {
      return std::any_of(notes_.begin(), notes_.end(), [&](const std::string& n) { return n.find(text) != std::string::npos; });
    });
  }
  std::vector<std::string> notes() {
    const std::lock_guard lock(mutex_);
    return notes_;
  }
  // Whatever is pushed here lands in `target`, and is noted as "landed ITERATION.".
  void accept_pushes(std::vector<std::byte>& target) {
    run([&] {
      transport_->set_acceptor(wire::FrameType::kPush, [this, &target](Member, const wire::PartHeader& part) -> Result<Sink> {
        return Sink{0, part.bytes, Layout::contiguous({target.data(), target.size(), {}, 0}, 0, part.bytes),
                    [this](Member, const wire::PartHeader& p) { note("landed " + std::to_string(p.iteration) + "."); }};
      });
    });
  }

 private:
  RealLane lane_;
  std::unique_ptr<TcpTransport> transport_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::string> notes_;
};

inline const wire::JobKey& test_key() {
  static const wire::JobKey key = wire::job_key(base::random_bytes(32));
  return key;
}

inline void link(Node& a, Node& b) {
  const Member peer = b.transport().self();
  a.run([&] { a.transport().connect(peer, {{"127.0.0.1", b.port()}}, std::chrono::seconds(10)); });
  ASSERT_TRUE(a.wait("up")) << ::testing::PrintToString(a.notes());
  ASSERT_TRUE(b.wait("up"));
}

// A frame of one part that carries all of `bytes`, which it borrows.
inline Frame data(wire::FrameType type, std::vector<std::byte>& bytes, Iteration iteration = 0) {
  Frame frame;
  frame.parts.push_back({.type = type, .iteration = iteration, .bytes = static_cast<std::uint32_t>(bytes.size())});
  frame.payload.push_back({{bytes.data(), bytes.size(), {}, 0}, 0, bytes.size()});
  return frame;
}

// A member made of a bare stream, which can stop in the middle of a frame.
class BareMember {
 public:
  BareMember(Member self, Member peer, std::uint16_t port, const std::optional<TlsOptions>& tls) : self_(self) {
    asio::ip::tcp::socket socket(loop_);
    socket.connect({asio::ip::make_address("127.0.0.1"), port});
    if (tls) {
      stream_ = std::make_unique<TlsStream>(std::move(socket), TlsContext::create(test_key(), *tls).value(), TlsStream::Side::kConnector);
    } else {
      stream_ = std::make_unique<Stream>(std::move(socket));
    }
    while (!stream_->establish().value()) wait(POLLIN);
    wire::Handshake shake = wire::Handshake::connector(test_key(), self, peer, 0);
    std::vector<std::byte> out = shake.start();
    while (!shake.finished()) {
      send(out);
      const std::vector<std::byte> bytes = receive(wire::kHeaderBytes);
      const wire::FrameHeader header = wire::decode_header(std::span(bytes).first<wire::kHeaderBytes>()).value();
      out = shake.on_frame(header, receive(header.part.bytes)).value();
    }
  }
  void send_header(const wire::PartHeader& part) {
    wire::FrameHeader header;
    header.job = test_key().job;
    header.epoch = Epoch{1};
    header.sender = self_;
    header.part = part;
    const auto bytes = wire::encode_header(header);
    send({bytes.begin(), bytes.end()});
  }
  void send(const std::vector<std::byte>& bytes) {
    for (std::size_t done = 0; done < bytes.size();) {
      const iovec rest{const_cast<std::byte*>(bytes.data()) + done, bytes.size() - done};
      const std::size_t n = stream_->write({&rest, 1}).value();
      if (n == 0) wait(POLLOUT);
      done += n;
    }
    while (!stream_->flush().value()) wait(POLLOUT);
  }

 private:
  std::vector<std::byte> receive(std::size_t count) {
    std::vector<std::byte> bytes(count);
    for (std::size_t done = 0; done < count;) {
      const iovec rest{bytes.data() + done, count - done};
      const std::size_t n = stream_->read({&rest, 1}).value();
      if (n == 0) wait(POLLIN);
      done += n;
    }
    return bytes;
  }
  void wait(short what) {
    pollfd fd{stream_->socket().native_handle(), what, 0};
    ::poll(&fd, 1, 10'000);
  }

  Member self_;
  asio::io_context loop_;
  std::unique_ptr<Stream> stream_;
};

// Somebody on the way between a connector and a listener, for one connection: keeps, and may change, what passes.
class Middleman {
 public:
  // Called with how many bytes have passed before and with those that are about to. False: cuts the connection here.
  using Meddle = std::function<bool(std::uint64_t before, std::vector<std::byte>& bytes)>;

  // `meddle` sees what goes from the connector to the listener; it may be empty.
  explicit Middleman(std::uint16_t listener, Meddle meddle = {})
      : acceptor_(loop_, {asio::ip::make_address("127.0.0.1"), 0}), meddle_(std::move(meddle)) {
    thread_ = std::thread([this, listener] {
      asio::error_code over;
      asio::ip::tcp::socket connector(loop_);
      acceptor_.accept(connector, over);
      asio::ip::tcp::socket onward(loop_);
      if (!over) onward.connect({asio::ip::make_address("127.0.0.1"), listener}, over);
      if (over) return;
      std::thread back([&] { pass(onward, connector, {}); });
      pass(connector, onward, meddle_);
      back.join();
    });
  }
  // When both ends have closed.
  ~Middleman() { thread_.join(); }
  std::uint16_t port() const { return acceptor_.local_endpoint().port(); }
  // All bytes of both directions so far.
  std::vector<std::byte> seen() {
    const std::lock_guard lock(mutex_);
    return seen_;
  }

 private:
  void pass(asio::ip::tcp::socket& from, asio::ip::tcp::socket& to, const Meddle& meddle) {
    std::vector<std::byte> bytes;
    asio::error_code over;
    for (std::uint64_t before = 0;;) {
      bytes.resize(64 * 1024);
      bytes.resize(from.read_some(asio::buffer(bytes), over));
      if (over || (meddle && !meddle(before, bytes))) break;
      before += bytes.size();
      {
        const std::lock_guard lock(mutex_);
        seen_.insert(seen_.end(), bytes.begin(), bytes.end());
      }
      asio::write(to, asio::buffer(bytes), over);
      if (over) break;
    }
    asio::error_code ignored;
    from.shutdown(asio::ip::tcp::socket::shutdown_both, ignored);
    to.shutdown(asio::ip::tcp::socket::shutdown_both, ignored);
  }

  asio::io_context loop_;
  asio::ip::tcp::acceptor acceptor_;
  Meddle meddle_;
  std::thread thread_;
  std::mutex mutex_;
  std::vector<std::byte> seen_;
};

}  // namespace poseidon::runtime::real
