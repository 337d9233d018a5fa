#include "library/door.h"

#include <utility>

#include "launch/sentence.h"
#include "library/model_checks.h"
#include "library/program_compute.h"

namespace poseidon::library {

Result<std::unique_ptr<Door>> Door::join(JobOptions options) {
  Result<std::optional<cluster::JobAddress>> job = cluster::job_from_environment();
  if (!job) return job.error();
  if (!*job) {
    return Error{ErrorCode::kNotFound,
                 "there is no job to join: POSEIDON_RANK is not set, so no launcher has started this process"};
  }
  const int rank = static_cast<int>(index((*job)->rank));
  const std::size_t lanes = (*job)->lanes;
  const std::size_t staging_bytes_max = (*job)->staging_bytes_max;
  // The launcher shows the sentence that it finds; a process that only ends with a code says nothing.
  const auto failed = [&](const Error& why) {
    launch::report_error(rank, why);
    return why;
  };
  if (const Status status = check_model(options.model); !status) return failed(status.error());
  if (const Status status = check_values(options.model, options.values); !status) return failed(status.error());
  std::unique_ptr<Door> door(new Door(options.model));
  Result<std::unique_ptr<cluster::Worker>> worker =
      cluster::Worker::join({.job = std::move(**job),
                             .model = std::move(options.model),
                             .values = std::move(options.values),
                             .make_compute = [product = std::move(options.product)](runtime::Runtime& lane) {
                               return std::make_unique<ProgramCompute>(lane, product);
                             },
                             .lanes = lanes,
                             .staging_bytes_max = staging_bytes_max});
  if (!worker) return failed(worker.error());
  door->worker_ = std::move(*worker);
  door->session_ = std::make_unique<CheckedSession>(door->worker_->session(), door->model_, door->worker_->lane());
  return door;
}

Door::~Door() {
  worker_.reset();
  if (session_) session_->close();
}

}  // namespace poseidon::library
