#include "runtime/relay_compute.h"

#include <utility>

namespace poseidon::runtime {

void RelayCompute::sum(SumJob job, ComputeDoneFn done) {
  sum_now(job);
  done(std::nullopt);
}

void RelayCompute::product(ProductJob job, ComputeDoneFn done) {
  home_->lane_.post([home = home_, lane = &lane_, job, done = std::move(done)] {
    if (home->compute_ == nullptr) return;
    home->compute_->product(job, [home, lane, done](const std::optional<Error>& error) {
      if (home->compute_ == nullptr) return;
      lane->post([done, error] { done(error); });
    });
  });
}

}  // namespace poseidon::runtime
