#include "host/piece_queue.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "runtime/sim/sim_world.h"

namespace poseidon::host {
namespace {

using runtime::SendClass;

struct PieceQueueTest : ::testing::Test {
  Work work(const std::string& name, std::uint32_t layer, std::size_t count, std::size_t per_piece = 1) {
    return {.priority = {0, layer, SendClass::kSum},
            .count = count,
            .per_piece = per_piece,
            .piece =
                [this, name](std::size_t begin, std::size_t end, const std::function<void()>& then) {
                  log.push_back(name + std::to_string(begin) + "-" + std::to_string(end));
                  then();
                },
            .done = [this, name] { log.push_back(name + " done"); }};
  }
  void run() { world.run_for(std::chrono::seconds(1)); }

  runtime::sim::SimWorld world{runtime::sim::SimOptions{}};
  runtime::sim::SimMember& member = world.add(Member{1});
  PieceQueue queue{member};
  std::vector<std::string> log;
};

TEST_F(PieceQueueTest, DoesPiecesInOrderAndSaysWhenAllAreDone) {
  queue.add(work("a", 0, 5, 2));
  EXPECT_TRUE(log.empty()) << "nothing is done before add() returns";
  run();
  EXPECT_EQ(log, (std::vector<std::string>{"a0-2", "a2-4", "a4-5", "a done"}));
}

TEST_F(PieceQueueTest, NothingToDoIsDoneAtOnce) {
  queue.add(work("a", 0, 0));
  run();
  EXPECT_EQ(log, std::vector<std::string>{"a done"});
}

TEST_F(PieceQueueTest, TheMoreUrgentOvertakesBetweenPieces) {
  Work slow = work("slow", 7, 2);
  slow.piece = [this](std::size_t begin, std::size_t, const std::function<void()>& then) {
    log.push_back("slow" + std::to_string(begin));
    if (begin == 0) queue.add(work("urgent", 2, 1));
    then();
  };
  queue.add(std::move(slow));
  run();
  EXPECT_EQ(log, (std::vector<std::string>{"slow0", "urgent0-1", "urgent done", "slow1", "slow done"}));
}

TEST_F(PieceQueueTest, WaitsForAPieceThatEndsLater) {
  std::function<void()> pending;
  Work later = work("later", 0, 1);
  later.piece = [&](std::size_t, std::size_t, std::function<void()> then) { pending = std::move(then); };
  queue.add(std::move(later));
  queue.add(work("next", 1, 1));
  run();
  EXPECT_TRUE(log.empty());
  pending();
  run();
  EXPECT_EQ(log, (std::vector<std::string>{"later done", "next0-1", "next done"}));
}

TEST_F(PieceQueueTest, ForgetsWhatIsCleared) {
  std::function<void()> pending;
  Work begun = work("begun", 0, 2);
  begun.piece = [&](std::size_t, std::size_t, std::function<void()> then) { pending = std::move(then); };
  queue.add(std::move(begun));
  queue.add(work("waiting", 1, 1));
  run();
  queue.clear();
  pending();
  run();
  EXPECT_TRUE(log.empty());
  queue.add(work("new", 1, 1));
  run();
  EXPECT_EQ(log, (std::vector<std::string>{"new0-1", "new done"}));
}

}  // namespace
}  // namespace poseidon::host
