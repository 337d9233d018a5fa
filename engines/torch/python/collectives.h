// torch.distributed's back end `poseidon`: collective operations over the links of the job, for DistributedDataParallel and whatever else
// is built on process groups.
//
// Sums are taken in the order of ranks, each slice by one worker that sends it to all, so every worker gets the same bits, and gets them
// again in another run. Half precision is summed in single precision and rounded once. Tensors of a device pass through the host's memory.
#pragma once

#include <torch/csrc/distributed/c10d/Backend.hpp>

#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "engines/torch/python/job.h"

namespace poseidon::python {

class OperationWork;

// One process group. Operations run one after the other in a thread of the group's, in the order in which they were asked for, which all
// its workers share; sends and receives between two workers each by itself. Any thread may ask.
class Collectives final : public c10d::Backend {
 public:
  // `ranks`: of the job, by rank in the group. `channel` differs between the groups of a worker, and is the same in all of a group's.
  Collectives(std::shared_ptr<Job> job, std::uint32_t channel, std::vector<int> ranks, int rank);
  // Waits for what is under way, which ends when the job does.
  ~Collectives() override;

  using Tensors = std::vector<at::Tensor>;
  using WorkPtr = c10::intrusive_ptr<c10d::Work>;

  // Rows of a matrix, by number, that workers have different numbers of: `rows` [n, ...] of those `indices` [n]; undefined where this worker
  // has none to speak of. The work's result is all workers' indices and rows, one behind the other in the order of ranks, and nothing where
  // nobody had any. All workers give rows of the same shape and type, which `like` [0, ...] tells those who have none.
  WorkPtr gather_rows(at::Tensor indices, at::Tensor rows, at::Tensor like);

  const std::string getBackendName() const override { return "poseidon"; }
  WorkPtr broadcast(Tensors& tensors, const c10d::BroadcastOptions& options) override;
  WorkPtr allreduce(Tensors& tensors, const c10d::AllreduceOptions& options) override;
  WorkPtr allreduce_coalesced(Tensors& tensors, const c10d::AllreduceCoalescedOptions& options) override;
  WorkPtr reduce(Tensors& tensors, const c10d::ReduceOptions& options) override;
  WorkPtr allgather(std::vector<Tensors>& outputs, Tensors& inputs, const c10d::AllgatherOptions& options) override;
  WorkPtr _allgather_base(at::Tensor& output, at::Tensor& input, const c10d::AllgatherOptions& options) override;
  WorkPtr allgather_into_tensor_coalesced(Tensors& outputs, Tensors& inputs, const c10d::AllgatherOptions& options) override;
  WorkPtr gather(std::vector<Tensors>& outputs, Tensors& inputs, const c10d::GatherOptions& options) override;
  WorkPtr scatter(Tensors& outputs, std::vector<Tensors>& inputs, const c10d::ScatterOptions& options) override;
  WorkPtr reduce_scatter(Tensors& outputs, std::vector<Tensors>& inputs, const c10d::ReduceScatterOptions& options) override;
  WorkPtr _reduce_scatter_base(at::Tensor& output, at::Tensor& input, const c10d::ReduceScatterOptions& options) override;
  WorkPtr reduce_scatter_tensor_coalesced(Tensors& outputs, Tensors& inputs, const c10d::ReduceScatterOptions& options) override;
  WorkPtr alltoall_base(at::Tensor& output, at::Tensor& input, std::vector<std::int64_t>& output_sizes, std::vector<std::int64_t>& input_sizes,
                        const c10d::AllToAllOptions& options) override;
  WorkPtr alltoall(Tensors& outputs, Tensors& inputs, const c10d::AllToAllOptions& options) override;
  WorkPtr send(Tensors& tensors, int to, int tag) override;
  WorkPtr recv(Tensors& tensors, int from, int tag) override;
  WorkPtr barrier(const c10d::BarrierOptions& options) override;

 private:
  // Of an operation, while it runs: what it calls its messages.
  using Number = std::uint64_t;
  using Act = std::function<void(Number number)>;

  // Runs `act` with the first of `numbers` numbers that are this operation's own.
  WorkPtr queue(c10d::OpType type, Tensors outputs, std::size_t numbers, Act act);
  WorkPtr queue(c10::intrusive_ptr<OperationWork> work, std::size_t numbers, Act act);
  WorkPtr beside(c10d::OpType type, Tensors outputs, std::function<void()> act);
  void run();
  // Blocks. To and from ranks of the group; this worker's own is left out.
  void exchange(Number number, const Tensors& out, const Tensors& in) const;
  // Sends what is this worker's to all, and receives theirs.
  void spread(Number number, const Tensors& slices) const;
  Tensors received_slices(Number number, const Tensors& slices) const;
  void reduce_everywhere(Number number, at::Tensor flat, c10d::ReduceOp::RedOpType operation) const;
  void broadcast_flat(Number number, at::Tensor flat, int root) const;
  Tensors slices_of(const at::Tensor& flat) const;
  WorkPtr gather_everywhere(Tensors outputs, Tensors targets, at::Tensor input);
  WorkPtr reduce_and_scatter(at::Tensor output, Tensors inputs, c10d::ReduceOp::RedOpType operation);

  const std::shared_ptr<Job> job_;
  const std::uint32_t channel_;
  const std::vector<int> ranks_;
  std::mutex mutex_;
  std::condition_variable changed_;
  struct Operation {
    c10::intrusive_ptr<OperationWork> work;
    std::function<void()> act;
  };
  std::deque<Operation> waiting_;                       // guarded by mutex_
  Number next_ = 0;                                     // guarded by mutex_
  std::map<std::pair<int, int>, std::uint32_t> sent_;      // guarded by mutex_: messages so far, by peer and tag
  std::map<std::pair<int, int>, std::uint32_t> received_;  // likewise
  bool closing_ = false;                                // guarded by mutex_
  std::thread thread_;
};

}  // namespace poseidon::python
