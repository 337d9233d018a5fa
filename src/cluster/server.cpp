#include "cluster/server.h"

#include <condition_variable>
#include <mutex>
#include <optional>

#include "cluster/worker_lanes.h"

namespace poseidon::cluster {
namespace {

class Server {
 public:
  explicit Server(ServerOptions options) : options_(std::move(options)), lane_("poseidon lane 0") {}
  ~Server() {
    lane_.run([this] {
      // In the order of cluster::Worker: from the top down, and the arithmetic before the session whose memory it may be reading.
      membership_.reset();
      if (lanes_) lanes_->close();
      compute_.reset();
      engine_.reset();
      transport_.reset();
    });
  }

  Status run() {
    Result<JobLink> link = open_job_link(lane_, options_.job);
    if (!link) return link.error();
    transport_ = std::move(link->transport);
    compute_ = options_.make_compute(lane_);
    if (options_.job.lanes > 1) {
      Result<std::unique_ptr<WorkerLanes>> lanes = WorkerLanes::open({lane_, *transport_, *compute_}, options_.job.lanes, link->tcp);
      if (!lanes) return lanes.error();
      lanes_ = std::move(*lanes);
      lanes_->announce(link->self);
    }
    lane_.run([&] {
      membership_ = std::make_unique<Membership>(
          lane_, lanes_ ? lanes_->bundle() : *transport_, *compute_,
          MembershipOptions{.self = link->self,
                            .workers = options_.job.workers,
                            .servers = options_.job.servers,
                            .coordinator = {options_.job.coordinator},
                            .model = {},
                            .heartbeat = options_.heartbeat},
          MembershipListener{.on_plan = [this](const OpenEpoch& epoch, const UsePlan& use) { on_plan(epoch, use); },
                             .on_start = {},
                             .on_gathered = {},
                             .on_goodbye = [this] { end(std::nullopt); },
                             .on_fail = [this](const Error& why) { end(why); }});
      membership_->join();
    });
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return ended_; });
    return error_ ? Status(*error_) : Status();
  }

 private:
  void on_plan(const OpenEpoch& epoch, const UsePlan& use) {
    if (!use.model) return membership_->fail(Error{ErrorCode::kCorruptFrame, "the plan came to a server without the model"});
    Result<plan::Plan> plan = plan::parse_plan(use.plan, *use.model, options_.job.workers);
    if (!plan) return membership_->fail(plan.error());
    session::EngineOptions engine{.self = options_.job.rank,
                                  .members = {},
                                  .model = plan::model_on_wire(*use.model, options_.job.workers, plan->wire),
                                  .plan = std::move(*plan),
                                  .window_bytes = use.window_bytes,
                                  .staging_bytes_max = options_.job.staging_bytes_max};
    for (const MemberInfo& info : epoch.members) engine.members.push_back(info.member);
    // The workers have all their sums of the plan before, if there was one; two engines cannot share a transport.
    engine_.reset();
    Result<std::unique_ptr<session::Engine>> made =
        make_engine({lane_, *transport_, *compute_}, lanes_.get(), std::move(engine));
    if (!made) return membership_->fail(made.error());
    engine_ = std::move(*made);
    membership_->ready();
  }

  void end(std::optional<Error> why) {
    {
      const std::lock_guard lock(mutex_);
      if (!ended_) error_ = std::move(why);
      ended_ = true;
    }
    changed_.notify_all();
  }

  ServerOptions options_;
  runtime::real::RealLane lane_;
  std::unique_ptr<runtime::real::TcpTransport> transport_;  // these four: used and destroyed on the lane
  std::unique_ptr<runtime::Compute> compute_;
  std::unique_ptr<Membership> membership_;
  std::unique_ptr<session::Engine> engine_;
  std::unique_ptr<WorkerLanes> lanes_;  // null with one lane; goes before the home lane

  std::mutex mutex_;
  std::condition_variable changed_;
  bool ended_ = false;           // guarded by mutex_
  std::optional<Error> error_;   // guarded by mutex_
};

}  // namespace

Status serve(ServerOptions options) { return Server(std::move(options)).run(); }

}  // namespace poseidon::cluster
