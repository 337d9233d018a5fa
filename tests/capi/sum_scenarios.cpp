// Scenarios in which all goes well: sums of dense gradients and of factors.
#include <algorithm>
#include <atomic>
#include <future>
#include <numeric>
#include <string>
#include <vector>

#include "scenarios.h"

namespace capi_test {

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

namespace {

// Counts, by element type, how often a product was asked for.
struct Products {
  std::atomic<int> float32{0};
  std::atomic<int> float64{0};
};

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

}  // namespace

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
  for (const uint64_t iteration : {0u, 1u, 3u, 5u, 6u, 10u}) {  // some are left out
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

}  // namespace capi_test
