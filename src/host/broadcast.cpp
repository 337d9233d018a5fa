#include "host/broadcast.h"

#include <algorithm>

#include "base/text.h"

namespace poseidon::host {

using wire::HostMessage;
using wire::HostMessageKind;

Broadcast::Broadcast(Group& group, std::vector<TensorView> views, std::function<void()> done,
                     std::function<void(const Error&)> on_error)
    : group_(group), views_(std::move(views)), done_(std::move(done)), on_error_(std::move(on_error)), taken_(group.size(), false),
      since_(group.runtime().now()) {
  skip_empty();
}

void Broadcast::skip_empty() {
  while (next_ < views_.size() && views_[next_].bytes == 0) ++next_;
}

void Broadcast::start() {
  std::size_t most = 0;
  for (const TensorView& view : views_) most = std::max(most, view.bytes);
  Result<std::shared_ptr<std::byte>> buffer = group_.memory().allocate(most);
  if (!buffer) return on_error_(buffer.error());
  buffer_ = std::move(*buffer);
  send_next();
}

void Broadcast::send_next() {
  if (next_ == views_.size()) {
    buffer_.reset();
    return std::exchange(done_, nullptr)();
  }
  std::fill(taken_.begin(), taken_.end(), false);
  taken_[group_.self()] = true;
  const TensorView& view = views_[next_];
  group_.copy({}, view.data, buffer_.get(), view.bytes, [this, alive = alive_, bytes = view.bytes] {
    if (!*alive) return;
    HostMessage message;
    message.kind = HostMessageKind::kValue;
    message.tensor = TensorId{static_cast<std::uint32_t>(next_)};
    message.places[0] = group_.memory().place_of(buffer_.get(), bytes).value();
    group_.send_to_others(message);
  });
}

Error Broadcast::corrupt(std::size_t from, const char* why) const {
  return Error{ErrorCode::kCorruptFrame, base::concat("rank ", index(group_.rank(from)), " of this host broke the rules of the ",
                                                      "broadcast: ", why)};
}

Status Broadcast::on_message(std::size_t from, const HostMessage& message) {
  if (next_ >= views_.size() || index(message.tensor) != next_) return corrupt(from, "that tensor's turn is over, or has not come");
  if (message.kind == HostMessageKind::kValue) {
    if (from != 0) return corrupt(from, "it does not lead");
    return take_value(message);
  }
  if (!group_.leads() || taken_[from]) return corrupt(from, "there is nothing to take");
  taken_[from] = true;
  if (std::find(taken_.begin(), taken_.end(), false) != taken_.end()) return {};
  ++next_;
  skip_empty();
  send_next();
  return {};
}

Status Broadcast::take_value(const HostMessage& message) {
  const TensorView& view = views_[next_];
  if (message.places[0].bytes != view.bytes) return corrupt(0, "the tensor has another size");
  Result<std::shared_ptr<std::byte>> memory = group_.map(0, message.places[0]);
  if (!memory) return memory.error();
  group_.copy({}, memory->get(), view.data, view.bytes, [this, alive = alive_, memory = *memory] {
    if (!*alive) return;
    HostMessage taken;
    taken.kind = HostMessageKind::kValueTaken;
    taken.tensor = TensorId{static_cast<std::uint32_t>(next_)};
    group_.send(0, taken);
    ++next_;
    skip_empty();
    if (next_ == views_.size()) std::exchange(done_, nullptr)();
  });
  return {};
}

std::optional<std::string> Broadcast::overdue(runtime::Duration age) const {
  const runtime::Duration waited = group_.runtime().now() - since_;
  if (!done_ || waited < age) return std::nullopt;
  std::vector<std::string> missing;
  for (std::size_t place = 0; place < group_.size(); ++place) {
    const bool lacks = group_.leads() ? !taken_[place] : place == 0;
    if (lacks) missing.push_back(base::concat("rank ", index(group_.rank(place))));
  }
  return base::concat("rank ", index(group_.rank(group_.self())), " waits for ", base::join_words(missing),
                      group_.leads() ? " to take" : " to bring", " the values to begin with, since ",
                      base::readable_seconds(std::chrono::duration<double>(waited).count()));
}

}  // namespace poseidon::host
