// The library by itself: what stands behind Cluster and run_local, for programs that bring their own arithmetic.
//
// Puts cluster::Worker behind plain types: checks what comes in, makes products on a thread of their own, and keeps every
// promise of callbacks when things end early. Knows no engine and no application; the C ABI (capi) stands on the same door.
#pragma once

#include <compare>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "cluster/worker.h"
#include "library/checked_session.h"
#include "poseidon/cluster.h"
#include "trace/worker_timeline.h"

namespace poseidon::library {

// The threads are those of Cluster.
class Door {
 public:
  static Result<std::unique_ptr<Door>> join(JobOptions options);
  ~Door();
  // See Cluster::forsake.
  static void forsake(std::unique_ptr<Door> door);

  cluster::Worker& worker() { return *worker_; }
  CheckedSession& session() { return *session_; }

  // Those of Cluster, where there is more to do than the worker's part.
  Status renew(Model model, std::vector<TensorView> values, Iteration first);
  bool begin(Iteration iteration);
  Status exchange(std::uint32_t channel, std::uint64_t number, const std::vector<Letter>& out, const std::vector<Letter>& in);
  void span(const std::string& name, bool is_begin);
  Status leave();

 private:
  // A message that is on its way, by its name.
  struct Moving {
    bool out = false;
    int rank = 0;
    collective::MessageName name;
    friend std::strong_ordering operator<=>(const Moving&, const Moving&) = default;
  };

  explicit Door(Model model) : model_(std::move(model)) {}
  void name_tensors();
  Status check_letters(const std::vector<Letter>& letters) const;
  // Notes that these messages are on their way. kInvalid, and nothing is noted, where one is already.
  Status begin_moving(const std::vector<Moving>& messages);

  std::unique_ptr<trace::WorkerTimeline> timeline_;  // null where none is wanted; the worker's threads record into it
  Model model_;                                      // that is trained now
  std::mutex moving_mutex_;
  std::set<Moving> moving_;                          // guarded by moving_mutex_
  std::unique_ptr<CheckedSession> session_;          // called by the worker until that has gone
  std::unique_ptr<cluster::Worker> worker_;
};

}  // namespace poseidon::library
