// Sufficient factors of one layer: who gets which, when the product is made, and where its result goes.
//
// The gradient of a fully connected layer over the whole batch is dW = Uᵀ V, with the workers' rows of U (output errors) and
// V (inputs) one below the other. The matrix is cut into blocks with one owner each (plan::partition_factors): the whole
// matrix at every worker (sfb), the whole at one (adam), or a grid (block). A worker sends each owner only the columns of
// U and V that its block needs. The owner lays all workers' rows one below the other in the order of ranks, makes one
// product, and, except under sfb, sends its block to everyone.
//   Xie et al., UAI 2016 (arXiv 1511.08486): sufficient factor broadcasting.
//   Chilimbi et al., OSDI 2014 (Project Adam): factors up, matrix down.
//
// Two sets of buffers are enough: a peer sends factors of the next iteration only when it has finished this one, and of the one after
// that only when it has finished the next, for which it needed ours, which we sent after our product of this one. Iterations' numbers
// need not follow one another.
//
// Lane only.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/aligned.h"
#include "plan/partition.h"
#include "poseidon/session.h"
#include "runtime/compute.h"
#include "runtime/outbox.h"
#include "runtime/runtime.h"
#include "runtime/transport.h"

namespace poseidon::factor {

struct FactorExchangeOptions {
  Rank self{0};
  std::vector<Member> members;  // the workers, by rank
  std::string name;             // of the layer
  std::uint32_t layer = 0;      // its place in the forward pass
  TensorId weight{0};
  std::optional<TensorId> bias;
  DType dtype = DType::kFloat32;
  std::size_t rows = 0;         // M
  std::size_t cols = 0;         // N
  std::size_t batch_max = 0;    // K, rows of the factors per worker
  plan::FactorPartition partition;
  bool size_only = false;
  std::vector<Rank> leaders = {};  // where nodes are hosts: plan::node_name
};

class FactorExchange {
 public:
  FactorExchange(runtime::Runtime& runtime, runtime::Compute& compute, runtime::Outbox& outbox, runtime::Transport& transport,
                 FactorExchangeOptions options);
  ~FactorExchange();

  // Session::submit_factors, on the lane.
  void submit(Iteration iteration, const FactorGradient& gradient, SyncedFn on_synced);
  // The memory for a peer's factors, or kCorruptFrame where the plan has no place for them.
  Result<runtime::Sink> accept_factor(Member from, const wire::PartHeader& part);

  bool waiting() const { return pending_.has_value(); }
  // Ends the wait with an error: the job is over.
  void fail(const Error& error);
  // Whom a wait of more than `age` is for.
  std::optional<std::string> overdue(runtime::Duration age) const;
  runtime::Duration waited() const { return pending_ ? runtime_.now() - pending_->since : runtime::Duration{0}; }

 private:
  // What the owner of a block keeps for one iteration.
  struct Set {
    std::optional<Iteration> iteration;
    base::AlignedBytes outputs;       // U [workers * batch_max, block rows]
    base::AlignedBytes inputs;        // V [workers * batch_max, block cols]
    base::AlignedBytes product;       // [block rows, block cols], where it is sent on
    base::AlignedBytes bias;          // [bias_end - bias_begin], likewise
    std::vector<std::size_t> batch;   // rows that each rank contributes
    // By rank: bytes whose headers have not come, and bytes that are not in place; nothing: no header has come.
    std::vector<std::optional<std::size_t>> bytes_announced_left;
    std::vector<std::optional<std::size_t>> bytes_left;
    std::uint64_t samples = 0;
    std::size_t ranks_left = 0;
    bool multiplied = false;
  };
  // What the worker waits for.
  struct Pending {
    Iteration iteration = 0;
    FactorGradient gradient;  // its `hold` is given on to the send requests
    SyncedFn on_synced;
    std::size_t bytes_left = 0;
    std::uint64_t samples = 0;
    runtime::Time since{};
    std::vector<runtime::SinkId> sinks;
  };

  std::size_t width() const { return bytes_of(options_.dtype); }
  std::size_t packed_bytes(const plan::Block& block, std::size_t batch) const {
    return batch * (block.rows() + block.cols()) * width();
  }
  runtime::Layout factor_layout(const plan::Block& block, const FactorGradient& gradient) const;
  // The set for the iteration, begun where it is new; null where its turn is over, or has not come.
  Set* open(Iteration iteration);
  void send_factors(const plan::Block& block, Iteration iteration, const FactorGradient& gradient);
  void keep_own_factors(Iteration iteration, const FactorGradient& gradient);
  void expect_products(Iteration iteration, const FactorGradient& gradient);
  void on_rank_complete(Set& set, std::size_t rank, std::uint32_t samples);
  void multiply_if_complete(Set& set);
  void on_product(Set& set);
  void send_product(const Set& set);
  void arrived(std::size_t bytes, std::uint64_t samples);
  std::optional<std::size_t> rank_of(Member member) const;

  runtime::Runtime& runtime_;
  runtime::Compute& compute_;
  runtime::Outbox& outbox_;
  runtime::Transport& transport_;
  FactorExchangeOptions options_;
  const plan::Block* own_ = nullptr;  // in options_.partition
  Set sets_[2];
  std::optional<Pending> pending_;
  // A product may be finished after this is gone; it looks here first.
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace poseidon::factor
