// One worker process of `poseidon replay`.
#pragma once

#include "apps/poseidon/replay_options.h"
#include "cluster/worker.h"

namespace poseidon::app {

// Joins the job, replays, tells what it has measured, leaves; returns the process's exit code.
int run_replay_worker(const ReplayOptions& options, const cluster::JobAddress& job);

}  // namespace poseidon::app
