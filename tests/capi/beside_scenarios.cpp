// Scenarios of what goes on beside the sums: letters between workers, the timeline, processes that a worker forks.
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <future>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "scenarios.h"

namespace capi_test {
namespace {

poseidon_letter letter(int rank, std::vector<double>& numbers) {
  poseidon_letter made = POSEIDON_INIT(poseidon_letter);
  made.rank = rank;
  made.memory = numbers.data();
  made.bytes = numbers.size() * sizeof(double);
  return made;
}

// What `from` tells `to`: as many numbers as that pair has, none from 2 to 0.
std::vector<double> words(int from, int to, uint32_t channel) {
  const size_t count = from == 2 && to == 0 ? 0 : static_cast<size_t>(100'000 * from + 10 * to + 1);
  return std::vector<double>(count, 100.0 * from + 10.0 * to + channel);
}

// Everybody tells everybody else something, in one call.
Wrong tell_all(poseidon_cluster* cluster, uint32_t channel, uint64_t number) {
  const int self = poseidon_rank(cluster);
  std::vector<std::vector<double>> out(3);
  std::vector<std::vector<double>> in(3);
  std::vector<poseidon_letter> outgoing;
  std::vector<poseidon_letter> incoming;
  for (int rank = 0; rank < 3; ++rank) {
    if (rank == self) continue;
    const size_t other = static_cast<size_t>(rank);
    out[other] = words(self, rank, channel);
    in[other].resize(words(rank, self, channel).size());
    outgoing.push_back(letter(rank, out[other]));
    incoming.push_back(letter(rank, in[other]));
  }
  REQUIRE(poseidon_exchange(cluster, channel, number, outgoing.data(), 2, incoming.data(), 2) == POSEIDON_OK);
  for (int rank = 0; rank < 3; ++rank) {
    if (rank != self) REQUIRE(in[static_cast<size_t>(rank)] == words(rank, self, channel));
  }
  return "";
}

}  // namespace

Wrong letters() {
  Layer layer;
  REQUIRE(layer.join() == POSEIDON_OK);
  poseidon_cluster* const cluster = layer.cluster;
  const int rank = poseidon_rank(cluster);
  // On two channels at once, while a sum is made.
  REQUIRE(submit(cluster, 0, 0, layer.weight_sum) == POSEIDON_OK);
  std::future<Wrong> beside = std::async(std::launch::async, [&] { return tell_all(cluster, 8, 0); });
  for (uint64_t number = 0; number < 3; ++number) {
    if (const Wrong wrong = tell_all(cluster, 7, number); !wrong.empty()) return wrong;
  }
  if (const Wrong wrong = beside.get(); !wrong.empty()) return wrong;
  REQUIRE(poseidon_wait(cluster, 0, nullptr) == POSEIDON_OK);
  REQUIRE(poseidon_exchange(cluster, 7, 9, nullptr, 0, nullptr, 0) == POSEIDON_OK);

  std::vector<double> numbers(4);
  poseidon_letter some[2] = {letter((rank + 1) % 3, numbers), letter((rank + 1) % 3, numbers)};
  REFUSES(poseidon_exchange(cluster, 1, 0, some, 2, nullptr, 0), "message 0 of channel 1 to rank");
  some[0].rank = 3;
  REFUSES(poseidon_exchange(cluster, 1, 0, some, 1, nullptr, 0), "a letter for rank 3, of 3 workers");
  some[0].rank = -1;
  REFUSES(poseidon_exchange(cluster, 1, 0, nullptr, 0, some, 1), "a letter for rank -1");
  some[0].rank = rank;
  REFUSES(poseidon_exchange(cluster, 1, 0, some, 1, nullptr, 0), "which is this worker");
  some[1].memory = nullptr;
  REFUSES(poseidon_exchange(cluster, 1, 0, nullptr, 0, some + 1, 1), "of 32 bytes has no memory");
  REFUSES(poseidon_exchange(cluster, 1, 0, nullptr, 1, nullptr, 0), "a null pointer to a poseidon_letter");
  REFUSES(poseidon_exchange(nullptr, 1, 0, nullptr, 0, nullptr, 0), "a null pointer to a cluster");
  struct Asked {
    poseidon_cluster* cluster;
    poseidon_letter letter;
    std::promise<int> code;
  } asked{cluster, letter((rank + 1) % 3, numbers), {}};
  const auto ask = [](void* user, const poseidon_synced*) {
    Asked& a = *static_cast<Asked*>(user);
    a.code.set_value(poseidon_exchange(a.cluster, 1, 0, &a.letter, 1, nullptr, 0));
  };
  REQUIRE(submit(cluster, 0, 1, layer.weight_sum, ask, &asked) == POSEIDON_OK);
  REQUIRE(asked.code.get_future().get() == POSEIDON_INVALID);
  REQUIRE(poseidon_leave(cluster) == POSEIDON_OK);
  return "";
}

// Rank 0 sends four numbers, rank 1 waits for five.
Wrong letters_of_other_sizes() {
  Layer layer;
  REQUIRE(layer.join() == POSEIDON_OK);
  std::vector<double> numbers(poseidon_rank(layer.cluster) == 0 ? 4 : 5);
  const poseidon_letter one = letter(1 - poseidon_rank(layer.cluster), numbers);
  if (poseidon_rank(layer.cluster) == 1) {
    REQUIRE(poseidon_exchange(layer.cluster, 0, 0, nullptr, 0, &one, 1) == POSEIDON_INVALID);
    REQUIRE(poseidon_error(layer.cluster) == POSEIDON_INVALID);
    return "";
  }
  REQUIRE(poseidon_exchange(layer.cluster, 0, 0, &one, 1, nullptr, 0) == POSEIDON_INVALID);
  const std::string why = poseidon_last_error();
  REQUIRE(poseidon_fail(layer.cluster, POSEIDON_INVALID, why.c_str()) == POSEIDON_OK);
  std::exit(5);
}

Wrong spans() {
  Layer layer;
  REQUIRE(layer.join() == POSEIDON_OK);
  poseidon_cluster* const cluster = layer.cluster;
  for (uint64_t iteration = 0; iteration < 3; ++iteration) {
    int32_t go = 0;
    REQUIRE(poseidon_begin(cluster, iteration, &go) == POSEIDON_OK && go == 1);
    REQUIRE(poseidon_span(cluster, "thinking", 1) == POSEIDON_OK);
    std::fill(layer.weight_sum.begin(), layer.weight_sum.end(), 1);
    REQUIRE(poseidon_span(cluster, "thinking", 0) == POSEIDON_OK);
    REQUIRE(submit(cluster, 0, iteration, layer.weight_sum) == POSEIDON_OK && poseidon_wait(cluster, 0, nullptr) == POSEIDON_OK);
  }
  REFUSES(poseidon_span(cluster, nullptr, 1), "a null pointer to the name of a span");
  REFUSES(poseidon_span(nullptr, "x", 1), "a null pointer to a cluster");
  REQUIRE(poseidon_leave(cluster) == POSEIDON_OK);
  return "";
}

namespace {

constexpr int kDescriptorsMax = 4096;

bool is_socket(int fd) {
  struct stat about = {};
  return ::fstat(fd, &about) == 0 && S_ISSOCK(about.st_mode);
}

std::set<int> sockets() {
  std::set<int> found;
  for (int fd = 0; fd < kDescriptorsMax; ++fd) {
    if (is_socket(fd)) found.insert(fd);
  }
  return found;
}

}  // namespace

Wrong forsaking() {
  const std::set<int> before = sockets();
  Layer layer;
  REQUIRE(layer.join() == POSEIDON_OK);
  poseidon_cluster* const cluster = layer.cluster;
  const std::set<int> joined = sockets();
  REQUIRE(joined.size() > before.size());
  for (const int fd : joined) {
    if (!before.contains(fd)) REQUIRE((::fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0);
  }
  // While a sum is outstanding, so that there is somebody to call back.
  const bool forks = poseidon_rank(cluster) == 1;
  std::promise<void> called;
  const auto on_synced = [](void* user, const poseidon_synced*) { static_cast<std::promise<void>*>(user)->set_value(); };
  std::fill(layer.weight_sum.begin(), layer.weight_sum.end(), 1);
  if (forks) {
    REQUIRE(submit(cluster, 0, 0, layer.weight_sum, on_synced, &called) == POSEIDON_OK);
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      poseidon_forsake(cluster);
      poseidon_forsake(nullptr);
      ::_exit(sockets() == before ? 0 : 1);
    }
    int status = 1;
    REQUIRE(::waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    REQUIRE(sockets() == joined);
  }
  poseidon_part parts[2] = {POSEIDON_INIT(poseidon_part), POSEIDON_INIT(poseidon_part)};
  REQUIRE(poseidon_gather(cluster, nullptr, 0, parts, 2) == POSEIDON_OK);
  if (!forks) REQUIRE(submit(cluster, 0, 0, layer.weight_sum, on_synced, &called) == POSEIDON_OK);
  called.get_future().wait();
  REQUIRE(layer.weight_sum == std::vector<double>(12, 2));
  REQUIRE(poseidon_leave(cluster) == POSEIDON_OK);
  return "";
}

}  // namespace capi_test
