#include "trace/worker_timeline.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace poseidon::trace {
namespace {

std::string part_of(const WorkerTimeline& timeline) {
  std::string part;
  for (const std::string& note : timeline.notes()) {
    const auto body = nlohmann::json::parse(note);
    EXPECT_EQ(body.size(), 1u);
    const auto slice = body.at("timeline").get<std::string>();
    EXPECT_TRUE(slice.ends_with('\n')) << "whole lines";
    part += slice;
  }
  return part;
}

TEST(WorkerTimeline, IsThereWhereTheEnvironmentAsksForIt) {
  ::unsetenv("POSEIDON_TIMELINE");
  EXPECT_EQ(WorkerTimeline::from_environment(3), nullptr);
  ::setenv("POSEIDON_TIMELINE", "1", 1);
  EXPECT_NE(WorkerTimeline::from_environment(3), nullptr);
  ::unsetenv("POSEIDON_TIMELINE");
}

TEST(WorkerTimeline, TellsTheEnginesEventsAndTheProgramsSpans) {
  WorkerTimeline timeline(3);
  timeline.set_tensor_names({"w"});
  timeline.begin(7);
  std::string name = "think";
  timeline.span(name, true);
  name = "other";  // it kept its own
  timeline.events().record({base::EventKind::kSynced, base::Time(5), 7, 0, 64, {}});
  timeline.span("think", false);
  timeline.span(std::string(100, 'x'), true);
  std::vector<nlohmann::json> events;
  const std::string part = part_of(timeline);
  for (std::size_t begin = 0; begin < part.size(); begin = part.find('\n', begin) + 1) {
    const auto line = nlohmann::json::parse(part.substr(begin, part.find('\n', begin) - begin));
    EXPECT_EQ(line.at("pid"), 3);
    if (line.at("ph") != "M") events.push_back(line);
  }
  ASSERT_EQ(events.size(), 4u);
  EXPECT_EQ(events[0].at("name"), "think");
  EXPECT_EQ(events[0].at("ph"), "B");
  EXPECT_EQ(events[0].at("args").at("iteration"), 7);
  EXPECT_EQ(events[1].at("name"), "synced w");
  EXPECT_EQ(events[2].at("ph"), "E");
  EXPECT_EQ(events[3].at("name"), std::string(64, 'x'));
}

// What is too much for one message goes in several, and a name that would be one too many does not take memory for ever.
TEST(WorkerTimeline, GoesInSlicesThatTogetherAreAll) {
  WorkerTimeline timeline(0);
  for (int i = 0; i < 12'000; ++i) timeline.span("a rather long name of a stretch, number " + std::to_string(i), true);
  const std::vector<std::string> notes = timeline.notes();
  EXPECT_GT(notes.size(), 1u);
  for (const std::string& note : notes) EXPECT_LT(note.size(), 2u << 20);
  const std::string part = part_of(timeline);
  EXPECT_NE(part.find("number 9999\""), part.npos);
  EXPECT_EQ(part.find("number 10000\""), part.npos);
  EXPECT_NE(part.find("more names than a timeline keeps"), part.npos);
  EXPECT_EQ(static_cast<std::size_t>(std::count(part.begin(), part.end(), '\n')), 12'000u + 2);  // and who and which thread it is
}

}  // namespace
}  // namespace poseidon::trace
