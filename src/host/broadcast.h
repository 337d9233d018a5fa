// Brings the leader's values to the other workers of its host, tensor by tensor, through a buffer in shared memory.
//
// Each tensor waits for the one before it to be taken, so the buffer is as large as the largest tensor only. Lane only.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "host/group.h"

namespace poseidon::host {

class Broadcast {
 public:
  // `views`: one for each tensor, of the leader's values or of the places for them, borrowed until `done`. `on_error` instead of
  // `done`: there is no shared memory for it.
  Broadcast(Group& group, std::vector<TensorView> views, std::function<void()> done, std::function<void(const Error&)> on_error);
  ~Broadcast() { *alive_ = false; }

  // At the leader, when its values are right.
  void start();
  // kCorruptFrame where the message cannot be meant.
  Status on_message(std::size_t from, const wire::HostMessage& message);
  std::optional<std::string> overdue(runtime::Duration age) const;

 private:
  void send_next();
  void skip_empty();
  Status take_value(const wire::HostMessage& message);
  Error corrupt(std::size_t from, const char* why) const;

  Group& group_;
  std::vector<TensorView> views_;
  std::function<void()> done_;      // empty once it has run
  std::function<void(const Error&)> on_error_;
  std::shared_ptr<std::byte> buffer_;
  std::size_t next_ = 0;            // the tensor that is on its way, or waited for
  std::vector<bool> taken_;         // by place: at the leader, who has copied that tensor
  runtime::Time since_{};
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace poseidon::host
