// What a poseidon_cluster is: a Cluster, and what C needs kept for it.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
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

  const poseidon::Model model;
  std::mutex mutex;
  std::condition_variable changed;
  std::vector<Waiting> waiting;                        // by tensor; guarded by mutex
  std::map<void*, std::shared_ptr<std::byte>> memory;  // poseidon_allocate; guarded by mutex
  std::optional<std::string> plan;                     // as it was asked for; guarded by mutex
  std::vector<std::string> gathered;                   // the thread that gathers
  std::unique_ptr<poseidon::Cluster> cluster;          // last: its end calls back into the above

  explicit poseidon_cluster(poseidon::Model of) : model(std::move(of)), waiting(model.tensors.size()) {}
};
