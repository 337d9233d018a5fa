// A job on any hosts: starts an agent (launch/agent.h) on each, which start the processes, holds the coordinator, and ends when all have
// ended. The processes are given the launching contract (cluster/job_address.h) and the variables that PyTorch's own launcher gives.
#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cluster/coordinator.h"
#include "launch/agent_messages.h"
#include "launch/child_process.h"
#include "launch/reach.h"
#include "launch/signals.h"
#include "poseidon/error.h"

namespace poseidon::launch {

// By which a worker ends because another one has failed: it is not to blame.
constexpr int kOthersFailed = 75;

struct ClusterJobOptions {
  std::vector<std::string> hosts;                      // by rank
  std::vector<std::string> server_hosts;               // of the dedicated servers
  std::vector<std::vector<std::string>> commands;      // of the workers: one for all, or one for each
  std::vector<std::string> server_command;
  std::map<std::string, std::string> environment;      // of all processes
  bool python = true;                                  // see AgentStart
  std::string folder;                                  // in which they start, on every host
  ReachOptions reach;
  std::vector<std::string> own_agent;                  // the command of an agent on this host
  std::string version;                                 // of this program, and of every agent
  // Where the coordinator may be reached by other hosts, best first. Not needed where all processes are on this host.
  std::vector<std::string> addresses;
  bool tls = false;
  std::uint16_t port = 0;                              // of the coordinator; 0: a free one
  // The first signal lets all workers stop after the same iteration, however long that takes; otherwise it is passed on to the processes.
  bool stops_together = false;
  std::map<int, SignalEffect> effects = {};             // what a signal does that is not to end the job
  std::string threads_flag = "--env OMP_NUM_THREADS=N";  // what the user says for another number of threads, for a remark
  cluster::CoordinatorOptions coordinator;
  std::chrono::milliseconds reach_max = std::chrono::seconds(20);     // for agents to answer, and then to start
  std::chrono::milliseconds farewell_max = std::chrono::seconds(4);   // after a failure, for processes to end by themselves
  std::chrono::milliseconds parting_max = std::chrono::seconds(60);   // after a good end, likewise: to be killed then would be a failure
  std::chrono::milliseconds interrupt_max = std::chrono::seconds(30); // after a first signal, likewise
};

// A process of the job, for tables and files: ranks, then the dedicated servers.
struct JobProcess {
  std::string host;                 // as the user calls it
  std::int64_t pid = 0;             // 0: it was never started
  std::optional<Exit> exit;
  double cpu_seconds = 0;           // of it and its children, when it has ended
  double seconds = 0;               // from its start to its end
};

struct ClusterJobListener {
  cluster::CoordinatorListener coordinator;  // its calls come from the coordinator's lane, all others from the calling thread
  std::function<void(const std::string& host, const AgentHello& hello)> on_host;
  std::function<void(const NodeOutput& output)> on_output;
  std::function<void(const std::string& text)> on_remark;  // for the user: whom the job waits for, what ssh says
  // Called once, before any other, with a function that ends the job with an error; that one may be called from any thread while it runs.
  std::function<void(std::function<void(const Error&)> abort)> give_abort = {};
};

struct ClusterOutcome {
  std::optional<Error> error;      // nothing: all processes have ended with 0
  std::optional<int> interrupted;  // the signal that asked for the end
  std::optional<int> culprit;      // number of the process that failed first, by an exit code of its own or a signal
  bool was_joined = false;         // all workers have trained together
  std::vector<JobProcess> processes;
};

// Runs the job; returns when no process of it is left anywhere that can be reached. SIGINT, SIGTERM and SIGHUP are passed on to the
// processes, which have interrupt_max to end (but see stops_together); the second such signal ends them at once. Call it from the main thread, before others are
// started: it takes over these signals and SIGCHLD.
ClusterOutcome run_cluster_job(const ClusterJobOptions& options, ClusterJobListener listener);

}  // namespace poseidon::launch
