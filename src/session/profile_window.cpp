#include "session/profile_window.h"

#include <utility>

namespace poseidon::session {

void ProfileWindow::clear() {
  warm_up_left_ = kWarmUp;
  observations_.clear();
  since_.reset();
}

void ProfileWindow::add(Iteration iteration, plan::Observation observation) {
  if (warm_up_left_ > 0) {
    --warm_up_left_;
    return;
  }
  last_ = iteration;
  if (observations_.size() == kIterationsMax) observations_.pop_front();
  observations_.push_back(std::move(observation));
}

std::optional<plan::Profile> ProfileWindow::take(runtime::Time now) {
  if (observations_.empty()) return std::nullopt;
  if (!since_) since_ = now;
  if (observations_.size() < kIterationsMin || now - *since_ < kEvery) return std::nullopt;
  const plan::Profile profile = plan::profile_of(last_, {observations_.begin(), observations_.end()});
  observations_.clear();
  since_ = now;
  return profile;
}

}  // namespace poseidon::session
