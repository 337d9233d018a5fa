#include "cluster/worker.h"

#include <unistd.h>

#include <array>
#include <charconv>
#include <cstdlib>

#include "base/check.h"
#include "base/file.h"
#include "base/log.h"
#include "base/text.h"
#include "host/host_engine.h"
#include "plan/hosts.h"
#include "runtime/real/address.h"

namespace poseidon::cluster {
namespace {

constexpr std::size_t kSecretBytesMin = 16;
constexpr std::size_t kSecretBytesMax = 4096;

Error broken_contract(const std::string& text) {
  return Error{ErrorCode::kInvalid,
               base::concat(text, " (a launcher must set POSEIDON_RANK, POSEIDON_WORLD_SIZE, POSEIDON_COORDINATOR=host:port and "
                                  "POSEIDON_SECRET_FILE)")};
}

Result<int> integer(const char* name, int least, int most) {
  const char* const text = std::getenv(name);
  if (text == nullptr) return broken_contract(base::concat(name, " is not set"));
  int value = 0;
  const char* const end = text + std::string_view(text).size();
  const auto [stop, failure] = std::from_chars(text, end, value);
  if (failure != std::errc{} || stop != end || value < least || value > most) {
    return broken_contract(base::concat(name, " is \"", text, "\", it must be from ", least, " to ", most));
  }
  return value;
}

std::string host_name() {
  std::array<char, 256> name{};
  return ::gethostname(name.data(), name.size() - 1) == 0 ? name.data() : "unknown host";
}

}  // namespace

Result<std::optional<JobAddress>> job_from_environment() {
  if (std::getenv("POSEIDON_RANK") == nullptr) return std::optional<JobAddress>();
  JobAddress job;
  Result<int> size = integer("POSEIDON_WORLD_SIZE", 1, 65'536);
  if (!size) return size.error();
  job.workers = *size;
  Result<int> rank = integer("POSEIDON_RANK", 0, job.workers - 1);
  if (!rank) return rank.error();
  job.rank = Rank{*rank};
  const char* const where = std::getenv("POSEIDON_COORDINATOR");
  const std::string text = where == nullptr ? "" : where;
  const std::size_t colon = text.rfind(':');
  int port = 0;
  if (colon != std::string::npos) std::from_chars(text.data() + colon + 1, text.data() + text.size(), port);
  if (colon == std::string::npos || port < 1 || port > 65'535) {
    return broken_contract(base::concat("POSEIDON_COORDINATOR is \"", text, "\", it must be host:port"));
  }
  job.coordinator = {text.substr(0, colon), static_cast<std::uint16_t>(port)};
  const char* const file = std::getenv("POSEIDON_SECRET_FILE");
  if (file == nullptr) return broken_contract("POSEIDON_SECRET_FILE is not set");
  Result<std::string> secret = base::read_file(file, kSecretBytesMax);
  if (!secret) return broken_contract(base::concat("the job's secret: ", secret.error().message));
  if (secret->size() < kSecretBytesMin) return broken_contract(base::concat(file, " holds fewer than ", kSecretBytesMin, " bytes of secret"));
  const std::byte* const bytes = reinterpret_cast<const std::byte*>(secret->data());
  job.secret.assign(bytes, bytes + secret->size());
  return std::optional<JobAddress>(std::move(job));
}

Worker::Worker(WorkerOptions options) : options_(std::move(options)) {}

Result<std::unique_ptr<Worker>> Worker::join(WorkerOptions options) {
  std::unique_ptr<Worker> worker(new Worker(std::move(options)));
  if (const Status status = worker->open(); !status) return status.error();
  if (const Status status = worker->wait([&] { return worker->started_ && worker->values_in_; }); !status) return status.error();
  return worker;
}

Worker::~Worker() {
  if (!lane_) return;
  lane_->run([this] {
    // From the top down: each refers to those below it. The arithmetic goes before the session, though the session refers to it:
    // a product that is still being made reads and writes the session's memory, and nothing asks for another one from here on.
    membership_.reset();
    compute_.reset();
    engine_.reset();
    transport_.reset();
  });
  lane_.reset();
}

MemberInfo Worker::info(const std::string& address) const {
  MemberInfo info{.member = Member{static_cast<std::uint32_t>(index(options_.job.rank))},
                  .rank = options_.job.rank,
                  .host = host_name(),
                  .pid = ::getpid(),
                  .endpoints = {{address, transport_->port()}}};
  if (memory_) {
    info.machine = runtime::real::machine_identity();
    info.memory = memory_->address();
  }
  return info;
}

Status Worker::open() {
  // Also where nothing is combined: whether it will be is said after joining, and a file without bytes costs nothing.
  if (Result<std::unique_ptr<runtime::real::HostMemory>> memory = runtime::real::HostMemory::create()) {
    memory_ = std::move(*memory);
  } else {
    base::log::info(base::concat(memory.error().message, "; this worker combines with no other of its host"));
  }
  lane_ = std::make_unique<runtime::real::RealLane>("poseidon lane 0");
  const Member self{static_cast<std::uint32_t>(index(options_.job.rank))};
  const int workers = options_.job.workers;
  const Result<std::string> address = runtime::real::local_address_towards(options_.job.coordinator);
  if (!address) return address.error();
  Result<std::unique_ptr<runtime::real::TcpTransport>> transport = runtime::real::TcpTransport::open(
      *lane_, {.key = wire::job_key(options_.job.secret),
               .self = self,
               .listen_host = *address,
               .listen_port = 0,
               .admits = [workers](Member peer) -> Status {
                 if (index(peer) < static_cast<std::uint32_t>(workers)) return {};
                 return Error{ErrorCode::kRefused, base::concat("the job has no member ", index(peer))};
               }});
  if (!transport) return transport.error();
  transport_ = std::move(*transport);
  compute_ = options_.make_compute(*lane_);
  lane_->run([&] {
    membership_ = std::make_unique<Membership>(
        *lane_, *transport_, *compute_,
        MembershipOptions{.self = info(*address),
                          .workers = workers,
                          .coordinator = {options_.job.coordinator},
                          .model = options_.model,
                          .heartbeat = options_.heartbeat},
        MembershipListener{
            .on_plan = [this](const OpenEpoch& epoch, const UsePlan& use) { on_plan(epoch, use); },
            .on_start =
                [this] {
                  if (index(options_.job.rank) == 0 && !options_.values.empty()) {
                    engine_->broadcast(options_.values, [this] {
                      const std::lock_guard lock(mutex_);
                      values_in_ = true;
                      changed_.notify_all();
                    });
                  }
                  const std::lock_guard lock(mutex_);
                  started_ = true;
                  changed_.notify_all();
                },
            .on_gathered =
                [this](const std::vector<std::string>& bodies) {
                  const std::lock_guard lock(mutex_);
                  gathered_ = bodies;
                  changed_.notify_all();
                },
            .on_goodbye =
                [this] {
                  const std::lock_guard lock(mutex_);
                  goodbye_ = true;
                  changed_.notify_all();
                },
            .on_fail = [this](const Error& why) { end(why); }});
    membership_->join();
  });
  return {};
}

Result<std::unique_ptr<session::EngineSession>> Worker::make_network(const OpenEpoch& epoch, const plan::Plan& plan,
                                                                     std::uint64_t window_bytes) {
  session::EngineOptions options{.self = Rank{static_cast<std::int32_t>(plan::host_place(plan, options_.job.rank).group)},
                                 .members = {},
                                 .model = plan::network_model(options_.model, plan.hosts),
                                 .plan = plan::network_plan(plan),
                                 .window_bytes = window_bytes,
                                 .priorities = options_.priorities,
                                 .size_only = false,
                                 .events = options_.events,
                                 .leaders = plan::leaders_of(plan.hosts)};
  for (const MemberInfo& info : epoch.members) {
    if (plan::host_place(plan, info.rank).place == 0) options.members.push_back(info.member);
  }
  return session::EngineSession::create(*lane_, *transport_, *compute_, std::move(options));
}

Result<std::unique_ptr<session::Engine>> Worker::make_engine(const OpenEpoch& epoch, const UsePlan& use) {
  Result<plan::Plan> plan = plan::parse_plan(use.plan, options_.model, options_.job.workers);
  if (!plan) return plan.error();
  const plan::HostPlace place = plan::host_place(*plan, options_.job.rank);
  std::unique_ptr<session::EngineSession> network;
  if (plan->hosts.size() != 1 && place.place == 0) {
    Result<std::unique_ptr<session::EngineSession>> made = make_network(epoch, *plan, use.window_bytes);
    if (!made) return made.error();
    network = std::move(*made);
  }
  if (plan->hosts.empty()) return std::unique_ptr<session::Engine>(std::move(network));
  host::HostEngineOptions options{.self = options_.job.rank,
                                  .members = {},
                                  .model = options_.model,
                                  .plan = std::move(*plan),
                                  .priorities = options_.priorities,
                                  .events = options_.events};
  for (const MemberInfo& info : epoch.members) options.members.push_back(info.member);
  if (!memory_) return Error{ErrorCode::kInvalid, "the plan has this worker share memory, of which the system gives it none"};
  std::vector<runtime::real::HostMemory::Peer> peers;
  for (const Rank rank : options.plan.hosts[place.group]) {
    const MemberInfo& info = epoch.members[static_cast<std::size_t>(index(rank))];
    if (rank != options_.job.rank) peers.push_back({info.member, info.pid, info.memory});
  }
  if (const Status status = memory_->set_peers(peers); !status) return status.error();
  return std::unique_ptr<session::Engine>(
      std::make_unique<host::HostEngine>(*lane_, *transport_, *compute_, *memory_, std::move(network), std::move(options)));
}

void Worker::on_plan(const OpenEpoch& epoch, const UsePlan& use) {
  for (const MemberInfo& info : epoch.members) peers_.push_back(info.member);
  Result<std::unique_ptr<session::Engine>> engine = make_engine(epoch, use);
  if (!engine) return membership_->fail(engine.error());
  engine_ = std::move(*engine);
  if (options_.values.empty()) {
    const std::lock_guard lock(mutex_);
    values_in_ = true;
  } else if (index(options_.job.rank) != 0) {
    engine_->broadcast(options_.values, [this] {
      const std::lock_guard lock(mutex_);
      values_in_ = true;
      changed_.notify_all();
    });
  }
  membership_->ready();
}

void Worker::end(const Error& why) {
  {
    const std::lock_guard lock(mutex_);
    if (!error_) error_ = why;
  }
  changed_.notify_all();
  if (engine_) engine_->fail(why);
}

template <typename Condition>
Status Worker::wait(Condition condition) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return condition() || error_.has_value(); });
  if (error_ && !condition()) return *error_;
  return {};
}

bool Worker::begin(Iteration iteration) {
  bool answered = false;  // guarded by mutex_
  bool go = false;
  lane_->post([&, iteration] {
    membership_->begin(iteration, [&](bool may) {
      const std::lock_guard lock(mutex_);
      answered = true;
      go = may;
      changed_.notify_all();
    });
  });
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return answered; });
  return go && !error_;
}

void Worker::note(const std::string& body) {
  lane_->post([this, body] { membership_->note(body); });
}

Result<std::vector<std::string>> Worker::gather(const std::string& own) {
  lane_->post([this, own] { membership_->gather(own); });
  if (const Status status = wait([this] { return gathered_.has_value(); }); !status) return status.error();
  const std::lock_guard lock(mutex_);
  return *std::exchange(gathered_, std::nullopt);
}

Status Worker::leave() {
  lane_->post([this] { membership_->leave(); });
  return wait([this] { return goodbye_; });
}

void Worker::fail(const Error& why) {
  lane_->run([this, why] { membership_->fail(why); });
  // The coordinator answers by closing everything; a message needs a moment to get there.
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, std::chrono::milliseconds(200), [this] { return goodbye_; });
}

std::optional<Error> Worker::error() const {
  const std::lock_guard lock(mutex_);
  return error_;
}

Worker::Traffic Worker::traffic() {
  Traffic traffic;
  lane_->run([&] {
    if (!engine_) return;
    traffic.engine = engine_->use();
    for (const Member peer : peers_) {
      const runtime::LinkBytes bytes = transport_->link_bytes(peer);
      traffic.bytes_sent += bytes.sent;
      traffic.bytes_received += bytes.received;
    }
  });
  return traffic;
}

}  // namespace poseidon::cluster
