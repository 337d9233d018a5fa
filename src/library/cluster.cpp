#include "poseidon/cluster.h"

#include <array>
#include <string_view>
#include <utility>

#include "base/checksum.h"
#include "base/hex.h"
#include "base/text.h"
#include "launch/sentence.h"
#include "library/door.h"
#include "plan/plan.h"
#include "wire/frame.h"

namespace poseidon {
namespace {

// A note is for people, or for a progress bar; what is longer belongs in a file.
constexpr std::size_t kNoteBytesMax = std::size_t{1} << 20;
// Around each part of a gathering: quotes, a comma, and once the rest of the message.
constexpr std::size_t kPartOverhead = 4;
constexpr std::size_t kMessageOverhead = 256;

// Control messages are JSON, which carries text only.
std::string to_hex(const std::string& bytes) { return base::to_hex(std::as_bytes(std::span(bytes.data(), bytes.size()))); }

Result<std::string> from_hex(const std::string& text) {
  std::optional<std::string> bytes = base::from_hex(text);
  if (bytes) return std::move(*bytes);
  return Error{ErrorCode::kCorruptFrame, "a part of a gathering is not one of this library's: all workers must gather by it"};
}

}  // namespace

Result<std::optional<Place>> find_job() {
  const Result<std::optional<cluster::JobAddress>> job = cluster::job_from_environment();
  if (!job) return job.error();
  if (!*job) return std::optional<Place>();
  return std::optional<Place>({.rank = static_cast<int>(index((*job)->rank)), .workers = (*job)->workers});
}

void report_failure(const Error& why) {
  const Result<std::optional<Place>> place = find_job();
  if (place && *place) launch::report_error((*place)->rank, why);
}

Cluster::Cluster(std::unique_ptr<library::Door> door) : door_(std::move(door)) {}
Cluster::~Cluster() = default;

Result<std::unique_ptr<Cluster>> Cluster::join(JobOptions options) {
  Result<std::unique_ptr<library::Door>> door = library::Door::join(std::move(options));
  if (!door) return door.error();
  return std::unique_ptr<Cluster>(new Cluster(std::move(*door)));
}

int Cluster::rank() const { return static_cast<int>(index(door_->session().rank())); }
int Cluster::workers() const { return door_->session().workers(); }
Session& Cluster::session() { return door_->session(); }

Result<bool> Cluster::begin(Iteration iteration) {
  const bool go = door_->begin(iteration);
  if (std::optional<Error> over = error()) return std::move(*over);
  return go;
}

Result<std::vector<std::string>> Cluster::gather(const std::string& own) {
  const std::size_t parts = static_cast<std::size_t>(workers());
  if (own.size() > wire::kControlBytesMax ||
      parts * (2 * own.size() + kPartOverhead) + kMessageOverhead > wire::kControlBytesMax) {
    return Error{ErrorCode::kInvalid,
                 base::concat("a part of ", base::readable_bytes(static_cast<double>(own.size())), " from each of ", parts,
                              " workers is too much for a gathering, which takes ",
                              base::readable_bytes(static_cast<double>(wire::kControlBytesMax)), " in hexadecimal")};
  }
  Result<std::vector<std::string>> all = door_->worker().gather(to_hex(own));
  if (!all) return all.error();
  for (std::string& part : *all) {
    Result<std::string> bytes = from_hex(part);
    if (!bytes) return bytes.error();
    part = std::move(*bytes);
  }
  return all;
}

Status Cluster::note(const std::string& text) {
  if (text.size() > kNoteBytesMax) {
    return Error{ErrorCode::kInvalid, base::concat("a note of ", base::readable_bytes(static_cast<double>(text.size())),
                                                   " is too long: at most 1.0 MiB")};
  }
  door_->worker().note(text);
  return {};
}

Status Cluster::renew(Model model, std::vector<TensorView> values, Iteration first) {
  return door_->renew(std::move(model), std::move(values), first);
}

Status Cluster::exchange(std::uint32_t channel, std::uint64_t number, const std::vector<Letter>& out, const std::vector<Letter>& in) {
  return door_->exchange(channel, number, out, in);
}

void Cluster::span(const std::string& name, bool is_begin) { door_->span(name, is_begin); }
void Cluster::forsake() { library::Door::forsake(std::move(door_)); }
Status Cluster::leave() { return door_->leave(); }
void Cluster::fail(const Error& why) { door_->worker().fail(why); }
std::optional<Error> Cluster::error() const { return door_->worker().error(); }
std::string Cluster::plan() const { return plan::to_json(door_->worker().plan()); }

Traffic Cluster::traffic() {
  const cluster::Worker::Traffic moved = door_->worker().traffic();
  Traffic traffic{.tensors = {}, .bytes_sent = moved.bytes_sent, .bytes_received = moved.bytes_received};
  for (const auto& tensor : moved.engine.tensors) traffic.tensors.push_back({tensor.sent, tensor.received});
  return traffic;
}

}  // namespace poseidon
