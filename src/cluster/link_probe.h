// Measures the links before training: each worker sends to the worker after it while the one before it sends to it, so both
// directions of every link are busy at once, as they are in training.
//
// First a few frames there and back, one at a time: half the quickest round trip is the latency. Then bursts, each twice as
// long as the last until one takes long enough to trust. Lane only.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "runtime/runtime.h"
#include "runtime/transport.h"

namespace poseidon::cluster {

struct LinkSpeed {
  double bytes_per_second = 0;
  double latency_seconds = 0;
};

class LinkProbe {
 public:
  // Also answers the probes of others, for as long as it lives.
  LinkProbe(runtime::Runtime& runtime, runtime::Transport& transport);
  ~LinkProbe();

  void measure(Member peer, std::function<void(const LinkSpeed&)> done);

 private:
  void on_probe(Member from, const wire::PartHeader& part);
  void ping();
  void burst();
  void send(Member to, std::uint64_t sequence, std::size_t bytes, std::uint16_t flags);

  runtime::Runtime& runtime_;
  runtime::Transport& transport_;
  Member peer_{0};
  std::function<void(const LinkSpeed&)> done_;
  std::uint64_t sequence_ = 0;
  int pings_left_ = 0;
  std::size_t burst_bytes_ = 0;
  runtime::Time sent_at_{};
  double round_trip_seconds_ = 0;
  LinkSpeed best_;
  std::vector<std::byte> out_;
  std::vector<std::byte> in_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace poseidon::cluster
