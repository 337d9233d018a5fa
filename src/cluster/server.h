// One dedicated server of a job: sums what workers push to it and sends them the sums. It has no data, no net and no parameters of
// its own; what is trained, and which part of it is the server's, comes with the plan.
#pragma once

#include <functional>
#include <memory>

#include "cluster/job_address.h"
#include "cluster/membership.h"
#include "runtime/compute.h"

namespace poseidon::cluster {

struct ServerOptions {
  JobAddress job;  // of a dedicated server
  std::function<std::unique_ptr<runtime::Compute>(runtime::Runtime& lane)> make_compute;
  HeartbeatOptions heartbeat;
};

// Joins the job and serves on a lane of its own; the calling thread waits until every worker has left. The error is what ended
// the job instead.
Status serve(ServerOptions options);

}  // namespace poseidon::cluster
