// A job on this host, started by the program itself: so that one command trains with P workers.
//
//   int main(int argc, char** argv) {
//     const auto place = poseidon::find_job();
//     if (!place) return complain(place.error());
//     if (*place) return work(**place);                                    // started by the lines below
//     const poseidon::LocalEnd end = poseidon::run_local({.workers = 4});  // this program again, four times
//     return end.error ? complain(*end.error) : 0;
//   }
#pragma once

#include <cstddef>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "poseidon/error.h"
#include "poseidon/export.h"
#include "poseidon/types.h"

namespace poseidon {

struct LocalOptions {
  int workers = 1;  // from 1 to 1,024
  // What each worker runs: a path and its arguments. Empty: this program, with the arguments it was started with.
  std::vector<std::string> command;
  std::map<std::string, std::string> environment;  // of the workers, added to this process's
  // An existing folder for the workers' logs, worker-N.log. Empty: a new one in $TMPDIR or /tmp, removed when all went well.
  std::string run_folder;
  // "auto", "ps", "sfb", "adam" or "block", with exceptions by name of layer: "auto,ip1=sfb". A layer that offers no factors
  // always takes ps.
  std::string schemes = "auto";
  // JSON of a plan to repeat (Cluster::plan()), instead of choosing. `schemes` is not looked at then.
  std::string plan;
  std::optional<double> link_bytes_per_second;  // for the choice, instead of measuring
  // "on", or how many at most: workers that combine their gradients in shared memory first, so that one of them speaks for all. "off"
  // lets each speak for itself. Part of the plan, so not together with `plan`.
  std::string per_host = "off";
  // kBFloat16 or kFloat16: float32 gradients travel with 16 bits. Part of the plan; empty: as they are, or as `plan` says.
  std::optional<DType> wire;

  // The next three change no bit of any sum.
  int lanes = 1;                                 // event loops of each worker, 1 to 16
  std::optional<std::size_t> staging_bytes_max;  // of each worker, for gradients that wait for the others'. Empty: 1 GB
  bool tls = false;                              // all links of the job are TLS 1.3, keyed by its secret

  // These are called by a thread of the library, one at a time, while run_local() waits; none may wait or throw. Any may be
  // empty.
  std::function<void(int rank, const std::string& text)> on_note;                  // what a worker said by note()
  std::function<void(const std::string& plan, const std::string& table)> on_plan;  // JSON; the choices for people
  std::function<void(const std::string& text)> on_wait;                            // something takes long: whom it waits for
};

struct LocalEnd {
  std::optional<Error> error;      // nothing: all workers have left in order and ended with 0
  std::optional<int> interrupted;  // the signal that asked for the end; without an error, all stopped after the same iteration
  std::string run_folder;          // of the logs; empty where it was removed, or never made
};

// Runs the job and returns when no process of it is left. Call it from the main thread before other threads are started: it
// forks, and takes over SIGINT, SIGTERM, SIGHUP and SIGCHLD until it returns. The first of the first three lets all workers
// stop after the same iteration, the second ends them. The workers die with this process, whatever ends it. Standard output
// and error of a worker go to its log. kInvalid: an option cannot be, or this process is a worker itself.
POSEIDON_API LocalEnd run_local(const LocalOptions& options);

}  // namespace poseidon
