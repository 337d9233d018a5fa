// The same jobs over TCP on loopback, with real threads: the same bits as in virtual time.
#include <gtest/gtest.h>

#include <future>
#include <thread>

#include "base/checksum.h"
#include "cluster/coordinator.h"
#include "cluster/worker.h"
#include "support/sim_cluster.h"

namespace poseidon::test {
namespace {

using namespace std::chrono_literals;

// A launcher's part, in this process.
class Hub {
 public:
  Hub(const TrainingScript& script, const std::vector<std::byte>& secret) : lane_("test hub") {
    auto transport = runtime::real::TcpTransport::open(lane_, {.key = wire::job_key(secret), .self = runtime::kCoordinator});
    transport_ = std::move(transport.value());
    lane_.run([&] {
      coordinator_ = std::make_unique<cluster::Coordinator>(
          lane_, *transport_,
          cluster::CoordinatorOptions{.workers = script.plan.workers, .plan_json = plan::to_json(script.plan)},
          cluster::CoordinatorListener{.on_finish = [this] { finished_.set_value(std::nullopt); },
                                       .on_fail = [this](const Error& why) { finished_.set_value(why); }});
    });
  }
  ~Hub() {
    lane_.run([this] {
      coordinator_.reset();
      transport_.reset();
    });
  }
  std::uint16_t port() const { return transport_->port(); }
  std::optional<Error> wait() {
    auto future = finished_.get_future();
    if (future.wait_for(60s) != std::future_status::ready) return Error{ErrorCode::kTimeout, "the job did not end"};
    return future.get();
  }

 private:
  runtime::real::RealLane lane_;
  std::unique_ptr<runtime::real::TcpTransport> transport_;
  std::unique_ptr<cluster::Coordinator> coordinator_;
  std::promise<std::optional<Error>> finished_;
};

// One worker's whole life; returns what went wrong.
std::optional<Error> work(const TrainingScript& script, int rank, std::uint16_t port, const std::vector<std::byte>& secret,
                          std::vector<std::vector<float>>& values) {
  auto worker = cluster::Worker::join(
      {.job = {Rank{rank}, script.plan.workers, {"127.0.0.1", port}, secret},
       .model = script.model,
       .values = views_of(values),
       .make_compute = [](runtime::Runtime&) { return std::make_unique<runtime::SimpleCompute>(); }});
  if (!worker) return worker.error();
  std::promise<std::optional<Error>> ended;
  std::unique_ptr<ScriptedWorker> scripted;
  (*worker)->lane().post([&] {
    scripted = std::make_unique<ScriptedWorker>(script, static_cast<std::size_t>(rank), (*worker)->lane(), (*worker)->session(),
                                                values, std::random_device()());
    scripted->start([&](std::optional<Error> error) { ended.set_value(std::move(error)); });
  });
  auto future = ended.get_future();
  if (future.wait_for(60s) != std::future_status::ready) return Error{ErrorCode::kTimeout, "the training did not end"};
  if (const std::optional<Error> error = future.get()) return error;
  if (const Status left = (*worker)->leave(); !left) return left.error();
  return std::nullopt;
}

// Runs the job in virtual time and over TCP: the workers must end with the same parameters.
void expect_the_bits_of_virtual_time(const SimJob& job) {
  const SimResult simulated = run(job);
  ASSERT_TRUE(simulated.finished) << simulated.trouble;
  const TrainingScript& script = job.script;
  const int workers = script.plan.workers;
  const std::vector<std::byte> secret = base::random_bytes(32);
  Hub hub(script, secret);
  std::vector<std::vector<std::vector<float>>> values;
  std::vector<std::future<std::optional<Error>>> crew;
  for (int rank = 0; rank < workers; ++rank) values.push_back(initial_values(script, static_cast<std::size_t>(rank)));
  for (int rank = 0; rank < workers; ++rank) {
    crew.push_back(std::async(std::launch::async, [&, rank] {
      return work(script, rank, hub.port(), secret, values[static_cast<std::size_t>(rank)]);
    }));
  }
  for (auto& worker : crew) {
    const std::optional<Error> error = worker.get();
    EXPECT_FALSE(error.has_value()) << error->message;
  }
  const std::optional<Error> error = hub.wait();
  ASSERT_FALSE(error.has_value()) << error->message;
  for (int rank = 0; rank < workers; ++rank) {
    EXPECT_EQ(values[static_cast<std::size_t>(rank)], simulated.parameters[0]) << "rank " << rank;
  }
}

TEST(RealSession, JobsOverTcpEndInTheBitsOfVirtualTime) {
  for (std::uint64_t problem = 1; problem <= 12; ++problem) {
    SCOPED_TRACE("problem " + std::to_string(problem));
    SimJob job;
    TrainingScript& script = job.script;
    script.problem = problem;
    script.model = random_model(problem, 2'000'000);
    const int workers = std::vector<int>{1, 2, 4, 3}[problem % 4];
    script.plan = random_plan(script.model, workers, problem * 7);
    script.absent_probability = problem % 3 == 0 ? 0.3 : 0;
    script.short_batch_probability = problem % 2 == 0 ? 0.5 : 0;
    expect_the_bits_of_virtual_time(job);
  }
}

TEST(RealSession, JobsThatCombineInSharedMemoryEndInTheBitsOfVirtualTime) {
  const std::vector<plan::HostGroups> groupings = {{{Rank{0}, Rank{1}, Rank{2}, Rank{3}}},
                                                   {{Rank{0}, Rank{1}}, {Rank{2}, Rank{3}}},
                                                   {{Rank{0}, Rank{2}, Rank{3}}, {Rank{1}}}};
  for (std::uint64_t problem = 1; problem <= 9; ++problem) {
    SCOPED_TRACE("problem " + std::to_string(problem));
    SimJob job;
    TrainingScript& script = job.script;
    script.problem = problem;
    script.model = random_model(problem, 2'000'000);
    const plan::HostGroups& hosts = groupings[problem % groupings.size()];
    script.plan = random_plan(script.model, static_cast<int>(hosts.size()), problem * 7);
    script.plan.workers = 4;
    script.plan.hosts = hosts;
    script.absent_probability = problem % 2 == 0 ? 0.3 : 0;
    script.short_batch_probability = problem % 2 == 0 ? 0.5 : 0;
    script.allocate = problem % 4 < 2;
    expect_the_bits_of_virtual_time(job);
  }
}

TEST(RealSession, AStrangerWithAnotherSecretIsTurnedAway) {
  TrainingScript script;
  script.model = random_model(3, 1000);
  script.plan = uniform_plan(script.model, 1, Scheme::kPs);
  Hub hub(script, base::random_bytes(32));
  std::vector<std::vector<float>> values = initial_values(script, 0);
  const std::optional<Error> error = work(script, 0, hub.port(), base::random_bytes(32), values);
  ASSERT_TRUE(error.has_value());
  EXPECT_EQ(error->code, ErrorCode::kRefused);
  EXPECT_NE(error->message.find("another job"), std::string::npos) << error->message;
}

}  // namespace
}  // namespace poseidon::test
