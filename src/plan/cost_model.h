// How many numbers each scheme moves for one fully connected layer, and how long that takes.
//
// Pure functions: no clock, no socket, no state. Zhang et al., USENIX ATC 2017 (arXiv 1706.03292), Table 1, for ps, sfb and
// adam; the block scheme is ours (docs/schemes.md derives it). Every worker is a server as well, unless `ServerShares` say who
// serves.
#pragma once

#include <cstdint>

#include "plan/server_shares.h"
#include "poseidon/session.h"
#include "poseidon/types.h"

namespace poseidon::plan {

// dW = Uᵀ V, with U [batch, rows] the output errors and V [batch, cols] the inputs.
struct DenseShape {
  double rows = 0;   // M
  double cols = 0;   // N
  double batch = 0;  // K, samples (rows of the factors) per worker
};

struct Nodes {
  int workers = 1;  // P1, at least 1
  int servers = 1;  // P2, at least 1
};

// Table 1 of the paper: numbers sent plus received per iteration by a node that is worker and server.
double ps_elements(DenseShape layer, Nodes nodes);     // 2 M N (P1 + P2 - 2) / P2
double sfb_elements(DenseShape layer, int workers);    // a worker: 2 K (P - 1) (M + N)
double adam_elements(DenseShape layer, int workers);   // the layer's owner: (P - 1) (M N + K M + K N)

// The grid of owners, grid.rows × grid.cols = P, with the fewest factor numbers: least M / rows + N / cols. Every owner must
// have a row and a column; 0 × 0 where the matrix is too small for that.
struct Grid {
  int rows = 1;  // pr: cuts the matrix's M rows
  int cols = 1;  // pc: cuts its N columns
  friend bool operator==(const Grid&, const Grid&) = default;
};
Grid best_grid(double rows, double cols, int workers);

double block_elements(DenseShape layer, Grid grid);  // 2 (P - 1) [K (M / pr + N / pc) + M N / P]

// Exactly what travels: the numbers that all members together send for the layer in one iteration.
//   ps     2 (P - 1) (M N + b)
//   sfb    P (P - 1) K (M + N)                          the bias follows from U
//   adam   (P - 1) [K (M + N) + M N + b]                 the owner sends the bias sum back
//   block  (P - 1) [K (pc M + pr N) + M N + b]           the owners of a row of blocks share the bias sum
// with b = M where the layer has a bias, else 0.
struct LayerSize {
  std::uint64_t rows = 0;   // M
  std::uint64_t cols = 0;   // N
  std::uint64_t batch = 0;  // K
  bool bias = false;
};
std::uint64_t numbers_sent_in_all(Scheme scheme, const LayerSize& layer, int workers, Grid grid);

// What is known of the machines, measured when the job starts or given by the user.
struct Speeds {
  double link_bytes_per_second = 1.25e9;  // one direction of one member's link, payload
  double latency_seconds = 50e-6;         // one way, for a small frame
  double flops_per_second = 1e11;         // of the product that turns factors into a matrix
  double sum_bytes_per_second = 5e9;      // read by a server's sum
};

// The time from the last local gradient to the last sum, were the layer alone on the network: the busiest link, the
// latencies one after the other, and the arithmetic beyond what the layer's own backward pass would have done.
struct Prediction {
  std::uint64_t bytes_in_all = 0;  // sent by all members together
  double seconds = 0;
};
// `serving`: who serves dense layers, for links of speeds.link_bytes_per_second and faster; null: the workers alone, all alike.
Prediction predict(Scheme scheme, const LayerSize& layer, int workers, Grid grid, DType dtype, const Speeds& speeds,
                   const ServerShares* serving = nullptr);

}  // namespace poseidon::plan
