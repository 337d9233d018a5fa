#include "library/door.h"

#include <utility>

#include "base/text.h"
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
  door->timeline_ = trace::WorkerTimeline::from_environment(rank);
  door->name_tensors();
  Result<std::unique_ptr<cluster::Worker>> worker =
      cluster::Worker::join({.job = std::move(**job),
                             .model = std::move(options.model),
                             .values = std::move(options.values),
                             .make_compute = [product = std::move(options.product)](runtime::Runtime& lane) {
                               return std::make_unique<ProgramCompute>(lane, product);
                             },
                             .events = door->timeline_ ? &door->timeline_->events() : nullptr,
                             .provisional = options.provisional,
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

// Everything but the links stays as it is: locks may be held by threads of the other process, and nobody here is to be called back.
void Door::forsake(std::unique_ptr<Door> door) {
  cluster::Worker::forsake(std::move(door->worker_));
  static_cast<void>(door.release());
}

void Door::name_tensors() {
  if (!timeline_) return;
  std::vector<std::string> names;
  for (const TensorSpec& tensor : model_.tensors) names.push_back(tensor.name);
  timeline_->set_tensor_names(std::move(names));
}

Status Door::renew(Model model, std::vector<TensorView> values, Iteration first) {
  if (const Status status = check_model(model); !status) return status;
  if (const Status status = check_renewal(model_, model, values); !status) return status;
  for (TensorView& view : values) {
    if (view.data == nullptr) view = {};
  }
  if (const Status status = session_->begin_renewal(); !status) return status;
  if (const Status status = worker_->renew(model, std::move(values), first); !status) {
    session_->abandon_renewal();
    return status;
  }
  model_ = std::move(model);
  name_tensors();
  if (timeline_) timeline_->begin(first);
  session_->end_renewal(model_, first);
  return {};
}

bool Door::begin(Iteration iteration) {
  if (timeline_) timeline_->begin(iteration);
  return worker_->begin(iteration);
}

Status Door::check_letters(const std::vector<Letter>& letters) const {
  for (const Letter& letter : letters) {
    const auto invalid = [&](const std::string& what) { return Error{ErrorCode::kInvalid, base::concat("a letter ", what)}; };
    if (letter.rank < 0 || letter.rank >= session_->workers()) {
      return invalid(base::concat("for rank ", letter.rank, ", of ", session_->workers(), " workers"));
    }
    if (letter.rank == index(session_->rank())) return invalid(base::concat("for rank ", letter.rank, ", which is this worker"));
    if (letter.data == nullptr && letter.bytes > 0) return invalid(base::concat("for rank ", letter.rank, " of ", letter.bytes, " bytes has no memory"));
  }
  return {};
}

Status Door::begin_moving(const std::vector<Moving>& messages) {
  const std::lock_guard lock(moving_mutex_);
  for (std::size_t m = 0; m < messages.size(); ++m) {
    const Moving& message = messages[m];
    if (moving_.insert(message).second) continue;
    for (std::size_t begun = 0; begun < m; ++begun) moving_.erase(messages[begun]);
    return Error{ErrorCode::kInvalid,
                 base::concat("message ", message.name.number, " of channel ", message.name.channel, message.out ? " to" : " from", " rank ",
                              message.rank, " is on its way already: each has a number of its own")};
  }
  return {};
}

Status Door::exchange(std::uint32_t channel, std::uint64_t number, const std::vector<Letter>& out, const std::vector<Letter>& in) {
  if (const Status status = check_letters(out); !status) return status;
  if (const Status status = check_letters(in); !status) return status;
  if (worker_->is_on_lane()) {
    return Error{ErrorCode::kInvalid, "an exchange in a callback would wait for itself: callbacks run on the lane that moves the letters"};
  }
  const collective::MessageName name{channel, number};
  std::vector<Moving> messages;
  const auto letters_of = [&](const std::vector<Letter>& letters, bool is_out) {
    std::vector<cluster::Letter> all;
    for (const Letter& letter : letters) {
      messages.push_back({is_out, letter.rank, name});
      all.push_back({Rank{letter.rank}, {letter.data, letter.bytes, {}, 0}});
    }
    return all;
  };
  const std::vector<cluster::Letter> outgoing = letters_of(out, true);
  const std::vector<cluster::Letter> incoming = letters_of(in, false);
  if (const Status status = begin_moving(messages); !status) return status;
  const Status moved = worker_->exchange(name, outgoing, incoming);
  const std::lock_guard lock(moving_mutex_);
  for (const Moving& message : messages) moving_.erase(message);
  return moved;
}

void Door::span(const std::string& name, bool is_begin) {
  if (timeline_) timeline_->span(name, is_begin);
}

Status Door::leave() {
  if (timeline_) {
    for (const std::string& note : timeline_->notes()) worker_->note(note);
  }
  return worker_->leave();
}

}  // namespace poseidon::library
