// Cluster and run_local with real processes on loopback. This program is its own workers: a test starts it again with the
// name of a scenario, which says what goes wrong in words.
#include "poseidon/cluster.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <future>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "base/text.h"
#include "poseidon/arrivals.h"
#include "poseidon/local.h"
#include "support/temporary_folder.h"

namespace poseidon {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

// ---- What workers do ----

#define REQUIRE(condition)                                                                               \
  do {                                                                                                   \
    if (!(condition)) return std::string(#condition " does not hold, line ") + std::to_string(__LINE__); \
  } while (false)

using Numbers = std::vector<float>;

TensorView view(Numbers& numbers) {
  return {reinterpret_cast<std::byte*>(numbers.data()), numbers.size() * sizeof(float), DType::kFloat32, {}};
}

// One tensor of 4 numbers, of another name where the test wants that.
struct Member {
  Numbers value = Numbers(4);
  Numbers gradient = Numbers(4, 1);
  std::unique_ptr<Cluster> cluster;
  std::optional<Error> error;

  explicit Member(const std::string& name = "w") {
    JobOptions job{.model = {.tensors = {{name, {4}}}, .layers = {{"l", {TensorId{0}}}}}, .values = {view(value)}, .product = {}};
    Result<std::unique_ptr<Cluster>> joined = Cluster::join(std::move(job));
    if (joined) {
      cluster = std::move(*joined);
    } else {
      error = joined.error();
    }
  }
  void submit(Iteration iteration, SyncedFn on_synced) {
    cluster->session().submit(TensorId{0}, iteration, {.gradient = view(gradient), .ready = {}}, std::move(on_synced));
  }
};

// Where the job fails, as it must, and whose reason is heard first is open: this is how the test knows that all was well here.
void leave_a_mark() {
  std::ofstream(base::concat(std::getenv("POSEIDON_RUN_FOLDER"), "/well-", find_job().value()->rank)) << "yes";
}

// Trains until it is told to stop, and says in a note after how many iterations that was.
std::string endless() {
  Member member;
  REQUIRE(member.cluster != nullptr);
  Arrivals arrivals;
  Iteration iteration = 0;
  for (;; ++iteration) {
    const Result<bool> go = member.cluster->begin(iteration);
    REQUIRE(go.ok());
    if (!*go) break;
    member.submit(iteration, arrivals.expect(0));
    const Synced synced = arrivals.wait(0);
    REQUIRE(!synced.error && synced.iteration == iteration && synced.contributors == 3);
    if (iteration == 5) REQUIRE(member.cluster->note("five").ok());
  }
  REQUIRE(member.cluster->note("stopped before " + std::to_string(iteration)).ok());
  REQUIRE(member.cluster->leave().ok());
  return "";
}

// A mistake comes back by the callback, and costs nothing but the submission.
std::string mistakes() {
  Member member;
  REQUIRE(member.cluster != nullptr);
  REQUIRE(member.cluster->rank() == find_job().value()->rank && member.cluster->workers() == 2);
  Arrivals arrivals;
  Session& session = member.cluster->session();
  Numbers small(3);
  session.submit(TensorId{0}, 0, {.gradient = view(small), .ready = {}}, arrivals.expect(1));
  session.submit(TensorId{3}, 0, {.gradient = view(small), .ready = {}}, arrivals.expect(2));
  session.submit_factors(LayerId{0}, 0, {}, arrivals.expect(3));
  session.submit_absent(TensorId{0}, 0, {}, arrivals.expect(4));
  for (std::uint32_t key = 1; key <= 4; ++key) {
    const Synced synced = arrivals.wait(key);
    REQUIRE(synced.error && synced.error->code == ErrorCode::kInvalid);
  }
  const Synced unknown = arrivals.wait(9);
  REQUIRE(unknown.error && unknown.error->code == ErrorCode::kInvalid);
  REQUIRE(session.scheme(LayerId{7}) == Scheme::kPs);
  for (Iteration iteration : {Iteration{2}, Iteration{3}}) {
    member.submit(iteration, arrivals.expect(0));
    REQUIRE(!arrivals.wait(0).error && !arrivals.has(0));
  }
  REQUIRE(member.gradient == Numbers(4, 4));  // 1 doubled twice
  REQUIRE(member.cluster->note(member.cluster->plan()).ok());
  REQUIRE(member.cluster->leave().ok());
  return "";
}

// Rank 0 closes while it waits for a sum that rank 1 will never give.
std::string closing() {
  Member member;
  REQUIRE(member.cluster != nullptr);
  if (member.cluster->rank() == 1) {
    Arrivals arrivals;
    (void)member.cluster->gather("");  // until the job is over
    return "";
  }
  Arrivals arrivals;
  member.submit(0, arrivals.expect(0));
  // A second one of the same tensor is refused, on the lane or, at the latest, by the end.
  member.submit(1, arrivals.expect(1));
  member.cluster.reset();
  REQUIRE(arrivals.has(0) && arrivals.has(1));
  const Synced closed = arrivals.wait(0);
  REQUIRE(closed.error && closed.error->code == ErrorCode::kAborted && closed.iteration == 0);
  REQUIRE(arrivals.wait(1).error->code == ErrorCode::kInvalid);
  leave_a_mark();
  std::exit(3);
}

std::string other_models() {
  Member member(find_job().value()->rank == 0 ? "w" : "v");
  REQUIRE(member.cluster == nullptr && member.error);
  // Both hear the reason, also the one that came second and differs.
  REQUIRE(member.error->code == ErrorCode::kRefused);
  REQUIRE(member.error->message.find("the workers' models differ") != std::string::npos);
  leave_a_mark();
  std::exit(3);  // the reason has been left for the launcher
}

std::string ends_badly_after_all() {
  Member member;
  REQUIRE(member.cluster != nullptr && member.cluster->leave().ok());
  member.cluster.reset();
  std::exit(find_job().value()->rank == 1 ? 4 : 0);
}

bool has_thread(const std::string& name) {
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
    std::string found;
    std::getline(std::ifstream(task.path() / "comm"), found);
    if (found == name) return true;
  }
  return false;
}

// A provisional model of one tensor, then one of two, of which rank 0's second value is taken; and a letter on the way.
std::string renewed() {
  const int rank = find_job().value()->rank;
  Numbers first(4, static_cast<float>(rank));
  Numbers second(2, static_cast<float>(rank + 5));
  JobOptions job{.model = {.tensors = {{"w", {4}}}, .layers = {{"l", {TensorId{0}}}}}, .values = {view(first)}, .product = {}};
  job.provisional = true;
  Model next = job.model;
  Result<std::unique_ptr<Cluster>> joined = Cluster::join(std::move(job));
  REQUIRE(joined.ok());
  Cluster& cluster = **joined;
  REQUIRE(first == Numbers(4, 0));
  first.assign(4, static_cast<float>(rank));
  next.tensors.push_back({"v", {2}});
  next.layers = {{"both", {TensorId{1}, TensorId{0}}}};
  REQUIRE(cluster.renew(next, {{}}, 7).error().code == ErrorCode::kInvalid);
  REQUIRE(cluster.renew(next, {{}, view(second)}, 7).ok());
  REQUIRE(first == Numbers(4, static_cast<float>(rank)) && second == Numbers(2, 5));
  Arrivals arrivals;
  cluster.span("both", true);
  for (const std::uint32_t t : {1u, 0u}) {
    cluster.session().submit(TensorId{t}, 7 + t, {.gradient = view(t == 0 ? first : second), .ready = {}}, arrivals.expect(t));
    REQUIRE(!arrivals.wait(t).error);
  }
  cluster.span("both", false);
  REQUIRE(first == Numbers(4, 1) && second == Numbers(2, 10));
  Numbers own(3, static_cast<float>(rank));
  Numbers others(3, -1);
  const auto letter = [&](Numbers& numbers) {
    return Letter{1 - rank, reinterpret_cast<std::byte*>(numbers.data()), numbers.size() * sizeof(float)};
  };
  REQUIRE(cluster.exchange(1, 0, {letter(own)}, {letter(others)}).ok());
  REQUIRE(others == Numbers(3, static_cast<float>(1 - rank)));
  REQUIRE(cluster.leave().ok());
  return "";
}

// How the engine moves things, as far as a worker can see it; and the sum is what it always is.
std::string as_told() {
  Member member;
  REQUIRE(member.cluster != nullptr);
  Arrivals arrivals;
  member.submit(0, arrivals.expect(0));
  REQUIRE(!arrivals.wait(0).error && member.gradient == Numbers(4, 2));
  const auto is_set = [](const char* name, const std::string& value) {
    const char* const found = std::getenv(name);
    return found != nullptr && found == value;
  };
  REQUIRE(has_thread("poseidon lane 1") == is_set("POSEIDON_LANES", "2"));
  if (is_set("POSEIDON_TLS", "1") && is_set("POSEIDON_STAGING", "4096B")) leave_a_mark();
  REQUIRE(member.cluster->leave().ok());
  return "";
}

int run_worker(const std::string& name) {
  const std::map<std::string, std::function<std::string()>> scenarios = {{"endless", endless},
                                                                         {"mistakes", mistakes},
                                                                         {"closing", closing},
                                                                         {"other models", other_models},
                                                                         {"as told", as_told},
                                                                         {"renewed", renewed},
                                                                         {"ends badly", ends_badly_after_all}};
  const std::string wrong = scenarios.at(name)();
  if (wrong.empty()) return 0;
  report_failure({ErrorCode::kAborted, name + ": " + wrong});
  return 1;
}

// ---- The tests ----

LocalOptions job(int workers, const std::string& scenario) {
  LocalOptions options;
  options.workers = workers;
  options.command = {"/proc/self/exe", scenario};
  return options;
}

TEST(RunLocal, LetsAllWorkersStopAfterTheSameIterationOnASignal) {
  LocalOptions options = job(3, "endless");
  std::set<std::string> stops;
  int stopped = 0;
  options.on_note = [&](int rank, const std::string& text) {
    if (text == "five" && rank == 0) ::kill(::getpid(), SIGINT);
    if (text.starts_with("stopped")) {
      stops.insert(text);
      ++stopped;
    }
  };
  const LocalEnd end = run_local(options);
  EXPECT_FALSE(end.error.has_value()) << end.error->message;
  EXPECT_EQ(end.interrupted, SIGINT);
  EXPECT_EQ(stopped, 3);
  EXPECT_EQ(stops.size(), 1u) << *stops.begin() << ", " << *stops.rbegin();
}

TEST(RunLocal, RepeatsAPlan) {
  LocalOptions options = job(2, "mistakes");
  std::string plan;
  std::string told;
  options.on_plan = [&](const std::string& json, const std::string&) { plan = json; };
  options.on_note = [&](int, const std::string& text) { told = text; };
  const LocalEnd first = run_local(options);
  EXPECT_FALSE(first.error.has_value()) << first.error->message;
  EXPECT_EQ(told, plan) << "what Cluster::plan says is what the launcher has";
  EXPECT_THAT(plan, HasSubstr("\"devices_per_node\": 1"));
  options.plan = plan;
  const LocalEnd second = run_local(options);
  EXPECT_FALSE(second.error.has_value()) << second.error->message;
  options.plan = "{}";
  const LocalEnd third = run_local(options);
  ASSERT_TRUE(third.error.has_value());
  EXPECT_THAT(third.error->message, HasSubstr("the plan cannot be used"));
  std::filesystem::remove_all(third.run_folder);
}

TEST(RunLocal, MovesGradientsAsItIsTold) {
  const test::TemporaryFolder folder;
  LocalOptions options = job(2, "as told");
  options.run_folder = folder.path();
  std::string plan;
  options.on_plan = [&](const std::string& json, const std::string&) { plan = json; };
  const LocalEnd plain = run_local(options);
  EXPECT_FALSE(plain.error.has_value()) << plain.error->message;
  EXPECT_THAT(plan, AllOf(Not(HasSubstr("\"wire\"")), Not(HasSubstr("\"hosts\""))));
  EXPECT_FALSE(std::filesystem::exists(folder / "well-0"));

  options.lanes = 2;
  options.staging_bytes_max = 4096;
  options.tls = true;
  options.wire = DType::kBFloat16;
  const LocalEnd other = run_local(options);
  EXPECT_FALSE(other.error.has_value()) << other.error->message;
  EXPECT_THAT(plan, HasSubstr("\"wire\": \"bfloat16\""));
  EXPECT_TRUE(std::filesystem::exists(folder / "well-0") && std::filesystem::exists(folder / "well-1"));

  options.per_host = "on";
  const LocalEnd together = run_local(options);
  EXPECT_FALSE(together.error.has_value()) << together.error->message;
  EXPECT_THAT(plan, HasSubstr("\"hosts\""));
}

TEST(RunLocal, RefusesWhatItCannotBeTold) {
  const auto refusal = [](const std::function<void(LocalOptions&)>& change) {
    LocalOptions options = job(2, "as told");
    change(options);
    const LocalEnd end = run_local(options);
    return end.error && end.error->code == ErrorCode::kInvalid ? end.error->message : "it was not refused";
  };
  EXPECT_THAT(refusal([](LocalOptions& options) { options.lanes = 0; }), HasSubstr("from 1 to 16"));
  EXPECT_THAT(refusal([](LocalOptions& options) { options.wire = DType::kFloat64; }), HasSubstr("cannot travel as float64"));
  EXPECT_THAT(refusal([](LocalOptions& options) { options.per_host = "1"; }), HasSubstr("per_host"));
  EXPECT_THAT(refusal([](LocalOptions& options) {
                options.per_host = "on";
                options.plan = "{}";
              }),
              HasSubstr("give one of them"));
}

TEST(Cluster, TrainsAnotherModelFromAnIterationOn) {
  const LocalEnd end = run_local(job(2, "renewed"));
  EXPECT_FALSE(end.error.has_value()) << end.error->message;
}

TEST(RunLocal, KeepsTheLogsWhereItWasToldTo) {
  const test::TemporaryFolder folder;
  LocalOptions options = job(2, "mistakes");
  options.run_folder = folder.path();
  const LocalEnd end = run_local(options);
  EXPECT_FALSE(end.error.has_value()) << end.error->message;
  EXPECT_EQ(end.run_folder, folder.path());
  EXPECT_TRUE(std::filesystem::exists(folder / "worker-0.log") && std::filesystem::exists(folder / "worker-1.log"));
}

TEST(RunLocal, FailsWhenAWorkerEndsBadlyAfterTheJob) {
  const test::TemporaryFolder folder;
  LocalOptions options = job(2, "ends badly");
  options.run_folder = folder.path();
  const LocalEnd end = run_local(options);
  ASSERT_TRUE(end.error.has_value());
  EXPECT_THAT(end.error->message,
              AllOf(HasSubstr("rank 1 ended with exit code 4 after the job was over"), HasSubstr("worker-1.log")));
}

TEST(Cluster, CallsBackWhatHasNotComeWhenItIsClosed) {
  const test::TemporaryFolder folder;
  LocalOptions options = job(2, "closing");
  options.run_folder = folder.path();
  const LocalEnd end = run_local(options);
  ASSERT_TRUE(end.error.has_value());
  EXPECT_EQ(end.error->code, ErrorCode::kPeerLost) << end.error->message;
  EXPECT_TRUE(std::filesystem::exists(folder / "well-0")) << end.error->message;
}

TEST(Cluster, OfAnotherModelIsRefusedWithTheParameter) {
  const test::TemporaryFolder folder;
  LocalOptions options = job(2, "other models");
  options.run_folder = folder.path();
  const LocalEnd end = run_local(options);
  ASSERT_TRUE(end.error.has_value());
  EXPECT_EQ(end.error->code, ErrorCode::kRefused);
  EXPECT_THAT(end.error->message, AllOf(HasSubstr("the workers' models differ"), HasSubstr("rank 1")));
  EXPECT_TRUE(std::filesystem::exists(folder / "well-0") && std::filesystem::exists(folder / "well-1"));
}

TEST(Cluster, WithoutAJobIsNotFound) {
  EXPECT_FALSE(find_job().value().has_value());
  const Member member;
  ASSERT_TRUE(member.error.has_value());
  EXPECT_EQ(member.error->code, ErrorCode::kNotFound);
}

}  // namespace
}  // namespace poseidon

int main(int argc, char** argv) {
  if (argc == 2 && poseidon::find_job() && poseidon::find_job().value()) return poseidon::run_worker(argv[1]);
  ::testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
