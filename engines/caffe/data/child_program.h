// Child processes that touch files for a trainer, and the pipes to them: what record_reader.h and data_filter.h share.
// Internal to data/.
#pragma once

#include <sys/types.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

namespace poseidon::caffe {

class Descriptor {
 public:
  explicit Descriptor(int fd = -1) : fd_(fd) {}
  ~Descriptor() { close(); }
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  int get() const { return fd_; }
  void close() {
    if (fd_ >= 0) ::close(std::exchange(fd_, -1));
  }

 private:
  int fd_;
};

struct Pipe {
  Descriptor reading;
  Descriptor writing;
};
// Both ends above the three standard descriptors, which the child's own take the place of. Throws SystemError.
Pipe make_pipe();

// Starts a program with these arguments, the first of which is its name. It reads from `input`, or from nothing where
// that is -1, and writes to `output`. It does not hear the signals that a terminal or a launcher sends to a whole job:
// a trainer may want to finish its iteration, and its child lives and dies with its pipe. Throws SystemError.
pid_t spawn(const std::filesystem::path& program, std::vector<std::string> arguments, int input, int output);

// "SIGBUS", or "signal 12".
std::string signal_name(int number);
// Is it one of those by which a process dies that has met damage?
bool is_death_of_damage(int signal_number);

// Returns when the child is dead, or at the deadline: then false. Does not collect it.
bool wait_for_death(pid_t child, std::chrono::milliseconds wait_max);
// Ends and collects the child, and returns its wait status; 0 if somebody else has collected it.
int kill_and_collect(pid_t child);

}  // namespace poseidon::caffe
