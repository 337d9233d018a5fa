// The outgoing side of a link that several connections share: each that has something to send gets an equal part of the rate.
//
// Bytes are served as by generalised processor sharing (Parekh and Gallager, IEEE/ACM Transactions on Networking 1993). Its
// virtual clock counts the bytes that a connection has been given which always had some to send: a frame leaves when the clock
// comes to what it counted when the frame's turn began, plus the frame's bytes. Pure, but for the time that it is told.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <queue>
#include <vector>

#include "base/check.h"
#include "runtime/runtime.h"

namespace poseidon::runtime::sim {

template <typename Frame>
class FairLink {
 public:
  struct Departure {
    Frame frame;
    Time began{};  // when it was the first of its connection
  };

  // Connections are numbered from 0. `rate`: bytes per second, of the link.
  void push(Time now, std::size_t connection, Frame frame, std::size_t bytes, double rate) {
    advance(now);
    rate_ = rate;
    if (connections_.size() <= connection) connections_.resize(connection + 1);
    Connection& of = connections_[connection];
    if (of.waiting++ == 0) {
      ++busy_;
      of.finish = served_;
      of.free = now;
    }
    of.finish += static_cast<double>(bytes);
    waiting_.push({of.finish, next_order_++, connection, std::move(frame)});
  }

  // When the next frame leaves, if nothing is pushed before. Nothing: none waits.
  std::optional<Time> next() const {
    if (waiting_.empty()) return std::nullopt;
    const double left = waiting_.top().finish - served_;
    return at_ + Duration(static_cast<std::int64_t>(std::ceil(1e9 * left * static_cast<double>(busy_) / rate_)));
  }

  // At that time.
  Departure pop() {
    POSEIDON_CHECK(!waiting_.empty(), "no frame is to leave");
    const Time now = *next();
    const Waiting first = waiting_.top();
    waiting_.pop();
    served_ = first.finish;
    at_ = now;
    Connection& of = connections_[first.connection];
    const Departure departure{first.frame, of.free};
    of.free = now;
    if (--of.waiting == 0) --busy_;
    return departure;
  }

 private:
  struct Connection {
    double finish = 0;        // of its last frame, by the virtual clock
    std::size_t waiting = 0;  // frames
    Time free{};              // when the one before has left
  };
  struct Waiting {
    double finish;
    std::uint64_t order;
    std::size_t connection;
    Frame frame;
    // The first to leave is the largest, as a priority queue wants it.
    friend bool operator<(const Waiting& a, const Waiting& b) {
      return a.finish != b.finish ? a.finish > b.finish : a.order > b.order;
    }
  };
  void advance(Time now) {
    if (busy_ > 0) served_ += std::chrono::duration<double>(now - at_).count() * rate_ / static_cast<double>(busy_);
    at_ = now;
  }

  double served_ = 0;  // the virtual clock, in bytes
  Time at_{};          // when it showed that
  double rate_ = 1;
  std::size_t busy_ = 0;  // connections with a frame
  std::vector<Connection> connections_;
  std::priority_queue<Waiting> waiting_;
  std::uint64_t next_order_ = 0;
};

}  // namespace poseidon::runtime::sim
