#include "base/file.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>
#include <fstream>

namespace poseidon::base {
namespace {

class AtomicFile : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = ::testing::TempDir() + "poseidon-file-XXXXXX";
    folder_ = ::mkdtemp(pattern.data());
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  std::size_t files() const {
    return static_cast<std::size_t>(std::distance(std::filesystem::directory_iterator(folder_), std::filesystem::directory_iterator()));
  }
  std::filesystem::path folder_;
};

TEST_F(AtomicFile, IsWrittenWholeAndReplacesTheOldOne) {
  ASSERT_TRUE(write_file_atomically(folder_ / "a", "first").ok());
  ASSERT_TRUE(write_file_atomically(folder_ / "a", "second", Flush::kToSystem).ok());
  EXPECT_EQ(read_file(folder_ / "a").value(), "second");
  EXPECT_EQ(files(), 1u) << "nothing temporary is left";
}

TEST_F(AtomicFile, ThatDoesNotFitLeavesTheOldOneAsItWas) {
  ASSERT_TRUE(write_file_atomically(folder_ / "a", "old").ok());
  // A limit on file sizes fails a write() as a full disk does.
  ::signal(SIGXFSZ, SIG_IGN);
  rlimit before{};
  ::getrlimit(RLIMIT_FSIZE, &before);
  const rlimit tight{1000, before.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &tight), 0);
  const Status status = write_file_atomically(folder_ / "a", std::string(100'000, 'x'));
  ::setrlimit(RLIMIT_FSIZE, &before);
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.error().code, ErrorCode::kSystem);
  EXPECT_NE(status.error().message.find((folder_ / "a").string()), std::string::npos);
  EXPECT_EQ(read_file(folder_ / "a").value(), "old");
  EXPECT_EQ(files(), 1u);
}

TEST_F(AtomicFile, InAFolderThatIsNotThereIsAnErrorWithTheName) {
  const Status status = write_file_atomically(folder_ / "none" / "a", "x");
  ASSERT_FALSE(status.ok());
  EXPECT_NE(status.error().message.find("none/a: No such file or directory"), std::string::npos) << status.error().message;
}

TEST_F(AtomicFile, ReadingRefusesWhatIsNoFileOrTooLarge) {
  EXPECT_EQ(read_file(folder_ / "none").error().code, ErrorCode::kNotFound);
  EXPECT_EQ(read_file(folder_).error().code, ErrorCode::kInvalid);
  ASSERT_TRUE(write_file_atomically(folder_ / "a", "12345").ok());
  EXPECT_EQ(read_file(folder_ / "a", 4).error().code, ErrorCode::kInvalid);
}

}  // namespace
}  // namespace poseidon::base
