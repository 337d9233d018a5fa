// The library by itself: what stands behind Cluster and run_local, for programs that bring their own arithmetic.
//
// Puts cluster::Worker behind plain types: checks what comes in, makes products on a thread of their own, and keeps every
// promise of callbacks when things end early. Knows no engine and no application; the C ABI (capi) stands on the same door.
#pragma once

#include <memory>
#include <optional>

#include "cluster/worker.h"
#include "library/checked_session.h"
#include "poseidon/cluster.h"

namespace poseidon::library {

// The threads are those of Cluster.
class Door {
 public:
  static Result<std::unique_ptr<Door>> join(JobOptions options);
  ~Door();

  cluster::Worker& worker() { return *worker_; }
  CheckedSession& session() { return *session_; }
  const Model& model() const { return model_; }

 private:
  explicit Door(Model model) : model_(std::move(model)) {}

  const Model model_;
  std::unique_ptr<CheckedSession> session_;  // called by the worker until that has gone
  std::unique_ptr<cluster::Worker> worker_;
};

}  // namespace poseidon::library
