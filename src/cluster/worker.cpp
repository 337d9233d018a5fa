#include "cluster/worker.h"

#include "base/text.h"

namespace poseidon::cluster {

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
    session_.reset();
    transport_.reset();
  });
  lane_.reset();
}

Status Worker::open() {
  if (options_.job.is_server()) {
    return Error{ErrorCode::kInvalid,
                 "this process was started as a dedicated server (POSEIDON_ROLE=server): it must run `poseidon serve`"};
  }
  lane_ = std::make_unique<runtime::real::RealLane>("poseidon lane 0");
  Result<JobLink> link = open_job_link(*lane_, options_.job);
  if (!link) return link.error();
  transport_ = std::move(link->transport);
  compute_ = options_.make_compute(*lane_);
  lane_->run([&] {
    membership_ = std::make_unique<Membership>(
        *lane_, *transport_, *compute_,
        MembershipOptions{.self = link->self,
                          .workers = options_.job.workers,
                          .servers = options_.job.servers,
                          .coordinator = {options_.job.coordinator},
                          .model = options_.model,
                          .heartbeat = options_.heartbeat},
        MembershipListener{
            .on_plan = [this](const OpenEpoch& epoch, const UsePlan& use) { on_plan(epoch, use); },
            .on_start =
                [this] {
                  if (index(options_.job.rank) == 0 && !options_.values.empty()) {
                    session_->broadcast(options_.values, [this] {
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

void Worker::on_plan(const OpenEpoch& epoch, const UsePlan& use) {
  Result<plan::Plan> plan = plan::parse_plan(use.plan, options_.model, options_.job.workers);
  if (!plan) return membership_->fail(plan.error());
  session::EngineOptions engine{.self = options_.job.rank,
                                .members = {},
                                .model = options_.model,
                                .plan = std::move(*plan),
                                .window_bytes = use.window_bytes,
                                .priorities = options_.priorities,
                                .size_only = false,
                                .events = options_.events};
  for (const MemberInfo& info : epoch.members) engine.members.push_back(info.member);
  peers_ = engine.members;
  Result<std::unique_ptr<session::EngineSession>> session =
      session::EngineSession::create(*lane_, *transport_, *compute_, std::move(engine));
  if (!session) return membership_->fail(session.error());
  session_ = std::move(*session);
  if (options_.values.empty()) {
    const std::lock_guard lock(mutex_);
    values_in_ = true;
  } else if (index(options_.job.rank) != 0) {
    session_->broadcast(options_.values, [this] {
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
  if (session_) session_->fail(why);
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
    if (!session_) return;
    traffic.tensors = session_->scheduler().tensor_bytes();
    traffic.staging_bytes_max = session_->staging_bytes_max();
    for (const Member peer : peers_) {
      const runtime::LinkBytes bytes = transport_->link_bytes(peer);
      traffic.bytes_sent += bytes.sent;
      traffic.bytes_received += bytes.received;
    }
  });
  return traffic;
}

}  // namespace poseidon::cluster
