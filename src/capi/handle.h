// What a poseidon_cluster is: a Cluster, and what C needs kept for it.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "library/checked_session.h"
#include "poseidon/cluster.h"
#include "poseidon/poseidon.h"

// Named as the ABI names it, since the handle is a pointer to it.
struct poseidon_cluster {
  // The last submission of one tensor without a callback: poseidon_wait takes it.
  struct Waiting {
    bool submitted = false;
    bool released = true;  // U and V may be used again
    std::optional<poseidon::Synced> synced;
  };

  poseidon::library::CheckedSession& session() const {
    // What Cluster gives out as a Session is always one of these (library/door.h).
    return static_cast<poseidon::library::CheckedSession&>(cluster->session());
  }

  // The model that is trained now: a tensor's or layer's part of it, as a copy, or kInvalid where there is no such one.
  poseidon::Result<poseidon::TensorSpec> tensor(std::uint32_t id) const;
  poseidon::Result<poseidon::LayerSpec> layer(std::uint32_t id) const;

  mutable std::mutex mutex;
  std::condition_variable changed;
  poseidon::Model model;                               // guarded by mutex
  std::deque<Waiting> waiting;                         // by tensor, for whom poseidon_wait keeps a reference; guarded by mutex
  std::map<void*, std::shared_ptr<std::byte>> memory;  // poseidon_allocate; guarded by mutex
  std::deque<std::string> plans;                       // as they were asked for; guarded by mutex
  bool has_plan = false;                               // the last of them is in force; guarded by mutex
  std::vector<std::string> gathered;                   // the thread that gathers
  std::unique_ptr<poseidon::Cluster> cluster;          // last: its end calls back into the above

  explicit poseidon_cluster(poseidon::Model of) : model(std::move(of)), waiting(model.tensors.size()) {}
};
