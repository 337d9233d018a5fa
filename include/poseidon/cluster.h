// A worker's way into a job, and out of it: for programs that bring their own arithmetic.
//
// A launcher starts P processes with four variables in their environment (POSEIDON_RANK, POSEIDON_WORLD_SIZE,
// POSEIDON_COORDINATOR, POSEIDON_SECRET_FILE); `poseidon/local.h` has one for this host. Each process joins with the list of
// what it trains, gets a Session (poseidon/session.h), and gives its gradients to that. docs/library.md shows a whole program.
//
//   find_job()  who am I?                      -> so many rows of the batch are mine
//   join()      everybody compares the model, agrees on a scheme for each layer, gets rank 0's values
//   begin()     may iteration i begin?         \  for each
//   session()   submit gradients, get sums     /  iteration
//   renew()     another model from here on, where the program learns only on the way what it trains
//   leave()     all work is done
//
// Threads: one thread of the program calls begin, renew, gather, leave and fail, one call at a time; exchange, note, span, error, plan,
// traffic and the session may be used by any. The engine has threads of its own: the lane (sockets, sums, callbacks) and one for
// products. A job has one Cluster in a process.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "poseidon/error.h"
#include "poseidon/export.h"
#include "poseidon/session.h"
#include "poseidon/types.h"

namespace poseidon {

namespace library {
class Door;
}

// Which worker of how many this process is.
struct Place {
  int rank = 0;     // 0 to workers - 1
  int workers = 1;  // P
};
// Reads the environment. Nothing when POSEIDON_RANK is not set: no launcher has started this process. kInvalid, naming the
// variable, when one of the others is missing or cannot be.
POSEIDON_API Result<std::optional<Place>> find_job();

// A product of factors that is wanted: out = Uᵀ V. All matrices are row by row; nothing is owned.
struct Product {
  DType dtype = DType::kFloat32;
  std::size_t rows = 0;          // of U and V, from all workers together
  std::size_t outputs = 0;       // columns of U, rows of `out`
  std::size_t inputs = 0;        // columns of V and of `out`
  const std::byte* u = nullptr;  // [rows, outputs]
  const std::byte* v = nullptr;  // [rows, inputs]
  std::byte* out = nullptr;      // [outputs, inputs]; what was there is overwritten
  std::size_t out_stride = 0;    // elements from one row of `out` to the next, at least `inputs`
};
// Called by the library's thread for products, one at a time; must not call into the Cluster and must not throw. An error ends
// the job. The same numbers must give the same bits on all workers, or the replicas drift apart: a fixed number of threads,
// no order of summing that depends on time. When joining, a float32 product of fixed numbers is compared between the workers,
// whatever the model's own type; where it differs, scheme sfb is not offered.
using ProductFn = std::function<Status(const Product& product)>;

struct JobOptions {
  Model model;  // equal on all workers; a difference ends the job with the rank and the parameter
  // Borrowed until join() returns: one view for each tensor, of contiguous host memory. Rank 0's values are written into all
  // others'.
  std::vector<TensorView> values;
  // How factors are multiplied. Empty: plain loops on one thread, right but slow, the same bits everywhere. An engine with a
  // fast product brings it here.
  ProductFn product;
  // The model is trained only until renew() brings a better one. All layers travel as dense gradients until then, and nothing is
  // measured. Equal on all workers.
  bool provisional = false;
};

// A message to, or from, another worker.
struct Letter {
  int rank = 0;               // the other's
  std::byte* data = nullptr;  // on the host; only read where it is sent
  std::size_t bytes = 0;      // the same at both ends; may be 0
};

// Bytes that this worker has moved since it joined.
struct Traffic {
  struct Tensor {
    std::uint64_t sent = 0;
    std::uint64_t received = 0;
  };
  std::vector<Tensor> tensors;   // payload, by TensorId; the factors of a layer count for its weight
  std::uint64_t bytes_sent = 0;  // over all links to other workers, with framing
  std::uint64_t bytes_received = 0;
};

class POSEIDON_API Cluster {
 public:
  // Joins the job of the environment. Waits for all workers, at most as long as the coordinator does (120 s to join, 60 s for
  // each step after that). kNotFound: there is no job in the environment. kInvalid: the model cannot be synchronised, or the
  // values do not fit it; found before anything is sent. kRefused: wrong secret, or another model than rank 0's. Others: what
  // has ended the job. The launcher hears of an error as well, so the caller can just end with a code that is not 0.
  static Result<std::unique_ptr<Cluster>> join(JobOptions options);

  // Closes the links; without leave() before, the others take it for a death. Sums that have not come are called back with
  // kAborted. Gradients and factors that were handed in are used by nobody any more once this has returned. Not from a
  // callback, and not while another thread uses the cluster or its session.
  ~Cluster();
  Cluster(const Cluster&) = delete;
  Cluster& operator=(const Cluster&) = delete;

  // 0 to workers() - 1.
  int rank() const;
  // How many train together.
  int workers() const;

  // The engine's door for gradients. Beyond what session.h says: a submission that cannot be (no such tensor, memory of the wrong
  // size, one more before the last was called back, a layer of another scheme) is called back with kInvalid, and nothing is
  // sent. The others wait for this worker then; end the job with fail().
  //
  // Tensors count for themselves: one may be at iteration 5 while another is at 2, and workers may take different tensors in
  // different orders, with little memory for staging too. What must be the same on all workers is which iterations of a tensor there
  // are, and which sums a submission waits for (in the program: those that its gradient is computed from). A wait for a sum that
  // another worker gives only later makes a circle, which nobody can resolve; warnings name it, and it ends the job after half an hour.
  Session& session();

  // May this iteration begin? Iterations are asked for in order. False: somebody has asked for the end (Ctrl-C at the
  // launcher), and all workers stop before this same iteration; go on to leave(). Waits only while such an end is being agreed
  // on. The error is what has ended the job.
  Result<bool> begin(Iteration iteration);

  // Trains another model from iteration `first` on, as all workers do: call it on all of them, before the same iteration begins. Its
  // tensors are those of the present one, in their places, and perhaps more behind them; its layers may be other ones. The links are
  // measured where they have not been, and a plan is made, as after joining; schemes may be others than before.
  //
  // Of a value that has memory rank 0's is written into all others', and the memory is borrowed until renew() returns. One without
  // (a TensorView{}) does not travel: everybody keeps its own. It must be the same tensors on all workers that have none.
  //
  // All sums must have been called back, and no other thread may use the session meanwhile. Afterwards each tensor's iterations begin
  // anew: the next one that is submitted may be `first` or any later one, whatever came before. Waits for all workers. kInvalid: the
  // model cannot be synchronised, is no continuation of the present one, or a sum is outstanding; then nothing was sent, and all is
  // as before, but the others wait: go on to fail(). Others, also where the workers' models or values differ: what has ended the job.
  Status renew(Model model, std::vector<TensorView> values, Iteration first);

  // Gives every worker what all have given, by rank: small things such as scores and digests, of any bytes; it goes through the
  // coordinator. All workers call it in the same order. Waits for all. kInvalid when this part is so long that P of them do not
  // fit into a message of 16 MiB (in hexadecimal); then nothing was sent.
  Result<std::vector<std::string>> gather(const std::string& own);

  // Messages to other workers, and from others, at once: of any size, host memory to host memory, with nothing stored on the way. All
  // letters of a call have one name, its channel and number, and both ends of each must use the same. A name is used once between two
  // workers in one direction. Returns when each letter is out of, or in, its memory; so the memory is borrowed until then, also where it
  // ends with an error because the job has ended. Any thread, several at once, but no callback. kInvalid: a rank that is not there,
  // or this one, no memory, a name that is on its way already; then nothing was sent. Also kInvalid: the other end's letter has another
  // size; then the other end goes on waiting, so end the job with fail().
  Status exchange(std::uint32_t channel, std::uint64_t number, const std::vector<Letter>& out, const std::vector<Letter>& in);

  // A line for the launcher's `on_note`. Text: bytes that are no UTF-8 arrive as replacement characters. Does not wait. kInvalid
  // when longer than 1 MiB.
  Status note(const std::string& text);

  // A stretch of the calling thread begins, or ends, for the timeline of the job, where it is wanted (POSEIDON_TIMELINE, which
  // `poseidon run --timeline` sets); else it does nothing. Those of one thread lie within each other. Of a name the first 64 bytes are kept.
  // The engine's own events, of each gradient, are recorded without a word.
  void span(const std::string& name, bool is_begin);

  // This worker has done its work and has no sum outstanding. Waits until all say so. The error is what ended the job instead. Where a
  // timeline is wanted this worker's part goes to the launcher before, in notes {"timeline": "..."}.
  Status leave();

  // This worker cannot go on, for a reason of its own: ends the job for all with that reason. Returns when the coordinator has
  // had time to hear it (200 ms).
  void fail(const Error& why);

  // In a process that has been forked from the worker's: closes its copies of the links, which would look alive to the others as long as
  // this process lives, and lets go of all else without a word: nobody is called back, and memory stays as it is. The worker's
  // process notices nothing. Nothing but the end of this object may follow. (A program that is started by exec has no copies.)
  void forsake();

  // What has ended the job, if anything has.
  std::optional<Error> error() const;

  // The plan in force, as JSON (docs/schemes.md); another one after renew(). LocalOptions::plan takes it to repeat a run bit by bit.
  std::string plan() const;

  // Waits for the lane, some microseconds.
  Traffic traffic();

 private:
  explicit Cluster(std::unique_ptr<library::Door> door);
  std::unique_ptr<library::Door> door_;
};

// For a worker that cannot even join (its data is not there): leaves the reason for the launcher, whose job fails with it when
// this process ends. Does nothing where no launcher of ours has started the process.
POSEIDON_API void report_failure(const Error& why);

}  // namespace poseidon
