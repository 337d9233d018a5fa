// A lane and a network without time, for what is driven by hand: tasks run when run() says, and what is sent goes where a derived
// class puts it. Nothing arrives but the credit that its user reports.
#pragma once

#include <deque>
#include <utility>
#include <vector>

#include "runtime/runtime.h"
#include "runtime/transport.h"

namespace poseidon::test {

class HandLane : public runtime::Runtime, public runtime::Transport {
 public:
  runtime::Time now() const override { return {}; }
  void post(runtime::Task task) override { tasks.push_back(std::move(task)); }
  runtime::TimerId after(runtime::Duration, runtime::Task) override { return {}; }
  void cancel(runtime::TimerId) override {}

  Member self() const override { return Member{0}; }
  void set_listener(runtime::PeerListener) override {}
  void connect(Member, const std::vector<runtime::Endpoint>&, runtime::Duration) override {}
  void disconnect(Member) override {}
  void set_epoch(Epoch) override {}
  runtime::SinkId expect(Member, const runtime::Tag&, runtime::Sink) override { return {}; }
  void revoke(runtime::SinkId) override {}
  void set_acceptor(wire::FrameType, runtime::AcceptFn) override {}
  void set_body_handler(wire::FrameType, runtime::BodyFn) override {}
  void set_receipt_handler(runtime::ReceiptFn handle) override { receipt = std::move(handle); }
  runtime::Region register_memory(const runtime::Region& region) override { return region; }
  runtime::LinkBytes link_bytes(Member) const override { return {}; }

  // Runs the oldest task, if there is one.
  bool run_one() {
    if (tasks.empty()) return false;
    const runtime::Task task = std::move(tasks.front());
    tasks.pop_front();
    task();
    return true;
  }
  // Runs what was posted, and what that posts, until nothing is left.
  void run() {
    while (run_one()) {
    }
  }

  std::deque<runtime::Task> tasks;
  runtime::ReceiptFn receipt;  // what reports of received frames, and of credit, are given to
};

}  // namespace poseidon::test
