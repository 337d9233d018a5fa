// A Session as the one who runs a worker's process sees it: with what happens before the first gradient and after the last.
//
// What callers get may be made of several: an engine that changes what passes through (its element type, who takes part) wraps
// another and is an Engine itself. cluster::Worker puts them together as the plan says.
//
// What Session has may be called from any thread; everything here on the engine's lane.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "plan/plan.h"
#include "poseidon/session.h"
#include "runtime/runtime.h"

namespace poseidon::session {

// Payload bytes of one tensor's messages, since the start.
struct TensorBytes {
  std::uint64_t sent = 0;
  std::uint64_t received = 0;
};

// What an engine has moved and held so far.
struct EngineUse {
  std::vector<TensorBytes> tensors;   // by tensor
  std::size_t staging_bytes_max = 0;  // memory for contributions that waited to be summed, at most
};

class Engine : public Session {
 public:
  // The plan in force.
  virtual const plan::Plan& plan() const = 0;

  // Copies rank 0's values into everybody else's, tensor by tensor; `done` runs once all have come (at rank 0: have left).
  // Views are borrowed until then, one for each tensor of the model. Call it on every member, before the first submit.
  virtual void broadcast(std::vector<TensorView> values, std::function<void()> done) = 0;

  // The job is over: every wait, and every later submit, ends with this error.
  virtual void fail(const Error& error) = 0;
  // Whom waits of more than `age` are for: a sentence each, at most `count`.
  virtual std::vector<std::string> overdue(runtime::Duration age, std::size_t count) const = 0;

  virtual EngineUse use() const = 0;
};

}  // namespace poseidon::session
