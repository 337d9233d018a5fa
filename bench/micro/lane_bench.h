// A lane and a network that cost nothing: what is measured is the state machine on it alone.
#pragma once

#include <deque>
#include <utility>
#include <vector>

#include "runtime/runtime.h"
#include "runtime/transport.h"

namespace poseidon::bench {

// Tasks run when run() says. Frames vanish; who got how many payload bytes is kept, so that credit can be returned.
class FreeLane : public runtime::Runtime, public runtime::Transport {
 public:
  runtime::Time now() const override { return {}; }
  void post(runtime::Task task) override { tasks_.push_back(std::move(task)); }
  runtime::TimerId after(runtime::Duration, runtime::Task) override { return {}; }
  void cancel(runtime::TimerId) override {}
  Member self() const override { return Member{0}; }
  void set_listener(runtime::PeerListener) override {}
  void connect(Member, const std::vector<runtime::Endpoint>&, runtime::Duration) override {}
  void disconnect(Member) override {}
  void set_epoch(Epoch) override {}
  void send(runtime::Destination to, runtime::Frame frame, runtime::SentFn on_sent) override {
    std::uint32_t bytes = 0;
    for (const wire::PartHeader& part : frame.parts) bytes += part.bytes;
    if (bytes > 0) uncredited_.emplace_back(to.peer, bytes);
    ++frames_;
    if (on_sent) on_sent();
  }
  runtime::SinkId expect(Member, const runtime::Tag&, runtime::Sink) override { return {}; }
  void revoke(runtime::SinkId) override {}
  void set_acceptor(wire::FrameType, runtime::AcceptFn) override {}
  void set_body_handler(wire::FrameType, runtime::BodyFn) override {}
  void set_receipt_handler(runtime::ReceiptFn handle) override { receipt_ = std::move(handle); }
  runtime::Region register_memory(const runtime::Region& region) override { return region; }
  runtime::LinkBytes link_bytes(Member) const override { return {}; }

  // Runs what was posted, and returns credit for each frame, oldest first, until nothing more leaves.
  void run() {
    while (!tasks_.empty() || !uncredited_.empty()) {
      while (!tasks_.empty()) {
        const runtime::Task task = std::move(tasks_.front());
        tasks_.pop_front();
        task();
      }
      if (uncredited_.empty()) continue;
      const auto [from, bytes] = uncredited_.front();
      uncredited_.pop_front();
      receipt_(from, {}, bytes);
    }
  }
  std::int64_t frames() const { return frames_; }

 private:
  std::deque<runtime::Task> tasks_;
  std::deque<std::pair<Member, std::uint32_t>> uncredited_;
  runtime::ReceiptFn receipt_;
  std::int64_t frames_ = 0;
};

}  // namespace poseidon::bench
