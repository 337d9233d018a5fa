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
//   leave()     all work is done
//
// Threads: one thread of the program calls begin, gather, leave and fail, one call at a time; note, error, plan, traffic and
// the session may be used by any. The engine has threads of its own: the lane (sockets, sums, callbacks) and one for products.
// A job has one Cluster in a process.
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
  Session& session();

  // May this iteration begin? Iterations are asked for in order. False: somebody has asked for the end (Ctrl-C at the
  // launcher), and all workers stop before this same iteration; go on to leave(). Waits only while such an end is being agreed
  // on. The error is what has ended the job.
  Result<bool> begin(Iteration iteration);

  // Gives every worker what all have given, by rank: small things such as scores and digests, of any bytes; it goes through the
  // coordinator. All workers call it in the same order. Waits for all. kInvalid when this part is so long that P of them do not
  // fit into a message of 16 MiB (in hexadecimal); then nothing was sent.
  Result<std::vector<std::string>> gather(const std::string& own);

  // A line for the launcher's `on_note`. Text: bytes that are no UTF-8 arrive as replacement characters. Does not wait. kInvalid
  // when longer than 1 MiB.
  Status note(const std::string& text);

  // This worker has done its work and has no sum outstanding. Waits until all say so. The error is what ended the job instead.
  Status leave();

  // This worker cannot go on, for a reason of its own: ends the job for all with that reason. Returns when the coordinator has
  // had time to hear it (200 ms).
  void fail(const Error& why);

  // What has ended the job, if anything has.
  std::optional<Error> error() const;

  // The plan in force, as JSON (docs/schemes.md). LocalOptions::plan takes it to repeat a run bit by bit.
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
