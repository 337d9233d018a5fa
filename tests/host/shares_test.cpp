#include "host/shares.h"

#include <gtest/gtest.h>

#include <vector>

namespace poseidon::host {
namespace {

TEST(Shares, CoverATensorOnceWhateverItsSize) {
  for (const std::size_t bytes : {0u, 4u, 65'536u, 65'540u, 1'000'000u, 12'345'678u}) {
    for (std::size_t members = 1; members <= 9; ++members) {
      for (std::size_t rotation = 0; rotation < 12; ++rotation) {
        std::vector<int> owners(bytes / 4, 0);
        for (std::size_t place = 0; place < members; ++place) {
          const Range share = share_of_bytes(bytes, members, place, rotation);
          ASSERT_TRUE(share.begin % 4096 == 0 || share.size() == 0);
          for (std::size_t i = share.begin / 4; i < share.end / 4; i += bytes > 1'000'000 ? 1000 : 1) ++owners[i];
        }
        for (std::size_t i = 0; i < owners.size(); i += bytes > 1'000'000 ? 4096 * 1000 : 1) ASSERT_EQ(owners[i], 1) << bytes << " " << members;
      }
    }
  }
}

TEST(Shares, OfASmallTensorFallToOneMemberAndAnotherForTheNext) {
  EXPECT_EQ(share_of_bytes(4000, 4, 0, 0).size(), 4000u);
  EXPECT_EQ(share_of_bytes(4000, 4, 1, 0).size(), 0u);
  EXPECT_EQ(share_of_bytes(4000, 4, 1, 5).size(), 4000u);
}

TEST(Shares, OfALargeTensorDifferByLessThanTwoPagesEach) {
  // 10 MB over 3: 814 pages each, the last 813 and a bit.
  EXPECT_EQ(share_of_bytes(10'000'000, 3, 0, 0).size(), 814u * 4096);
  EXPECT_EQ(share_of_bytes(10'000'000, 3, 2, 0).end, 10'000'000u);
}

TEST(Shares, OfRowsCoverThem) {
  EXPECT_EQ(share_of_rows(10, 4, 0).end, 3u);
  EXPECT_EQ(share_of_rows(10, 4, 3).begin, 9u);
  EXPECT_EQ(share_of_rows(10, 4, 3).end, 10u);
  EXPECT_EQ(share_of_rows(2, 4, 3).size(), 0u);
}

}  // namespace
}  // namespace poseidon::host
