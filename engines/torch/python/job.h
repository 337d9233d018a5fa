// A worker of a job as Python sees it: tensors in, sums out.
//
// Everything that a script asks for goes through here; what to hand in, and when, is decided in python/poseidon/torch. The tensors
// that travel are kept alive here until their sums have come, and are let go by the script's thread only: the engine's threads own no
// Python object, and never wait for the interpreter.
#pragma once

#include <ATen/core/Tensor.h>

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "cluster/worker.h"
#include "engines/torch/python/waited_device.h"
#include "trace/worker_timeline.h"

namespace poseidon::python {

// What has ended the job, or what a caller did wrong.
struct JobError : std::runtime_error {
  explicit JobError(const Error& error) : std::runtime_error(error.message), code(error.code) {}
  ErrorCode code;
};

struct LayerArgument {
  std::string name;
  std::vector<std::uint32_t> tensors;
  std::size_t factor_rows = 0;
};
using TensorArgument = std::pair<std::string, at::Tensor>;  // its name, and its values: those of rank 0 are written into all others'

// A message to, or from, another worker: contiguous, in the host's memory.
struct Letter {
  int rank = 0;
  at::Tensor memory;
};

struct Sum {
  std::uint32_t contributors = 0;  // workers in it; 0: nobody had a gradient, and the memory is untouched
  std::uint64_t samples = 0;
};

// One thread calls, except where it is said. All functions throw JobError; those that wait do so for other workers, and end when the
// job does.
class Job {
 public:
  // Joins the job of the environment. `provisional`: renew() will tell the model (cluster/worker.h). `products_on`: where it is given
  // products are not made, but take as long on it.
  static std::unique_ptr<Job> join(const std::vector<TensorArgument>& tensors, const std::vector<LayerArgument>& layers, bool provisional,
                                   int product_threads, const std::shared_ptr<WaitedDevice>& products_on);
  ~Job();

  int rank() const;
  int workers() const;
  std::string scheme(std::uint32_t layer) const;
  std::string plan() const;

  // Tensors are those of before, and perhaps more behind them; all sums have been taken. Of the first `known` the values are alike
  // everywhere, and do not travel.
  void renew(const std::vector<TensorArgument>& tensors, const std::vector<LayerArgument>& layers, std::uint64_t first, std::size_t known);
  bool begin(std::uint64_t iteration);
  // A stretch of the script's thread, for the timeline (where POSEIDON_TIMELINE asks for one).
  void span(const std::string& name, bool is_begin);
  // Seconds that wait() has blocked so far.
  double waited_seconds() const { return waited_seconds_; }

  // Any thread that runs hooks. The tensor's memory is dense (perhaps in another order than its shape says); the sum replaces what is in it.
  void submit(std::uint32_t tensor, std::uint64_t iteration, at::Tensor gradient, std::uint32_t samples);
  void submit_absent(std::uint32_t tensor, std::uint64_t iteration, at::Tensor destination);
  // U [rows, outputs], V [rows, inputs], contiguous; the sums arrive in `weight` and `bias`.
  void submit_factors(std::uint32_t layer, std::uint64_t iteration, at::Tensor outputs, at::Tensor inputs, at::Tensor weight,
                      std::optional<at::Tensor> bias, std::uint32_t samples);
  // Waits for the sum. Of a layer with factors, by its weight.
  Sum wait(std::uint32_t tensor);
  // Whose sums have come and have not been waited for, in no order.
  std::vector<std::uint32_t> arrived() const;

  // Any thread. Returns when all messages called by this name are out of, or in, their memory (collective/mailbox.h).
  void exchange(std::uint32_t channel, std::uint64_t number, const std::vector<Letter>& out, const std::vector<Letter>& in);

  std::vector<std::string> gather(const std::string& own);
  void note(const std::string& text);
  void leave();
  void fail(const std::string& message);
  // In a process that has been forked from the worker's: closes the links, which are the worker's alone, and lets go of everything without
  // a word. Nothing else may be called afterwards.
  void forsake();
  // The message of what has ended the job.
  std::optional<std::string> error() const;
  std::uint64_t bytes_sent();
  std::uint64_t bytes_received();

 private:
  struct Pending {
    std::vector<at::Tensor> kept;
    std::optional<Synced> synced;
  };
  struct State {
    std::mutex mutex;
    std::condition_variable changed;
    std::unordered_map<std::uint32_t, Pending> pending;  // guarded by mutex
    std::vector<at::Tensor> released;                    // factors that have left; guarded by mutex
  };
  struct Hold;

  Job(std::unique_ptr<cluster::Worker> worker, Model model, std::unique_ptr<trace::WorkerTimeline> timeline);
  void set_names(const std::vector<LayerArgument>& layers);
  SyncedFn expect(std::uint32_t tensor, std::vector<at::Tensor> kept);
  void let_go();
  const TensorSpec& spec(std::uint32_t tensor) const;

  std::unique_ptr<trace::WorkerTimeline> timeline_;  // null where none is wanted; the worker's threads record into it
  double waited_seconds_ = 0;
  Model model_;
  std::shared_ptr<State> state_ = std::make_shared<State>();
  std::unique_ptr<cluster::Worker> worker_;
};

}  // namespace poseidon::python
