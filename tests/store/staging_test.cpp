#include "store/staging.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <map>
#include <random>
#include <vector>

namespace poseidon::store {
namespace {

constexpr std::size_t kPiece = wire::kPieceBytes;

TEST(StagingPool, GivesABlockOfTheSameSizeAgain) {
  StagingPool pool;
  std::byte* const first = pool.acquire(1'000);
  std::byte* const second = pool.acquire(1'000);
  EXPECT_NE(first, second);
  pool.release(first);
  EXPECT_EQ(pool.acquire(1'000), first);
  pool.release(second);
  EXPECT_EQ(pool.acquire(1'024), second) << "as many cache lines";
  EXPECT_EQ(pool.bytes_spare(), 0u);
}

TEST(StagingPool, BlocksBeginOnCacheLines) {
  StagingPool pool;
  for (const std::size_t bytes : {std::size_t{1}, std::size_t{64}, std::size_t{65}, kPiece}) {
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(pool.acquire(bytes)) % 64, 0u) << bytes;
  }
}

TEST(StagingPool, CountsTheBytesInUseAndTheMostThereWere) {
  StagingPool pool;
  std::byte* const a = pool.acquire(kPiece);
  std::byte* const b = pool.acquire(100);
  pool.release(a);
  EXPECT_EQ(pool.bytes_in_use(), 100u);
  EXPECT_EQ(pool.bytes_spare(), kPiece);
  pool.release(b);
  EXPECT_EQ(pool.bytes_in_use(), 0u);
  EXPECT_EQ(pool.bytes_in_use_max(), kPiece + 100);
}

TEST(StagingPool, KeepsNoSparesBeyondTheCap) {
  StagingPool pool({.bytes_max = 2 * kPiece});
  std::vector<std::byte*> blocks;
  for (int i = 0; i < 3; ++i) blocks.push_back(pool.acquire(kPiece));
  pool.release(blocks[0]);
  EXPECT_EQ(pool.bytes_spare(), 0u) << "two are in use";
  pool.release(blocks[1]);
  EXPECT_EQ(pool.bytes_spare(), kPiece);
  pool.release(blocks[2]);
  EXPECT_EQ(pool.bytes_spare(), 2 * kPiece);
  // Another size needs the room that the spare ones take.
  pool.acquire(64);
  EXPECT_EQ(pool.bytes_spare(), kPiece);
}

TEST(StagingPool, ContentsOfBlocksInUseStay) {
  StagingPool pool({.bytes_max = 8 * kPiece});
  std::mt19937_64 random(1);
  std::map<std::byte*, std::pair<std::size_t, int>> used;  // how long each is and with what it is filled
  std::size_t in_use = 0;
  for (int turn = 0; turn < 4'000; ++turn) {
    if (random() % 2 == 0 || used.empty()) {
      const std::size_t bytes = 1 + random() % (random() % 2 == 0 ? 300 : kPiece);
      std::byte* const block = pool.acquire(bytes);
      ASSERT_FALSE(used.contains(block));
      std::memset(block, turn % 256, bytes);
      used[block] = {bytes, turn % 256};
      in_use += bytes;
    } else {
      const auto chosen = std::next(used.begin(), static_cast<std::ptrdiff_t>(random() % used.size()));
      const auto [bytes, filling] = chosen->second;
      for (std::size_t i = 0; i < bytes; ++i) ASSERT_EQ(chosen->first[i], static_cast<std::byte>(filling));
      pool.release(chosen->first);
      used.erase(chosen);
      in_use -= bytes;
    }
    ASSERT_EQ(pool.bytes_in_use(), in_use);
    ASSERT_TRUE(pool.bytes_spare() == 0 || pool.bytes_in_use() + pool.bytes_spare() <= 8 * kPiece);
  }
}

TEST(StagingPoolDeathTest, ABlockIsReleasedOnceAndWhereItIsFrom) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  StagingPool pool;
  StagingPool other;
  std::byte* const block = pool.acquire(100);
  EXPECT_DEATH(other.release(block), "not of this pool");
  pool.release(block);
  EXPECT_DEATH(pool.release(block), "not in use here");
  EXPECT_DEATH(pool.acquire(kPiece + 1), "a block of 65537 bytes");
}

}  // namespace
}  // namespace poseidon::store
