// The flags that `poseidon plan` and `poseidon replay` share: a model description or a net, and how fast one worker computes.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "apps/poseidon/command.h"
#include "plan/bound.h"
#include "plan/cost_model.h"
#include "plan/plan.h"
#include "poseidon/error.h"
#include "replay/replay_worker.h"

namespace poseidon::app {

struct WorkloadOptions {
  std::string model;
  std::vector<std::int64_t> record;  // [channels, height, width], for a net that does not say; may be empty
  std::int64_t batch = 32;
  double samples_per_second = 0;
  std::string scheme = "auto";
  std::optional<DType> wire;  // in which gradients travel; nothing: as they are

  void describe(CLI::App& app);
};

Result<replay::Workload> read_workload(const WorkloadOptions& options);

// TCP over Ethernet with an MTU of 1500: of 1514 bytes on the line 1448 are payload.
constexpr double kPayloadShare = 1448.0 / 1514.0;

// Each node's link: payload bytes per second in each direction, and the latency one way of what it stands for where it is dilated.
struct Link {
  double bytes_per_second = 0;
  double latency_seconds = plan::Speeds{}.latency_seconds;
};

// What one iteration takes at least, and the schemes that get there, over such links.
struct Prospect {
  plan::Plan plan;
  double bound_seconds = 0;
  std::vector<double> link_seconds;  // by layer of the plan
};
// Takes --scheme, whose layers are checked, and --wire from the options. In a dilated run times are dilated. `hosts`: which
// workers combine in shared memory; the links are those between hosts then, combining takes no time, and there are no dedicated
// servers.
Result<Prospect> prospect(const replay::Workload& workload, const WorkloadOptions& options, int workers, const plan::Serving& serving,
                          const Link& link, const plan::HostGroups& hosts = {});

}  // namespace poseidon::app
