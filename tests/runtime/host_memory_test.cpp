// Shared memory between processes. A child process stands for the other worker of the host.
#include "runtime/real/host_memory.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <thread>

namespace poseidon::runtime::real {
namespace {

using ::testing::HasSubstr;

std::unique_ptr<HostMemory> make() { return HostMemory::create().value(); }

// Makes `memory` see this process's `owner` as member 5.
void introduce(HostMemory& memory, const HostMemory& owner, std::int64_t pid = ::getpid()) {
  ASSERT_TRUE(memory.set_peers({{Member{5}, pid, owner.address()}}).ok());
}

TEST(HostMemory, GivesZeroedPages) {
  const auto memory = make();
  const std::shared_ptr<std::byte> data = memory->allocate(100'000).value();
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(data.get()) % 4096, 0u);
  EXPECT_EQ(std::count(data.get(), data.get() + 100'000, std::byte{0}), 100'000);
}

TEST(HostMemory, KnowsWhatItGave) {
  const auto memory = make();
  const std::shared_ptr<std::byte> a = memory->allocate(5000).value();
  const std::shared_ptr<std::byte> b = memory->allocate(5000).value();
  EXPECT_EQ(memory->place_of(a.get(), 5000)->offset, 0u);
  EXPECT_EQ(memory->place_of(b.get() + 8, 100)->offset, 8192u + 8);
  EXPECT_EQ(memory->place_of(b.get() + 8, 100)->bytes, 100u);
  EXPECT_FALSE(memory->place_of(b.get(), 8193)) << "beyond its end";
  std::vector<std::byte> private_memory(10);
  EXPECT_FALSE(memory->place_of(private_memory.data(), 10));
}

TEST(HostMemory, AnotherProcessReadsAndWritesIt) {
  const auto memory = make();
  const std::shared_ptr<std::byte> data = memory->allocate(10'000).value();
  data.get()[5000] = std::byte{42};
  const wire::HostPlace place = memory->place_of(data.get() + 4999, 3).value();
  const pid_t parent = ::getpid();
  const pid_t child = ::fork();
  if (child == 0) {
    const auto own = make();
    if (!own->set_peers({{Member{5}, parent, memory->address()}}).ok()) ::_exit(2);
    const Result<std::shared_ptr<std::byte>> seen = own->map(Member{5}, place);
    if (!seen) ::_exit(3);
    if (seen->get()[1] != std::byte{42}) ::_exit(4);
    seen->get()[2] = std::byte{43};
    ::_exit(0);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(data.get()[5001], std::byte{43});
}

TEST(HostMemory, RefusesPlacesThatAreNotThere) {
  const auto owner = make();
  const auto other = make();
  introduce(*other, *owner);
  const std::shared_ptr<std::byte> data = owner->allocate(4096).value();
  EXPECT_TRUE(other->map(Member{5}, {0, 4096}).ok());
  for (const wire::HostPlace& wrong : {wire::HostPlace{0, 4097}, {4096, 1}, {UINT64_MAX - 1, 1}, {1, UINT64_MAX - 1}, {0, 0}}) {
    const auto mapped = other->map(Member{5}, wrong);
    ASSERT_FALSE(mapped.ok()) << wrong.offset << " " << wrong.bytes;
    EXPECT_EQ(mapped.error().code, ErrorCode::kCorruptFrame);
  }
}

TEST(HostMemory, SeesWhatWasGivenLater) {
  const auto owner = make();
  const auto other = make();
  introduce(*other, *owner);
  const std::shared_ptr<std::byte> a = owner->allocate(4096).value();
  EXPECT_TRUE(other->map(Member{5}, owner->place_of(a.get(), 1).value()).ok());
  const std::shared_ptr<std::byte> b = owner->allocate(1 << 20).value();
  b.get()[77] = std::byte{7};
  const auto mapped = other->map(Member{5}, owner->place_of(b.get(), 1 << 20).value());
  ASSERT_TRUE(mapped.ok());
  EXPECT_EQ(mapped->get()[77], std::byte{7});
}

TEST(HostMemory, AMappingOutlivesItsOwner) {
  auto owner = make();
  const auto other = make();
  introduce(*other, *owner);
  std::shared_ptr<std::byte> data = owner->allocate(4096).value();
  data.get()[0] = std::byte{1};
  const std::shared_ptr<std::byte> mapped = other->map(Member{5}, {0, 4096}).value();
  data.reset();
  owner.reset();
  mapped.get()[0] = std::byte{2};  // given back by its owner: nobody sees this, and nobody dies of it
  EXPECT_EQ(mapped.get()[0], std::byte{2});
}

TEST(HostMemory, FreedMemoryGoesBackToTheSystem) {
  const auto memory = make();
  const std::string path = "/proc/self/fd/" + memory->address().substr(0, memory->address().find(':'));
  const auto kilobytes = [&] {
    struct stat status {};
    ::stat(path.c_str(), &status);
    return status.st_blocks / 2;
  };
  std::shared_ptr<std::byte> data = memory->allocate(8 << 20).value();
  EXPECT_EQ(kilobytes(), 8192) << "reserved when it is given out, not when it is touched";
  data.reset();
  EXPECT_EQ(kilobytes(), 0);
}

// While it lives no file of this process can be longer: what goes wrong in these tests must not take the machine's memory.
struct FileLimit {
  explicit FileLimit(rlim_t bytes) {
    ::getrlimit(RLIMIT_FSIZE, &before);
    const rlimit limit{bytes, before.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    ::signal(SIGXFSZ, SIG_IGN);
  }
  ~FileLimit() {
    ::setrlimit(RLIMIT_FSIZE, &before);
    ::signal(SIGXFSZ, SIG_DFL);
  }
  rlimit before{};
};

TEST(HostMemory, WhatTheSystemRefusesIsAnError) {
  const FileLimit limit(8 << 20);
  const auto memory = make();
  const auto data = memory->allocate(16 << 20);
  ASSERT_FALSE(data.ok());
  EXPECT_EQ(data.error().code, ErrorCode::kSystem);
  EXPECT_THAT(data.error().message, HasSubstr("File too large"));
  EXPECT_TRUE(memory->allocate(4096).ok());
}

TEST(HostMemory, TooMuchIsAnErrorAndNotASignal) {
  const FileLimit limit(64 << 20);
  const auto memory = make();
  const auto data = memory->allocate(std::size_t{1} << 60);
  ASSERT_FALSE(data.ok());
  EXPECT_EQ(data.error().code, ErrorCode::kSystem);
  EXPECT_THAT(data.error().message, HasSubstr("of shared memory for gradients cannot be had"));
  EXPECT_THAT(data.error().message, HasSubstr("Cannot allocate memory")) << "it is not even tried: nothing would stop the kernel";
  EXPECT_FALSE(memory->allocate(SIZE_MAX).ok());
  EXPECT_TRUE(memory->allocate(4096).ok()) << "and what there is can be had still";
}

TEST(HostMemory, LeavesNothingInTheFileSystem) {
  const auto names = [] {
    std::vector<std::string> found;
    for (const auto& entry : std::filesystem::directory_iterator("/dev/shm")) found.push_back(entry.path());
    std::sort(found.begin(), found.end());
    return found;
  };
  const auto before = names();
  const auto memory = make();
  const auto data = memory->allocate(1 << 20);
  EXPECT_EQ(names(), before);
}

TEST(HostMemory, ANumberThatAnotherProcessHasNowIsNotTakenForTheOwner) {
  const auto owner = make();
  const auto other = make();
  const std::string address = owner->address();
  const std::string changed = address.substr(0, address.find(':')) + ":1";
  ASSERT_TRUE(other->set_peers({{Member{5}, ::getpid(), changed}}).ok());
  const std::shared_ptr<std::byte> data = owner->allocate(4096).value();
  const auto mapped = other->map(Member{5}, {0, 4096});
  ASSERT_FALSE(mapped.ok());
  EXPECT_THAT(mapped.error().message, HasSubstr("--per-host off"));
}

TEST(HostMemory, AddressesAreChecked) {
  const auto memory = make();
  for (const char* const wrong : {"", "5", ":", "5:", ":5", "-1:5", "5:x", "../../x:5", "5 :5"}) {
    EXPECT_EQ(memory->set_peers({{Member{5}, 1, wrong}}).ok(), false) << wrong;
  }
  EXPECT_FALSE(memory->set_peers({{Member{5}, 0, "5:5"}}).ok());
}

TEST(HostMemory, ManyThreadsAllocateAtOnce) {
  const auto memory = make();
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 100; ++i) {
        const std::shared_ptr<std::byte> data = memory->allocate(10'000).value();
        std::memset(data.get(), t, 10'000);
        ASSERT_EQ(data.get()[9999], std::byte(t));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST(MachineIdentity, IsKnownHereAndStaysTheSame) {
  EXPECT_FALSE(machine_identity().empty());
  EXPECT_EQ(machine_identity(), machine_identity());
  EXPECT_EQ(machine_identity().find('\n'), std::string::npos);
}

}  // namespace
}  // namespace poseidon::runtime::real
