#include "cluster/worker.h"

#include <fcntl.h>
#include <unistd.h>

#include <charconv>
#include <filesystem>
#include <set>

#include "base/log.h"
#include "base/text.h"
#include "host/host_engine.h"
#include "plan/hosts.h"
#include "runtime/real/address.h"
#include "session/engine_session.h"
#include "session/wire_engine.h"

namespace poseidon::cluster {
namespace {

// Descriptors of sockets, and of what the kernel wakes an event loop with. (Files and pipes are the program's.)
std::set<int> link_descriptors() {
  std::set<int> found;
  std::error_code failed;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd", failed)) {
    const std::string name = entry.path().filename().string();
    const std::string target = std::filesystem::read_symlink(entry.path(), failed).string();
    int fd = -1;
    std::from_chars(name.data(), name.data() + name.size(), fd);
    if (fd >= 0 && (target.starts_with("socket:") || target.starts_with("anon_inode:"))) found.insert(fd);
  }
  return found;
}

}  // namespace

Worker::Worker(WorkerOptions options) : options_(std::move(options)) {}

Result<std::unique_ptr<Worker>> Worker::join(WorkerOptions options) {
  std::unique_ptr<Worker> worker(new Worker(std::move(options)));
  const std::set<int> before = link_descriptors();
  if (const Status status = worker->open(); !status) return status.error();
  if (const Status status = worker->wait([&] { return worker->started_ && worker->values_in_; }); !status) return status.error();
  for (const int fd : link_descriptors()) {
    if (before.contains(fd)) continue;
    worker->descriptors_.push_back(fd);
    ::fcntl(fd, F_SETFD, FD_CLOEXEC);  // a program that this one starts would keep the links open
  }
  return worker;
}

void Worker::forsake(std::unique_ptr<Worker> worker) {
  for (const int fd : worker->descriptors_) ::close(fd);
  static_cast<void>(worker.release());
}

Worker::~Worker() {
  if (!lane_) return;
  lane_->run([this] {
    // From the top down: each refers to those below it. The arithmetic goes before the session, though the session refers to it:
    // a product that is still being made reads and writes the session's memory, and nothing asks for another one from here on.
    membership_.reset();
    mailbox_.reset();
    if (lanes_) lanes_->close();
    compute_.reset();
    engine_.reset();
    transport_.reset();
  });
  lanes_.reset();
  lane_.reset();
}

Status Worker::open() {
  if (options_.job.is_server()) {
    return Error{ErrorCode::kInvalid,
                 "this process was started as a dedicated server (POSEIDON_ROLE=server): it must run `poseidon serve`"};
  }
  // Also where nothing is combined: whether it will be is said after joining, and a file without bytes costs nothing.
  if (Result<std::unique_ptr<runtime::real::HostMemory>> memory = runtime::real::HostMemory::create()) {
    memory_ = std::move(*memory);
  } else {
    base::log::info(base::concat(memory.error().message, "; this worker combines with no other of its host"));
  }
  lane_ = std::make_unique<runtime::real::RealLane>("poseidon lane 0");
  Result<JobLink> link = open_job_link(*lane_, options_.job);
  if (!link) return link.error();
  transport_ = std::move(link->transport);
  compute_ = options_.make_compute(*lane_);
  engine_ = std::make_unique<session::ReplaceableEngine>(*lane_, options_.job.rank, options_.job.workers, options_.model);
  if (const Status status = open_lanes(link->tcp); !status) return status;
  if (lanes_) lanes_->announce(link->self);
  if (memory_) {
    link->self.machine = runtime::real::machine_identity();
    link->self.memory = memory_->address();
  }
  lane_->run([&] {
    membership_ = std::make_unique<Membership>(
        *lane_, lanes_ ? lanes_->bundle() : *transport_, *compute_,
        MembershipOptions{.self = link->self,
                          .workers = options_.job.workers,
                          .servers = options_.job.servers,
                          .coordinator = {options_.job.coordinator},
                          .model = options_.model,
                          .first = options_.first,
                          .replans = options_.plan_change_hooks.has_value(),
                          .provisional = options_.provisional,
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
            .on_settle =
                [this] {
                  const std::lock_guard lock(mutex_);
                  settle_wanted_ = true;
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

Status Worker::open_lanes(const runtime::real::TcpOptions& tcp) {
  if (options_.lanes > 1) {
    Result<std::unique_ptr<WorkerLanes>> lanes = WorkerLanes::open({*lane_, *transport_, *compute_}, options_.lanes, tcp);
    if (!lanes) return lanes.error();
    lanes_ = std::move(*lanes);
  }
  if (!options_.pin_lanes) return {};
  const std::vector<int> allowed = runtime::real::allowed_cores();
  if (allowed.empty()) return Error{ErrorCode::kSystem, "lanes cannot be pinned: the system does not tell this process's cores"};
  const auto core_of = [&, place = local_place_from_environment()](std::size_t lane) {
    return runtime::real::core_for_lane(allowed, place, lane);
  };
  return lanes_ ? lanes_->pin(core_of) : lane_->pin(core_of(0));
}

Result<std::unique_ptr<session::Engine>> Worker::make_engine(const OpenEpoch& epoch, const UsePlan& use) {
  Result<plan::Plan> plan = plan::parse_plan(use.plan, options_.model, options_.job.workers);
  if (!plan) return plan.error();
  const bool alone = plan->hosts.size() == 1;
  std::unique_ptr<session::Engine> network;
  if (!alone && plan::host_place(*plan, options_.job.rank).place == 0) {
    Result<std::unique_ptr<session::Engine>> made = make_network(epoch, *plan, use.window_bytes);
    if (!made) return made.error();
    network = std::move(*made);
  }
  if (plan->hosts.empty()) return network;
  return make_host_engine(epoch, std::move(*plan), std::move(network));
}

Result<std::unique_ptr<session::Engine>> Worker::make_network(const OpenEpoch& epoch, const plan::Plan& plan, std::uint64_t window_bytes) {
  // Without hosts this is the model itself, and a node's place is its rank.
  const Model model = plan::network_model(options_.model, plan.hosts);
  session::EngineOptions options{.self = Rank{static_cast<std::int32_t>(plan::host_place(plan, options_.job.rank).group)},
                                 .members = {},
                                 .model = plan::model_on_wire(model, plan::nodes_of(plan), plan.wire),
                                 .plan = plan::network_plan(plan),
                                 .window_bytes = window_bytes,
                                 .staging_bytes_max = options_.staging_bytes_max,
                                 .priorities = options_.priorities,
                                 .size_only = false,
                                 .events = options_.events,
                                 .leaders = plan::leaders_of(plan.hosts)};
  for (const MemberInfo& info : epoch.members) {
    if (plan::host_place(plan, info.rank).place == 0) options.members.push_back(info.member);
  }
  Result<std::unique_ptr<session::Engine>> engine =
      cluster::make_engine({*lane_, *transport_, *compute_}, lanes_.get(), std::move(options));
  if (!engine) return engine.error();
  return session::WireEngine::around(*lane_, std::move(*engine), model, options_.priorities);
}

Result<std::unique_ptr<session::Engine>> Worker::make_host_engine(const OpenEpoch& epoch, plan::Plan plan,
                                                                  std::unique_ptr<session::Engine> network) {
  if (!memory_) return Error{ErrorCode::kInvalid, "the plan has this worker share memory, of which the system gives it none"};
  std::vector<runtime::real::HostMemory::Peer> peers;
  for (const Rank rank : plan.hosts[plan::host_place(plan, options_.job.rank).group]) {
    const MemberInfo& info = epoch.members[static_cast<std::size_t>(index(rank))];
    if (rank != options_.job.rank) peers.push_back({info.member, info.pid, info.memory});
  }
  if (const Status status = memory_->set_peers(peers); !status) return status.error();
  host::HostEngineOptions options{.self = options_.job.rank,
                                  .members = {},
                                  .model = options_.model,
                                  .plan = std::move(plan),
                                  .priorities = options_.priorities,
                                  .events = options_.events};
  for (const MemberInfo& info : epoch.members) options.members.push_back(info.member);
  return std::unique_ptr<session::Engine>(
      std::make_unique<host::HostEngine>(*lane_, *transport_, *compute_, *memory_, std::move(network), std::move(options)));
}

void Worker::on_plan(const OpenEpoch& epoch, const UsePlan& use) {
  const bool is_first = std::exchange(is_new_, false);
  engine_->retire();
  if (is_first) engine_->train(options_.model);
  Result<std::unique_ptr<session::Engine>> engine = make_engine(epoch, use);
  if (!engine) return membership_->fail(engine.error());
  engine_->install(std::move(*engine));
  watching_ = use.watch && options_.plan_change_hooks;
  engine_->watch(watching_);
  window_.clear();
  if (!is_first) return membership_->ready();
  peers_.clear();
  for (const MemberInfo& info : epoch.members) peers_.push_back(info.member);
  if (!mailbox_) {
    mailbox_ = std::make_unique<collective::Mailbox>(
        *lane_, *transport_, collective::MailboxOptions{.self = options_.job.rank, .members = {peers_.begin(), peers_.begin() + options_.job.workers}});
  }
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
  engine_->fail(why);
  if (mailbox_) mailbox_->fail(why);
}

template <typename Condition>
Status Worker::wait(Condition condition) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return condition() || error_.has_value(); });
  if (error_ && !condition()) return *error_;
  return {};
}

void Worker::observe(double waited_seconds) {
  if (!watching_ || !begun_) return;
  const runtime::Time now = lane_->now();
  const auto since = [&](runtime::Time at) { return std::chrono::duration<double>(at - begun_->at).count(); };
  plan::Observation observation{since(now), waited_seconds - begun_->waited_seconds, {}};
  for (const std::optional<runtime::Time>& at : engine_->handed_in_since(begun_->at)) {
    observation.handed_in.push_back(at ? std::optional(since(*at)) : std::nullopt);
  }
  window_.add(begun_->iteration, std::move(observation));
  if (const std::optional<plan::Profile> profile = window_.take(now)) membership_->tell_profile(*profile);
}

bool Worker::begin(Iteration iteration) {
  {
    const std::lock_guard lock(mutex_);
    may_begin_.reset();
    settle_wanted_ = false;
  }
  const double waited = options_.plan_change_hooks ? options_.plan_change_hooks->waited_seconds() : 0;
  lane_->post([this, iteration, waited] {
    observe(waited);
    membership_->begin(iteration, [this, iteration, waited](bool may) {
      begun_ = Begun{iteration, lane_->now(), waited};
      const std::lock_guard lock(mutex_);
      may_begin_ = may;
      changed_.notify_all();
    });
  });
  for (;;) {
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [&] { return may_begin_ || settle_wanted_; });
      if (may_begin_) return *may_begin_ && !error_;
      settle_wanted_ = false;
    }
    if (options_.plan_change_hooks) options_.plan_change_hooks->settle();
    lane_->post([this] { membership_->settled(); });
  }
}

Status Worker::renew(Model model, std::vector<TensorView> values, Iteration first) {
  {
    const std::lock_guard lock(mutex_);
    if (error_) return *error_;
    started_ = false;
    values_in_ = false;
  }
  lane_->run([&] {
    options_.model = std::move(model);
    options_.values = std::move(values);
    is_new_ = true;
    begun_.reset();
    Renew renewal{options_.model, first, {}};
    for (std::size_t t = 0; t < options_.values.size(); ++t) {
      if (options_.values[t].bytes > 0) renewal.values.push_back(TensorId{static_cast<std::uint32_t>(t)});
    }
    // Nothing travels, so there is nothing to wait for.
    if (renewal.values.empty()) options_.values.clear();
    membership_->renew(std::move(renewal));
  });
  return wait([this] { return started_ && values_in_; });
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

Status Worker::exchange(collective::MessageName name, std::span<const Letter> out, std::span<const Letter> in) {
  if (out.empty() && in.empty()) return {};
  struct Moving {
    std::mutex mutex;
    std::condition_variable changed;
    std::size_t left = 0;         // guarded by mutex
    std::optional<Error> failed;  // guarded by mutex
  };
  const auto moving = std::make_shared<Moving>();
  moving->left = out.size() + in.size();
  const auto done = [moving](const std::optional<Error>& failed) {
    {
      const std::lock_guard lock(moving->mutex);
      if (failed && !moving->failed) moving->failed = failed;
      --moving->left;
    }
    moving->changed.notify_all();
  };
  // The letters are borrowed: this waits for the last of them, also when the job ends. By then the spans themselves may be gone.
  lane_->post([this, name, out, in, done] {
    for (const Letter& letter : in) mailbox_->receive(letter.rank, name, letter.memory, done);
    for (const Letter& letter : out) mailbox_->send(letter.rank, name, letter.memory, done);
  });
  std::unique_lock lock(moving->mutex);
  moving->changed.wait(lock, [&] { return moving->left == 0; });
  if (moving->failed) return *moving->failed;
  return {};
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
    traffic.engine = engine_->use();
    for (const Member peer : peers_) {
      const runtime::LinkBytes bytes = transport_->link_bytes(peer);
      traffic.bytes_sent += bytes.sent;
      traffic.bytes_received += bytes.received;
    }
    if (!lanes_) return;
    const runtime::LinkBytes others = lanes_->link_bytes(peers_);
    traffic.bytes_sent += others.sent;
    traffic.bytes_received += others.received;
  });
  return traffic;
}

}  // namespace poseidon::cluster
