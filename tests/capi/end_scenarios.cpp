// Scenarios of gathering, giving up and closing: how a job goes on beside its sums, and how it ends.
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <future>
#include <string>
#include <thread>
#include <vector>

#include "scenarios.h"

using namespace std::chrono_literals;

namespace capi_test {

Wrong gathering() {
  Layer layer;
  REQUIRE(layer.join() == POSEIDON_OK);
  const int rank = poseidon_rank(layer.cluster);
  // Parts of any bytes and of different lengths: rank r gives r bytes 0x00, 0xFF, 0x00 ...
  std::string own;
  for (int i = 0; i < rank; ++i) own.push_back(i % 2 == 0 ? '\0' : '\xFF');
  std::vector<poseidon_part> parts(3, poseidon_part POSEIDON_INIT(poseidon_part));
  for (int round = 0; round < 3; ++round) {
    REQUIRE(poseidon_gather(layer.cluster, own.data(), own.size(), parts.data(), parts.size()) == POSEIDON_OK);
    for (size_t r = 0; r < parts.size(); ++r) {
      REQUIRE(parts[r].bytes == r);
      REQUIRE(std::string(static_cast<const char*>(parts[r].data), r) == std::string("\0\xFF\0", 3).substr(0, r));
    }
  }
  REQUIRE(poseidon_note(layer.cluster, ("note of " + std::to_string(rank)).c_str()) == POSEIDON_OK);
  REQUIRE(poseidon_leave(layer.cluster) == POSEIDON_OK);
  return "";
}

// Rank 1 gives up; rank 0 waits for it.
Wrong giving_up() {
  Layer layer;
  REQUIRE(layer.join() == POSEIDON_OK);
  if (poseidon_rank(layer.cluster) == 1) {
    REQUIRE(poseidon_fail(layer.cluster, POSEIDON_SYSTEM, "there is no more paper") == POSEIDON_OK);
    std::exit(5);
  }
  REQUIRE(submit(layer.cluster, 0, 0, layer.weight_sum) == POSEIDON_OK);
  poseidon_synced synced = POSEIDON_INIT(poseidon_synced);
  const int code = poseidon_wait(layer.cluster, 0, &synced);
  REQUIRE(code == POSEIDON_SYSTEM && synced.code == code);
  REQUIRE(std::string(synced.message).find("there is no more paper") != std::string::npos);
  REQUIRE(poseidon_error(layer.cluster) == POSEIDON_SYSTEM);
  int32_t go = 1;
  REQUIRE(poseidon_begin(layer.cluster, 1, &go) == POSEIDON_SYSTEM && go == 0);
  return "";
}

namespace {

// Says in the run folder that this rank has come to `step`, and waits until the other of two has. False: it did not within a minute.
bool both_reach(const std::string& step) {
  const std::string file = std::getenv("POSEIDON_RUN_FOLDER") + ("/" + step + "-");
  std::ofstream(file + std::to_string(place().rank)) << "yes";
  for (int tries = 0; tries < 6000; ++tries, std::this_thread::sleep_for(10ms)) {
    if (std::filesystem::exists(file + std::to_string(1 - place().rank))) return true;
  }
  return false;
}

}  // namespace

// Both are in a product when they close, and it ends only then. What it reads and writes must stay until it has ended, and
// the sum, which will not come, must be called back.
Wrong closing_in_a_product() {
  struct State {
    std::promise<void> in_product;
    std::promise<void> closing;
    std::atomic<int> synced{0};
    std::atomic<int> code{0};
    std::atomic<int> released{0};
    std::atomic<bool> multiplied{false};
  } state;
  const poseidon_product_fn slow = [](void* user, const poseidon_product* p) {
    State& s = *static_cast<State*>(user);
    if (p->dtype == POSEIDON_FLOAT32) {
      multiply<float>(*p);
      return 0;
    }
    s.in_product.set_value();
    s.closing.get_future().wait();
    std::this_thread::sleep_for(200ms);
    multiply<double>(*p);
    s.multiplied = true;
    return 0;
  };
  Layer layer;
  REQUIRE(layer.join(slow, &state) == POSEIDON_OK);
  const std::vector<double> u(6, 1);
  const std::vector<double> v(8, 2);
  const auto on_synced = [](void* user, const poseidon_synced* synced) {
    ++static_cast<State*>(user)->synced;
    static_cast<State*>(user)->code = synced->code;
  };
  const auto released = [](void* user) { ++static_cast<State*>(user)->released; };
  REQUIRE(layer.submit_factors(0, u.data(), v.data(), 2, on_synced, released, &state) == POSEIDON_OK);
  state.in_product.get_future().wait();
  // Whoever closed at once could take with it what the other's product is made of.
  const bool in_products = both_reach("in-product");
  state.closing.set_value();
  poseidon_close(layer.cluster);
  layer.cluster = nullptr;
  REQUIRE(in_products);
  REQUIRE(state.multiplied);
  REQUIRE(state.released == 1);
  REQUIRE(state.synced == 1);
  REQUIRE(state.code != POSEIDON_OK);
  // The job fails, as it must, and whose reason is heard first is open: the files are how the test knows that all was well here.
  // The first to end has the launcher stop the other, which must have come here before.
  REQUIRE(both_reach("well"));
  std::exit(9);
}

}  // namespace capi_test
