// A job whose workers are processes on this host: starts them, holds the coordinator, and ends when all have ended.
//
// Each worker runs the given command with the variables of the launching contract (cluster/worker.h) and POSEIDON_RUN_FOLDER.
// Its output goes to worker-N.log in the run folder. A worker that ends with an error may leave one sentence about it in
// worker-N.error (launch/sentence.h), which becomes the job's error.
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "cluster/coordinator.h"
#include "launch/child_process.h"
#include "launch/signals.h"
#include "poseidon/error.h"

namespace poseidon::launch {

struct LocalJobOptions {
  int workers = 1;
  int servers = 0;  // dedicated ones
  std::vector<std::string> command;
  std::vector<std::string> server_command;  // of a dedicated server
  // In front of the command, for workers that start elsewhere: {"ip", "netns", "exec", "host-{rank}"}, with {rank} replaced, for a
  // dedicated server by workers + its number. It must become the worker (exec), since it is watched, and ended, as the worker.
  std::vector<std::string> start;
  std::map<std::string, std::string> environment;
  std::filesystem::path run_folder;  // exists
  std::string host = "127.0.0.1";    // address of the coordinator, for workers to connect to
  std::uint16_t port = 0;            // 0: a free one
  bool tls = false;                  // all links of the job, the coordinator's too, are TLS
  cluster::CoordinatorOptions coordinator;
  // What a signal does that is not to end the job; see SignalEffect.
  std::map<int, SignalEffect> effects = {};
  // After the job has failed, or has ended well, workers are given this long to end by themselves; less when a second signal asks for
  // the end. Who is killed after a good end has failed, so that one is for processes that hang, not for slow machines.
  std::chrono::milliseconds farewell_max = std::chrono::seconds(4);
  std::chrono::milliseconds parting_max = std::chrono::seconds(60);
};

struct JobOutcome {
  std::optional<Error> error;       // nothing: all workers finished their work and ended with 0
  std::optional<int> interrupted;   // the signal that asked for the end
  std::vector<Exit> exits;          // by rank, the dedicated servers' after the workers'
  // Likewise: user and system time of each process since all were ready, when loading and measuring was over; 0 where that never came.
  std::vector<double> cpu_seconds;
};

// Runs the job and returns when no process of it is left. The listener's callbacks come from the coordinator's lane; its
// on_fail and on_finish are not called. The first SIGINT, SIGTERM or SIGHUP lets all workers stop after the same iteration, or
// ends a job that has not begun; the second ends them at once. Call it from the main thread, before other threads are started:
// it takes over these signals and SIGCHLD.
// `give_abort` is called once, before any callback, with a function that ends the job with an error; that one may be called from
// any thread while the job runs.
JobOutcome run_local_job(const LocalJobOptions& options, cluster::CoordinatorListener listener,
                         const std::function<void(std::function<void(const Error&)> abort)>& give_abort);

}  // namespace poseidon::launch
