// The lanes of a worker beyond its first: their event loops, their transports, and the engine that is made of all of them.
//
// The home lane (lane 0) is the worker's own; membership, the coordinator's link, probes and heartbeats stay there. Every other lane
// waits for nobody, so the home lane may wait for it, and does while an engine is made, asked for its use, or taken down.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "cluster/messages.h"
#include "runtime/compute.h"
#include "runtime/lane_bundle.h"
#include "runtime/real/cores.h"
#include "runtime/real/lane.h"
#include "runtime/real/tcp_transport.h"
#include "runtime/relay_compute.h"
#include "session/engine_session.h"

namespace poseidon::cluster {

// What lane 0 brings. All outlive the lanes, but for the arithmetic and the transport (see close()).
struct HomeLane {
  runtime::real::RealLane& lane;
  runtime::real::TcpTransport& transport;
  runtime::Compute& compute;  // also makes the products of the others
};

class WorkerLanes {
 public:
  // Opens lanes 1 to count - 1, each listening at a port of its own; `tcp` is the home lane's.
  static Result<std::unique_ptr<WorkerLanes>> open(const HomeLane& home, std::size_t count, const runtime::real::TcpOptions& tcp);
  // Not on a lane; after close(), and after the engine has gone.
  ~WorkerLanes();

  std::size_t count() const { return 1 + others_.size(); }
  // Completes what the member tells of itself, which has the home lane's endpoint.
  void announce(MemberInfo& self) const;
  // kSystem where a core cannot be had. Lane l's thread runs on `core_of(l)` only.
  Status pin(const std::function<int(std::size_t lane)>& core_of);

  // At home, all the following. The transport for membership.
  runtime::Transport& bundle() { return *bundle_; }
  // An engine over all lanes, with these options for each.
  Result<std::unique_ptr<session::Engine>> make_engine(session::EngineOptions options);
  // Over lanes 1 and up.
  runtime::LinkBytes link_bytes(const std::vector<Member>& peers);
  // Before the home lane's arithmetic and transport go: asks nothing of them any more.
  void close();

 private:
  struct Other {
    explicit Other(const std::string& name) : lane(name) {}
    runtime::real::RealLane lane;
    std::unique_ptr<runtime::real::TcpTransport> transport;  // these two: used and destroyed on the lane
    std::unique_ptr<runtime::RelayCompute> compute;
  };

  explicit WorkerLanes(const HomeLane& home) : home_(home) {}

  HomeLane home_;
  std::shared_ptr<runtime::ProductHome> products_;
  std::vector<std::unique_ptr<Other>> others_;
  std::unique_ptr<runtime::LaneBundle> bundle_;
};

// The engine of a process that has these lanes beyond its first, or none. At home.
Result<std::unique_ptr<session::Engine>> make_engine(const HomeLane& home, WorkerLanes* others, session::EngineOptions options);

// From POSEIDON_LOCAL_RANK and POSEIDON_LOCAL_SIZE, which launchers set: where this process stands among those of its host. Where
// they are not set, or make no sense, it is taken to be alone.
runtime::real::LocalPlace local_place_from_environment();

}  // namespace poseidon::cluster
