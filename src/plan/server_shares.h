// How much of the dense bytes each server should own, so that the busiest link is as little busy as it can be.
//
// n workers, each with a server in its own process (colocated), and k dedicated servers, which are no workers. A tensor of M
// bytes is owned in shares: worker i owns x_i of it, dedicated server j owns y_j, and they sum to 1. In one iteration
//
//   worker i          pushes (1 - x_i) M to the other servers, sends (n - 1) x_i M of sums:   (1 + (n - 2) x_i) M
//                     and receives as much: (1 - x_i) M of sums, (n - 1) x_i M of pushes
//   dedicated j       receives n y_j M of pushes, sends n y_j M of sums:                        n y_j M
//
// With rates w_i and s_j (bytes per second, each direction) the time of the busiest link is
//
//   T = M max( max_i (1 + (n - 2) x_i) / w_i,  max_j n y_j / s_j )
//
// A level t (seconds for each byte of M) that no link may exceed leaves room for x_i = (t w_i - 1) / (n - 2), where that is
// positive, and y_j = t s_j / n. The room grows with t, so there is one level at which it holds exactly all bytes: with the m
// fastest workers above water
//
//   t = (1 + m / (n - 2)) / (sum of their w / (n - 2) + sum of all s / n)
//
// A worker so slow that its own gradients take longer than that, 1 / w_i > t, owns nothing, and is then the busiest; the others
// are still filled to t and not to 1 / w_i. With equal rates
//
//   x = (n - k) / (n² + k (n - 2)),   y = 2 (n - 1) / (n² + k (n - 2)),   T = n y M / rate     for k <= n; x = 0 beyond
//
// which is the optimum of Jiang et al. (BytePS), OSDI 2020, section 4.1. tests/plan/server_shares_test.cpp compares all this
// with a search over a grid.
//
// Two workers are special: what a worker owns does not change what its link carries. One worker has nobody to add to.
//
// Pure functions.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace poseidon::plan {

// Payload rates of the nodes' links, bytes per second, each direction; all positive.
struct LinkRates {
  std::vector<double> workers;  // by rank, at least one
  std::vector<double> servers;  // of the dedicated servers; may be none
};

// How dense bytes are spread over the nodes, and what that makes links carry.
struct ServerShares {
  std::vector<double> of_node;   // the workers' by rank, then the dedicated servers'; sum 1
  double seconds_per_byte = 0;   // of a dense tensor, on the busiest link: T / M
  double colocated = 1;          // the workers' shares together
};
// `colocated` false: only the dedicated servers serve, of which there must be one.
ServerShares server_shares(const LinkRates& links, bool colocated = true);
// The same for links of one rate: 1 byte per second, so that `seconds_per_byte` is what the busiest link carries for each byte of
// a tensor: 2 (n - 1) / n with colocated servers alone.
ServerShares server_shares(int workers, int servers, bool colocated = true);

// T / M for any shares by node.
double busiest_link_seconds(const LinkRates& links, std::span<const double> shares);

// Shares as whole numbers that sum to a million, for a plan: every member must deal chunks alike, whatever its processor makes of
// fractions.
std::vector<std::uint32_t> parts_per_million(std::span<const double> shares);

// Rates as they were measured, without what is noise: links come in steps of more than 2 (1, 2.5, 10, 25, 100 Gbit/s), so rates
// within a factor of 2 of the fastest are of one kind, and count as the slowest of them; then the next slower kind.
std::vector<double> steadied(std::span<const double> rates);

}  // namespace poseidon::plan
