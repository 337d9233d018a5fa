// The C ABI as a program outside sees it: whole jobs of real processes on loopback.
//
// This program is its own workers: a test starts it again with the name of a scenario, which says what goes wrong in words.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <future>
#include <map>
#include <numeric>
#include <string>
#include <thread>
#include <vector>

#include "poseidon/poseidon.h"

namespace {

using namespace std::chrono_literals;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// ---- What workers do ----

// A scenario returns what went wrong; nothing where all was well.
using Wrong = std::string;

#define REQUIRE(condition)                                                                \
  do {                                                                                    \
    if (!(condition))                                                                     \
      return std::string(#condition " does not hold, line ") + std::to_string(__LINE__) + \
             "; last error: " + poseidon_last_error();                                    \
  } while (false)

// A call must be refused as the caller's mistake, with a sentence that says `text`.
#define REFUSES(call, text)                                                                               \
  do {                                                                                                    \
    if ((call) != POSEIDON_INVALID || std::string(poseidon_last_error()).find(text) == std::string::npos) \
      return std::string(#call " should be refused, line ") + std::to_string(__LINE__) +                  \
             "; last error: " + poseidon_last_error();                                                    \
  } while (false)

poseidon_place place() {
  poseidon_place found = POSEIDON_INIT(poseidon_place);
  poseidon_find_job(&found);
  return found;
}

// One matrix with a bias, and factors of at most so many rows; float64.
struct Layer {
  size_t outputs = 3;
  size_t inputs = 4;
  size_t rows_max = 2;
  std::vector<double> weight = std::vector<double>(outputs * inputs, place().rank == 0 ? 1.5 : -7);
  std::vector<double> bias = std::vector<double>(outputs, place().rank == 0 ? 2.5 : -7);
  std::vector<double> weight_sum = std::vector<double>(outputs * inputs);
  std::vector<double> bias_sum = std::vector<double>(outputs);
  poseidon_cluster* cluster = nullptr;

  Layer() = default;
  Layer(size_t m, size_t n, size_t k) : outputs(m), inputs(n), rows_max(k) {}
  ~Layer() { poseidon_close(cluster); }

  int join(poseidon_product_fn product = nullptr, void* user = nullptr) {
    const int64_t weight_shape[] = {static_cast<int64_t>(outputs), static_cast<int64_t>(inputs)};
    const int64_t bias_shape[] = {static_cast<int64_t>(outputs)};
    poseidon_tensor tensors[2] = {POSEIDON_INIT(poseidon_tensor), POSEIDON_INIT(poseidon_tensor)};
    tensors[0].name = "ip.weight";
    tensors[0].shape = weight_shape;
    tensors[0].dimensions = 2;
    tensors[0].dtype = POSEIDON_FLOAT64;
    tensors[0].values = weight.data();
    tensors[1].name = "ip.bias";
    tensors[1].shape = bias_shape;
    tensors[1].dimensions = 1;
    tensors[1].dtype = POSEIDON_FLOAT64;
    tensors[1].values = bias.data();
    const uint32_t ids[] = {0, 1};
    poseidon_layer layer = POSEIDON_INIT(poseidon_layer);
    layer.name = "ip";
    layer.tensors = ids;
    layer.tensor_count = 2;
    layer.factor_rows = rows_max;
    poseidon_join_options options = POSEIDON_INIT(poseidon_join_options);
    options.tensors = tensors;
    options.tensor_count = 2;
    options.layers = &layer;
    options.layer_count = 1;
    options.product = product;
    options.product_user = user;
    return poseidon_join(&options, &cluster);
  }

  int submit_factors(uint64_t iteration, const double* u, const double* v, size_t rows, poseidon_synced_fn on_synced = nullptr,
                     void (*released)(void*) = nullptr, void* user = nullptr) {
    poseidon_factors factors = POSEIDON_INIT(poseidon_factors);
    factors.outputs = u;
    factors.inputs = v;
    factors.rows = rows;
    factors.weight = weight_sum.data();
    factors.bias = bias_sum.data();
    factors.samples = static_cast<uint32_t>(rows);
    factors.released = released;
    factors.released_user = user;
    return poseidon_submit_factors(cluster, 0, iteration, &factors, on_synced, user);
  }
};

int submit(poseidon_cluster* cluster, uint32_t tensor, uint64_t iteration, std::vector<double>& numbers,
           poseidon_synced_fn on_synced = nullptr, void* user = nullptr) {
  poseidon_gradient gradient = POSEIDON_INIT(poseidon_gradient);
  gradient.gradient = numbers.data();
  gradient.samples = 5;
  return poseidon_submit(cluster, tensor, iteration, &gradient, on_synced, user);
}

Wrong sums() {
  Layer layer;
  REQUIRE(layer.join() == POSEIDON_OK);
  REQUIRE(layer.weight == std::vector<double>(12, 1.5) && layer.bias == std::vector<double>(3, 2.5));
  poseidon_cluster* const cluster = layer.cluster;
  const int rank = poseidon_rank(cluster);
  REQUIRE(rank == place().rank && poseidon_workers(cluster) == 3);
  int32_t scheme = -1;
  REQUIRE(poseidon_scheme_of(cluster, 0, &scheme) == POSEIDON_OK && scheme == POSEIDON_PS);
  REQUIRE(std::string(poseidon_plan(cluster)).find("\"scheme\": \"ps\"") != std::string::npos);

  // Rank r gives r + 1 in each place, so the sum is 6; taken by poseidon_wait.
  int32_t go = 0;
  REQUIRE(poseidon_begin(cluster, 0, &go) == POSEIDON_OK && go == 1);
  std::fill(layer.weight_sum.begin(), layer.weight_sum.end(), rank + 1);
  REQUIRE(submit(cluster, 0, 0, layer.weight_sum) == POSEIDON_OK);
  poseidon_synced synced = POSEIDON_INIT(poseidon_synced);
  REQUIRE(poseidon_wait(cluster, 0, &synced) == POSEIDON_OK);
  REQUIRE(synced.code == POSEIDON_OK && synced.contributors == 3 && synced.samples == 15 && synced.iteration == 0 &&
          synced.message[0] == 0);
  REQUIRE(layer.weight_sum == std::vector<double>(12, 6));

  // Rank 1 has none: 1 + 3.
  std::fill(layer.weight_sum.begin(), layer.weight_sum.end(), rank + 1);
  const int submitted = rank == 1 ? poseidon_submit_absent(cluster, 0, 1, layer.weight_sum.data(), nullptr, nullptr)
                                  : submit(cluster, 0, 1, layer.weight_sum);
  REQUIRE(submitted == POSEIDON_OK);
  REQUIRE(poseidon_wait(cluster, 0, &synced) == POSEIDON_OK);
  REQUIRE(synced.contributors == 2 && synced.samples == 10 && synced.iteration == 1);
  REQUIRE(layer.weight_sum == std::vector<double>(12, 4));

  // The bias with a callback, in memory of the library's.
  void* memory = nullptr;
  REQUIRE(poseidon_allocate(cluster, 3 * sizeof(double), &memory) == POSEIDON_OK);
  REQUIRE(reinterpret_cast<uintptr_t>(memory) % 64 == 0);
  double* const bias = static_cast<double*>(memory);
  std::iota(bias, bias + 3, rank);
  std::promise<poseidon_synced> called;
  poseidon_gradient gradient = POSEIDON_INIT(poseidon_gradient);
  gradient.gradient = bias;
  gradient.samples = 5;
  const auto on_synced = [](void* user, const poseidon_synced* s) {
    static_cast<std::promise<poseidon_synced>*>(user)->set_value(*s);
  };
  REQUIRE(poseidon_submit(cluster, 1, 0, &gradient, on_synced, &called) == POSEIDON_OK);
  REQUIRE(called.get_future().get().contributors == 3);
  REQUIRE(bias[0] == 3 && bias[1] == 6 && bias[2] == 9);
  REQUIRE(poseidon_free(cluster, memory) == POSEIDON_OK);
  REFUSES(poseidon_free(cluster, memory), "has not given");

  poseidon_traffic traffic = POSEIDON_INIT(poseidon_traffic);
  REQUIRE(poseidon_get_traffic(cluster, &traffic) == POSEIDON_OK && traffic.bytes_sent > 0 && traffic.bytes_received > 0);
  REQUIRE(poseidon_leave(cluster) == POSEIDON_OK);
  REQUIRE(poseidon_error(cluster) == POSEIDON_OK);
  return "";
}

// Plain loops; counts, by element type, how often it was asked.
struct Products {
  std::atomic<int> float32{0};
  std::atomic<int> float64{0};
};
template <typename Number>
void multiply(const poseidon_product& p) {
  const Number* const u = static_cast<const Number*>(p.u);
  const Number* const v = static_cast<const Number*>(p.v);
  Number* const out = static_cast<Number*>(p.out);
  for (size_t o = 0; o < p.outputs; ++o) {
    for (size_t i = 0; i < p.inputs; ++i) {
      Number sum = 0;
      for (size_t r = 0; r < p.rows; ++r) sum += u[r * p.outputs + o] * v[r * p.inputs + i];
      out[o * p.out_stride + i] = sum;
    }
  }
}
int product(void* user, const poseidon_product* p) {
  Products& counts = *static_cast<Products*>(user);
  if (p->size != sizeof *p) return 1;
  if (p->dtype == POSEIDON_FLOAT64) {
    multiply<double>(*p);
    ++counts.float64;
  } else {
    multiply<float>(*p);
    ++counts.float32;
  }
  return 0;
}

// Small integers, so that every sum is exact and no order matters. `own` brings a product of its own.
Wrong factors(bool own) {
  Products counts;
  Layer layer;
  REQUIRE(layer.join(own ? product : nullptr, &counts) == POSEIDON_OK);
  const int rank = poseidon_rank(layer.cluster);
  const int workers = poseidon_workers(layer.cluster);
  int32_t scheme = POSEIDON_PS;
  REQUIRE(poseidon_scheme_of(layer.cluster, 0, &scheme) == POSEIDON_OK && scheme != POSEIDON_PS);
  const auto number = [](int r, uint64_t iteration, size_t i) {
    return static_cast<double>((r + 2) * static_cast<int>(i + 1) % 7) + static_cast<double>(iteration);
  };
  std::vector<double> u(6);
  std::vector<double> v(8);
  for (uint64_t iteration = 0; iteration < 6; ++iteration) {
    // Rank 1 has one row less, and none at all in iteration 3.
    const auto rows = [&](int r) { return r != 1 ? size_t{2} : size_t{iteration == 3 ? 0u : 1u}; };
    for (size_t i = 0; i < u.size(); ++i) u[i] = number(rank, iteration, i);
    for (size_t i = 0; i < v.size(); ++i) v[i] = number(rank + 10, iteration, i);
    REQUIRE(layer.submit_factors(iteration, u.data(), v.data(), rows(rank)) == POSEIDON_OK);
    poseidon_synced synced = POSEIDON_INIT(poseidon_synced);
    REQUIRE(poseidon_wait(layer.cluster, 0, &synced) == POSEIDON_OK);
    // They are free again: whoever still reads them sends this.
    std::fill(u.begin(), u.end(), 1e30);
    std::fill(v.begin(), v.end(), 1e30);
    std::vector<double> weight(12);
    std::vector<double> bias(3);
    size_t samples = 0;
    for (int r = 0; r < workers; ++r) {
      samples += rows(r);
      for (size_t k = 0; k < rows(r); ++k) {
        for (size_t o = 0; o < 3; ++o) {
          bias[o] += number(r, iteration, k * 3 + o);
          for (size_t i = 0; i < 4; ++i) {
            weight[o * 4 + i] += number(r, iteration, k * 3 + o) * number(r + 10, iteration, k * 4 + i);
          }
        }
      }
    }
    REQUIRE(layer.weight_sum == weight);
    REQUIRE(layer.bias_sum == bias);
    REQUIRE(synced.samples == samples && synced.iteration == iteration);
  }
  const bool multiplies = scheme != POSEIDON_ADAM || counts.float64 > 0;
  if (own) REQUIRE(counts.float32 > 0);
  if (own && multiplies) REQUIRE(counts.float64 == 6);
  // Of a host only its leader sends, and nobody where there is no other host.
  const bool grouped = std::string(poseidon_plan(layer.cluster)).find("\"hosts\"") != std::string::npos;
  poseidon_traffic traffic = POSEIDON_INIT(poseidon_traffic);
  REQUIRE(poseidon_get_tensor_traffic(layer.cluster, 0, &traffic) == POSEIDON_OK &&
          (grouped || traffic.bytes_sent + traffic.bytes_received > 0));
  REQUIRE(poseidon_leave(layer.cluster) == POSEIDON_OK);
  return "";
}

// Rank 1's factors take long to leave (16 MiB against a window of about one), rank 0 has none, and rank 1 knows the product
// without making it: so its sum is there long before its factors have left. Rank 0 sees what was sent.
Wrong slow_factors() {
  constexpr size_t kRows = 512;
  constexpr size_t kInputs = 4096;
  const bool gives = place().rank == 1;
  const poseidon_product_fn knowing = [](void*, const poseidon_product* p) {
    if (p->dtype == POSEIDON_FLOAT32) {
      multiply<float>(*p);
    } else {
      std::fill_n(static_cast<double*>(p->out), p->inputs, 2.0 * kRows);
    }
    return 0;
  };
  const poseidon_product_fn honest = [](void*, const poseidon_product* p) {
    p->dtype == POSEIDON_FLOAT32 ? multiply<float>(*p) : multiply<double>(*p);
    return 0;
  };
  Layer layer(1, kInputs, kRows);
  REQUIRE(layer.join(gives ? knowing : honest) == POSEIDON_OK);
  std::vector<double> u(kRows);
  std::vector<double> v(kRows * kInputs);
  for (uint64_t iteration = 0; iteration < 6; ++iteration) {
    std::fill(u.begin(), u.end(), 1);
    std::fill(v.begin(), v.end(), 2);
    // Rank 0 first, so that rank 1 has nothing to wait for but its own.
    poseidon_part parts[2] = {POSEIDON_INIT(poseidon_part), POSEIDON_INIT(poseidon_part)};
    if (!gives) REQUIRE(layer.submit_factors(iteration, u.data(), v.data(), 0) == POSEIDON_OK);
    REQUIRE(poseidon_gather(layer.cluster, nullptr, 0, parts, 2) == POSEIDON_OK);
    if (gives) REQUIRE(layer.submit_factors(iteration, u.data(), v.data(), kRows) == POSEIDON_OK);
    REQUIRE(poseidon_wait(layer.cluster, 0, nullptr) == POSEIDON_OK);
    std::fill(u.begin(), u.end(), 1e30);
    std::fill(v.begin(), v.end(), 1e30);
    REQUIRE(layer.weight_sum == std::vector<double>(kInputs, 2.0 * kRows));
    REQUIRE(layer.bias_sum == std::vector<double>(1, kRows));
  }
  REQUIRE(poseidon_leave(layer.cluster) == POSEIDON_OK);
  return "";
}

Wrong mistakes() {
  Layer layer;
  // What is wrong with the model is said before anything is sent, and a later try may be right.
  poseidon_join_options options = POSEIDON_INIT(poseidon_join_options);
  poseidon_cluster* cluster = reinterpret_cast<poseidon_cluster*>(&options);
  REFUSES(poseidon_join(&options, &cluster), "the model has no tensors");
  REQUIRE(cluster == nullptr);
  REFUSES(poseidon_join(nullptr, &cluster), "a null pointer to a poseidon_join_options");
  REFUSES(poseidon_join(&options, nullptr), "a null pointer to the place for the cluster");
  options.size = 3;
  REFUSES(poseidon_join(&options, &cluster), "says that its size is 3");
  poseidon_tensor tensor = POSEIDON_INIT(poseidon_tensor);
  tensor.name = "w";
  tensor.dtype = 7;
  options.size = sizeof options;
  options.tensors = &tensor;
  options.tensor_count = 1;
  REFUSES(poseidon_join(&options, &cluster), "w has an element type 7");
  tensor.dimensions = 1;
  REFUSES(poseidon_join(&options, &cluster), "a null pointer to the shape");
  tensor.dimensions = size_t{1} << 60;
  const int64_t one = 1;
  tensor.shape = &one;
  REFUSES(poseidon_join(&options, &cluster), "dimensions, at most 16");
  tensor.size = 0;
  REFUSES(poseidon_join(&options, &cluster), "a poseidon_tensor says that its size is 0");

  REQUIRE(layer.join() == POSEIDON_OK);
  cluster = layer.cluster;
  REFUSES(poseidon_submit(cluster, 0, 0, nullptr, nullptr, nullptr), "a null pointer to a poseidon_gradient");
  REFUSES(submit(nullptr, 0, 0, layer.weight_sum), "a null pointer to a cluster");
  REFUSES(submit(cluster, 2, 0, layer.weight_sum), "there is no tensor 2");
  REFUSES(layer.submit_factors(0, layer.weight.data(), layer.weight.data(), 2), "travels by ps");
  std::vector<double> none;
  REFUSES(submit(cluster, 0, 0, none), "the gradient of ip.weight has no memory");
  std::vector<char> crooked(13 * sizeof(double));
  poseidon_gradient gradient = POSEIDON_INIT(poseidon_gradient);
  gradient.gradient = crooked.data() + 4;
  REFUSES(poseidon_submit(cluster, 0, 0, &gradient, nullptr, nullptr), "is not aligned to 8 bytes");
  REFUSES(poseidon_wait(cluster, 0, nullptr), "was not submitted without a callback");
  REFUSES(poseidon_wait(cluster, 99, nullptr), "was not submitted without a callback");
  int32_t scheme = 0;
  REFUSES(poseidon_scheme_of(cluster, 1, &scheme), "there is no layer 1");
  poseidon_part parts[2] = {POSEIDON_INIT(poseidon_part), POSEIDON_INIT(poseidon_part)};
  REFUSES(poseidon_gather(cluster, "x", 1, parts, 1), "room for 1 parts of a gathering of 2");
  const std::string long_part(8 << 20, 'x');
  REFUSES(poseidon_gather(cluster, long_part.data(), long_part.size(), parts, 2), "too much for a gathering");
  REFUSES(poseidon_note(cluster, std::string(2 << 20, 'x').c_str()), "too long");
  REFUSES(poseidon_note(cluster, nullptr), "a null pointer to the text");

  // After all these the job is as it was. The second gradient before the first has been taken is one more.
  REQUIRE(submit(cluster, 0, 5, layer.weight_sum) == POSEIDON_OK);
  REFUSES(submit(cluster, 0, 6, layer.weight_sum), "submitted again before poseidon_wait");
  REQUIRE(poseidon_wait(cluster, 0, nullptr) == POSEIDON_OK);
  REFUSES(submit(cluster, 0, 5, layer.weight_sum), "was submitted for iteration 5 after iteration 5");
  REFUSES(poseidon_wait(cluster, 0, nullptr), "was not submitted");
  REQUIRE(submit(cluster, 0, 6, layer.weight_sum) == POSEIDON_OK);
  REQUIRE(poseidon_wait(cluster, 0, nullptr) == POSEIDON_OK);
  REQUIRE(poseidon_leave(cluster) == POSEIDON_OK);
  return "";
}

// Mistakes with factors: nobody is told of a release of what was not submitted.
Wrong factor_mistakes() {
  Layer layer;
  REQUIRE(layer.join() == POSEIDON_OK);
  struct Told {
    std::atomic<int> synced{0};
    std::atomic<int> released{0};
    std::promise<void> first;  // sum
  } told;
  const auto on_synced = [](void* user, const poseidon_synced*) {
    Told& t = *static_cast<Told*>(user);
    if (++t.synced == 1) t.first.set_value();
  };
  const auto released = [](void* user) { ++static_cast<Told*>(user)->released; };
  const std::vector<double> u(9, 1);
  const std::vector<double> v(12, 2);
  REFUSES(layer.submit_factors(0, u.data(), v.data(), 3, on_synced, released, &told), "3 rows of factors, 2 were announced");
  REFUSES(layer.submit_factors(0, nullptr, v.data(), 2, on_synced, released, &told), "U of layer ip has no memory");
  REFUSES(layer.submit_factors(0, u.data(), v.data(), 2, on_synced, nullptr, &told), "need one for their release too");
  REFUSES(submit(layer.cluster, 0, 0, layer.weight_sum), "submit its factors");
  REQUIRE(told.synced == 0 && told.released == 0);
  REQUIRE(layer.submit_factors(0, u.data(), v.data(), 2) == POSEIDON_OK);
  REFUSES(layer.submit_factors(1, u.data(), v.data(), 2), "submitted again before poseidon_wait");
  REQUIRE(poseidon_wait(layer.cluster, 0, nullptr) == POSEIDON_OK);
  REQUIRE(layer.submit_factors(1, u.data(), v.data(), 2, on_synced, released, &told) == POSEIDON_OK);
  told.first.get_future().wait();
  REQUIRE(poseidon_leave(layer.cluster) == POSEIDON_OK);
  poseidon_close(layer.cluster);
  layer.cluster = nullptr;
  REQUIRE(told.synced == 1 && told.released == 1);
  return "";
}

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

// Both are in a product, which is slow, when they close. What it reads and writes must stay until it has ended, and the sum,
// which will not come, must be called back.
Wrong closing_in_a_product() {
  struct State {
    std::promise<void> in_product;
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
  poseidon_close(layer.cluster);
  layer.cluster = nullptr;
  REQUIRE(state.multiplied);
  REQUIRE(state.released == 1);
  REQUIRE(state.synced == 1);
  REQUIRE(state.code != POSEIDON_OK);
  // The job fails, as it must, and whose reason is heard first is open: this is how the test knows that all was well here.
  std::ofstream(std::getenv("POSEIDON_RUN_FOLDER") + ("/well-" + std::to_string(place().rank))) << "yes";
  std::exit(9);
}

Wrong refused_in_a_worker() {
  poseidon_local_options options = POSEIDON_INIT(poseidon_local_options);
  options.workers = 1;
  REFUSES(poseidon_run_local(&options, nullptr), "this process is a worker itself");
  Layer layer;
  REQUIRE(layer.join() == POSEIDON_OK);
  REQUIRE(poseidon_leave(layer.cluster) == POSEIDON_OK);
  return "";
}

int run_worker(const std::string& name) {
  const std::map<std::string, std::function<Wrong()>> scenarios = {
      {"sums", sums},
      {"factors", [] { return factors(false); }},
      {"own product", [] { return factors(true); }},
      {"slow factors", slow_factors},
      {"mistakes", mistakes},
      {"factor mistakes", factor_mistakes},
      {"gathering", gathering},
      {"giving up", giving_up},
      {"closing in a product", closing_in_a_product},
      {"refused in a worker", refused_in_a_worker},
  };
  const Wrong wrong = scenarios.at(name)();
  if (wrong.empty()) return 0;
  poseidon_report_failure(POSEIDON_ABORTED, (name + ", rank " + std::to_string(place().rank) + ": " + wrong).c_str());
  return 1;
}

// ---- The tests ----

struct Outcome {
  int code = POSEIDON_OK;
  std::string message;
  std::string run_folder;
  std::vector<std::string> notes;  // by rank
  std::string table;
};

// `plan`: instead of `schemes`.
Outcome run(const char* scenario, int workers, const char* schemes = "ps", const char* plan = nullptr) {
  Outcome outcome;
  outcome.notes.resize(static_cast<size_t>(workers));
  const char* const command[] = {"/proc/self/exe", scenario, nullptr};
  poseidon_local_options options = POSEIDON_INIT(poseidon_local_options);
  options.workers = workers;
  options.command = command;
  options.schemes = plan == nullptr ? schemes : nullptr;
  options.plan = plan;
  options.user = &outcome;
  options.on_note = [](void* user, int32_t rank, const char* text) {
    static_cast<Outcome*>(user)->notes[static_cast<size_t>(rank)] = text;
  };
  options.on_plan = [](void* user, const char*, const char* table) { static_cast<Outcome*>(user)->table = table; };
  poseidon_local_end end = POSEIDON_INIT(poseidon_local_end);
  outcome.code = poseidon_run_local(&options, &end);
  if (outcome.code != POSEIDON_OK) outcome.message = poseidon_last_error();
  outcome.run_folder = end.run_folder;
  return outcome;
}

#define EXPECT_JOB(call)                                                      \
  do {                                                                        \
    const Outcome outcome = (call);                                           \
    EXPECT_EQ(outcome.code, POSEIDON_OK) << #call << ": " << outcome.message; \
  } while (false)

TEST(CApi, GivesSumsOfDenseGradientsToAllWorkers) { EXPECT_JOB(run("sums", 3)); }

TEST(CApi, GivesSumsOfFactorsUnderEveryScheme) {
  for (const char* scheme : {"sfb", "adam", "block"}) {
    for (const char* scenario : {"factors", "own product"}) EXPECT_JOB(run(scenario, 2, scheme));
  }
  EXPECT_JOB(run("factors", 3, "sfb"));
}

// All on one host, and two hosts of which one has two workers: with memory of poseidon_allocate and without.
TEST(CApi, WorkersOfOneHostCombineInSharedMemory) {
  for (const std::string hosts : {"[[0, 1, 2]]", "[[0, 2], [1]]"}) {
    for (const auto& [scenario, scheme] : {std::pair("sums", "ps"), std::pair("factors", "sfb")}) {
      const std::string plan = R"({"poseidon_plan": 1, "workers": 3, "hosts": )" + hosts +
                               R"(, "layers": [{"name": "ip", "scheme": ")" + scheme + R"("}]})";
      const Outcome outcome = run(scenario, 3, nullptr, plan.c_str());
      EXPECT_EQ(outcome.code, POSEIDON_OK) << scenario << " on " << hosts << ": " << outcome.message;
    }
  }
}

TEST(CApi, WaitsUntilFactorsMayBeUsedAgain) { EXPECT_JOB(run("slow factors", 2, "sfb")); }

TEST(CApi, RefusesMistakesAndGoesOn) {
  EXPECT_JOB(run("mistakes", 2));
  EXPECT_JOB(run("factor mistakes", 2, "sfb"));
  EXPECT_JOB(run("refused in a worker", 1));
}

TEST(CApi, GathersBytesAndPassesNotesOn) {
  const Outcome outcome = run("gathering", 3);
  EXPECT_EQ(outcome.code, POSEIDON_OK) << outcome.message;
  EXPECT_THAT(outcome.notes, ElementsAre("note of 0", "note of 1", "note of 2"));
  EXPECT_THAT(outcome.table, HasSubstr("ps (asked for)"));
  EXPECT_EQ(outcome.run_folder, "");
}

TEST(CApi, AWorkerThatGivesUpEndsTheJobWithItsReason) {
  const Outcome outcome = run("giving up", 2);
  EXPECT_EQ(outcome.code, POSEIDON_SYSTEM);
  EXPECT_THAT(outcome.message, HasSubstr("there is no more paper"));
  EXPECT_THAT(outcome.run_folder, HasSubstr("/poseidon-run-")) << "the logs stay after a failure";
  std::filesystem::remove_all(outcome.run_folder);
}

TEST(CApi, ClosingWaitsForTheProductThatIsBeingMade) {
  const Outcome outcome = run("closing in a product", 2, "sfb");
  EXPECT_EQ(outcome.code, POSEIDON_PEER_LOST) << outcome.message;
  EXPECT_TRUE(std::filesystem::exists(outcome.run_folder + "/well-0")) << outcome.message;
  EXPECT_TRUE(std::filesystem::exists(outcome.run_folder + "/well-1")) << outcome.message;
  std::filesystem::remove_all(outcome.run_folder);
}

TEST(CApi, WithoutAJobThereIsNothingToJoin) {
  poseidon_place found = POSEIDON_INIT(poseidon_place);
  found.in_job = 7;
  EXPECT_EQ(poseidon_find_job(&found), POSEIDON_OK);
  EXPECT_EQ(found.in_job, 0);
  Layer layer;
  EXPECT_EQ(layer.join(), POSEIDON_NOT_FOUND);
  EXPECT_THAT(poseidon_last_error(), HasSubstr("POSEIDON_RANK is not set"));
  EXPECT_EQ(layer.cluster, nullptr);
  EXPECT_EQ(poseidon_rank(nullptr), -1);
  EXPECT_EQ(poseidon_plan(nullptr), nullptr);
  poseidon_close(nullptr);
}

TEST(CApi, RefusesALocalJobThatCannotBe) {
  poseidon_local_options options = POSEIDON_INIT(poseidon_local_options);
  EXPECT_EQ(poseidon_run_local(&options, nullptr), POSEIDON_INVALID);
  EXPECT_THAT(poseidon_last_error(), HasSubstr("0 workers are not possible"));
  options.workers = 1;
  options.schemes = "blok";
  EXPECT_EQ(poseidon_run_local(&options, nullptr), POSEIDON_INVALID);
  EXPECT_THAT(poseidon_last_error(), HasSubstr("did you mean block?"));
  options.schemes = nullptr;
  options.link_bytes_per_second = -1;
  EXPECT_EQ(poseidon_run_local(&options, nullptr), POSEIDON_INVALID);
  options.link_bytes_per_second = 0;
  options.run_folder = "/nowhere/at/all";
  EXPECT_EQ(poseidon_run_local(&options, nullptr), POSEIDON_NOT_FOUND);
}

// A program of tomorrow with a library of today, and the other way round.
TEST(CApi, StructsOfOtherVersionsAreReadAsFarAsTheyAreKnown) {
  struct Grown {
    poseidon_place known;
    int64_t unknown;
  } grown = {};
  grown.known.size = sizeof grown;
  EXPECT_EQ(poseidon_find_job(&grown.known), POSEIDON_OK);
  EXPECT_EQ(grown.known.size, sizeof grown) << "the program's size stays";
  EXPECT_EQ(grown.known.workers, 1);
  grown.unknown = 1;
  EXPECT_EQ(poseidon_find_job(&grown.known), POSEIDON_INVALID);
  EXPECT_THAT(poseidon_last_error(), HasSubstr("asks for what this version of the library does not have"));
  grown.known.size = sizeof grown.known - 1;
  EXPECT_EQ(poseidon_find_job(&grown.known), POSEIDON_INVALID);
}

TEST(CApi, NamesItsNumbers) {
  EXPECT_EQ(poseidon_abi_version(), static_cast<uint32_t>(POSEIDON_ABI_VERSION));
  EXPECT_STREQ(poseidon_code_name(POSEIDON_OK), "ok");
  EXPECT_STREQ(poseidon_code_name(POSEIDON_INVALID), "invalid");
  EXPECT_STREQ(poseidon_code_name(POSEIDON_PEER_LOST), "peer_lost");
  EXPECT_STREQ(poseidon_code_name(POSEIDON_SYSTEM), "system");
  EXPECT_STREQ(poseidon_code_name(10), "unknown");
  EXPECT_STREQ(poseidon_code_name(-1), "unknown");
  EXPECT_STREQ(poseidon_scheme_name(POSEIDON_PS), "ps");
  EXPECT_STREQ(poseidon_scheme_name(POSEIDON_SFB), "sfb");
  EXPECT_STREQ(poseidon_scheme_name(POSEIDON_ADAM), "adam");
  EXPECT_STREQ(poseidon_scheme_name(POSEIDON_BLOCK), "block");
  EXPECT_STREQ(poseidon_scheme_name(4), "unknown");
}

}  // namespace

int main(int argc, char** argv) {
  if (place().in_job == 1 && argc == 2) return run_worker(argv[1]);
  ::testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
