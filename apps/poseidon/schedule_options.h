// How communication is scheduled beside computing: flags of `poseidon replay` and `poseidon plan`, for those who compare schedules.
#pragma once

#include <string>

#include "apps/poseidon/command.h"
#include "replay/replay_worker.h"

namespace poseidon::app {

struct ScheduleOptions {
  std::string overlap = "full";
  bool no_priorities = false;

  void describe(CLI::App& app);
  replay::Overlap overlap_mode() const;
};

}  // namespace poseidon::app
