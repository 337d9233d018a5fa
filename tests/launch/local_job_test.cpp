// Jobs whose workers are shell scripts: they end, hang and complain, but never train. Jobs of true workers are tests/system.
#include "launch/local_job.h"
#include "launch/sentence.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdlib>

#include "base/file.h"
#include "base/text.h"
#include "support/temporary_folder.h"

namespace poseidon::launch {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;
using ::testing::MatchesRegex;

class LocalJob : public ::testing::Test {
 protected:
  void SetUp() override {
    ::setenv("XDG_RUNTIME_DIR", folder_.path().c_str(), 1);  // where the secret goes
    ::pthread_sigmask(SIG_SETMASK, nullptr, &mask_);
  }
  void TearDown() override {
    ::unsetenv("XDG_RUNTIME_DIR");
    EXPECT_EQ(::waitpid(-1, nullptr, WNOHANG), -1) << "a worker is left";
    EXPECT_EQ(errno, ECHILD);
    for (const auto& entry : std::filesystem::directory_iterator(folder_.path())) {
      EXPECT_THAT(entry.path().filename().string(), MatchesRegex("worker-[0-9]+.log|kept.*")) << "left behind";
    }
    sigset_t after;
    ::pthread_sigmask(SIG_SETMASK, nullptr, &after);
    for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGCHLD}) {
      EXPECT_EQ(sigismember(&after, signal), sigismember(&mask_, signal));
    }
  }

  // Workers that run this script, and know POSEIDON_RANK and $kept, a prefix of files that may stay.
  LocalJobOptions job(int workers, const std::string& script) const {
    LocalJobOptions options{.workers = workers,
                            .command = {"/bin/sh", "-c", script},
                            .environment = {{"kept", folder_ / "kept"}},
                            .run_folder = folder_.path(),
                            .coordinator = {.workers = workers},
                            .farewell_max = 100ms};
    return options;
  }
  static JobOutcome run(const LocalJobOptions& options, cluster::CoordinatorListener listener = {}) {
    return run_local_job(options, std::move(listener), [](const auto&) {});
  }
  std::string read(const std::string& name) const { return base::read_file(folder_ / name).value(); }

  test::TemporaryFolder folder_;
  sigset_t mask_{};
};

TEST_F(LocalJob, WhoseWorkerEndsWithoutAWordNamesItItsEndAndItsLog) {
  const JobOutcome outcome = run(job(2, "if [ $POSEIDON_RANK = 1 ]; then exit 3; fi; exec sleep 60"));
  ASSERT_TRUE(outcome.error.has_value());
  EXPECT_EQ(outcome.error->code, ErrorCode::kPeerLost);
  EXPECT_THAT(outcome.error->message, MatchesRegex("rank 1 \\(pid [0-9]+\\) ended with exit code 3 before the job "
                                                   "was over; its log is .*/worker-1.log"));
  EXPECT_FALSE(outcome.interrupted.has_value());
  ASSERT_EQ(outcome.exits.size(), 2u);
  EXPECT_EQ(outcome.exits[0].signal, SIGKILL) << "it does not know that the job is over";
  EXPECT_EQ(outcome.exits[1].code, 3);
}

TEST_F(LocalJob, WhoseWorkerEndsWellTooEarlyHasFailedToo) {
  const JobOutcome outcome = run(job(1, "exit 0"));
  ASSERT_TRUE(outcome.error.has_value());
  EXPECT_EQ(outcome.error->code, ErrorCode::kPeerLost);
  EXPECT_THAT(outcome.error->message, HasSubstr("rank 0"));
}

TEST_F(LocalJob, WhoseWorkerIsKilledNamesTheSignal) {
  const JobOutcome outcome = run(job(1, "kill -SEGV $$"));
  ASSERT_TRUE(outcome.error.has_value());
  EXPECT_THAT(outcome.error->message, HasSubstr("ended with signal 11 (Segmentation fault)"));
}

TEST_F(LocalJob, FailsWithTheSentenceThatItsWorkerHasLeft) {
  LocalJobOptions options = job(2, "if [ $POSEIDON_RANK = 0 ]; then exec sleep 60; fi\n"
                                   "printf '%s\\n%s' $code 'net.prototxt:3:1: no' > $POSEIDON_RUN_FOLDER/worker-1.error\n"
                                   "exit 3");
  options.environment["code"] = to_string(ErrorCode::kNotFound);
  const JobOutcome outcome = run(options);
  ASSERT_TRUE(outcome.error.has_value());
  EXPECT_EQ(outcome.error->code, ErrorCode::kNotFound);
  EXPECT_EQ(outcome.error->message, "net.prototxt:3:1: no");
}

TEST_F(LocalJob, ReadsWhatReportErrorWrites) {
  ::setenv("POSEIDON_RUN_FOLDER", (folder_ / "kept-errors").c_str(), 1);
  std::filesystem::create_directory(folder_ / "kept-errors");
  report_error(0, {ErrorCode::kSystem, "no space\non the disk"});
  ::unsetenv("POSEIDON_RUN_FOLDER");
  const JobOutcome outcome = run(job(1, "cp ${kept}-errors/worker-0.error $POSEIDON_RUN_FOLDER; exit 5"));
  ASSERT_TRUE(outcome.error.has_value());
  EXPECT_EQ(outcome.error->code, ErrorCode::kSystem);
  EXPECT_EQ(outcome.error->message, "no space\non the disk");
}

TEST_F(LocalJob, DoesNotTakeASentenceOfAnEarlierJobForItsOwn) {
  ASSERT_TRUE(base::write_file_atomically(folder_ / "worker-0.error", "of yesterday").ok());
  const JobOutcome outcome = run(job(1, "exit 3"));
  ASSERT_TRUE(outcome.error.has_value());
  EXPECT_THAT(outcome.error->message, HasSubstr("ended with exit code 3"));
}

TEST_F(LocalJob, WhoseWorkersNeverJoinExplainsItselfAndGivesUp) {
  LocalJobOptions options = job(2, "exec sleep 60");
  options.coordinator.heartbeat.interval = 20ms;
  options.coordinator.explain_after = 50ms;
  options.coordinator.join_max = 300ms;
  std::string explained;  // on the coordinator's lane, which is gone when run() returns
  const JobOutcome outcome = run(options, {.on_wait = [&](const std::string& text) { explained = text; }});
  EXPECT_THAT(explained, HasSubstr("waiting for rank 0 and rank 1 to join since "));
  ASSERT_TRUE(outcome.error.has_value());
  EXPECT_EQ(outcome.error->code, ErrorCode::kTimeout);
  EXPECT_THAT(outcome.error->message, HasSubstr("gave up waiting for rank 0 and rank 1 to join since "));
  for (const Exit& exit : outcome.exits) EXPECT_EQ(exit.signal, SIGKILL);
}

TEST_F(LocalJob, WhoseProgramIsNotThereHasNoWorkers) {
  LocalJobOptions options = job(3, "");
  options.command = {(folder_ / "none").string()};
  const JobOutcome outcome = run(options);
  ASSERT_TRUE(outcome.error.has_value());
  EXPECT_EQ(outcome.error->code, ErrorCode::kSystem);
  EXPECT_THAT(outcome.error->message, HasSubstr("cannot run " + (folder_ / "none").string()));
  EXPECT_TRUE(outcome.exits.empty());
}

TEST_F(LocalJob, OnAPortThatIsTakenSaysSoAndStartsNobody) {
  const int other = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof address;
  ASSERT_EQ(::bind(other, reinterpret_cast<sockaddr*>(&address), length), 0);
  ASSERT_EQ(::listen(other, 1), 0);
  ASSERT_EQ(::getsockname(other, reinterpret_cast<sockaddr*>(&address), &length), 0);
  LocalJobOptions options = job(1, "touch ${kept}-started");
  options.port = ntohs(address.sin_port);
  const JobOutcome outcome = run(options);
  ::close(other);
  ASSERT_TRUE(outcome.error.has_value());
  EXPECT_EQ(outcome.error->code, ErrorCode::kSystem);
  EXPECT_THAT(outcome.error->message, HasSubstr(base::concat("127.0.0.1:", options.port)));
  EXPECT_FALSE(std::filesystem::exists(folder_ / "kept-started"));
}

TEST_F(LocalJob, TellsEachWorkerWhoItIsAndWhereToGo) {
  run(job(2, "echo $POSEIDON_WORLD_SIZE $POSEIDON_LOCAL_RANK $POSEIDON_LOCAL_SIZE $POSEIDON_COORDINATOR $POSEIDON_RUN_FOLDER\n"
             "stat -c '%a %s' $POSEIDON_SECRET_FILE\n"
             // Whoever ends first ends the job; so the other must have written by then.
             "touch ${kept}-$POSEIDON_RANK; while ! [ -e ${kept}-0 -a -e ${kept}-1 ]; do sleep 0.01; done"));
  for (int rank = 0; rank < 2; ++rank) {
    EXPECT_THAT(read(base::concat("worker-", rank, ".log")),
                MatchesRegex(base::concat("2 ", rank, " 2 127.0.0.1:[1-9][0-9]+ ", folder_.path().string(), "\n600 32\n")));
  }
}

TEST_F(LocalJob, ThatHasNotBegunEndsWithTheFirstSignal) {
  const JobOutcome outcome = run(job(2, "if [ $POSEIDON_RANK = 1 ]; then kill -HUP $PPID; fi; exec sleep 60"));
  ASSERT_TRUE(outcome.error.has_value());
  EXPECT_EQ(outcome.error->code, ErrorCode::kAborted);
  EXPECT_EQ(outcome.error->message, "interrupted before the training began");
  EXPECT_EQ(outcome.interrupted, SIGHUP);
}

TEST_F(LocalJob, EndsAtOnceWhenASecondSignalAsksForIt) {
  // Two different signals, which cannot melt into one.
  LocalJobOptions options = job(2, "if [ $POSEIDON_RANK = 1 ]; then kill -INT $PPID; kill -TERM $PPID; fi; exec sleep 60");
  options.farewell_max = 60s;
  const auto start = std::chrono::steady_clock::now();
  const JobOutcome outcome = run(options);
  EXPECT_LT(std::chrono::steady_clock::now() - start, 30s) << "it has waited for the farewell of workers that say none";
  ASSERT_TRUE(outcome.error.has_value());
  EXPECT_EQ(outcome.error->code, ErrorCode::kAborted);
  EXPECT_TRUE(outcome.interrupted == SIGINT || outcome.interrupted == SIGTERM);
}

TEST_F(LocalJob, EndsWithAReasonOfTheApplications) {
  LocalJobOptions options = job(2, "exec sleep 60");
  options.coordinator.heartbeat.interval = 20ms;
  options.coordinator.explain_after = 20ms;
  std::function<void(const Error&)> abort;
  const JobOutcome outcome = run_local_job(
      options, {.on_wait = [&](const std::string&) { abort({ErrorCode::kSystem, "the plan cannot be written"}); }},
      [&](std::function<void(const Error&)> given) { abort = std::move(given); });
  ASSERT_TRUE(outcome.error.has_value());
  EXPECT_EQ(outcome.error->code, ErrorCode::kSystem);
  EXPECT_EQ(outcome.error->message, "the plan cannot be written");
}

}  // namespace
}  // namespace poseidon::launch
