// Who owns which bytes: dense tensors cut into chunks over servers, factor matrices into blocks over owners.
//
// Pure functions of the model and the plan: every member computes the same.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "plan/plan.h"
#include "poseidon/types.h"

namespace poseidon::plan {

// Bytes [begin, end) of a tensor, summed by one server: a node of the plan, so P and above are dedicated servers.
struct Chunk {
  std::size_t begin = 0;
  std::size_t end = 0;
  Rank server{0};
};

// The chunks of every tensor, in order of bytes; empty for tensors that travel as factors.
//
// A tensor of B bytes is cut into P·⌈B / (P·C)⌉ equal chunks, where C is the plan's chunk_bytes, multiples of 64 bytes, dealt round robin from an offset
// that differs per tensor, so that each server has its share of each tensor: one lone chunk would make its server's link
// carry P times the share. Tensors that would give chunks under 16 KiB go whole to the server with the fewest bytes among
// the tensors near them in the forward pass, since those travel at the same time.
//
// Where the plan has shares, the S servers with a share above 0 get as much of each tensor as chunks allow. They are cut four
// times finer, into S·⌈B / (S·C/4)⌉, and dealt to whoever lacks most of its share of what has been dealt so far, so that nobody
// is more than about a chunk away from it after any tensor. What is under S·16 KiB goes whole to the server that has, with it,
// the fewest such bytes for its share.
//
// Beyond 64 servers that leaves too many chunks or too coarse ones, and all dense tensors, one behind the other in the order of
// the forward pass, are one line, which is cut in rounds of S sections, one for each server, as long as its share says: so every server
// has its share of the model, and of every stretch of it. A section is twice as long as one of the round before; in the mean of a round
// they have 4 KiB at most in the first round and C at most in any. A chunk is what a tensor and a section have in common. Why:
// docs/decisions/0018-a-thousand-nodes.md.
std::vector<std::vector<Chunk>> partition(const Model& model, const Plan& plan);

// How large chunks should be for links of that rate: what the link carries in 16 latencies, as a power of two from 256 KiB to 64 MiB;
// 1 MiB at 10 Gbit/s and 50 µs. A chunk is a request, with a slot and a sink at either end. Its first sum is back after two latencies
// and a piece's turn in two queues, so most of a chunk this large is still to be pushed then, and both directions are in use; and a
// server has few of them to keep account of. Pieces, not chunks, are what can be overtaken.
std::uint32_t chunk_bytes_for(double link_bytes_per_second, double latency_seconds);

// One owner's block of a factor layer's matrix [M, N]: rows [row_begin, row_end) by columns [col_begin, col_end), and the
// part of the bias sum that it sends to all.
struct Block {
  Rank owner{0};
  std::size_t row_begin = 0;
  std::size_t row_end = 0;
  std::size_t col_begin = 0;
  std::size_t col_end = 0;
  std::size_t bias_begin = 0;  // within [row_begin, row_end)
  std::size_t bias_end = 0;

  std::size_t rows() const { return row_end - row_begin; }
  std::size_t cols() const { return col_end - col_begin; }
};

struct FactorPartition {
  std::vector<Block> blocks;     // at most one for each rank
  bool sends_products = false;   // false for sfb: everyone multiplies everything itself
  const Block* block_of(Rank owner) const;
};
FactorPartition partition_factors(std::size_t rows, std::size_t cols, const LayerPlan& layer, int workers);

}  // namespace poseidon::plan
