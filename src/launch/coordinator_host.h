// The coordinator of a job, on a lane of its own in the launcher, and what the launcher's main thread sees of it.
//
// Functions are called by the main thread, but for abort(). Make it after a SignalDescriptor: its lane inherits the mask.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>
#include <string>

#include "cluster/coordinator.h"
#include "runtime/real/lane.h"
#include "runtime/real/tcp_transport.h"

namespace poseidon::launch {

struct CoordinatorHostOptions {
  std::string host = "127.0.0.1";  // the address that it listens on
  std::uint16_t port = 0;          // 0: a free one
  bool tls = false;                // links to it are TLS
  cluster::CoordinatorOptions coordinator;
};

class CoordinatorHost {
 public:
  CoordinatorHost();
  ~CoordinatorHost();
  CoordinatorHost(const CoordinatorHost&) = delete;
  CoordinatorHost& operator=(const CoordinatorHost&) = delete;

  // The listener's callbacks come from the lane; its on_fail and on_finish are not called.
  Status open(const std::vector<std::byte>& secret, const CoordinatorHostOptions& options, cluster::CoordinatorListener listener);
  // Of an open one.
  std::uint16_t port() const;

  // Ends the job with an error; from any thread. Before open() it does nothing.
  void abort(const Error& why);
  // All workers stop after the same iteration; see cluster::Coordinator.
  void request_stop();
  // The job is over, though nobody has told the coordinator: `why` is the error, or nothing.
  void settle(std::optional<Error> why);

  // So many workers have joined so far.
  int joined();
  bool is_over();
  std::optional<Error> error();
  // Whether all were ready, since the last call.
  bool take_started() { return started_.exchange(false); }
  // Readable when one of these has changed.
  int wake_descriptor() const { return wake_; }
  void clear_wake() const;

 private:
  void wake() const;

  int wake_;
  std::unique_ptr<runtime::real::RealLane> lane_;
  std::unique_ptr<runtime::real::TcpTransport> transport_;  // lane only, but for its port
  std::unique_ptr<cluster::Coordinator> coordinator_;       // lane only
  std::atomic<bool> started_ = false;
  std::mutex mutex_;
  bool over_ = false;           // guarded by mutex_
  std::optional<Error> error_;  // guarded by mutex_
};

}  // namespace poseidon::launch
