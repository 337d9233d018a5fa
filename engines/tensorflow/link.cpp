#include "engines/tensorflow/link.h"

#include <algorithm>
#include <memory>
#include <utility>

namespace poseidon::tensorflow {
namespace {

void on_synced(void* user, const poseidon_synced* synced) {
  const std::unique_ptr<SumDoneFn> done(static_cast<SumDoneFn*>(user));
  (*done)(synced->code == POSEIDON_OK ? std::string() : std::string(synced->message));
}

}  // namespace

Link& Link::instance() {
  static Link link;
  return link;
}

void Link::use(poseidon_cluster* cluster, std::size_t tensors, std::uint64_t first) {
  const std::lock_guard lock(mutex_);
  cluster_ = cluster;
  next_.assign(tensors, first);
}

void Link::sum(std::uint32_t tensor, void* memory, bool present, SumDoneFn done) {
  auto kept = std::make_unique<SumDoneFn>(std::move(done));
  int code = POSEIDON_OK;
  {
    const std::lock_guard lock(mutex_);
    if (cluster_ == nullptr || tensor >= next_.size()) {
      return (*kept)("a gradient is to be summed over workers that this process has not joined: was the graph made by another process?");
    }
    const std::uint64_t iteration = next_[tensor];
    if (present) {
      poseidon_gradient gradient = POSEIDON_INIT(poseidon_gradient);
      gradient.gradient = memory;
      gradient.samples = 1;
      code = poseidon_submit(cluster_, tensor, iteration, &gradient, &on_synced, kept.get());
    } else {
      code = poseidon_submit_absent(cluster_, tensor, iteration, memory, &on_synced, kept.get());
    }
    if (code == POSEIDON_OK) ++next_[tensor];
  }
  if (code != POSEIDON_OK) return (*kept)(poseidon_last_error());
  static_cast<void>(kept.release());  // on_synced has it
}

void Link::take(Part part) {
  const std::lock_guard lock(mutex_);
  part_ = part;
}

Part Link::part() {
  const std::lock_guard lock(mutex_);
  return part_;
}

std::uint64_t Link::next_iteration() {
  const std::lock_guard lock(mutex_);
  return next_.empty() ? 0 : *std::max_element(next_.begin(), next_.end());
}

}  // namespace poseidon::tensorflow
