#include "plan/cost_model.h"

#include <gtest/gtest.h>

namespace poseidon::plan {
namespace {

// The paper's own example (ATC 2017, section 3.2): a 4096 x 4096 layer, batch 32, eight workers that are servers too.
TEST(CostModel, GivesThePapersExample) {
  const DenseShape layer{4096, 4096, 32};
  EXPECT_DOUBLE_EQ(ps_elements(layer, {8, 8}), 58'720'256);  // "58.7 million"
  EXPECT_DOUBLE_EQ(sfb_elements(layer, 8), 3'670'016);       // "3.7 million"
  EXPECT_DOUBLE_EQ(adam_elements(layer, 8), 7 * (4096.0 * 4096 + 32 * 8192));
}

// fc8 of VGG19-22K on 32 nodes with batch 256, in numbers received per node: dense 173 M, factors 206 M, block 114 M.
TEST(CostModel, BlockBeatsBothWhereFactorsAndWorkersAreMany) {
  const DenseShape fc8{21841, 4096, 256};
  const Grid grid = best_grid(fc8.rows, fc8.cols, 32);
  EXPECT_EQ(grid, (Grid{16, 2}));
  EXPECT_NEAR(ps_elements(fc8, {32, 32}) / 2, 173.3e6, 0.1e6);
  EXPECT_NEAR(sfb_elements(fc8, 32) / 2, 205.8e6, 0.1e6);
  EXPECT_NEAR(block_elements(fc8, grid) / 2, 113.7e6, 0.1e6);
}

TEST(BestGrid, IsTheBestOfAllDivisorPairs) {
  for (int workers = 1; workers <= 64; ++workers) {
    for (const double rows : {10.0, 500.0, 4096.0}) {
      for (const double cols : {500.0, 800.0, 25088.0}) {
        const Grid grid = best_grid(rows, cols, workers);
        if (grid.rows == 0) {
          // Only where no pair gives everybody a row: 10 rows, and more columns than any worker count here.
          FAIL() << workers;
        }
        EXPECT_EQ(grid.rows * grid.cols, workers);
        for (int pr = 1; pr <= workers; ++pr) {
          if (workers % pr != 0 || pr > rows || workers / pr > cols) continue;
          EXPECT_LE(rows / grid.rows + cols / grid.cols, rows / pr + cols * pr / workers) << workers << " " << pr;
        }
      }
    }
  }
}

TEST(BestGrid, DoesNotExistWhereTheMatrixIsTooSmall) { EXPECT_EQ(best_grid(2, 3, 7).rows, 0); }

TEST(NumbersSent, AreHandCounted) {
  // ip2 of LeNet, 10 x 500 with a bias, batch 16, four workers.
  const LayerSize ip2{10, 500, 16, true};
  EXPECT_EQ(numbers_sent_in_all(Scheme::kPs, ip2, 4, {}), 2u * 3 * 5010);
  EXPECT_EQ(numbers_sent_in_all(Scheme::kSfb, ip2, 4, {}), 4u * 3 * 16 * 510);
  EXPECT_EQ(numbers_sent_in_all(Scheme::kAdam, ip2, 4, {}), 3u * (16 * 510 + 5010));
  // A grid of 1 x 4: each owner gets all of U and a quarter of V's columns.
  EXPECT_EQ(numbers_sent_in_all(Scheme::kBlock, ip2, 4, {1, 4}), 3u * (16 * (4 * 10 + 500) + 5010));
}

TEST(Predict, OneWorkerSendsNothingAndWaitsForNothing) {
  for (const Scheme scheme : {Scheme::kPs, Scheme::kSfb, Scheme::kAdam, Scheme::kBlock}) {
    const Prediction prediction = predict(scheme, {500, 800, 64, true}, 1, {1, 1}, DType::kFloat32, {});
    EXPECT_EQ(prediction.bytes_in_all, 0u);
    EXPECT_EQ(prediction.seconds, 0);
  }
}

TEST(Predict, CountsTheBusiestLinkLatencyAndArithmetic) {
  const LayerSize layer{100, 200, 10, false};
  const Speeds speeds{.link_bytes_per_second = 1e6, .latency_seconds = 0.5, .flops_per_second = 1e6, .sum_bytes_per_second = 1e6};
  // Dense, two workers: half of 2 · 20,000 numbers leave each; two latencies; the server reads 80,000 bytes.
  EXPECT_DOUBLE_EQ(predict(Scheme::kPs, layer, 2, {}, DType::kFloat32, speeds).seconds, 0.08 + 1.0 + 0.08);
  // Factors: 10 · 300 numbers; one latency; the peer's product again, 2 · 10 · 20,000 operations.
  EXPECT_DOUBLE_EQ(predict(Scheme::kSfb, layer, 2, {}, DType::kFloat32, speeds).seconds, 0.012 + 0.5 + 0.4);
  EXPECT_DOUBLE_EQ(predict(Scheme::kAdam, layer, 2, {}, DType::kFloat32, speeds).seconds, 0.092 + 1.0 + 0.4);
  // Blocks, 1 x 2: 10 · (100 + 100) + 10,000 numbers; two latencies; nothing multiplied twice.
  EXPECT_DOUBLE_EQ(predict(Scheme::kBlock, layer, 2, {1, 2}, DType::kFloat32, speeds).seconds, 0.048 + 1.0);
  EXPECT_DOUBLE_EQ(predict(Scheme::kBlock, layer, 2, {1, 2}, DType::kFloat64, speeds).seconds, 0.096 + 1.0);
}

TEST(Predict, CountsTheLinksOfThoseWhoServe) {
  // 4 workers, 2 servers on links like theirs: 0.3 of each number at a server, which four push to.
  const LayerSize layer{.rows = 1000, .cols = 1, .batch = 0, .bias = false};
  const Speeds speeds{.link_bytes_per_second = 1e6, .latency_seconds = 0, .flops_per_second = 1, .sum_bytes_per_second = 1e18};
  const ServerShares serving = server_shares({{1e6, 1e6, 1e6, 1e6}, {1e6, 1e6}});
  const Prediction helped = predict(Scheme::kPs, layer, 4, {}, DType::kFloat32, speeds, &serving);
  EXPECT_NEAR(helped.seconds, 1.2 * 4000 / 1e6, 1e-12);
  EXPECT_EQ(helped.bytes_in_all, 4u * 7200u) << "0.4 of it is owned by workers: 2 (4 - 0.4) numbers travel for each";
  const ServerShares colocated = server_shares({{1e6, 1e6, 1e6, 1e6}, {}});
  const Prediction plain = predict(Scheme::kPs, layer, 4, {}, DType::kFloat32, speeds);
  EXPECT_NEAR(predict(Scheme::kPs, layer, 4, {}, DType::kFloat32, speeds, &colocated).seconds, plain.seconds, 1e-12);
}

}  // namespace
}  // namespace poseidon::plan
