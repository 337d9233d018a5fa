// A data-parallel job in virtual time: P members with sessions, each with a scripted worker, and the plan's dedicated servers.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "runtime/sim/sim_world.h"
#include "session/engine_session.h"
#include "support/scripted_worker.h"

namespace poseidon::test {

struct SimJob {
  TrainingScript script;
  runtime::sim::SimOptions world;
  std::size_t window_bytes = 256 * 1024;
  std::size_t staging_bytes_max = store::kStagingBytesMax;
  bool priorities = true;
  plan::LaneDealOptions deal;  // .lanes of each member
};

// What a job that ran to its end leaves.
struct SimResult {
  bool finished = false;
  std::vector<std::vector<std::vector<float>>> parameters;      // by rank, by tensor
  std::vector<std::vector<session::TensorBytes>> tensor_bytes;  // by node, by tensor
  std::vector<std::uint64_t> link_bytes_sent;                   // by node, with framing
  std::size_t in_flight_max = 0;
  std::vector<std::size_t> staging_max;                         // by rank
  std::uint64_t event_digest = 0;
  runtime::Time time{};
  std::string trouble;  // of the first member that had any
};

SimResult run(const SimJob& job);

}  // namespace poseidon::test
