#include "launch/child_process.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdlib>

#include "base/file.h"
#include "support/temporary_folder.h"

namespace poseidon::launch {
namespace {

using ::testing::StartsWith;

class Child : public ::testing::Test {
 protected:
  ChildOptions shell(const std::string& script) const {
    return {.command = {"/bin/sh", "-c", script}, .environment = {}, .log = folder_ / "log"};
  }
  // Runs it to its end.
  Exit run(const ChildOptions& options) const {
    const Result<ChildProcess> child = ChildProcess::start(options);
    if (!child) {
      ADD_FAILURE() << child.error().message;
      return {};
    }
    int status = 0;
    EXPECT_EQ(::waitpid(child->pid(), &status, 0), child->pid());
    return ChildProcess::exit_of(status);
  }
  std::string log() const { return base::read_file(folder_ / "log").value(); }
  static void expect_no_child() {
    EXPECT_EQ(::waitpid(-1, nullptr, WNOHANG), -1) << "a child is left";
    EXPECT_EQ(errno, ECHILD);
  }

  test::TemporaryFolder folder_;
};

TEST_F(Child, WhoseProgramIsNotThereIsAnErrorAndNoChild) {
  const Result<ChildProcess> child =
      ChildProcess::start({.command = {(folder_ / "none").string(), "train"}, .environment = {}, .log = folder_ / "log"});
  ASSERT_FALSE(child.ok());
  EXPECT_EQ(child.error().code, ErrorCode::kSystem);
  EXPECT_EQ(child.error().message, "cannot run " + (folder_ / "none").string() + ": No such file or directory");
  expect_no_child();
}

TEST_F(Child, WhoseLogCannotBeWrittenIsAnErrorAndNoChild) {
  ChildOptions options = shell("exit 0");
  options.log = folder_ / "none" / "log";
  const Result<ChildProcess> child = ChildProcess::start(options);
  ASSERT_FALSE(child.ok());
  EXPECT_EQ(child.error().code, ErrorCode::kSystem);
  EXPECT_EQ(child.error().message, "cannot write the log " + options.log.string() + ": No such file or directory");
  expect_no_child();
}

TEST_F(Child, EndsWithItsExitCode) {
  EXPECT_EQ(run(shell("exit 0")).text(), "exit code 0");
  const Exit exit = run(shell("exit 3"));
  EXPECT_EQ(exit.code, 3);
  EXPECT_EQ(exit.signal, 0);
  EXPECT_EQ(exit.text(), "exit code 3");
}

TEST_F(Child, EndsWithTheSignalThatKilledIt) {
  const Exit exit = run(shell("kill -KILL $$"));
  EXPECT_EQ(exit.signal, SIGKILL);
  EXPECT_EQ(exit.text(), "signal 9 (Killed)");
  EXPECT_EQ(run(shell("kill -SEGV $$")).text(), "signal 11 (Segmentation fault)");
}

TEST_F(Child, IsKilledByKill) {
  const Result<ChildProcess> child = ChildProcess::start(shell("exec sleep 60"));
  ASSERT_TRUE(child.ok());
  child->kill(SIGKILL);
  int status = 0;
  ASSERT_EQ(::waitpid(child->pid(), &status, 0), child->pid());
  EXPECT_EQ(ChildProcess::exit_of(status).signal, SIGKILL);
}

TEST_F(Child, TellsItsProcessorTimeUntilItHasBeenCollected) {
  const Result<ChildProcess> child = ChildProcess::start(shell("i=0; while [ $i -lt 50000 ]; do i=$((i+1)); done; kill -STOP $$"));
  ASSERT_TRUE(child.ok());
  int status = 0;
  ASSERT_EQ(::waitpid(child->pid(), &status, WUNTRACED), child->pid());
  ASSERT_TRUE(WIFSTOPPED(status));
  EXPECT_GT(child->cpu_seconds().value_or(0), 1e-3) << "50,000 rounds take some milliseconds";
  child->kill(SIGKILL);
  ASSERT_EQ(::waitpid(child->pid(), &status, 0), child->pid());
  EXPECT_FALSE(child->cpu_seconds().has_value());
}

TEST_F(Child, HasOurEnvironmentWithWhatIsAddedAndReplaced) {
  ::setenv("POSEIDON_TEST_KEPT", "ours", 1);
  ::setenv("POSEIDON_TEST_REPLACED", "ours", 1);
  ChildOptions options = shell("echo $POSEIDON_TEST_KEPT $POSEIDON_TEST_REPLACED $POSEIDON_TEST_ADDED\n"
                               "env | grep -c ^POSEIDON_TEST_");
  options.environment = {{"POSEIDON_TEST_REPLACED", "its own"}, {"POSEIDON_TEST_ADDED", "new"}};
  run(options);
  ::unsetenv("POSEIDON_TEST_KEPT");
  ::unsetenv("POSEIDON_TEST_REPLACED");
  EXPECT_EQ(log(), "ours its own new\n3\n") << "each name once: programs differ in which of two they take";
  EXPECT_EQ(std::getenv("POSEIDON_TEST_ADDED"), nullptr) << "our own environment has changed";
}

TEST_F(Child, WritesBothOutputsToItsLogBehindWhatIsThere) {
  ASSERT_TRUE(base::write_file_atomically(folder_ / "log", "from before\n").ok());
  run(shell("echo out; echo error >&2; echo out"));
  EXPECT_EQ(log(), "from before\nout\nerror\nout\n");
}

TEST_F(Child, ReadsNothingFromTheTerminal) {
  run(shell("cat; echo end of input"));
  EXPECT_EQ(log(), "end of input\n");
}

TEST_F(Child, LeavesToItsLauncherWhatASignalToTheWholeGroupMeans) {
  EXPECT_EQ(run(shell("kill -INT $$; kill -TERM $$; kill -HUP $$; exit 7")).text(), "exit code 7");
}

// A launcher blocks signals to read them from a descriptor; a child that inherited that could not even be interrupted in a
// debugger.
TEST_F(Child, HasNoSignalBlockedAndThePipeSignalInForce) {
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  ::pthread_sigmask(SIG_BLOCK, &all, &before);
  const auto pipe_before = ::signal(SIGPIPE, SIG_IGN);
  run(shell("grep -E 'SigBlk|SigIgn' /proc/self/status"));
  ::signal(SIGPIPE, pipe_before);
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  EXPECT_THAT(log(), StartsWith("SigBlk:\t0000000000000000\n"));
  const std::uint64_t ignored = std::stoull(log().substr(log().find("SigIgn:") + 7), nullptr, 16);
  EXPECT_EQ(ignored & (1u << (SIGPIPE - 1)), 0u);
  EXPECT_NE(ignored & (1u << (SIGINT - 1)), 0u);
}

TEST_F(Child, DiesWithItsParent) {
  // The pipe ends when nobody can write into it any more: when the child, which inherits that end, is dead. (Without exec the
  // shell may have a child of its own, which nobody kills.)
  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);
  const pid_t parent = ::fork();
  if (parent == 0) {
    const Result<ChildProcess> child = ChildProcess::start(shell("exec sleep 60"));
    [[maybe_unused]] const ssize_t n = ::write(ends[1], child.ok() ? "y" : "n", 1);
    ::pause();
    ::_exit(0);
  }
  ::close(ends[1]);
  char started = 0;
  ASSERT_EQ(::read(ends[0], &started, 1), 1);
  EXPECT_EQ(started, 'y');
  pollfd lives{ends[0], POLLIN, 0};
  EXPECT_EQ(::poll(&lives, 1, 0), 0) << "it should live as long as its parent";
  ::kill(parent, SIGKILL);
  ::waitpid(parent, nullptr, 0);
  EXPECT_EQ(::poll(&lives, 1, 10'000), 1) << "it lives 10 s after its parent's death";
  ::close(ends[0]);
}

}  // namespace
}  // namespace poseidon::launch
