#include "session/conversions.h"

#include <algorithm>
#include <utility>

#include "runtime/compute.h"

namespace poseidon::session {
namespace {

// Converts the first `most` numbers, and leaves the rest.
std::size_t convert(Conversion& work, std::size_t most) {
  const std::size_t count = work.to == nullptr ? work.elements : std::min(work.elements, most);
  work.elements -= count;
  if (work.to == nullptr || count == 0) return 0;
  const std::size_t narrow_bytes = count * bytes_of(work.narrow);
  const std::size_t wide_bytes = count * bytes_of(DType::kFloat32);
  if (work.narrows) {
    runtime::narrow_now(work.from, count, work.narrow, work.to);
  } else {
    runtime::widen_now(work.from, count, work.narrow, work.to);
  }
  work.from += work.narrows ? wide_bytes : narrow_bytes;
  work.to += work.narrows ? narrow_bytes : wide_bytes;
  return count;
}

}  // namespace

void Conversions::add(Urgency urgency, std::vector<Conversion> work, DoneFn done) {
  tasks_.emplace(urgency, Task{std::move(work), std::move(done)});
  // A first step at once: most tensors are small, and need no second one.
  if (!busy_) step();
}

void Conversions::step() {
  const std::shared_ptr<bool> alive = alive_;
  busy_ = true;
  std::size_t left = kStepElements;
  while (left > 0 && !tasks_.empty()) {
    const auto first = tasks_.begin();
    Task& task = first->second;
    for (Conversion& work : task.work) left -= convert(work, left);
    const bool finished = std::all_of(task.work.begin(), task.work.end(), [](const Conversion& c) { return c.elements == 0; });
    if (!finished) break;
    const DoneFn done = std::move(task.done);
    tasks_.erase(first);
    done(std::nullopt);
    if (!*alive) return;
  }
  busy_ = !tasks_.empty();
  if (!busy_) return;
  runtime_.post([this, alive] {
    if (*alive) step();
  });
}

void Conversions::fail(const Error& error) {
  for (auto& [urgency, task] : std::exchange(tasks_, {})) task.done(error);
}

}  // namespace poseidon::session
