// One worker process of `poseidon train`.
#pragma once

#include "apps/poseidon/train_options.h"
#include "cluster/worker.h"

namespace poseidon::app {

// Joins the job, trains, leaves; returns the process's exit code. What goes wrong reaches the launcher, through the
// coordinator or in the run folder.
int run_train_worker(const TrainOptions& options, const cluster::JobAddress& job);

}  // namespace poseidon::app
