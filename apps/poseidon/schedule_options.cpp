#include "apps/poseidon/schedule_options.h"

namespace poseidon::app {

void ScheduleOptions::describe(CLI::App& app) {
  app.add_option("--overlap", overlap,
                 "what of the communication may go on beside computing: full; backward (the next forward pass waits for all "
                 "sums); none (gradients leave when the backward pass has ended)")
      ->check(CLI::IsMember({"full", "backward", "none"}))
      ->capture_default_str();
  app.add_flag("--no-priorities", no_priorities, "what is ready first leaves first, whatever its layer");
}

replay::Overlap ScheduleOptions::overlap_mode() const {
  if (overlap == "backward") return replay::Overlap::kBackward;
  return overlap == "none" ? replay::Overlap::kNone : replay::Overlap::kFull;
}

}  // namespace poseidon::app
