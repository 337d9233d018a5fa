#include "trace/timeline.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <thread>

#include "base/file.h"

namespace poseidon::trace {
namespace {

using base::Event;
using base::EventKind;

TEST(Timeline, IsAFileThatTraceViewersRead) {
  const std::filesystem::path folder = ::testing::TempDir();
  const std::filesystem::path target = folder / "poseidon-timeline-test.json";
  std::vector<std::filesystem::path> parts;
  for (int rank = 0; rank < 2; ++rank) {
    Timeline timeline({.rank = rank, .tensor_names = {"conv1.weight", "ip1 \"quoted\""}});
    timeline.record({EventKind::kSpanBegin, base::Time(1'000), 5, 0, 0, "forward conv1"});
    timeline.record({EventKind::kSpanEnd, base::Time(3'500), 5, 0, 0, "forward conv1"});
    std::thread([&] { timeline.record({EventKind::kQueued, base::Time(4'000), 5, 1, 800, {}}); }).join();
    parts.push_back(folder / ("poseidon-timeline-part-" + std::to_string(rank)));
    ASSERT_TRUE(timeline.write_part(parts.back()).ok());
  }
  parts.push_back(folder / "a part that a dead worker never wrote");
  ASSERT_TRUE(merge_timelines(parts, target).ok());
  EXPECT_FALSE(std::filesystem::exists(parts[0]));
  const auto document = nlohmann::json::parse(base::read_file(target).value());
  int spans = 0;
  int queued = 0;
  for (const auto& event : document["traceEvents"]) {
    spans += event["ph"] == "B" ? 1 : 0;
    if (event["ph"] == "B") {
      EXPECT_EQ(event["ts"], 1.0) << "microseconds";
    }
    if (event.value("cat", "") == "queued") {
      ++queued;
      EXPECT_EQ(event["args"]["tensor"], "ip1 \"quoted\"");
      EXPECT_EQ(event["tid"], 1) << "another thread, another track";
    }
  }
  EXPECT_EQ(spans, 2);
  EXPECT_EQ(queued, 2);
  std::filesystem::remove(target);
}

TEST(Timeline, ThatIsFullSaysSo) {
  const std::filesystem::path part = std::filesystem::path(::testing::TempDir()) / "poseidon-timeline-full";
  Timeline timeline({.rank = 0, .tensor_names = {}, .events_max = 2});
  for (int i = 0; i < 5; ++i) timeline.record({EventKind::kSpanBegin, base::Time(i), 0, 0, 0, "x"});
  ASSERT_TRUE(timeline.write_part(part).ok());
  EXPECT_NE(base::read_file(part).value().find("3 later events were not recorded"), std::string::npos);
  std::filesystem::remove(part);
}

}  // namespace
}  // namespace poseidon::trace
