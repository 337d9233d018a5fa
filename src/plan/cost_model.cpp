#include "plan/cost_model.h"

#include <cmath>

#include "base/check.h"

namespace poseidon::plan {

double ps_elements(DenseShape layer, Nodes nodes) {
  return 2 * layer.rows * layer.cols * (nodes.workers + nodes.servers - 2) / nodes.servers;
}

double sfb_elements(DenseShape layer, int workers) { return 2 * layer.batch * (workers - 1) * (layer.rows + layer.cols); }

double adam_elements(DenseShape layer, int workers) {
  return (workers - 1) * (layer.rows * layer.cols + layer.batch * layer.rows + layer.batch * layer.cols);
}

Grid best_grid(double rows, double cols, int workers) {
  Grid best{0, 0};
  double least = 0;
  for (int pr = 1; pr <= workers; ++pr) {
    const int pc = workers / pr;
    if (pr * pc != workers || pr > rows || pc > cols) continue;
    const double numbers = rows / pr + cols / pc;
    if (best.rows == 0 || numbers < least) {
      least = numbers;
      best = {pr, pc};
    }
  }
  return best;
}

double block_elements(DenseShape layer, Grid grid) {
  const int workers = grid.rows * grid.cols;
  return 2 * (workers - 1) *
         (layer.batch * (layer.rows / grid.rows + layer.cols / grid.cols) + layer.rows * layer.cols / workers);
}

std::uint64_t numbers_sent_in_all(Scheme scheme, const LayerSize& layer, int workers, Grid grid) {
  const std::uint64_t p = static_cast<std::uint64_t>(workers);
  const std::uint64_t matrix = layer.rows * layer.cols + (layer.bias ? layer.rows : 0);
  switch (scheme) {
    case Scheme::kPs:
      return 2 * (p - 1) * matrix;
    case Scheme::kSfb:
      return p * (p - 1) * layer.batch * (layer.rows + layer.cols);
    case Scheme::kAdam:
      return (p - 1) * (layer.batch * (layer.rows + layer.cols) + matrix);
    case Scheme::kBlock: {
      const std::uint64_t pr = static_cast<std::uint64_t>(grid.rows);
      const std::uint64_t pc = static_cast<std::uint64_t>(grid.cols);
      return (p - 1) * (layer.batch * (pc * layer.rows + pr * layer.cols) + matrix);
    }
  }
  POSEIDON_CHECK(false, "unknown scheme");
}

Prediction predict(Scheme scheme, const LayerSize& layer, int workers, Grid grid, DType dtype, const Speeds& speeds,
                   const ServerShares* serving) {
  Prediction prediction;
  const std::size_t width = bytes_of(dtype);
  prediction.bytes_in_all = numbers_sent_in_all(scheme, layer, workers, grid) * width;
  if (workers == 1) return prediction;
  const double p = workers;
  const double m = static_cast<double>(layer.rows);
  const double n = static_cast<double>(layer.cols);
  const double k = static_cast<double>(layer.batch);
  const double matrix = m * n + (layer.bias ? m : 0);
  // Beyond the 2 K M N operations of the layer's own weight gradient, which factors make superfluous.
  const double repeated_product = 2 * (p - 1) * k * m * n / speeds.flops_per_second;
  double numbers = 0;  // through the busiest link, one way after the other where one must wait for the other
  double rounds = 0;   // latencies one after the other
  double arithmetic = 0;
  switch (scheme) {
    case Scheme::kPs:
      numbers = 2 * (p - 1) / p * matrix;
      if (serving != nullptr) {
        // All workers but the owner push each number, and get its sum.
        prediction.bytes_in_all = static_cast<std::uint64_t>(std::llround(2 * (p - serving->colocated) * matrix)) * width;
        numbers = serving->seconds_per_byte * speeds.link_bytes_per_second * matrix;
      }
      rounds = 2;
      arithmetic = matrix * static_cast<double>(width) / speeds.sum_bytes_per_second;
      break;
    case Scheme::kSfb:
      numbers = (p - 1) * k * (m + n);
      rounds = 1;
      arithmetic = repeated_product;
      break;
    case Scheme::kAdam:
      numbers = (p - 1) * (k * (m + n) + matrix);
      rounds = 2;
      arithmetic = repeated_product;
      break;
    case Scheme::kBlock:
      numbers = (p - 1) * (k * (m / grid.rows + n / grid.cols) + matrix / p);
      rounds = 2;
      break;
  }
  prediction.seconds = numbers * static_cast<double>(width) / speeds.link_bytes_per_second +
                       rounds * speeds.latency_seconds + arithmetic;
  return prediction;
}

}  // namespace poseidon::plan
