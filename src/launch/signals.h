// Signals as bytes to poll for.
#pragma once

#include <initializer_list>

#include <signal.h>

namespace poseidon::launch {

// Blocks these signals for the thread, and for those that it starts from then on, so that they come only here. Children that
// ChildProcess starts have them unblocked. Gives the old mask back in the end.
class SignalDescriptor {
 public:
  explicit SignalDescriptor(std::initializer_list<int> signals);
  ~SignalDescriptor();
  SignalDescriptor(const SignalDescriptor&) = delete;
  SignalDescriptor& operator=(const SignalDescriptor&) = delete;

  int fd() const { return fd_; }
  // The next signal that has come; 0: none.
  int next() const;

 private:
  int fd_ = -1;
  sigset_t before_{};
};

}  // namespace poseidon::launch
