// The exchange of a worker in a job: gradients leave through a Session from inside the backward pass.
//
// A hook on each parameter's gradient accumulator hands the gradient over the moment autograd has finished it, for shared
// weights once, with all their uses summed. A layer under a factor scheme gets a linear operation of our own instead, whose
// backward pass hands over (output errors, inputs) and never forms the weight's gradient.
//
// A table of which a batch touches few rows (LayerParameters::touched_rows) does not pass the Session: each worker gives all others
// the rows that it has touched, with their numbers, and each adds them up in the order of ranks (decision 36).
//
// Called by the one thread that trains; sums arrive on the engine's lane and are picked up here.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/csrc/autograd/variable.h>

#include <condition_variable>
#include <deque>
#include <exception>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/event.h"
#include "engines/torch/gradient_exchange.h"
#include "poseidon/session.h"

namespace poseidon::aten {

// A wait ended because the job did: a peer died, or somebody failed.
class JobOver : public std::exception {
 public:
  explicit JobOver(Error error) : error_(std::move(error)) {}
  const Error& error() const { return error_; }
  const char* what() const noexcept override { return error_.message.c_str(); }

 private:
  Error error_;
};

// What one worker gives all others, and gets from them.
using Bytes = std::vector<std::byte>;
using SharedFn = std::function<void(Result<std::vector<Bytes>>)>;

// The bytes of payload that P workers together send when each gives all others `touched` rows of a table, and the 8 bytes of a size
// besides; and whether that is so much less than the table's dense gradient, up and down, that it makes up for what all add themselves.
std::uint64_t bytes_of_rows(int workers, std::uint64_t touched, std::uint64_t columns, std::uint64_t width);
bool rows_pay(int workers, std::uint64_t touched, std::uint64_t rows, std::uint64_t columns, std::uint64_t width);

struct SessionExchangeOptions {
  std::uint32_t samples = 1;               // of this worker in each iteration
  base::EventListener* events = nullptr;   // may be null; outlives the exchange
  // What each worker gives, by rank, as cluster::Worker::gather: gather() needs it where there are several.
  std::function<Result<std::vector<std::string>>(const std::string& own)> gather = {};
  // Gives all workers what each has, of at most `bytes_max`, by rank and with nothing in the own place; as collective::share_bytes, from
  // any thread. Each number is used once, in any order. Where it is missing tables travel densely.
  std::function<void(std::uint64_t number, std::shared_ptr<const Bytes> own, std::size_t bytes_max, SharedFn done)> share = {};
};

class SessionExchange final : public GradientExchange {
 public:
  // The session's model is model_of(layers); it outlives the exchange. Memory that was handed in and not settled must outlive
  // the session's use of it: keep the exchange until the worker has left or ended.
  SessionExchange(Session& session, std::vector<LayerParameters> layers, UpdateFn update, SessionExchangeOptions options);
  ~SessionExchange() override;

  int rank() const override { return static_cast<int>(index(session_.rank())); }
  int workers() const override { return session_.workers(); }
  // Also takes up the session's plan, where it is another than in the iteration before: settle_all() must have been called then.
  void begin(Iteration iteration) override;
  // Dense gradients add up in each parameter's .grad. Factors are kept, and travel as those of one larger batch.
  void accumulate(bool more) override { accumulating_ = more; }
  // Both throw JobOver.
  void settle(LayerId layer) override;
  void settle_all() override;
  at::Tensor linear(LayerId layer, const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) override;
  // Throws JobOver.
  std::vector<at::Tensor> gather(const at::Tensor& own) override;
  bool takes_rows(LayerId layer) const override { return layers_[index(layer)].rows.has_value(); }

  // Of a layer whose table travels as rows: payload so far.
  struct RowTraffic {
    std::uint64_t bytes_sent = 0;
    std::uint64_t bytes_received = 0;
  };
  // Nothing for other layers.
  std::optional<RowTraffic> row_traffic(LayerId layer) const { return layers_[index(layer)].rows; }

  // Time that the training thread has spent waiting for sums, so far.
  double wait_seconds() const { return wait_seconds_; }

 private:
  // The kind of pointer differs between versions of torch.
  using Accumulator = decltype(torch::autograd::impl::grad_accumulator(std::declval<const at::Tensor&>()));
  class AccumulatorHook;
  struct FactorLinear;
  // One parameter. Only the training thread touches it.
  struct Slot {
    LayerId layer{};
    std::size_t parameter = 0;
    TensorId tensor{};
    bool outstanding = false;            // handed in, not yet updated with
    std::optional<Iteration> handed_in;  // the last iteration for which it was
    at::Tensor memory;                   // the gradient, and then the sum
    std::shared_ptr<Bytes> own_rows = {};  // of a table
    Accumulator accumulator;             // kept alive: autograd itself holds it only while a graph uses it
  };
  struct Layer {
    LayerParameters parameters;
    std::size_t first_slot = 0;
    bool factors = false;
    std::optional<RowTraffic> rows = {};  // set: the first parameter's gradient travels as rows
    std::string wait_span;           // "wait ip1"
    at::Tensor weight_sum;           // for a factor layer: where the sums arrive
    at::Tensor bias_sum;
    std::vector<at::Tensor> kept_outputs;  // factors of batches of this iteration that have not been handed in
    std::vector<at::Tensor> kept_inputs;
  };

  void follow_plan();
  void on_gradient(std::size_t slot);
  void on_factors(LayerId layer, Iteration iteration, at::Tensor outputs, at::Tensor inputs);
  void submit_dense(std::size_t slot, Iteration iteration);
  bool is_table(const Slot& slot) const { return slot.parameter == 0 && layers_[index(slot.layer)].rows.has_value(); }
  void submit_rows(std::size_t slot, Iteration iteration);
  // The workers' rows, added up; and how many workers had any.
  std::pair<at::Tensor, std::uint32_t> sum_of_rows(Slot& slot);
  void submit_factors(LayerId layer, Iteration iteration);
  void hand_in(Slot& slot, Iteration iteration, at::Tensor memory);
  SyncedFn callback(std::size_t first_slot, std::size_t slots);
  void hand_in_missing(LayerId layer);
  bool is_settled(const Layer& layer) const;
  // An arrived sum, of the given layer where there is one; waits until there is any.
  std::pair<std::size_t, Synced> take_arrived(LayerId preferred);
  void update(std::size_t slot, const Synced& synced);
  void record(base::EventKind kind, const Slot& slot, Iteration iteration, std::uint64_t bytes);
  void record_span(base::EventKind kind, const std::string& name);

  Session& session_;
  UpdateFn update_;
  SessionExchangeOptions options_;
  std::vector<Layer> layers_;
  std::vector<Slot> slots_;          // by TensorId
  std::optional<Iteration> iteration_;  // of the last begin()
  std::optional<Iteration> finished_;   // the last whose backward pass is over
  bool accumulating_ = false;           // what the running backward pass yields stays here
  double wait_seconds_ = 0;

  // What the lane hands over. Held by the session's callbacks too, which may outlive the exchange when a job is cut short.
  struct Inbox {
    std::mutex mutex;
    std::condition_variable changed;
    std::deque<std::pair<std::size_t, Synced>> arrived;  // guarded by mutex: slots whose sums wait for their update
    std::map<std::size_t, std::vector<Bytes>> rows;      // guarded by mutex: by slot, of tables that have arrived
  };
  std::shared_ptr<Inbox> inbox_ = std::make_shared<Inbox>();
  // Hooks stay on the parameters after the exchange has gone; they look here first. Training thread only.
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace poseidon::aten
