// What travels is exactly what the cost model says, on every number of workers.
#include <gtest/gtest.h>

#include <algorithm>
#include <optional>

#include "plan/cost_model.h"
#include "plan/server_shares.h"
#include "support/sim_cluster.h"

namespace poseidon::test {
namespace {

constexpr int kIterations = 3;

// Two factor layers (with and without a bias), a dense one of several pieces, small ones; sizes that no grid divides.
Model awkward_model() {
  Model model;
  const auto add = [&](const std::string& name, std::vector<std::vector<std::int64_t>> shapes, std::size_t factor_rows) {
    LayerSpec layer{name, {}, factor_rows};
    for (std::vector<std::int64_t>& shape : shapes) {
      layer.tensors.push_back(TensorId{static_cast<std::uint32_t>(model.tensors.size())});
      model.tensors.push_back({name + "." + std::to_string(layer.tensors.size()), std::move(shape), DType::kFloat32});
    }
    model.layers.push_back(std::move(layer));
  };
  add("conv1", {{20, 1, 5, 5}, {20}}, 0);
  add("conv2", {{61, 37, 3, 3}, {61}}, 0);
  add("fc1", {{101, 73}, {101}}, 5);
  add("fc2", {{17, 101}}, 3);
  return model;
}

// What a worker sends of the first values of a large tensor: rank 0 everything once, and each other worker its slice to the rest.
double first_values_sent(std::size_t rank, int workers, double bytes) {
  if (rank >= static_cast<std::size_t>(workers) || workers == 1) return 0;
  return rank == 0 ? bytes : bytes * (workers - 2) / (workers - 1);
}

// Numbers sent by all workers for one layer and iteration, by hand from the formulas of docs/schemes.md.
std::uint64_t formula(const Model& model, const LayerSpec& layer, Scheme scheme, std::uint64_t p) {
  std::uint64_t all = 0;
  for (const TensorId t : layer.tensors) all += model.tensors[index(t)].elements();
  if (layer.factor_rows == 0) return 2 * (p - 1) * all;
  const std::uint64_t m = static_cast<std::uint64_t>(model.tensors[index(layer.tensors[0])].shape[0]);
  const std::uint64_t n = static_cast<std::uint64_t>(model.tensors[index(layer.tensors[0])].shape[1]);
  const std::uint64_t k = layer.factor_rows;
  switch (scheme) {
    case Scheme::kPs:
      return 2 * (p - 1) * all;
    case Scheme::kSfb:
      return p * (p - 1) * k * (m + n);
    case Scheme::kAdam:
      return (p - 1) * (k * (m + n) + all);
    case Scheme::kBlock: {
      // The best divisor pair, by trying all.
      std::uint64_t best = UINT64_MAX;
      for (std::uint64_t pr = 1; pr <= p; ++pr) {
        if (p % pr == 0) best = std::min(best, k * ((p / pr) * m + pr * n));
      }
      return (p - 1) * (best + all);
    }
  }
  return 0;
}

std::string wire_case_name(const ::testing::TestParamInfo<std::tuple<Scheme, int, std::optional<DType>>>& test) {
  const auto [scheme, workers, wire] = test.param;
  return std::string(to_string(scheme)) + "With" + std::to_string(workers) + "WorkersAs" +
         std::string(to_string(wire.value_or(DType::kFloat32)));
}

std::string case_name(const ::testing::TestParamInfo<std::tuple<Scheme, int>>& test) {
  const auto [scheme, workers] = test.param;
  return std::string(to_string(scheme)) + "With" + std::to_string(workers) + "Workers";
}

class Bytes : public ::testing::TestWithParam<std::tuple<Scheme, int, std::optional<DType>>> {};

TEST_P(Bytes, SentPayloadEqualsTheFormulasExactly) {
  const auto [scheme, workers, wire] = GetParam();
  SimJob job;
  job.script.model = awkward_model();
  job.script.plan = uniform_plan(job.script.model, workers, scheme);
  job.script.plan.wire = wire;
  const std::uint64_t width = wire ? 2 : 4;
  job.script.iterations = kIterations;
  const SimResult result = run(job);
  ASSERT_TRUE(result.finished) << result.trouble;
  for (const LayerSpec& layer : job.script.model.layers) {
    std::uint64_t sent = 0;
    std::uint64_t received = 0;
    std::uint64_t broadcast = 0;  // of the initial values, which travel once, and in full
    for (const TensorId t : layer.tensors) {
      broadcast += static_cast<std::uint64_t>(workers - 1) * job.script.model.tensors[index(t)].bytes();
      for (const auto& tensors : result.tensor_bytes) {
        sent += tensors[index(t)].sent;
        received += tensors[index(t)].received;
      }
    }
    EXPECT_EQ(sent, received) << layer.name;
    EXPECT_EQ(sent - broadcast, kIterations * width * formula(job.script.model, layer, scheme, static_cast<std::uint64_t>(workers)))
        << layer.name;
  }
}

INSTANTIATE_TEST_SUITE_P(AllSchemes, Bytes,
                         ::testing::Combine(::testing::Values(Scheme::kPs, Scheme::kSfb, Scheme::kAdam, Scheme::kBlock),
                                            ::testing::Values(2, 3, 4, 8),
                                            ::testing::Values(std::nullopt, std::optional(DType::kBFloat16),
                                                              std::optional(DType::kFloat16))),
                         wire_case_name);

struct Servers {
  int workers = 2;
  int servers = 0;
  bool colocated = true;
};

class DedicatedBytes : public ::testing::TestWithParam<Servers> {};

// What each link carries in one iteration; rank 0's first values, which all get from it, do not count.
TEST_P(DedicatedBytes, TheBusiestLinkCarriesWhatTheFormulaSaysAndNobodyMore) {
  const auto [workers, servers, colocated] = GetParam();
  const plan::ServerShares shares = plan::server_shares(workers, servers, colocated);
  SimJob job;
  job.script.model.tensors = {{"w", {5'000'011}, DType::kFloat32}};  // 20 MB
  job.script.model.layers = {{"l", {TensorId{0}}, 0}};
  job.script.plan = uniform_plan(job.script.model, workers, Scheme::kPs);
  job.script.plan.server_shares = plan::parts_per_million(shares.of_node);
  job.script.iterations = 1;
  const SimResult result = run(job);
  ASSERT_TRUE(result.finished) << result.trouble;
  const double bytes = static_cast<double>(job.script.model.tensors[0].bytes());
  double all_sent = 0;
  for (std::size_t node = 0; node < result.tensor_bytes.size(); ++node) {
    const bool is_worker = node < static_cast<std::size_t>(workers);
    const double first_sent = first_values_sent(node, workers, bytes);
    const double first_received = is_worker && node != 0 ? bytes : 0;
    const double sent = static_cast<double>(result.tensor_bytes[node][0].sent) - first_sent;
    const double received = static_cast<double>(result.tensor_bytes[node][0].received) - first_received;
    all_sent += sent;
    // A chunk of 256 KiB more or less than the share: n of them through a dedicated server's link.
    EXPECT_LE(std::max(sent, received), shares.seconds_per_byte * bytes + workers * 263'000.0) << "node " << node;
    const double own = shares.of_node[node];
    const double formula = is_worker ? 1 + (workers - 2) * own : workers * own;
    EXPECT_NEAR(sent, formula * bytes, workers * 263'000.0) << "node " << node;
    EXPECT_NEAR(received, formula * bytes, workers * 263'000.0) << "node " << node;
  }
  // Each byte is pushed by all workers but its owner, and its sum comes back to them.
  EXPECT_NEAR(all_sent, 2 * (workers - shares.colocated) * bytes, 2 * 263'000.0);
}

INSTANTIATE_TEST_SUITE_P(Shares, DedicatedBytes,
                         ::testing::Values(Servers{2, 1}, Servers{2, 2}, Servers{3, 1}, Servers{4, 1}, Servers{4, 2}, Servers{4, 4},
                                           Servers{4, 6}, Servers{4, 2, false}, Servers{8, 3}, Servers{1, 2}),
                         [](const auto& test) {
                           return std::to_string(test.param.workers) + "WorkersAnd" + std::to_string(test.param.servers) +
                                  (test.param.colocated ? "Servers" : "ServersAlone");
                         });

// A matrix of a bit over P MiB, alone in its net, so that its sharing out is all there is.
Model large_matrix(std::int64_t rows, std::int64_t cols) {
  Model model;
  model.tensors = {{"fc.weight", {rows, cols}, DType::kFloat32}};
  model.layers = {{"fc", {TensorId{0}}, 8}};
  return model;
}

class LargeTensor : public ::testing::TestWithParam<std::tuple<Scheme, int>> {};

TEST_P(LargeTensor, IsSharedOutEvenlyAndFramedWithUnderOnePercent) {
  const auto [scheme, workers] = GetParam();
  SimJob job;
  job.script.model = large_matrix(1531, 1453);  // primes: 8.5 MiB
  job.script.plan = uniform_plan(job.script.model, workers, scheme);
  job.script.iterations = 1;
  const SimResult result = run(job);
  ASSERT_TRUE(result.finished) << result.trouble;
  const std::uint64_t value_bytes = job.script.model.tensors[0].bytes();
  double total = 0;
  double most = 0;
  double framed = 0;
  for (std::size_t rank = 0; rank < result.tensor_bytes.size(); ++rank) {
    const double broadcast = first_values_sent(rank, workers, static_cast<double>(value_bytes));
    const double sent = static_cast<double>(result.tensor_bytes[rank][0].sent) - broadcast;
    total += sent;
    most = std::max(most, sent);
    framed += static_cast<double>(result.link_bytes_sent[rank]) - broadcast;
  }
  if (scheme != Scheme::kAdam) {
    EXPECT_LE(most, 1.05 * total / workers);
  }
  // Headers, tables and credits, those of the broadcast included.
  EXPECT_LT(framed - total, 0.01 * (total + static_cast<double>((static_cast<std::uint64_t>(workers) - 1) * value_bytes)));
}

INSTANTIATE_TEST_SUITE_P(AllSchemes, LargeTensor,
                         ::testing::Combine(::testing::Values(Scheme::kPs, Scheme::kSfb, Scheme::kAdam, Scheme::kBlock),
                                            ::testing::Values(2, 3, 4, 8)),
                         case_name);

}  // namespace
}  // namespace poseidon::test
