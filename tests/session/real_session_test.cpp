// The same jobs over TCP on loopback, with real threads: the same bits as in virtual time.
#include <dirent.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstdlib>
#include <future>
#include <set>
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
          // Taken for a slow link, it gets the smallest window: four pieces, so that lanes have to wait for each other.
          cluster::CoordinatorOptions{.workers = script.plan.workers, .plan_json = plan::to_json(script.plan), .link_bytes_per_second = 1e6},
          cluster::CoordinatorListener{.on_start = [this] { started_.set_value(); },
                                       .on_finish = [this] { finished_.set_value(std::nullopt); },
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
  // All workers have installed the plan.
  bool started() { return started_.get_future().wait_for(60s) == std::future_status::ready; }
  std::optional<Error> wait() {
    auto future = finished_.get_future();
    if (future.wait_for(60s) != std::future_status::ready) return Error{ErrorCode::kTimeout, "the job did not end"};
    return future.get();
  }

 private:
  runtime::real::RealLane lane_;
  std::unique_ptr<runtime::real::TcpTransport> transport_;
  std::unique_ptr<cluster::Coordinator> coordinator_;
  std::promise<void> started_;
  std::promise<std::optional<Error>> finished_;
};

// One worker's whole life; returns what went wrong.
std::optional<Error> work(const TrainingScript& script, int rank, std::uint16_t port, const std::vector<std::byte>& secret,
                          std::vector<std::vector<float>>& values, std::size_t lanes = 1) {
  auto worker = cluster::Worker::join(
      {.job = {Rank{rank}, script.plan.workers, {"127.0.0.1", port}, secret},
       .model = script.model,
       .values = views_of(values),
       .make_compute = [](runtime::Runtime&) { return std::make_unique<runtime::SimpleCompute>(); },
       .lanes = lanes});
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

// Runs the job in virtual time on one lane, and over TCP on so many: the workers must end with the same parameters.
void expect_the_bits_of_virtual_time(const SimJob& job, std::size_t lanes) {
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
      return work(script, rank, hub.port(), secret, values[static_cast<std::size_t>(rank)], lanes);
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

TEST(RealSession, JobsOverTcpEndInTheBitsOfVirtualTimeOnAnyNumberOfLanes) {
  for (std::uint64_t problem = 1; problem <= 15; ++problem) {
    const std::size_t lanes = 1 + problem % 3;
    SCOPED_TRACE("problem " + std::to_string(problem) + ", " + std::to_string(lanes) + " lanes");
    SimJob job;
    TrainingScript& script = job.script;
    script.problem = problem;
    script.model = random_model(problem, 2'000'000);
    const int workers = std::vector<int>{1, 2, 4, 3}[problem % 4];
    script.plan = random_plan(script.model, workers, problem * 7);
    script.absent_probability = problem % 3 == 0 ? 0.3 : 0;
    script.short_batch_probability = problem % 2 == 0 ? 0.5 : 0;
    expect_the_bits_of_virtual_time(job, lanes);
  }
}

TEST(RealSession, JobsThatCombineInSharedMemoryEndInTheBitsOfVirtualTimeOnAnyNumberOfLanes) {
  const std::vector<plan::HostGroups> groupings = {{{Rank{0}, Rank{1}, Rank{2}, Rank{3}}},
                                                   {{Rank{0}, Rank{1}}, {Rank{2}, Rank{3}}},
                                                   {{Rank{0}, Rank{2}, Rank{3}}, {Rank{1}}}};
  for (std::uint64_t problem = 1; problem <= 18; ++problem) {
    const std::size_t lanes = 1 + problem / 3 % 3;
    SCOPED_TRACE("problem " + std::to_string(problem) + ", " + std::to_string(lanes) + " lanes");
    SimJob job;
    TrainingScript& script = job.script;
    script.problem = problem;
    script.model = random_model(problem, 2'000'000);
    const plan::HostGroups& hosts = groupings[problem % groupings.size()];
    script.plan = random_plan(script.model, static_cast<int>(hosts.size()), problem * 7);
    script.plan.workers = 4;
    script.plan.hosts = hosts;
    if (problem % 5 == 0) script.plan.wire = DType::kBFloat16;
    script.absent_probability = problem % 2 == 0 ? 0.3 : 0;
    script.short_batch_probability = problem % 2 == 0 ? 0.5 : 0;
    script.allocate = problem % 4 < 2;
    expect_the_bits_of_virtual_time(job, lanes);
  }
}

// This process's TCP connections that came in at a port other than the hub's: the links between workers, as their callees see them.
std::vector<int> links_between_workers(std::uint16_t hub) {
  std::vector<std::pair<std::uint16_t, int>> links;  // by local port, which is the lane's own
  const auto local_port = [](int fd) {
    sockaddr_in address{};
    socklen_t length = sizeof address;
    return ::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length) == 0 && address.sin_family == AF_INET ? ntohs(address.sin_port) : 0;
  };
  std::set<int> listening;
  std::vector<int> sockets;
  DIR* const folder = ::opendir("/proc/self/fd");
  while (const dirent* const entry = ::readdir(folder)) {
    const int fd = std::atoi(entry->d_name);
    int listens = 0;
    socklen_t length = sizeof listens;
    if (fd <= 2 || ::getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &length) != 0 || local_port(fd) == 0) continue;
    if (listens != 0) {
      listening.insert(local_port(fd));
    } else {
      sockets.push_back(fd);
    }
  }
  ::closedir(folder);
  for (const int fd : sockets) {
    const int port = local_port(fd);
    if (port != hub && listening.contains(port)) links.emplace_back(static_cast<std::uint16_t>(port), fd);
  }
  std::sort(links.begin(), links.end());
  std::vector<int> fds;
  for (const auto& [port, fd] : links) fds.push_back(fd);
  return fds;
}

TEST(RealSession, ABrokenConnectionOfAnyLaneEndsTheJobAndNamesTheWorker) {
  std::set<std::string> lanes_named;
  // Which of the two links is which lane's is the system's choice of ports, so it takes a few jobs until each was broken once.
  for (int job = 0; job < 24 && lanes_named.size() < 2; ++job) {
    TrainingScript script;
    script.problem = 3;
    script.model = random_model(3, 3'000'000);
    script.iterations = 1'000'000;  // until it is broken
    script.plan = uniform_plan(script.model, 2, Scheme::kSfb);
    const std::vector<std::byte> secret = base::random_bytes(32);
    Hub hub(script, secret);
    std::vector<std::vector<std::vector<float>>> values = {initial_values(script, 0), initial_values(script, 1)};
    std::vector<std::future<std::optional<Error>>> crew;
    for (int rank = 0; rank < 2; ++rank) {
      crew.push_back(std::async(std::launch::async, [&, rank] {
        return work(script, rank, hub.port(), secret, values[static_cast<std::size_t>(rank)], 2);
      }));
    }
    ASSERT_TRUE(hub.started());
    const std::vector<int> links = links_between_workers(hub.port());
    ASSERT_EQ(links.size(), 2u) << "one for each lane";
    ::shutdown(links.front(), SHUT_RDWR);
    for (auto& worker : crew) {
      const std::optional<Error> error = worker.get();
      ASSERT_TRUE(error.has_value());
      EXPECT_EQ(error->code, ErrorCode::kPeerLost) << error->message;
    }
    const std::optional<Error> error = hub.wait();
    ASSERT_TRUE(error.has_value());
    EXPECT_THAT(error->message, ::testing::ContainsRegex("rank [01] \\(pid .*lost its link to it")) << error->message;
    lanes_named.insert(error->message.find("lane 1: ") != std::string::npos ? "lane 1" : "lane 0");
  }
  EXPECT_EQ(lanes_named.size(), 2u) << "each lane's connection was broken once";
}

TEST(RealSession, WorkersWithDifferentLanesDoNotStart) {
  TrainingScript script;
  script.model = random_model(3, 1000);
  script.plan = uniform_plan(script.model, 2, Scheme::kPs);
  const std::vector<std::byte> secret = base::random_bytes(32);
  Hub hub(script, secret);
  std::vector<std::vector<std::vector<float>>> values = {initial_values(script, 0), initial_values(script, 1)};
  auto other = std::async(std::launch::async, [&] { return work(script, 1, hub.port(), secret, values[1], 3); });
  const std::optional<Error> error = work(script, 0, hub.port(), secret, values[0], 1);
  ASSERT_TRUE(error.has_value());
  EXPECT_EQ(error->code, ErrorCode::kRefused);
  EXPECT_THAT(error->message, ::testing::HasSubstr("--lanes"));
  EXPECT_TRUE(other.get().has_value());
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
