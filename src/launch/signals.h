// Signals as bytes to poll for.
#pragma once

#include <initializer_list>
#include <map>

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

// What a launcher does with a signal of its user's.
enum class SignalEffect {
  kEnd,     // the job ends
  kTell,    // its workers, once all have joined, are sent kTellSignal: they know what for
  kIgnore,
};
constexpr int kTellSignal = SIGUSR1;

inline SignalEffect effect_of(const std::map<int, SignalEffect>& effects, int signal) {
  const auto entry = effects.find(signal);
  return entry == effects.end() ? SignalEffect::kEnd : entry->second;
}

}  // namespace poseidon::launch
